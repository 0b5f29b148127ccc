package rootfs

import (
	"io"
	"io/fs"
	"strings"
	"syscall"
)

var _ Reader = (*Tree)(nil)

// Lstat implements Reader.
func (t *Tree) Lstat(name string) (Entry, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.lookup(name)
	if n == nil {
		return Entry{}, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	return t.entry(name, n), nil
}

// ReadDir implements Reader.
func (t *Tree) ReadDir(name string) ([]Entry, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.lookup(name)
	if n == nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	if n.dir == nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	entries := make([]Entry, len(n.dir.kids))
	for i, k := range n.dir.kids {
		entries[i] = t.entry(joinName(name, k.name), k)
	}
	return entries, nil
}

// Open implements Reader.
func (t *Tree) Open(name string) (io.ReadCloser, error) {
	t.mu.RLock()
	n := t.lookup(name)
	var i *inode
	if n != nil {
		i = t.inode(n)
	}
	t.mu.RUnlock()
	switch {
	case n == nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case i.kind == Directory:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	case i.kind != Regular:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	case i.open == nil:
		return io.NopCloser(strings.NewReader("")), nil
	}
	rc, err := i.open()
	return rc, pathError("open", name, err)
}
