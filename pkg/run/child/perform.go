package child

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// perform is the life of a child.
func perform(setup Setup) Outcome {
	// Credentials, capabilities and the umask belong to threads or must be
	// inherited from this one.
	runtime.LockOSThread()
	// Files that the builder inherited from whoever started it are not for the
	// command either.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		closeOnExec()
	}
	unix.Umask(0o022)
	var stubs *stubs
	if setup.Root != nil {
		var err error
		if stubs, err = setup.Root.enter(&setup); err != nil {
			return Outcome{Error: err.Error()}
		}
	}
	if setup.Hostname != "" && setup.Root != nil {
		if err := unix.Sethostname([]byte(setup.Hostname)); err != nil {
			return Outcome{Error: fmt.Sprintf("setting the host name: %v", err)}
		}
	}
	if setup.Loopback {
		if err := loopbackUp(); err != nil {
			return Outcome{Error: err.Error()}
		}
	}
	if setup.Probe {
		return Outcome{}
	}
	if setup.Root == nil {
		// Outside of a pid namespace orphans would go to somebody else.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return Outcome{Error: fmt.Sprintf("becoming the reaper: %v", err)}
		}
		if err := shield(); err != nil {
			return Outcome{Error: err.Error()}
		}
	}
	if setup.Root != nil {
		// Commands may send signals to process 1. The kernel keeps from it those
		// that it does not handle, but the Go runtime handles most of them, by
		// ending the process. Signals that are merely received don't reach what
		// is executed, as ignored ones would.
		signal.Notify(make(chan os.Signal, 1))
	}
	outcome := command(setup)
	if setup.Root != nil {
		// From pid 1 this reaches everything in the namespace and nothing else.
		_ = unix.Kill(-1, unix.SIGKILL)
		reapAll()
	} else {
		killDescendants()
	}
	if stubs != nil {
		if err := stubs.remove(); err != nil && outcome.Error == "" {
			outcome.Error = err.Error()
		}
	}
	return outcome
}

// closeOnExec is close_range(2) for kernels before 5.11.
func closeOnExec() {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		unix.CloseOnExec(outcomeFD)
		return
	}
	for _, n := range names {
		if fd, err := strconv.Atoi(n.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// command starts the command and reaps until it has ended.
func command(setup Setup) Outcome {
	// As root, since the user may not be allowed to go where it starts.
	if err := workingDir(setup.Dir); err != nil {
		return Outcome{Error: err.Error()}
	}
	path, err := asUser(setup, func() (string, error) { return lookPath(setup.Args[0], setup.Env) })
	if err != nil {
		return Outcome{Error: err.Error(), NotFound: errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR), NotExecutable: errors.Is(err, fs.ErrPermission)}
	}
	if !setup.AllCapabilities {
		if err := dropBounding(); err != nil {
			return Outcome{Error: err.Error()}
		}
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		// A tree without /dev: nothing to read is what a closed pipe gives too.
		r, w, err := os.Pipe()
		if err != nil {
			return Outcome{Error: err.Error()}
		}
		w.Close()
		null = r
	}
	ownOutput(setup.UID, setup.GID)
	groups := setup.groups()
	if err := clearInherited(); err != nil {
		return Outcome{Error: err.Error()}
	}
	// The session's keys are not for the command. Where keyrings are forbidden
	// it can't read them either.
	_, _ = unix.KeyctlJoinSessionKeyring("")
	pid, err := syscall.ForkExec(path, setup.Args, &syscall.ProcAttr{
		Env:   setup.Env,
		Files: []uintptr{null.Fd(), 1, 2},
		Sys: &syscall.SysProcAttr{
			Setsid: true,
			Credential: &syscall.Credential{
				Uid: uint32(setup.UID), Gid: uint32(setup.GID), Groups: groups, NoSetGroups: setup.NoGroups,
			},
		},
	})
	if err != nil {
		return Outcome{
			Error:    fmt.Sprintf("exec %s: %v", setup.Args[0], err),
			NotFound: errors.Is(err, fs.ErrNotExist), NotExecutable: errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOEXEC),
		}
	}
	for {
		var status unix.WaitStatus
		ended, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return Outcome{Error: fmt.Sprintf("waiting for the command: %v", err)}
		case ended != pid:
		case status.Exited():
			return Outcome{Code: status.ExitStatus()}
		case status.Signaled():
			return Outcome{Code: 128 + int(status.Signal()), Signal: int(status.Signal())}
		}
	}
}

// reapAll waits for children until there are none.
func reapAll() {
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// killDescendants ends everything that the command has left behind: orphans
// become children of this process, the subreaper, so killing children until
// there are none reaches all of them.
func killDescendants() {
	for {
		for _, pid := range children() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		_, err := unix.Wait4(-1, nil, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// children lists the processes whose parent is this one.
func children() []int {
	self := os.Getpid()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", self))
	if err != nil {
		return nil
	}
	var pids []int
	for _, task := range tasks {
		text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(self), "task", task.Name(), "children"))
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(text)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// workingDir goes to the working directory, which is made if it is missing.
func workingDir(dir string) error {
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.Chdir(dir)
	}
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	return nil
}

// ownOutput gives the command's user its output pipes, so that it can open
// /dev/stdout and /dev/stderr, as in other containers. What is not a pipe
// belongs to somebody else; a pipe that can't be given can still be written to.
func ownOutput(uid, gid int) {
	for _, fd := range []int{1, 2} {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			_ = unix.Fchown(fd, uid, gid)
		}
	}
}
