package snapshot

import (
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// errStopped ends a walk whose consumer wants no more. It never leaves the
// package.
var errStopped = errors.New("stopped")

// emitter turns what a walk finds into changes. The walk reports files in the
// order of a layer; an emitter's own additions are parents, directly before
// the first file that needs them, and further names of a changed file, directly
// after its first name.
type emitter struct {
	// stat describes a directory of the changed tree, open reads a file of it.
	stat  func(name string) (rootfs.Entry, error)
	open  func(name string) (io.ReadCloser, error)
	yield func(Change) bool

	listed map[string]struct{}       // directories that the list has
	linked map[uint64]struct{}       // files of which the list has a name
	spare  map[uint64][]rootfs.Entry // unchanged names seen before a changed one
}

func newEmitter(stat func(string) (rootfs.Entry, error), open func(string) (io.ReadCloser, error), yield func(Change) bool) *emitter {
	return &emitter{
		stat: stat, open: open, yield: yield,
		listed: map[string]struct{}{}, linked: map[uint64]struct{}{}, spare: map[uint64][]rootfs.Entry{},
	}
}

// removed reports that a file, or a directory with all it held, is gone.
func (m *emitter) removed(name string) error {
	if err := m.parents(name); err != nil {
		return err
	}
	return m.put(Change{Kind: Remove, Entry: rootfs.Entry{Path: name}})
}

// written reports a file that is new or differs.
func (m *emitter) written(e rootfs.Entry) error {
	if e.Kind == rootfs.Socket {
		return nil // a layer can't hold it; its directory is not named for it either
	}
	if err := m.write(e); err != nil || e.Link == 0 {
		return err
	}
	m.linked[e.Link] = struct{}{}
	others := m.spare[e.Link]
	delete(m.spare, e.Link)
	for _, o := range others {
		if err := m.write(o); err != nil {
			return err
		}
	}
	return nil
}

// unchanged reports a file that is as it was. It matters where the file has
// another name that changed: in a layer, only names listed together are known
// to be one file.
func (m *emitter) unchanged(e rootfs.Entry) error {
	if e.Link == 0 || e.Kind == rootfs.Directory || e.Kind == rootfs.Socket {
		return nil
	}
	if _, ok := m.linked[e.Link]; ok {
		return m.write(e)
	}
	m.spare[e.Link] = append(m.spare[e.Link], e)
	return nil
}

func (m *emitter) write(e rootfs.Entry) error {
	if err := m.parents(e.Path); err != nil {
		return err
	}
	c := Change{Kind: Write, Entry: e}
	switch e.Kind {
	case rootfs.Directory:
		m.listed[e.Path] = struct{}{}
	case rootfs.Regular:
		c.Open = m.opener(e)
	}
	return m.put(c)
}

func (m *emitter) parents(name string) error {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	if _, ok := m.listed[dir]; ok {
		return nil
	}
	if err := m.parents(dir); err != nil {
		return err
	}
	e, err := m.stat(dir)
	if err != nil {
		return err
	}
	m.listed[dir] = struct{}{}
	return m.put(Change{Kind: Parent, Entry: e})
}

func (m *emitter) put(c Change) error {
	if !m.yield(c) {
		return errStopped
	}
	return nil
}

func (m *emitter) opener(e rootfs.Entry) func() (io.ReadCloser, error) {
	name, size, open := e.Path, e.Size, m.open
	return func() (io.ReadCloser, error) {
		rc, err := open(name)
		if err != nil {
			return nil, err
		}
		return &sized{ReadCloser: rc, name: name, size: size, left: size}, nil
	}
}

// sized reads a file that must be as long as it was when it was described: a
// tar header with its size may be written already.
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
		n += int(s.left)
		s.left = 0
		return n, fmt.Errorf("reading %s: it has grown beyond %d bytes while it was read", s.name, s.size)
	case err == io.EOF && s.left > 0:
		return n, fmt.Errorf("reading %s: %d of %d bytes are missing: %w", s.name, s.left, s.size, io.ErrUnexpectedEOF)
	}
	return n, err
}
