package inplace

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// origin knows where the bytes of a workspace's files came from, for files that
// a command has touched and perhaps not changed.
type origin struct {
	dir string
	// One of these is set, or neither for scratch.
	parent *workspace
	layers []v1.Layer

	mu sync.Mutex
	// known are files that were put later, nil for those that were changed.
	known map[string]func() (io.ReadCloser, error)
	// tree is the index of layers, made when it is first needed.
	tree     *rootfs.Tree
	contents []*layers.Contents
	failed   error
}

// put notes files that a COPY or ADD has written.
func (o *origin) put(changes []snapshot.Change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil {
		o.known = map[string]func() (io.ReadCloser, error){}
	}
	for i := range changes {
		if c := &changes[i]; c.Kind == snapshot.Write && c.Entry.Kind == rootfs.Regular && c.Open != nil {
			o.known[c.Entry.Path] = c.Open
		}
	}
}

// changed notes a file that a command has written.
func (o *origin) changed(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil {
		o.known = map[string]func() (io.ReadCloser, error){}
	}
	o.known[name] = nil
}

// same compares a file with what it was. What can't be found out counts as a
// difference: then nothing is lost.
func (o *origin) same(ctx context.Context, name string, now func() (io.ReadCloser, error)) (bool, error) {
	before, err := o.open(ctx, name)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err != nil {
		return false, nil //nolint:nilerr // see above
	}
	defer before.Close()
	after, err := now()
	if err != nil {
		return false, err
	}
	defer after.Close()
	return sameBytes(before, after)
}

var errUnknown = errors.New("not known")

func (o *origin) open(ctx context.Context, name string) (io.ReadCloser, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if open, ok := o.known[name]; ok {
		if open == nil {
			return nil, errUnknown
		}
		return open()
	}
	if o.parent != nil {
		return o.parent.Open(name)
	}
	if o.tree == nil && o.failed == nil {
		o.failed = o.load(ctx)
	}
	if o.failed != nil {
		return nil, o.failed
	}
	return o.tree.Open(name)
}

func (o *origin) load(ctx context.Context) error {
	tree := rootfs.NewTree()
	for _, l := range o.layers {
		c, err := layers.Load(ctx, tree, l, layers.LoadOptions{TempDir: o.dir})
		if err != nil {
			return err
		}
		o.contents = append(o.contents, c)
	}
	o.tree = tree
	return nil
}

func (o *origin) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for _, c := range o.contents {
		errs = append(errs, c.Close())
	}
	o.contents, o.tree, o.failed = nil, nil, fs.ErrClosed
	return errors.Join(errs...)
}

func sameBytes(a, b io.Reader) (bool, error) {
	const chunk = 64 << 10
	bufA, bufB := make([]byte, chunk), make([]byte, chunk)
	for {
		nA, errA := io.ReadFull(a, bufA)
		nB, errB := io.ReadFull(b, bufB)
		if string(bufA[:nA]) != string(bufB[:nB]) {
			return false, nil
		}
		switch endA, endB := ended(errA), ended(errB); {
		case errA != nil && !endA:
			return false, nil //nolint:nilerr // the old bytes can't be read
		case errB != nil && !endB:
			return false, errB
		case endA || endB:
			return endA && endB, nil
		}
	}
}

func ended(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }
