package fileop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// changes compares the view with the tree below it along the paths that were
// touched.
func (v *view) changes(ctx context.Context) ([]snapshot.Change, error) {
	d := differ{ctx: ctx, v: v, names: map[*inode][]int{}}
	if err := d.kids(v.root, "."); err != nil {
		return nil, err
	}
	var link uint64
	for i := range d.list {
		// Files are numbered in the order in which they are met, for the
		// list to be the same each time.
		if ino := d.inodes[i]; ino != nil && len(d.names[ino]) > 1 && d.list[i].Entry.Link == 0 {
			link++
			for _, other := range d.names[ino] {
				d.list[other].Entry.Link = link
			}
		}
	}
	return d.list, nil
}

type differ struct {
	ctx  context.Context
	v    *view
	list []snapshot.Change
	// inodes runs beside list; names are the places in it of a file.
	inodes []*inode
	names  map[*inode][]int
}

func (d *differ) add(kind snapshot.Kind, name string, ino *inode) {
	c := snapshot.Change{Kind: kind}
	if kind == snapshot.Remove {
		c.Entry.Path = name
	} else {
		c.Entry = ino.Entry
		c.Entry.Path, c.Entry.Link = name, 0
		if ino.Kind == rootfs.Regular {
			c.Open = sizedOpen(name, ino)
		}
		if !ino.IsDir() {
			d.names[ino] = append(d.names[ino], len(d.list))
		}
	}
	d.list = append(d.list, c)
	d.inodes = append(d.inodes, ino)
}

func (d *differ) kids(dir *node, name string) error {
	for _, base := range slices.Sorted(maps.Keys(dir.kids)) {
		if err := d.node(dir.kids[base], joinName(name, base)); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) node(n *node, name string) error {
	if d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	if n.ino == nil {
		if n.was != nil {
			d.add(snapshot.Remove, name, nil)
		}
		return nil
	}
	same := !n.changed
	if !same && n.was != nil {
		var err error
		if same, err = d.same(n, name); err != nil {
			return err
		}
	}
	if !n.ino.IsDir() {
		if !same {
			d.add(snapshot.Write, name, n.ino)
		}
		return nil
	}
	if n.hides && n.was != nil && n.was.IsDir() {
		// The directory was removed and made again: what it held is gone
		// unless it was made again as well.
		below, err := d.v.base.ReadDir(name)
		if err != nil {
			return err
		}
		for _, e := range below {
			_, base := splitName(e.Path)
			if kid := n.kids[base]; kid != nil {
				kid.was = &e
			} else {
				n.set(base, &node{was: &e})
			}
		}
	}
	kind := snapshot.Write
	if same {
		kind = snapshot.Parent
	}
	at := len(d.list)
	d.add(kind, name, n.ino)
	if err := d.kids(n, name); err != nil {
		return err
	}
	if same && len(d.list) == at+1 {
		d.list, d.inodes = d.list[:at], d.inodes[:at]
	}
	return nil
}

// same is BuildKit's rule for a file that need not be in a layer: metadata and
// capabilities are equal and so is, but for directories, the modification
// time. Times without a fraction of a second may have been cut to that by a
// layer, so such files are read.
func (d *differ) same(n *node, name string) (bool, error) {
	a, b := n.was, &n.ino.Entry
	if a.Kind != b.Kind || a.Mode != b.Mode && a.Kind != rootfs.Symlink || a.UID != b.UID || a.GID != b.GID ||
		a.Major != b.Major || a.Minor != b.Minor ||
		a.Xattrs[rootfs.XattrCapability] != b.Xattrs[rootfs.XattrCapability] {
		return false, nil
	}
	if a.IsDir() {
		return true, nil
	}
	if a.Size != b.Size || len(a.Target) != len(b.Target) || !a.ModTime.Equal(b.ModTime) {
		return false, nil
	}
	switch {
	case a.ModTime.Nanosecond() != 0:
		return true, nil
	case a.Kind == rootfs.Symlink:
		return a.Target == b.Target, nil
	case a.Kind != rootfs.Regular || a.Size == 0:
		return true, nil
	}
	return sameBytes(
		func() (io.ReadCloser, error) { return d.v.base.Open(name) },
		sizedOpen(name, n.ino))
}

func sameBytes(openA, openB func() (io.ReadCloser, error)) (bool, error) {
	a, err := openA()
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := openB()
	if err != nil {
		return false, err
	}
	defer b.Close()
	ra, rb := bufio.NewReaderSize(a, 64<<10), bufio.NewReaderSize(b, 64<<10)
	for {
		x, errA := ra.Peek(ra.Size())
		y, errB := rb.Peek(rb.Size())
		if string(x) != string(y) {
			return false, nil
		}
		if errA == io.EOF && errB == io.EOF {
			return true, nil
		}
		if errA != nil && errA != io.EOF {
			return false, errA
		}
		if errB != nil && errB != io.EOF {
			return false, errB
		}
		if _, err := ra.Discard(len(x)); err != nil {
			return false, err
		}
		if _, err := rb.Discard(len(y)); err != nil {
			return false, err
		}
	}
}

// sizedOpen opens a file's bytes and sees to it that there are as many as the
// entry says.
func sizedOpen(name string, ino *inode) func() (io.ReadCloser, error) {
	size, open := ino.Size, ino.open
	return func() (io.ReadCloser, error) {
		if open == nil {
			return io.NopCloser(eof{}), nil
		}
		rc, err := open()
		if err != nil {
			return nil, err
		}
		return &sized{ReadCloser: rc, name: name, size: size, left: size}, nil
	}
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

type sized struct {
	io.ReadCloser
	name       string
	size, left int64
}

func (s *sized) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.left -= int64(n)
	switch {
	case s.left < 0:
		return 0, s.changed()
	case errors.Is(err, io.EOF) && s.left > 0:
		return n, s.changed()
	}
	return n, err
}

func (s *sized) changed() error {
	return fmt.Errorf("read /%s: the source file changed: it is no longer %d bytes long", s.name, s.size)
}
