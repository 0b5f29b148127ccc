package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/child"
)

// Run implements run.Workspace.
func (w *workspace) Run(ctx context.Context, spec run.Spec) (err error) {
	if err := w.current(); err != nil {
		return err
	}
	if err := w.check(spec); err != nil {
		return err
	}
	if err := w.record(ctx); err != nil {
		return err
	}
	if err := w.makeMountPoints(); err != nil {
		return err
	}
	m, err := w.newMounter(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.removeAll()) }()
	// One that lies in another comes after it, in whatever order they were given.
	mounts := slices.Clone(spec.Mounts)
	slices.SortStableFunc(mounts, func(a, b run.Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	for n := range mounts {
		if err := m.place(&mounts[n]); err != nil {
			return fmt.Errorf("mount %s: %w", mounts[n].Target, err)
		}
	}
	if err := m.addHosts(spec.ExtraHosts); err != nil {
		return err
	}
	w.untold = true
	return w.execute(ctx, spec)
}

// check refuses what can't be given to a command.
func (w *workspace) check(spec run.Spec) error {
	switch {
	case len(spec.Args) == 0:
		return errors.New("no command to run")
	case w.isolation.root != "/":
		return fmt.Errorf("commands run in / only, not in %s", w.isolation.root)
	case spec.Insecure:
		return fmt.Errorf("%s: commands can't have more privileges than the container", run.SecurityInsecure)
	case w.site.hidden != "":
		return fmt.Errorf("RUN could not see /%s, which was put where this container has /%s; use another directory, in the image or for the context", w.site.hidden, w.site.masks.Covering(w.site.hidden))
	}
	if spec.Hostname != "" {
		if own, err := os.Hostname(); err != nil || own != spec.Hostname {
			return fmt.Errorf("the host name can't be set to %q in this container", spec.Hostname)
		}
	}
	if spec.ShmSize > 0 {
		var st unix.Statfs_t
		if err := unix.Statfs("/dev/shm", &st); err != nil || int64(st.Blocks)*int64(st.Bsize) < spec.ShmSize {
			return fmt.Errorf("/dev/shm of this container is smaller than %d bytes", spec.ShmSize)
		}
	}
	return nil
}

// execute runs the command and ends all that it leaves behind.
func (w *workspace) execute(ctx context.Context, spec run.Spec) error {
	i := w.isolation
	setup := child.Setup{
		Args: spec.Args, Env: spec.Env, Dir: spec.Dir,
		UID: spec.User.UID, GID: spec.User.GID, Groups: spec.User.Groups,
	}
	if setup.Dir == "" {
		setup.Dir = "/"
	}
	var namespaces uintptr
	if spec.Network == run.NetNone {
		namespaces, setup.Loopback = child.NewNetwork, true
	}
	if spec.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, spec.Timeout, run.ErrTimeout)
		defer cancel()
	}
	outcome, err := child.RunHere(ctx, namespaces, setup, i.taken.keeper.Life(), spec.Stdout, spec.Stderr)
	if err != nil {
		// The child may not have had the time to end everything, or was killed
		// by what it should have ended.
		endStrays(i.taken.keeper.PID())
	}
	if keeperErr := i.taken.ensureKeeper(); keeperErr != nil {
		return errors.Join(err, keeperErr)
	}
	if err != nil {
		return err
	}
	return run.OutcomeError(outcome, spec.Stderr)
}

// endStrays ends processes that a command has left behind and that are children
// of this process now, being the next subreaper. They are in sessions of their
// own, as a command is; what else this process has started shares its session,
// but for the keeper.
func endStrays(keeper int) {
	own, err := unix.Getsid(0)
	if err != nil {
		return
	}
	for {
		found := false
		for _, pid := range children() {
			if pid == keeper {
				continue
			}
			if sid, err := unix.Getsid(pid); err != nil || sid == own {
				continue
			}
			found = true
			_ = unix.Kill(pid, unix.SIGKILL)
			for {
				_, err := unix.Wait4(pid, nil, 0, nil)
				if !errors.Is(err, unix.EINTR) {
					break
				}
			}
		}
		if !found {
			return
		}
	}
}

// children lists the processes whose parent is this one.
func children() []int {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil
	}
	var pids []int
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
