package buildcontext

import (
	"errors"
	"io"
	"io/fs"
	"sync"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// filtered hides what an ignore file leaves out. A directory that is left out
// shows when something below it does not stay out.
type filtered struct {
	below  rootfs.Reader
	ignore *ignore

	mu sync.Mutex
	// holds remembers which directories that are left out show.
	holds map[string]bool
}

func newFiltered(below rootfs.Reader, i *ignore) *filtered {
	return &filtered{below: below, ignore: i, holds: map[string]bool{}}
}

// Lstat implements rootfs.Reader.
func (f *filtered) Lstat(name string) (rootfs.Entry, error) {
	if f.cutOff(name) {
		return rootfs.Entry{}, missing("lstat", name)
	}
	e, err := f.below.Lstat(name)
	if err != nil {
		return rootfs.Entry{}, err
	}
	ok, err := f.shows(e)
	if err == nil && !ok {
		err = missing("lstat", name)
	}
	if err != nil {
		return rootfs.Entry{}, err
	}
	return e, nil
}

// ReadDir implements rootfs.Reader.
func (f *filtered) ReadDir(name string) ([]rootfs.Entry, error) {
	if name != "." {
		if _, err := f.Lstat(name); err != nil {
			return nil, &fs.PathError{Op: "readdir", Path: name, Err: cause(err)}
		}
	}
	entries, err := f.below.ReadDir(name)
	if err != nil {
		return nil, err
	}
	shown := entries[:0]
	for _, e := range entries {
		ok, err := f.shows(e)
		if err != nil {
			return nil, err
		}
		if ok {
			shown = append(shown, e)
		}
	}
	return shown, nil
}

// Open implements rootfs.Reader.
func (f *filtered) Open(name string) (io.ReadCloser, error) {
	if name != "." {
		out, err := f.ignore.excluded(name)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		if out {
			return nil, missing("open", name)
		}
	}
	return f.below.Open(name)
}

// cutOff tells, without a look at the disk, that a directory above name is left
// out with all it can hold.
func (f *filtered) cutOff(name string) bool {
	for i, c := range name {
		if c != '/' {
			continue
		}
		if out, err := f.ignore.excluded(name[:i]); err == nil && out && !f.ignore.mayHold(name[:i]) {
			return true
		}
	}
	return false
}

// shows tells whether a file is part of the context.
func (f *filtered) shows(e rootfs.Entry) (bool, error) {
	if e.Path == "." {
		return true, nil
	}
	out, err := f.ignore.excluded(e.Path)
	if err != nil {
		return false, &fs.PathError{Op: "match", Path: e.Path, Err: err}
	}
	if !out {
		return true, nil
	}
	if !e.IsDir() || !f.ignore.mayHold(e.Path) {
		return false, nil
	}
	return f.holdsAny(e.Path)
}

// holdsAny looks for something in a directory that is left out.
func (f *filtered) holdsAny(dir string) (bool, error) {
	f.mu.Lock()
	held, known := f.holds[dir]
	f.mu.Unlock()
	if known {
		return held, nil
	}
	entries, err := f.below.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		// It is left out: that it can't be read is nobody's concern.
		entries, err = nil, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if held, err = f.shows(e); err != nil {
			return false, err
		}
		if held {
			break
		}
	}
	f.mu.Lock()
	f.holds[dir] = held
	f.mu.Unlock()
	return held, nil
}

func missing(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
