package namespace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/child"
	"github.com/cooper-build/cooper/pkg/run/origin"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// plainWorkspace is a stage as one directory, for machines where overlay can't
// be mounted. What a command changed is found by a scan.
type plainWorkspace struct {
	isolation *Isolation
	name, dir string
	tree      string
	reader    *rootfs.Dir
	origin    *origin.Origin
	// baseline is the tree before the next run; nil until the first one.
	baseline *snapshot.Baseline
}

// openPlain unpacks layers, or takes or copies the parent's tree, into one
// directory.
func (i *Isolation) openPlain(ctx context.Context, stage run.Stage, dir string) (_ run.Workspace, err error) {
	w := &plainWorkspace{isolation: i, name: stage.Name, dir: dir, tree: filepath.Join(dir, "tree")}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("stage %s: %w", stage.Name, err), w.Close())
		}
	}()
	parent, ok := stage.Parent.(*plainWorkspace)
	switch {
	case stage.Parent == nil:
		err = w.unpack(ctx, stage.Layers)
	case !ok:
		err = fmt.Errorf("its parent was built by something else: %T", stage.Parent)
	case stage.LastUse:
		err = os.Rename(parent.tree, w.tree)
		w.origin, parent.origin = parent.origin, nil
	default:
		w.origin = origin.New(origin.Options{Parent: parent})
		err = w.copy(ctx, parent)
	}
	if err != nil {
		return nil, err
	}
	if w.reader, err = rootfs.OpenDir(w.tree, i.ids.dirOptions()); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *plainWorkspace) unpack(ctx context.Context, all []v1.Layer) error {
	w.origin = origin.New(origin.Options{Layers: all, TempDir: w.dir})
	if err := os.Mkdir(w.tree, 0o755); err != nil {
		return err
	}
	for _, l := range all {
		if err := w.isolation.unpackTo(ctx, l, w.tree, layers.UnpackOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (w *plainWorkspace) copy(ctx context.Context, from rootfs.Reader) error {
	if err := os.Mkdir(w.tree, 0o755); err != nil {
		return err
	}
	root, err := rootfs.OpenRoot(w.tree, w.isolation.ids.rootOptions())
	if err != nil {
		return err
	}
	return errors.Join(copyTree(ctx, root, ".", from, "."), root.Close())
}

// Lstat implements rootfs.Reader.
func (w *plainWorkspace) Lstat(name string) (rootfs.Entry, error) { return w.reader.Lstat(name) }

// ReadDir implements rootfs.Reader.
func (w *plainWorkspace) ReadDir(name string) ([]rootfs.Entry, error) { return w.reader.ReadDir(name) }

// Open implements rootfs.Reader.
func (w *plainWorkspace) Open(name string) (io.ReadCloser, error) { return w.reader.Open(name) }

// Run implements run.Workspace.
func (w *plainWorkspace) Run(ctx context.Context, spec run.Spec) (err error) {
	if w.baseline == nil {
		if w.baseline, err = snapshot.Take(ctx, w.tree, w.scanOptions()); err != nil {
			return fmt.Errorf("stage %s: %w", w.name, err)
		}
	}
	temp, err := os.MkdirTemp(w.dir, "run-")
	if err != nil {
		return err
	}
	err = w.isolation.execute(ctx, child.Root{Upper: w.tree}, temp, spec)
	return errors.Join(err, os.RemoveAll(temp))
}

func (w *plainWorkspace) scanOptions() snapshot.ScanOptions {
	return snapshot.ScanOptions{Overrides: w.isolation.ids.user, SameContent: w.origin.Same}
}

// Put implements run.Workspace.
func (w *plainWorkspace) Put(ctx context.Context, changes []snapshot.Change) error {
	root, err := rootfs.OpenRoot(w.tree, w.isolation.ids.rootOptions())
	if err != nil {
		return err
	}
	if err := errors.Join(layers.Put(ctx, root, changes, layers.Plain), root.Close()); err != nil {
		return err
	}
	w.origin.Put(changes)
	if w.baseline == nil {
		return nil
	}
	names := make([]string, 0, len(changes))
	for i := range changes {
		names = append(names, changes[i].Entry.Path)
	}
	return w.baseline.Update(ctx, names)
}

// Changes implements run.Workspace.
func (w *plainWorkspace) Changes(ctx context.Context) iter.Seq2[snapshot.Change, error] {
	return func(yield func(snapshot.Change, error) bool) {
		if w.baseline == nil {
			return
		}
		changes, next, err := w.baseline.Diff(ctx)
		if err != nil {
			yield(snapshot.Change{}, err)
			return
		}
		w.baseline = next
		w.origin.Changed(changes)
		for _, c := range changes {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// Close implements run.Workspace.
func (w *plainWorkspace) Close() error {
	var err error
	if w.reader != nil {
		err = w.reader.Close()
	}
	if w.origin != nil {
		err = errors.Join(err, w.origin.Close())
	}
	return errors.Join(err, rootfs.RemoveAll(w.dir))
}
