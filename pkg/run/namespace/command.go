package namespace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/child"
)

// Defaults of BuildKit.
const (
	hostname = "buildkitsandbox"
	shmSize  = 64 << 20
)

// execute runs one command in a root that the caller has chosen. dir is a
// directory for files that live as long as the command.
func (i *Isolation) execute(ctx context.Context, root child.Root, dir string, spec run.Spec) (err error) {
	if len(spec.Args) == 0 {
		return errors.New("no command to run")
	}
	if spec.Insecure && !i.options.AllowInsecure {
		return fmt.Errorf("%s: %s", run.SecurityInsecure, notAllowed)
	}
	setup := child.Setup{
		Args: spec.Args, Env: spec.Env, Dir: spec.Dir,
		UID: spec.User.UID, GID: spec.User.GID, Groups: spec.User.Groups,
		Hostname: spec.Hostname, AllCapabilities: spec.Insecure,
		NoGroups: i.ids.user && i.ids.count == 1,
	}
	if setup.Dir == "" {
		setup.Dir = "/"
	}
	if setup.Hostname == "" {
		setup.Hostname = hostname
	}
	root.Scratch, root.UserXattr, root.ShmSize = filepath.Join(dir, "scratch"), i.ids.user, spec.ShmSize
	root.Privileged = spec.Insecure
	if root.ShmSize == 0 {
		root.ShmSize = shmSize
	}
	if err := os.MkdirAll(root.Scratch, 0o755); err != nil {
		return err
	}
	if err := i.checkUser(spec.User); err != nil {
		return err
	}
	var namespaces uintptr = child.Namespaces
	if spec.Network == run.NetNone {
		namespaces |= child.NewNetwork
		setup.Loopback = true
	}
	ms := &mounts{isolation: i, dir: dir}
	defer func() { err = errors.Join(err, ms.close()) }()
	if ms.list, err = networkFiles(setup.Hostname, spec.ExtraHosts); err != nil {
		return err
	}
	if err := ms.addAll(ctx, spec.Mounts); err != nil {
		return err
	}
	root.Mounts = ms.list
	setup.Root = &root

	if spec.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, spec.Timeout, run.ErrTimeout)
		defer cancel()
	}
	outcome, err := child.Run(ctx, namespaces, setup, spec.Stdout, spec.Stderr)
	if err != nil {
		return err
	}
	return run.OutcomeError(outcome, spec.Stderr)
}

// checkUser gives the reason that a system call would not give.
func (i *Isolation) checkUser(u run.Identity) error {
	if !i.ids.user || i.ids.count > max(u.UID, u.GID) {
		return nil
	}
	return fmt.Errorf("user %d:%d does not exist in a %s", u.UID, u.GID, i.ids.describe())
}
