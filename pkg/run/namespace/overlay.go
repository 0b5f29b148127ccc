package namespace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/child"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// overlayWorkspace is a stage as a stack of directories. A directory is never
// written to again once it is in the stack, so that changes stay readable and
// other stages can build on the same ones.
type overlayWorkspace struct {
	isolation *Isolation
	name, dir string
	// lowers is the stack, the lowest first.
	lowers []string
	// reported is the part of the stack whose changes were told, or need not be.
	reported int
	next     int

	// mu guards the view, which readers of the finished stage share.
	mu   sync.Mutex
	view *view
	// kept are the unions that changes read from.
	kept []*rootfs.Union
}

// view is the stack as it was when somebody looked. One that is out of date is
// closed after its last use.
type view struct {
	*rootfs.Union
	depth int
	users int
	// old: there is a newer one, or the workspace is closed.
	old bool
}

// Open implements run.Isolation.
func (i *Isolation) Open(ctx context.Context, stage run.Stage) (run.Workspace, error) {
	dir, err := os.MkdirTemp(i.options.Dir, "stage-")
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", stage.Name, err)
	}
	if i.plain {
		return i.openPlain(ctx, stage, dir)
	}
	w := &overlayWorkspace{isolation: i, name: stage.Name, dir: dir}
	switch parent := stage.Parent.(type) {
	case nil:
		w.lowers, err = i.unpackAll(ctx, stage.Layers)
	case *overlayWorkspace:
		w.lowers = slices.Clone(parent.lowers)
	default:
		err = fmt.Errorf("its parent was built by something else: %T", parent)
	}
	if err == nil && len(w.lowers) == 0 {
		// scratch: overlay wants at least one directory below.
		empty := filepath.Join(dir, "empty")
		err = os.Mkdir(empty, 0o755)
		w.lowers = []string{empty}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stage %s: %w", stage.Name, err), os.RemoveAll(dir))
	}
	w.reported = len(w.lowers)
	return w, nil
}

// ChangesStay implements run.Stable.
func (*overlayWorkspace) ChangesStay() {}

// look gives a view of the stack as it is now. The caller calls done with it.
func (w *overlayWorkspace) look() (*view, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.view == nil || w.view.depth != len(w.lowers) {
		u, err := rootfs.OpenUnion(w.lowers, w.isolation.ids.dirOptions())
		if err != nil {
			return nil, err
		}
		if err := w.retire(); err != nil {
			return nil, errors.Join(err, u.Close())
		}
		w.view = &view{Union: u, depth: len(w.lowers)}
	}
	w.view.users++
	return w.view, nil
}

// retire takes the view out of use. mu is held.
func (w *overlayWorkspace) retire() error {
	v := w.view
	w.view = nil
	if v == nil {
		return nil
	}
	v.old = true
	if v.users > 0 {
		return nil
	}
	return v.Close()
}

func (w *overlayWorkspace) done(v *view) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v.users--
	if v.old && v.users == 0 {
		_ = v.Close() // it was only read
	}
}

// Lstat implements rootfs.Reader.
func (w *overlayWorkspace) Lstat(name string) (rootfs.Entry, error) {
	v, err := w.look()
	if err != nil {
		return rootfs.Entry{}, err
	}
	defer w.done(v)
	return v.Lstat(name)
}

// ReadDir implements rootfs.Reader.
func (w *overlayWorkspace) ReadDir(name string) ([]rootfs.Entry, error) {
	v, err := w.look()
	if err != nil {
		return nil, err
	}
	defer w.done(v)
	return v.ReadDir(name)
}

// Open implements rootfs.Reader. What it opens outlives the view.
func (w *overlayWorkspace) Open(name string) (io.ReadCloser, error) {
	v, err := w.look()
	if err != nil {
		return nil, err
	}
	defer w.done(v)
	return v.Open(name)
}

// directory makes a new directory for the stack, whose root has the metadata
// of the tree's, since the topmost directory is what overlay shows.
func (w *overlayWorkspace) directory(name string) (string, error) {
	w.next++
	path := filepath.Join(w.dir, fmt.Sprintf("%d-%s", w.next, name))
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", err
	}
	return path, w.asRoot(path)
}

// asRoot gives a directory the metadata of the tree's root.
func (w *overlayWorkspace) asRoot(path string) error {
	below, err := rootfs.OpenDir(w.lowers[len(w.lowers)-1], w.isolation.ids.dirOptions())
	if err != nil {
		return err
	}
	top, err := below.Lstat(".")
	if err := errors.Join(err, below.Close()); err != nil {
		return err
	}
	root, err := rootfs.OpenRoot(path, w.isolation.ids.rootOptions())
	if err != nil {
		return err
	}
	return errors.Join(root.SetMeta(top), root.Close())
}

// Run implements run.Workspace.
func (w *overlayWorkspace) Run(ctx context.Context, spec run.Spec) error {
	upper, err := w.directory("upper")
	if err != nil {
		return fmt.Errorf("stage %s: %w", w.name, err)
	}
	temp, err := os.MkdirTemp(w.dir, "run-")
	if err != nil {
		return err
	}
	work := filepath.Join(temp, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	err = w.isolation.execute(ctx, child.Root{Lowers: w.lowers, Upper: upper, Work: work}, temp, spec)
	// A failed command's changes count as well, for whoever looks into it.
	w.lowers = append(w.lowers, upper)
	return errors.Join(err, os.RemoveAll(temp))
}

// Put implements run.Workspace.
func (w *overlayWorkspace) Put(ctx context.Context, changes []snapshot.Change) (err error) {
	if len(changes) == 0 {
		return nil
	}
	path, err := w.directory("put")
	if err != nil {
		return fmt.Errorf("stage %s: %w", w.name, err)
	}
	root, err := rootfs.OpenRoot(path, w.isolation.ids.rootOptions())
	if err != nil {
		return err
	}
	err = errors.Join(layers.Put(ctx, root, changes, w.isolation.ids.form()), root.Close())
	if w.reported == len(w.lowers) {
		w.reported++
	}
	w.lowers = append(w.lowers, path)
	return err
}

// Changes implements run.Workspace. After several runs without a call in
// between, it compares the trees before and after; what was put between them
// is then among the changes.
func (w *overlayWorkspace) Changes(ctx context.Context) iter.Seq2[snapshot.Change, error] {
	fresh := w.lowers[w.reported:]
	below := w.lowers[:w.reported]
	w.reported = len(w.lowers)
	options := w.isolation.ids.dirOptions()
	if len(fresh) == 0 {
		return func(func(snapshot.Change, error) bool) {}
	}
	return func(yield func(snapshot.Change, error) bool) {
		lower, err := rootfs.OpenUnion(below, options)
		if err != nil {
			yield(snapshot.Change{}, err)
			return
		}
		defer lower.Close()
		var changes iter.Seq2[snapshot.Change, error]
		if len(fresh) == 1 {
			changes = snapshot.Overlay(ctx, lower, fresh[0], snapshot.OverlayOptions{
				UserXattr: w.isolation.ids.user, Overrides: w.isolation.ids.user,
			})
		} else {
			now, err := rootfs.OpenUnion(slices.Concat(below, fresh), options)
			if err != nil {
				yield(snapshot.Change{}, err)
				return
			}
			// The changes read from it until the workspace is closed.
			w.keep(now)
			changes = snapshot.Diff(ctx, lower, now)
		}
		for c, err := range changes {
			if !yield(c, err) {
				return
			}
		}
	}
}

// keep has a union closed with the workspace.
func (w *overlayWorkspace) keep(u *rootfs.Union) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, u)
}

// Close implements run.Workspace. Stages that continue this one are closed
// first.
func (w *overlayWorkspace) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	errs := []error{w.retire()}
	for _, u := range w.kept {
		errs = append(errs, u.Close())
	}
	w.kept = nil
	return errors.Join(append(errs, rootfs.RemoveAll(w.dir))...)
}
