package build

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/cooper-build/cooper/pkg/plan"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
)

// run executes a RUN in the stage's workspace.
func (s *stage) run(ctx context.Context, id StepID, op *plan.Run) (err error) {
	if err := s.open(ctx); err != nil {
		return err
	}
	user, err := rootfs.LookupUser(s.ws, op.User)
	if err != nil {
		return err
	}
	stdout := &lines{sink: s.b.sink, step: id}
	stderr := &lines{sink: s.b.sink, step: id, stderr: true}
	defer stdout.flush()
	defer stderr.flush()
	spec := run.Spec{
		Args:       op.Args,
		Env:        op.Env,
		Dir:        op.Dir,
		User:       run.Identity{UID: user.UID, GID: user.GID, Groups: append([]int{user.GID}, user.Groups...)},
		Network:    run.Network(op.Network),
		Insecure:   op.Security == "insecure",
		Hostname:   s.b.plan.Hostname,
		ExtraHosts: s.b.options.ExtraHosts,
		Stdout:     stdout,
		Stderr:     stderr,
		Timeout:    s.b.options.RunTimeout,
	}
	if !hasVariable(spec.Env, "HOME") {
		spec.Env = append(spec.Env[:len(spec.Env):len(spec.Env)], "HOME="+user.Home)
	}
	for _, f := range op.Files {
		spec.Mounts = append(spec.Mounts, run.Mount{Type: run.Pipe, Target: path.Join("/dev/pipes", f.Name), Data: f.Data, Mode: 0o755, ReadOnly: true})
	}
	release, err := s.mounts(ctx, op, &spec)
	defer release()
	if err != nil {
		return err
	}
	return s.ws.Run(ctx, spec)
}

func hasVariable(env []string, name string) bool {
	for _, e := range env {
		if strings.HasPrefix(e, name+"=") {
			return true
		}
	}
	return false
}

// mounts adds the RUN's mounts to the command. release gives back what is
// locked; it is never nil.
func (s *stage) mounts(ctx context.Context, op *plan.Run, spec *run.Spec) (release func(), err error) {
	var releases []func()
	release = func() {
		for _, r := range releases {
			r()
		}
	}
	agents := 0
	for i := range op.Mounts {
		m := &op.Mounts[i]
		mount := run.Mount{Type: run.MountType(m.Type), Target: m.Target, ReadOnly: m.ReadOnly}
		switch mount.Type {
		case run.Bind:
			if mount.Source, mount.SourcePath, err = s.bindSource(ctx, m); err != nil {
				return release, err
			}
		case run.Cache:
			dir, unlock, err := s.cacheDir(ctx, m)
			if err != nil {
				return release, err
			}
			releases = append(releases, unlock)
			mount.HostPath = dir
		case run.Tmpfs:
			mount.Size = m.Size
		case run.Secret:
			value, ok := s.b.secrets[m.ID]
			if !ok {
				continue
			}
			if m.Env != "" {
				spec.Env = append(spec.Env[:len(spec.Env):len(spec.Env)], m.Env+"="+string(value))
			}
			if m.Target == "" {
				continue
			}
			mount.Data, mount.ReadOnly = value, true
			setOwner(&mount, m, 0o400)
		case run.SSH:
			socket, ok := s.b.sockets[m.ID]
			if !ok {
				continue
			}
			mount.HostPath = socket
			setOwner(&mount, m, 0o600)
			if agents == 0 && !hasVariable(spec.Env, "SSH_AUTH_SOCK") {
				spec.Env = append(spec.Env[:len(spec.Env):len(spec.Env)], "SSH_AUTH_SOCK="+m.Target)
			}
			agents++
		default:
			return release, fmt.Errorf("mount type %q is not supported", m.Type)
		}
		spec.Mounts = append(spec.Mounts, mount)
	}
	return release, nil
}

func setOwner(to *run.Mount, from *plan.Mount, mode uint32) {
	to.Mode, to.UID, to.GID = mode, int(max(from.UID, 0)), int(max(from.GID, 0))
	if from.Mode >= 0 {
		to.Mode = uint32(from.Mode)
	}
}

// bindSource finds what a bind mount shows.
func (s *stage) bindSource(ctx context.Context, m *plan.Mount) (rootfs.Reader, string, error) {
	r, err := s.b.source(ctx, m.From)
	if err != nil {
		return nil, "", err
	}
	name, err := rootfs.Resolve(r, m.Source, true)
	if err == nil {
		_, err = r.Lstat(name)
	}
	if err != nil {
		return nil, "", fmt.Errorf("mount %s: source %s: %w", m.Target, m.Source, err)
	}
	return r, name, nil
}

// cacheDir gives the directory of a cache mount, filled at first use with what
// from and source say.
func (s *stage) cacheDir(ctx context.Context, m *plan.Mount) (string, func(), error) {
	create := func(dir string) error {
		root := rootfs.Entry{Path: ".", Kind: rootfs.Directory, Mode: 0o755, ModTime: s.b.now(), UID: int(max(m.UID, 0)), GID: int(max(m.GID, 0))}
		if m.Mode >= 0 {
			root.Mode = uint32(m.Mode)
		}
		if m.From.IsContext() || m.From.Scratch {
			return fillDir(ctx, dir, root, rootfs.NewTree(), ".")
		}
		r, name, err := s.bindSource(ctx, m)
		if err != nil {
			return err
		}
		e, err := r.Lstat(name)
		if err != nil {
			return err
		}
		if !e.IsDir() {
			return fmt.Errorf("mount %s: source %s is not a directory", m.Target, m.Source)
		}
		if m.Mode < 0 && m.UID < 0 && m.GID < 0 {
			e.Path = "."
			root = e
		}
		return fillDir(ctx, dir, root, r, name)
	}
	sharing := cacheSharing(m.Sharing)
	dir, release, err := s.b.mounts.Acquire(ctx, m.ID, sharing, create)
	if err != nil && !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("mount %s: %w", m.Target, err)
	}
	return dir, release, err
}
