package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// stageVariable tells a process how far it is on its way into a user
// namespace. It is removed from the environment as soon as it was read.
const stageVariable = "_COOPER_USER_NAMESPACE"

// Stages of the way in: the process waits for its ids to be mapped and then
// executes itself again, since only an exec as uid 0 of the namespace gives it
// the namespace's capabilities. Then it looks whether these are worth anything,
// says so, and goes on as the program it is.
const (
	stageMapping = "mapping"
	stageInside  = "inside"
)

// Pipes of a process on its way in: one tells it that its ids are mapped, on
// the other it reports.
const (
	mappedFD = 3
	reportFD = 4
)

// arrived is what a process that has gone in reports.
const arrived = "arrived"

// passage is what the stage variable holds.
type passage struct {
	stage string
	// parent is the process that started this one, and waits for it.
	parent int
	// try: the process ends once it has reported.
	try bool
	// note says for people how ids are mapped.
	note string
}

func (p passage) String() string {
	return strings.Join([]string{p.stage, strconv.Itoa(p.parent), strconv.FormatBool(p.try), p.note}, ":")
}

func parsePassage(s string) (p passage, ok bool) {
	fields := strings.SplitN(s, ":", 4)
	if len(fields) != 4 {
		return p, false
	}
	parent, err := strconv.Atoi(fields[1])
	return passage{stage: fields[0], parent: parent, try: fields[2] == "true", note: fields[3]}, err == nil
}

// entered holds the note of the passage that has brought this process into its
// user namespace; nil for any other process.
var entered atomic.Pointer[string]

// Entered reports whether this process was started by Enter, and how its ids
// are mapped, in words.
func Entered() (note string, ok bool) {
	n := entered.Load()
	if n == nil {
		return "", false
	}
	return *n, true
}

// enterMain plays the part of the process that is on its way in.
func enterMain() {
	value, ok := os.LookupEnv(stageVariable)
	if !ok {
		return
	}
	os.Unsetenv(stageVariable)
	p, ok := parsePassage(value)
	if !ok {
		return
	}
	switch p.stage {
	case stageMapping:
		var b [1]byte
		pipe := os.NewFile(mappedFD, "mapped")
		if _, err := pipe.Read(b[:]); err != nil {
			os.Exit(1) // the parent could not map the ids, and says why
		}
		pipe.Close()
		p.stage = stageInside
		err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), stageVariable+"="+p.String()))
		report(fmt.Errorf("executing the program again: %w", err))
		os.Exit(1)
	case stageInside:
		// The exec has cleared it, because it gave capabilities.
		_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
		if os.Getppid() != p.parent {
			os.Exit(1)
		}
		err := worthIt()
		report(err)
		if err != nil || p.try {
			os.Exit(1)
		}
		entered.Store(&p.note)
	}
}

// worthIt tries whether the namespace lets this process mount. A security module
// may let it have a namespace and refuse that.
func worthIt() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounting in a user namespace is refused: %w", err)
	}
	return nil
}

func report(err error) {
	pipe := os.NewFile(reportFD, "report")
	defer pipe.Close()
	text := arrived
	if err != nil {
		text = err.Error()
	}
	// A parent that is gone takes this process with it.
	_, _ = io.WriteString(pipe, text)
}

// Enter executes this program again, with the same arguments, environment and
// standard files, in a new user and mount namespace, waits for it, and returns
// its exit code. Signals that ask a program to end are passed on. The new
// process ends when this one does.
//
// An error means that nothing was started. A process that has entered already
// gets one.
func Enter(ctx context.Context) (int, error) {
	cmd, err := goIn(false)
	if err != nil {
		return 0, err
	}
	defer runtime.UnlockOSThread()
	return waitForwarding(ctx, cmd)
}

// TryEnter reports why Enter would fail.
func TryEnter() error {
	cmd, err := goIn(true)
	if err != nil {
		return err
	}
	defer runtime.UnlockOSThread()
	_ = cmd.Wait() // it has done what it is for
	return nil
}

