package layers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"syscall"
	"time"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// overlay makes one of overlayfs's lower directories. All that is in the
// directory is this layer's own.
type overlay struct {
	unpacker
	lower   rootfs.Reader
	implied func(string)
	attr    string
	all     bool // the root is opaque
}

func (o *overlay) place(name string) (string, error) {
	placed, err := o.root.Canonical(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return o.makeParents(name)
	}
	return placed, err
}

// makeParents finds out where name lies above the lower layers, and makes the
// directories on the way in this one.
func (o *overlay) makeParents(name string) (string, error) {
	view := merged{o.dir, o.lower}
	dir, _, err := rootfs.ResolveMissing(view, path.Dir(name))
	if err != nil {
		return "", err
	}
	for i := 0; i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		sub := dir[:i]
		here, err := o.dir.Lstat(sub)
		if err == nil && here.IsDir() {
			continue
		}
		e := rootfs.Entry{Path: sub, Kind: rootfs.Directory, Mode: 0o755, ModTime: time.Unix(0, 0)}
		below, err := view.Lstat(sub)
		switch {
		case err == nil && !below.IsDir():
			return "", &fs.PathError{Op: "mkdir", Path: sub, Err: syscall.ENOTDIR}
		case err == nil:
			e = below
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
		o.implied(sub)
		if err := o.put(e, nil); err != nil {
			return "", err
		}
	}
	return path.Join(dir, path.Base(name)), nil
}

func (o *overlay) put(e rootfs.Entry, content io.Reader) error {
	hides := false
	if e.IsDir() {
		// A whiteout or a file of this layer has taken away what was below;
		// a directory in its place must not bring it back.
		was, err := o.dir.Lstat(e.Path)
		hides = err == nil && !was.IsDir()
	}
	if err := o.unpacker.put(e, content); err != nil {
		return err
	}
	if hides {
		return o.opaque(e.Path)
	}
	return nil
}

// link makes a hard link whose first name may lie in a lower layer. overlayfs
// would copy the file up, so that is done here.
func (o *overlay) link(old string, e rootfs.Entry) error {
	if from, err := o.root.Canonical(old); err == nil {
		if was, err := o.dir.Lstat(from); err == nil && isWhiteout(was) {
			return fmt.Errorf("hard link to %q: %w", old, fs.ErrNotExist)
		}
	}
	err := o.unpacker.link(old, e)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	o.implied(old)
	if o.lower == nil {
		return fmt.Errorf("hard link to %q: %w", old, ErrNeedsLower)
	}
	view := merged{o.dir, o.lower}
	dir, rerr := rootfs.Resolve(view, path.Dir(old), true)
	if rerr != nil {
		return rerr
	}
	old = path.Join(dir, path.Base(old))
	below, rerr := view.Lstat(old)
	if rerr != nil {
		return rerr
	}
	if below.IsDir() {
		return err
	}
	if _, err := o.place(old); err != nil {
		return err
	}
	var content io.ReadCloser
	if below.Kind == rootfs.Regular {
		if content, err = o.lower.Open(old); err != nil {
			return err
		}
		defer content.Close()
	}
	if err := o.put(below, content); err != nil {
		return err
	}
	return o.unpacker.link(old, e)
}

func (o *overlay) whiteout(name string) error {
	e, err := o.dir.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return o.root.Whiteout(name)
	case err != nil:
		return err
	case e.IsDir():
		return o.opaque(name)
	}
	return nil // the layer's own file, or a whiteout already
}

func (o *overlay) opaque(name string) error {
	if name == "." {
		o.all = true
		return nil
	}
	return o.root.SetXattr(name, o.attr, "y")
}

// finish writes out what an opaque root means: overlayfs knows the mark below
// the root only.
func (o *overlay) finish() error {
	if o.all {
		o.implied(".")
		if o.lower == nil {
			return fmt.Errorf("opaque root: %w", ErrNeedsLower)
		}
		entries, err := o.lower.ReadDir(".")
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := o.whiteout(e.Path); err != nil {
				return err
			}
		}
	}
	return o.restoreTimes()
}

func isWhiteout(e rootfs.Entry) bool {
	return e.Kind == rootfs.CharDevice && e.Major == 0 && e.Minor == 0
}

// merged is the tree that a lower directory of overlayfs shows together with
// those below it, as far as Resolve needs it.
type merged struct {
	own   *rootfs.Dir
	lower rootfs.Reader
}

func (m merged) Lstat(name string) (rootfs.Entry, error) {
	e, err := m.own.Lstat(name)
	if err == nil && isWhiteout(e) {
		return e, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	if !errors.Is(err, fs.ErrNotExist) || m.lower == nil {
		return e, err
	}
	for i, c := range name {
		if c != '/' {
			continue
		}
		if above, err := m.own.Lstat(name[:i]); err == nil && !above.IsDir() {
			return e, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
		}
	}
	return m.lower.Lstat(name)
}

func (m merged) ReadDir(name string) ([]rootfs.Entry, error) { return m.own.ReadDir(name) }

func (m merged) Open(name string) (io.ReadCloser, error) { return m.own.Open(name) }
