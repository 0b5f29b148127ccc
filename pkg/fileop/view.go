package fileop

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// view is a tree with changes laid over it. It remembers what it looked up in
// the tree below, so that the comparison at the end asks for nothing twice.
//
// A view is used by one goroutine. Names are clean, as rootfs.Reader has them.
type view struct {
	base rootfs.Reader
	root *node
	// now is the modification time of directories whose list of names changes.
	now time.Time
}

// node is a name in the view.
type node struct {
	ino *inode // nil: removed, or not there
	// was is what the tree below has at this place, nil for nothing.
	was *rootfs.Entry
	// changed tells that ino is no longer just what was.
	changed bool
	// hides tells that a directory shows nothing of the tree below.
	hides bool
	kids  map[string]*node
}

// inode is a file, which may have several names. Path and Link of its entry
// mean nothing.
type inode struct {
	rootfs.Entry
	open func() (io.ReadCloser, error)
}

func newView(base rootfs.Reader, now time.Time) (*view, error) {
	e, err := base.Lstat(".")
	if err != nil {
		return nil, err
	}
	if !e.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: syscall.ENOTDIR}
	}
	return &view{base: base, root: &node{ino: &inode{Entry: e}, was: &e}, now: now}, nil
}

// look returns the node at a name, nil when there is no file. A parent that is
// not a directory means that there is none.
func (v *view) look(name string) (*node, error) {
	n := v.root
	if name == "." {
		return n, nil
	}
	for end := 0; end < len(name); {
		start := end
		if start > 0 {
			start++
		}
		end = len(name)
		if i := strings.IndexByte(name[start:], '/'); i >= 0 {
			end = start + i
		}
		next, err := v.child(n, name[:end], name[start:end])
		if err != nil || next == nil {
			return nil, err
		}
		n = next
	}
	return n, nil
}

// child is look for one step; name is the full name of base below dir.
func (v *view) child(dir *node, name, base string) (*node, error) {
	if !dir.ino.IsDir() {
		return nil, nil
	}
	if n, ok := dir.kids[base]; ok {
		if n.ino == nil {
			return nil, nil
		}
		return n, nil
	}
	if dir.hides {
		return nil, nil
	}
	e, err := v.base.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := &node{was: &e, ino: &inode{Entry: e, open: func() (io.ReadCloser, error) { return v.base.Open(name) }}}
	dir.set(base, n)
	return n, nil
}

func (n *node) set(base string, kid *node) {
	if n.kids == nil {
		n.kids = map[string]*node{}
	}
	n.kids[base] = kid
}

// parent returns the directory in which name is about to change.
func (v *view) parent(op, name string) (dir *node, base string, err error) {
	parent, base := splitName(name)
	dir, err = v.look(parent)
	switch {
	case err != nil:
	case dir == nil:
		err = &fs.PathError{Op: op, Path: "/" + name, Err: fs.ErrNotExist}
	case !dir.ino.IsDir():
		err = &fs.PathError{Op: op, Path: "/" + name, Err: syscall.ENOTDIR}
	}
	return dir, base, err
}

// put makes name a name of ino. Nothing may be there.
func (v *view) put(name string, ino *inode) (*node, error) {
	dir, base, err := v.parent("create", name)
	if err != nil {
		return nil, err
	}
	n := dir.kids[base]
	if n == nil {
		n = &node{}
		dir.set(base, n)
	}
	n.ino, n.changed, n.hides, n.kids = ino, true, true, nil
	v.touch(dir)
	return n, nil
}

// mkdir makes a directory as mkdir(2) does for root without a umask: in a
// setgid directory it inherits group and setgid bit.
func (v *view) mkdir(name string, mode uint32) (*node, error) {
	dir, _, err := v.parent("mkdir", name)
	if err != nil {
		return nil, err
	}
	e := rootfs.Entry{Kind: rootfs.Directory, Mode: mode, ModTime: v.now}
	if dir.ino.Mode&rootfs.ModeSetgid != 0 {
		e.Mode |= rootfs.ModeSetgid
		e.GID = dir.ino.GID
	}
	return v.put(name, &inode{Entry: e})
}

// remove takes a file, or a directory with all it holds, away.
func (v *view) remove(name string) error {
	n, err := v.look(name)
	if err != nil || n == nil {
		return err
	}
	if n == v.root {
		return &fs.PathError{Op: "remove", Path: "/", Err: syscall.EBUSY}
	}
	dir, _, err := v.parent("remove", name)
	if err != nil {
		return err
	}
	n.ino, n.changed, n.hides, n.kids = nil, true, true, nil
	v.touch(dir)
	return nil
}

// copyUp makes a file of the tree below one of the view. Its bytes stay where
// they are; but an index that takes in the changes would then find the file's
// bytes by way of itself, so they are read through the index as it is now.
func (v *view) copyUp(n *node, name string) {
	if n.changed {
		return
	}
	n.changed = true
	if tree, ok := v.base.(*rootfs.Tree); ok && n.ino.Kind == rootfs.Regular {
		before := tree.Clone()
		n.ino.open = func() (io.ReadCloser, error) { return before.Open(name) }
	}
}

// touch notes that a directory's list of names changed.
func (v *view) touch(dir *node) {
	dir.ino.ModTime = v.now
	dir.changed = true
}

// Lstat implements rootfs.Reader.
func (v *view) Lstat(name string) (rootfs.Entry, error) {
	n, err := v.look(name)
	if err != nil {
		return rootfs.Entry{}, err
	}
	if n == nil {
		return rootfs.Entry{}, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	return n.entry(name), nil
}

func (n *node) entry(name string) rootfs.Entry {
	e := n.ino.Entry
	e.Path = name
	e.Link = 0
	return e
}

// ReadDir implements rootfs.Reader.
func (v *view) ReadDir(name string) ([]rootfs.Entry, error) {
	n, err := v.look(name)
	switch {
	case err != nil:
		return nil, err
	case n == nil:
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	case !n.ino.IsDir():
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	var entries []rootfs.Entry
	if !n.hides {
		below, err := v.base.ReadDir(name)
		if err != nil {
			return nil, err
		}
		for _, e := range below {
			if _, base := splitName(e.Path); n.kids[base] == nil {
				e.Link = 0
				entries = append(entries, e)
			}
		}
	}
	for _, base := range slices.Sorted(maps.Keys(n.kids)) {
		if kid := n.kids[base]; kid.ino != nil {
			entries = append(entries, kid.entry(joinName(name, base)))
		}
	}
	slices.SortFunc(entries, func(a, b rootfs.Entry) int { return strings.Compare(a.Path, b.Path) })
	return entries, nil
}

// Open implements rootfs.Reader.
func (v *view) Open(name string) (io.ReadCloser, error) {
	n, err := v.look(name)
	if err != nil {
		return nil, err
	}
	if n == nil || n.ino.Kind != rootfs.Regular {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return n.ino.open()
}

// splitName separates a clean name's directory from its last part.
func splitName(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return ".", name
}

// joinName is the inverse of splitName.
func joinName(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}
