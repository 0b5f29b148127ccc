package keeper

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// argv0 marks a keeper; no user starts a program under this name by accident.
const argv0 = "cooper-keeper"

// File descriptors of a keeper beside the standard three.
const (
	lifeFD = 3
	fileFD = 4
)

// What is written to a keeper after its task.
const (
	armed = 'a' // from now on files may be missing
	done  = 'd' // they are back
)

// task is what a keeper must know.
type task struct {
	Root string
	Keep []string
}

// ready records that Main was called.
var ready atomic.Bool

// Main turns the process into a keeper if it was started as one; then it never
// returns.
func Main() {
	if len(os.Args) == 1 && os.Args[0] == argv0 {
		os.Exit(keeperMain())
	}
	ready.Store(true)
}

// Ready reports whether Main was called in this process.
func Ready() bool { return ready.Load() }

func keeperMain() int {
	// It shares the terminal and the container with what may be interrupted.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	fail := func(err error) int {
		fmt.Fprintf(os.Stderr, "cooper: the container's own files are not back: %v\n", err)
		return 1
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail(err)
	}
	if err := os.Chdir("/"); err != nil {
		return fail(err)
	}
	life := bufio.NewReader(os.NewFile(lifeFD, "life"))
	file := os.NewFile(fileFD, "file")
	text, err := life.ReadBytes('\n')
	if err != nil {
		return 1 // the other side died at once, and nothing has happened yet
	}
	var t task
	if err := json.Unmarshal(text, &t); err != nil {
		return fail(err)
	}
	if _, err := os.Stdout.Write([]byte{'\n'}); err != nil {
		return 1
	}
	os.Stdout.Close()
	missing := false
	for {
		b, err := life.ReadByte()
		switch {
		case err != nil && !missing:
			return 0
		case err != nil:
			if err := BringBack(t.Root, t.Keep, file); err != nil {
				return fail(err)
			}
			fmt.Fprintln(os.Stderr, "cooper: the build died; the container's own files are back")
			return 0
		case b == armed:
			missing = true
		case b == done:
			return 0
		}
	}
}

// BringBack replaces whatever is in the directory root, but for its mounts and
// the paths of keep, with what was saved in file.
func BringBack(root string, keep []string, file *os.File) error {
	masks, err := NewMasks(root, keep)
	if err != nil {
		return err
	}
	clearErr := Clear(root, masks)
	if clearErr != nil {
		// On a full disk even removing may fail until something was removed.
		clearErr = Clear(root, masks)
	}
	if err := Restore(root, masks, file); err != nil {
		return errors.Join(clearErr, err)
	}
	return clearErr
}

// Keeper is the second process.
type Keeper struct {
	pid   int
	life  *os.File
	ended chan struct{}
}

// Start starts a keeper for the files that were saved in file. lock, if not
// nil, is a file that it keeps open as well, for the lock on it. The keeper
// does nothing before Arm.
func Start(root string, keep []string, file, lock *os.File) (_ *Keeper, err error) {
	if !Ready() {
		return nil, errors.New("run.Init was not called at the start of main")
	}
	lifeRead, lifeWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer lifeRead.Close()
	k := &Keeper{life: lifeWrite, ended: make(chan struct{})}
	defer func() {
		if err != nil {
			lifeWrite.Close()
			err = fmt.Errorf("starting a process that brings files back: %w", err)
		}
	}()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{argv0}
	cmd.Dir = "/"
	cmd.Env = []string{"GOTRACEBACK=none"}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{lifeRead, file}
	if lock != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, lock)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	k.pid = cmd.Process.Pid
	text, err := json.Marshal(task{Root: root, Keep: keep})
	if err == nil {
		_, err = lifeWrite.Write(append(text, '\n'))
	}
	if err == nil {
		_, err = io.ReadFull(out, make([]byte, 1))
	}
	if err != nil {
		lifeWrite.Close()
		return nil, errors.Join(err, cmd.Wait())
	}
	go func() {
		defer close(k.ended)
		_ = cmd.Wait() // it says itself what went wrong
	}()
	return k, nil
}

// Arm tells the keeper that files are about to be removed.
func (k *Keeper) Arm() error {
	_, err := k.life.Write([]byte{armed})
	return err
}

// Life is open as long as the keeper has nothing to do. A process that may
// still write below the root when this one has died is given it to hold.
func (k *Keeper) Life() *os.File { return k.life }

// PID is the keeper's process id.
func (k *Keeper) PID() int { return k.pid }

// Alive reports whether the keeper still waits.
func (k *Keeper) Alive() bool {
	select {
	case <-k.ended:
		return false
	default:
		return true
	}
}

// Dismiss ends a keeper whose files are back, and waits for it.
func (k *Keeper) Dismiss() error {
	_, err := k.life.Write([]byte{done})
	if !k.Alive() {
		err = nil
	}
	err = errors.Join(err, k.life.Close())
	<-k.ended
	return err
}
