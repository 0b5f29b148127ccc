package inplace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"sync"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// workspace is a stage: in root as long as it is the isolation's current one,
// then in a directory of its own.
type workspace struct {
	isolation *Isolation
	name      string
	number    int
	origin    *origin
	// baseline is the tree before the next run; nil until the first one.
	baseline *snapshot.Baseline
	// untold: a command has run since Changes was last asked for.
	untold bool
	// made are mount points that a command was given, to be told as well.
	made   []snapshot.Change
	closed bool

	// mu guards the following, which readers of the finished stage share with
	// the one that moves it. site is nil once the tree is aside, and aside is
	// where.
	mu    sync.RWMutex
	site  *site
	view  *view
	aside *rootfs.Dir
}

// reader calls read with the tree as it is. Files that it opens stay open
// wherever the tree goes.
func (w *workspace) reader(op, name string, read func(rootfs.Reader) error) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	switch {
	case w.view != nil:
		return read(w.view)
	case w.aside != nil:
		return read(w.aside)
	}
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrClosed}
}

// Lstat implements rootfs.Reader.
func (w *workspace) Lstat(name string) (e rootfs.Entry, err error) {
	err = w.reader("lstat", name, func(r rootfs.Reader) (err error) { e, err = r.Lstat(name); return })
	return e, err
}

// ReadDir implements rootfs.Reader.
func (w *workspace) ReadDir(name string) (list []rootfs.Entry, err error) {
	err = w.reader("readdir", name, func(r rootfs.Reader) (err error) { list, err = r.ReadDir(name); return })
	return list, err
}

// Open implements rootfs.Reader.
func (w *workspace) Open(name string) (f io.ReadCloser, err error) {
	err = w.reader("open", name, func(r rootfs.Reader) (err error) { f, err = r.Open(name); return })
	return f, err
}

// current reports an error unless the tree is in root.
func (w *workspace) current() error {
	w.isolation.mu.Lock()
	defer w.isolation.mu.Unlock()
	if w.isolation.current == w && !w.closed {
		return nil
	}
	return fmt.Errorf("stage %s: another stage was opened after it: in place, only one at a time can be worked on", w.name)
}

// Put implements run.Workspace.
func (w *workspace) Put(ctx context.Context, changes []snapshot.Change) error {
	if err := w.current(); err != nil {
		return err
	}
	names, err := w.site.put(ctx, changes)
	if err != nil {
		return err
	}
	w.origin.put(changes)
	if w.baseline == nil {
		return nil
	}
	return w.baseline.Update(ctx, names)
}

// record takes the baseline before the first run.
func (w *workspace) record(ctx context.Context) (err error) {
	if w.baseline != nil {
		return nil
	}
	w.baseline, err = snapshot.Take(ctx, w.site.path, snapshot.ScanOptions{
		Exclude:     w.site.masks.Covers,
		Overrides:   w.site.overrides,
		SameContent: w.origin.same,
	})
	return err
}

// Changes implements run.Workspace.
func (w *workspace) Changes(ctx context.Context) iter.Seq2[snapshot.Change, error] {
	return func(yield func(snapshot.Change, error) bool) {
		if w.baseline == nil {
			return
		}
		if err := w.current(); err != nil {
			yield(snapshot.Change{}, err)
			return
		}
		changes, next, err := w.baseline.Diff(ctx)
		if err != nil {
			yield(snapshot.Change{}, err)
			return
		}
		changes = merge(changes, w.made)
		w.baseline, w.untold, w.made = next, false, nil
		for i := range changes {
			c := &changes[i]
			name := c.Entry.Path
			switch {
			case c.Kind == snapshot.Remove && w.site.masks.Above(name) && !w.site.inImage[name]:
				// A directory that the image never had.
				continue
			case c.Kind == snapshot.Remove:
				delete(w.site.inImage, name)
			case c.Kind == snapshot.Write && c.Entry.Kind == rootfs.Regular:
				w.origin.changed(name)
			}
			if !yield(*c, nil) {
				return
			}
		}
	}
}

// moveAside makes room for another stage. The isolation is locked.
func (w *workspace) moveAside(ctx context.Context, dir string) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	overrides := w.site.overrides
	if err := w.site.moveTo(ctx, w.view, dir); err != nil {
		return err
	}
	err = errors.Join(w.view.Close(), w.site.close())
	w.view, w.site, w.baseline = nil, nil, nil
	if err != nil {
		return err
	}
	w.aside, err = rootfs.OpenDir(dir, rootfs.DirOptions{Overrides: overrides})
	return err
}

// goOn makes the tree that of another stage. What was changed so far is none of
// that stage's, told or not, so it begins with a baseline of its own. The
// isolation is locked.
func (w *workspace) goOn(name string, number int) (*workspace, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := &workspace{
		isolation: w.isolation, name: name, number: number,
		origin: w.origin, site: w.site, view: w.view,
	}
	if w.untold {
		// It is not known which files still have their bytes from there.
		next.origin = &origin{failed: errUnknown}
		w.baseline, w.site, w.view = nil, nil, nil
	} else {
		w.origin, w.baseline, w.site, w.view = &origin{}, nil, nil, nil
	}
	w.closed = true
	if err := w.origin.close(); err != nil {
		return nil, err
	}
	return next, nil
}

// discard gives up the tree. Files in root are removed when something else
// comes there. The isolation is locked.
func (w *workspace) discard() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	errs := []error{w.origin.close()}
	if w.view != nil {
		errs = append(errs, w.view.Close())
	}
	if w.site != nil {
		errs = append(errs, w.site.close())
	}
	if w.aside != nil {
		dir := w.aside.HostPath()
		errs = append(errs, w.aside.Close(), os.RemoveAll(dir))
	}
	w.view, w.site, w.aside, w.baseline = nil, nil, nil, nil
	return errors.Join(errs...)
}

// Close implements run.Workspace.
func (w *workspace) Close() error {
	w.isolation.mu.Lock()
	defer w.isolation.mu.Unlock()
	if w.closed {
		return nil
	}
	return w.discard()
}

var _ run.Workspace = (*workspace)(nil)
