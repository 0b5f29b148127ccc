package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageVariable tells a process how far it is on its way into a user
// namespace. It is removed from the environment as soon as it was read.
const stageVariable = "_COOPER_USER_NAMESPACE"

// Stages of the way in: the process waits for its ids to be mapped and then
// executes itself again, since only an exec as uid 0 of the namespace gives it
// the namespace's capabilities.
const (
	stageMapping = "mapping"
	stageInside  = "inside"
)

// mappedFD is the pipe that tells the process that its ids are mapped.
const mappedFD = 3

// enterMain plays the part of the process that is on its way in.
func enterMain() {
	stage, ok := os.LookupEnv(stageVariable)
	if !ok {
		return
	}
	switch stage {
	case stageMapping:
		var b [1]byte
		pipe := os.NewFile(mappedFD, "mapped")
		if _, err := pipe.Read(b[:]); err != nil {
			os.Exit(1) // the parent could not map the ids, and says why
		}
		pipe.Close()
		env := append(without(os.Environ(), stageVariable), stageVariable+"="+stageInside)
		err := syscall.Exec("/proc/self/exe", os.Args, env)
		fmt.Fprintln(os.Stderr, "entering the user namespace:", err)
		os.Exit(1)
	case stageInside:
		os.Unsetenv(stageVariable)
		// The exec has cleared it, because it gave capabilities.
		_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
		if os.Getppid() == 0 {
			os.Exit(1)
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

// Range is a line of a map of user or group ids.
type Range struct{ Inside, Outside, Count int }

// Enter executes this program again, with the same arguments, environment and
// standard files, in a new user and mount namespace, waits for it, and returns
// its exit code. Signals that ask a program to end are passed on. The new
// process ends when this one does.
//
// An error means that nothing was started.
func Enter(ctx context.Context) (int, error) {
	if !Ready() {
		return 0, errors.New("run.Init was not called at the start of main")
	}
	m, err := chooseMapping()
	if err != nil {
		return 0, err
	}
	code, err := m.enter(ctx)
	if err != nil && m.helpers {
		// newuidmap may be there and yet not be allowed to do anything, as
		// under no_new_privs.
		code, singleErr := singleMapping().enter(ctx)
		if singleErr == nil {
			return code, nil
		}
		return 0, errors.Join(err, singleErr)
	}
	return code, err
}

// mapping is how a user namespace's ids are mapped.
type mapping struct {
	uids, gids []Range
	// helpers: newuidmap and newgidmap write it, because it needs privileges.
	helpers bool
	// groups: setgroups stays possible.
	groups bool
}

func singleMapping() mapping {
	return mapping{uids: []Range{{0, os.Getuid(), 1}}, gids: []Range{{0, os.Getgid(), 1}}}
}

// chooseMapping takes the widest mapping that this user may have.
func chooseMapping() (mapping, error) {
	if os.Getuid() == 0 {
		// Root without CAP_SYS_ADMIN, in a container: its own ids again.
		all := []Range{{0, 0, ownIDs("/proc/self/uid_map")}}
		return mapping{uids: all, gids: []Range{{0, 0, ownIDs("/proc/self/gid_map")}}, groups: true}, nil
	}
	single := singleMapping()
	if _, err := exec.LookPath("newuidmap"); err != nil {
		return single, nil
	}
	if _, err := exec.LookPath("newgidmap"); err != nil {
		return single, nil
	}
	uid := strconv.Itoa(os.Getuid())
	names := []string{uid}
	if u, err := user.LookupId(uid); err == nil {
		names = append(names, u.Username)
	}
	uids, gids := subordinate("/etc/subuid", names), subordinate("/etc/subgid", names)
	if len(uids) == 0 || len(gids) == 0 {
		return single, nil
	}
	return mapping{
		uids: append(single.uids, uids...), gids: append(single.gids, gids...),
		helpers: true, groups: true,
	}, nil
}

// ownIDs is how many ids, from 0 on, this namespace has.
func ownIDs(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 1
	}
	count := 1
	for line := range strings.Lines(string(text)) {
		var inside, outside, n int
		if _, err := fmt.Sscan(line, &inside, &outside, &n); err == nil && inside == 0 {
			count = n
		}
	}
	return count
}

// subordinate reads a user's ranges of /etc/subuid or /etc/subgid and places
// them one after another from 1 on.
func subordinate(file string, names []string) []Range {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var ranges []Range
	next := 1
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 || (fields[0] != names[0] && fields[0] != names[len(names)-1]) {
			continue
		}
		start, err1 := strconv.Atoi(fields[1])
		count, err2 := strconv.Atoi(fields[2])
		if err1 != nil || err2 != nil || count <= 0 {
			continue
		}
		ranges = append(ranges, Range{next, start, count})
		next += count
	}
	return ranges
}

// enter runs the program in a namespace with this mapping.
func (m mapping) enter(ctx context.Context) (int, error) {
	mappedRead, mappedWrite, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer mappedWrite.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(without(os.Environ(), stageVariable), stageVariable+"="+stageMapping)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{mappedRead}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if !m.helpers {
		cmd.SysProcAttr.UidMappings = procMap(m.uids)
		cmd.SysProcAttr.GidMappings = procMap(m.gids)
		cmd.SysProcAttr.GidMappingsEnableSetgroups = m.groups
	}
	// The thread must live as long as the child: see Run.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	mappedRead.Close()
	if err != nil {
		return 0, fmt.Errorf("user namespace: %w", err)
	}
	if m.helpers {
		err = errors.Join(helper("newuidmap", cmd.Process.Pid, m.uids), helper("newgidmap", cmd.Process.Pid, m.gids))
	}
	if err == nil {
		_, err = mappedWrite.Write([]byte{1})
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return 0, err
	}
	return waitForwarding(ctx, cmd)
}

// waitForwarding waits for the program and passes signals on. The program is in
// a process group of its own, so that a terminal's interrupt reaches it once.
func waitForwarding(ctx context.Context, cmd *exec.Cmd) (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	defer signal.Stop(signals)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for ended := ctx.Done(); ; {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case <-ended:
			ended = nil
			_ = cmd.Process.Signal(syscall.SIGTERM)
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

func procMap(ranges []Range) []syscall.SysProcIDMap {
	list := make([]syscall.SysProcIDMap, len(ranges))
	for i, r := range ranges {
		list[i] = syscall.SysProcIDMap{ContainerID: r.Inside, HostID: r.Outside, Size: r.Count}
	}
	return list
}

// helper runs newuidmap or newgidmap.
func helper(program string, pid int, ranges []Range) error {
	args := []string{strconv.Itoa(pid)}
	for _, r := range ranges {
		args = append(args, strconv.Itoa(r.Inside), strconv.Itoa(r.Outside), strconv.Itoa(r.Count))
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}
