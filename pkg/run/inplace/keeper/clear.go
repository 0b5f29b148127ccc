package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"
	"time"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// Clear removes all files below the directory root. Masked places stay, and the
// directories they lie in. It goes on after an error.
func Clear(root string, masks Masks) error {
	r, err := rootfs.OpenRoot(root, rootfs.RootOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	return ClearBelow(r, masks, ".", nil)
}

// ClearBelow is Clear for one of the directories that masked places lie in. keep,
// if not nil, names further files that stay.
func ClearBelow(r *rootfs.Root, masks Masks, name string, keep func(name string) bool) error {
	d, err := r.Dir(rootfs.DirOptions{Skip: masks.Covers})
	if err != nil {
		return err
	}
	defer d.Close()
	c := clearer{root: r, dir: d, masks: masks, keep: keep}
	c.below(name)
	if err := c.failed.join(); err != nil {
		return fmt.Errorf("removing files: %w", err)
	}
	return nil
}

type clearer struct {
	root   *rootfs.Root
	dir    *rootfs.Dir
	masks  Masks
	keep   func(string) bool
	failed errorList
}

func (c *clearer) below(name string) {
	entries, err := c.dir.ReadDir(name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.failed.add(err)
		}
		return
	}
	for _, e := range entries {
		kept := c.keep != nil && c.keep(e.Path)
		switch {
		case c.masks.Above(e.Path) && e.IsDir():
			c.below(e.Path)
		case kept && e.IsDir():
			c.failed.add(c.root.RemoveChildren(e.Path, c.keep))
		case kept:
		default:
			c.failed.add(c.remove(e.Path))
		}
	}
}

// remove tries again when a file appears meanwhile: a process that is just
// being killed may make some.
func (c *clearer) remove(name string) error {
	for try := 0; ; try++ {
		err := c.root.Remove(name)
		if !errors.Is(err, syscall.ENOTEMPTY) || try == 20 {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Blank gives the directories that masked places lie in the metadata of
// directories that nobody described, and makes those that are missing. It is
// called after Clear, before an image's files come.
func Blank(root string, masks Masks) error {
	r, err := rootfs.OpenRoot(root, rootfs.RootOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	for _, dir := range masks.Directories() {
		e := Implied(dir)
		if err := r.Write(e, nil); err != nil {
			return err
		}
	}
	return nil
}

// Implied is a directory that nobody described.
func Implied(name string) rootfs.Entry {
	return rootfs.Entry{Path: path.Clean(name), Kind: rootfs.Directory, Mode: 0o755, ModTime: time.Unix(0, 0)}
}
