package child

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Namespaces are the flags of clone(2) for a child with a root of its own.
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// NewNetwork is the flag for a network of its own.
const NewNetwork = unix.CLONE_NEWNET

// Run starts a child in new namespaces, gives it its setup, and waits for it.
// When ctx ends, the child is killed with everything in its namespaces, and
// the error is ctx's cause. The child is also killed when this process dies.
func Run(ctx context.Context, flags uintptr, setup Setup, stdout, stderr io.Writer) (Outcome, error) {
	return start(ctx, flags, setup, nil, stdout, stderr)
}

// start is Run. A child that shares this process's root and its processes
// (setup.Root is nil) can't be killed together with what it has started: it is
// asked to end all of that, and does so by itself when this process dies. It
// keeps hold, if not nil, open until then.
func start(ctx context.Context, flags uintptr, setup Setup, hold *os.File, stdout, stderr io.Writer) (Outcome, error) {
	if !Ready() {
		return Outcome{}, errors.New("run.Init was not called at the start of main")
	}
	setupRead, setupWrite, err := os.Pipe()
	if err != nil {
		return Outcome{}, err
	}
	defer setupRead.Close()
	outcomeRead, outcomeWrite, err := os.Pipe()
	if err != nil {
		setupWrite.Close()
		return Outcome{}, err
	}
	defer outcomeRead.Close()

	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{argv0}
	cmd.Env = []string{"GODEBUG=netdns=go"}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.ExtraFiles = []*os.File{setupRead, outcomeWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL, Setsid: true}
	if setup.Root == nil && !setup.Probe {
		cmd.SysProcAttr.Pdeathsig = 0
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		if hold != nil {
			cmd.ExtraFiles = append(cmd.ExtraFiles, hold)
		}
	}
	// A process that outlives its command, outside of a pid namespace, could
	// hold the output open for ever.
	cmd.WaitDelay = 5 * time.Second

	type end struct {
		out Outcome
		err error
	}
	done := make(chan end, 1)
	go func() {
		// The kernel sends the parent-death signal when the thread that
		// started the child ends, so that thread is kept until the child is
		// gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		outcomeWrite.Close()
		if err != nil {
			setupWrite.Close()
			done <- end{err: fmt.Errorf("starting a child process: %w", err)}
			return
		}
		writing := make(chan error, 1)
		go func() {
			writing <- errors.Join(json.NewEncoder(setupWrite).Encode(setup), setupWrite.Close())
		}()
		var outcome Outcome
		readErr := json.NewDecoder(outcomeRead).Decode(&outcome)
		waitErr := cmd.Wait()
		writeErr := <-writing
		switch {
		case ctx.Err() != nil:
			done <- end{err: context.Cause(ctx)}
		case readErr != nil:
			done <- end{err: fmt.Errorf("the child process died: %w", errors.Join(waitErr, writeErr))}
		default:
			done <- end{out: outcome}
		}
	}()
	e := <-done
	return e.out, e.err
}
