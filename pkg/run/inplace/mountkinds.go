package inplace

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
)

// file makes a secret or a heredoc.
func (p *placed) file(mount *run.Mount) error {
	return p.m.root.Write(rootfs.Entry{
		Path: p.name, Kind: rootfs.Regular, Mode: mount.Mode, UID: mount.UID, GID: mount.GID,
		Size: int64(len(mount.Data)), ModTime: time.Now(),
	}, bytes.NewReader(mount.Data))
}

// cache moves a cache directory to the target for the time of the command, or
// copies it where it lies on another file system.
func (p *placed) cache(mount *run.Mount) error {
	from := mount.HostPath
	if p.m.caches[from] {
		return errors.New("the same cache can't be in two places at once here")
	}
	before, err := os.Stat(from)
	if err != nil {
		return err
	}
	p.m.caches[from] = true
	err = os.Rename(from, p.target)
	if err == nil {
		p.end = func() error { return p.cacheBack(from, before) }
		return nil
	}
	if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EBUSY) {
		return err
	}
	if err := p.copyDir(p.m.ctx, p.target, from); err != nil {
		return err
	}
	if !mount.ReadOnly {
		p.end = func() error { return p.copyBack(from) }
	}
	return nil
}

// cacheBack returns a cache directory. A command that removed it has emptied it,
// as it would have a mount.
func (p *placed) cacheBack(from string, before os.FileInfo) error {
	if e, err := p.m.dir.Lstat(p.name); err == nil && e.IsDir() {
		return os.Rename(p.target, from)
	}
	if err := os.Mkdir(from, 0o700); err != nil {
		return err
	}
	if st, ok := before.Sys().(*unix.Stat_t); ok {
		if err := os.Chown(from, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(from, before.Mode())
}

// copyBack replaces what the cache directory holds. It may be a mount itself, so
// it is not replaced.
func (p *placed) copyBack(from string) error {
	if e, err := p.m.dir.Lstat(p.name); err != nil || !e.IsDir() {
		return nil //nolint:nilerr // the command has removed it
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(from, e.Name())); err != nil {
			return err
		}
	}
	return p.copyDir(p.m.ctx, from, p.target)
}

// copyDir copies a directory with all metadata.
func (p *placed) copyDir(ctx context.Context, to, from string) error {
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	r, err := rootfs.OpenDir(from, rootfs.DirOptions{AllXattrs: true})
	if err != nil {
		return err
	}
	defer r.Close()
	root, err := rootfs.OpenRoot(to, rootfs.RootOptions{})
	if err != nil {
		return err
	}
	return errors.Join(copyTree(ctx, root, ".", r, "."), root.Close())
}

// agent listens at the target and passes connections on to an SSH agent.
func (p *placed) agent(mount *run.Mount) error {
	forward, err := run.Forward(p.target, p.m.ws.isolation.taken.socket(mount.HostPath), mount.Mode, mount.UID, mount.GID)
	if err != nil {
		return err
	}
	p.end = forward.Close
	return nil
}
