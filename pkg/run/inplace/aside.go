package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// moveTo moves the image out of root into the directory dir, which is made, and
// takes the shadow in. Nothing but names changes where dir is on the same file
// system; else files are copied.
func (s *site) moveTo(ctx context.Context, v *view, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	to, err := rootfs.OpenRoot(dir, rootfs.RootOptions{})
	if err != nil {
		return err
	}
	m := mover{ctx: ctx, site: s, view: v, dir: dir, to: to, copier: copier{root: to, links: map[uint64]string{}}}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := m.below("."); err != nil {
		return err
	}
	for _, mask := range s.masks.Names() {
		if _, err := v.shadow.Lstat(mask); err != nil {
			continue
		}
		if err := to.MkdirParents(mask, nil); err != nil {
			return err
		}
		if err := m.move(v.shadow, s.shadowPath, mask); err != nil {
			return err
		}
	}
	return m.times()
}

type mover struct {
	copier
	ctx  context.Context
	site *site
	view *view
	dir  string
	to   *rootfs.Root
}

// below moves what a special directory holds, and describes the directory.
func (m *mover) below(name string) error {
	e, err := m.view.main.Lstat(name)
	if err != nil {
		return err
	}
	if err := m.to.Write(e, nil); err != nil {
		return err
	}
	m.dirs = append(m.dirs, e)
	entries, err := m.view.main.ReadDir(name)
	if err != nil {
		return err
	}
	for _, c := range entries {
		switch {
		case !m.site.masks.Above(c.Path) || !c.IsDir():
			err = m.move(m.view.main, m.site.path, c.Path)
		case !m.view.absent(c.Path):
			err = m.below(c.Path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// move moves one file or directory with all it holds. The parents of name are
// no symbolic links.
func (m *mover) move(r rootfs.Reader, from, name string) error {
	err := os.Rename(filepath.Join(from, name), filepath.Join(m.dir, name))
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	// Another file system, or a directory that overlayfs merges.
	return rootfs.Walk(r, name, func(e rootfs.Entry) error {
		if m.ctx.Err() != nil {
			return context.Cause(m.ctx)
		}
		return m.put(e, r, e.Path)
	})
}

// hold moves what is at name out of root's sight, to come back later. It stays
// on its file system.
func (i *Isolation) hold(name string) (held string, err error) {
	from := filepath.Join(i.root, name)
	dir := filepath.Join(i.options.Dir, "held")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	i.next++
	held = filepath.Join(dir, fmt.Sprint(i.next))
	err = os.Rename(from, held)
	if errors.Is(err, unix.EXDEV) {
		held = filepath.Join(i.root, path.Dir(name), fmt.Sprintf(".cooper-held-%d", i.next))
		err = os.Rename(from, held)
	}
	return held, err
}