// goIn starts the program in a namespace with the widest mapping that works.
// With no error this thread is locked, and must stay so until the program has
// ended: the kernel sends the parent-death signal when the thread ends.
func goIn(try bool) (*exec.Cmd, error) {
	if !Ready() {
		return nil, errors.New("run.Init was not called at the start of main")
	}
	if _, ok := Entered(); ok {
		return nil, errors.New("this process is in a user namespace already")
	}
	runtime.LockOSThread()
	var errs []error
	for _, m := range mappings() {
		if len(errs) > 0 {
			m.note += ": " + errs[len(errs)-1].Error()
		}
		cmd, err := m.start(try)
		if err == nil {
			return cmd, nil
		}
		errs = append(errs, err)
	}
	runtime.UnlockOSThread()
	if len(errs) > 1 {
		return nil, fmt.Errorf("%w; %w%s", errs[0], errs[1], hint())
	}
	return nil, fmt.Errorf("%w%s", errs[0], hint())
}

// hint names the setting that usually stands behind a refusal.
func hint() string {
	if caps, err := capability.NewPid2(0); err == nil && os.Getuid() == 0 && caps.Load() == nil {
		for _, c := range []capability.Cap{capability.CAP_SETUID, capability.CAP_SETGID, capability.CAP_SETFCAP} {
			if !caps.Get(capability.EFFECTIVE, c) {
				return " (mapping root into it takes CAP_" + strings.ToUpper(c.String()) + ")"
			}
		}
	}
	for _, h := range []struct{ file, value, text string }{
		{"/proc/sys/user/max_user_namespaces", "0", " (the sysctl user.max_user_namespaces is 0)"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", " (the sysctl kernel.unprivileged_userns_clone is 0)"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", " (the sysctl kernel.apparmor_restrict_unprivileged_userns is 1)"},
	} {
		if text, err := os.ReadFile(h.file); err == nil && strings.TrimSpace(string(text)) == h.value {
			return h.text
		}
	}
	return " (a container's seccomp profile or security module usually is the reason)"
}

// start runs the program in a namespace with this mapping until it has reported.
func (m mapping) start(try bool) (_ *exec.Cmd, err error) {
	var pipes [4]*os.File
	for n := 0; n < len(pipes); n += 2 {
		if pipes[n], pipes[n+1], err = os.Pipe(); err != nil {
			return nil, err
		}
		defer pipes[n].Close()
		defer pipes[n+1].Close()
	}
	mappedRead, mappedWrite, reportRead, reportWrite := pipes[0], pipes[1], pipes[2], pipes[3]
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	p := passage{stage: stageMapping, parent: os.Getpid(), try: try, note: m.note}
	cmd.Env = append(without(os.Environ(), stageVariable), stageVariable+"="+p.String())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{mappedRead, reportWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL, Setpgid: true,
	}
	if !m.helpers {
		cmd.SysProcAttr.UidMappings = procMap(m.uids)
		cmd.SysProcAttr.GidMappings = procMap(m.gids)
		cmd.SysProcAttr.GidMappingsEnableSetgroups = m.groups
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	mappedRead.Close()
	reportWrite.Close()
	if m.helpers {
		if err = helper("newuidmap", cmd.Process.Pid, m.uids); err == nil {
			err = helper("newgidmap", cmd.Process.Pid, m.gids)
		}
	}
	if err == nil {
		_, err = mappedWrite.Write([]byte{1})
	}
	if err == nil {
		var text []byte
		if text, err = io.ReadAll(reportRead); err == nil && string(text) != arrived {
			err = errors.New(strings.TrimSpace("user namespace: " + string(text)))
		}
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	return cmd, nil
}

// patience is how long a signal may take that this process and its context are
// both told of.
const patience = 300 * time.Millisecond

// waitForwarding waits for the program and passes signals on. The program is in
// a process group of its own, so that a terminal's interrupt reaches it once.
// A context that ends is passed on too, unless a signal has ended it.
func waitForwarding(ctx context.Context, cmd *exec.Cmd) (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGWINCH, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var ending <-chan time.Time
	asked := false
	for ended := ctx.Done(); ; {
		select {
		case s := <-signals:
			asked = asked || s == syscall.SIGTERM || s == syscall.SIGHUP || s == syscall.SIGINT
			_ = cmd.Process.Signal(s)
		case <-ended:
			ended, ending = nil, time.After(patience)
		case <-ending:
			if !asked {
				_ = cmd.Process.Signal(syscall.SIGTERM)
			}
		case err := <-done:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 1, nil
			}
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}

func without(env []string, name string) []string {
	kept := make([]string, 0, len(env))
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			kept = append(kept, e)
		}
	}
	return kept
}
