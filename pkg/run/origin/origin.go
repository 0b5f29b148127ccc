// Package origin knows where the bytes of a tree's files came from.
//
// A scan compares files by what stat(2) says. A file from a layer has a time
// without a fraction, so one that was touched and has its old size and time may
// be as it was or not: only its bytes tell, and those that it had are in the
// layer. Origin finds them there. It costs nothing until it is asked; then it
// reads the layers a second time.
package origin

import (
	"bytes"
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

// Options say what a tree was made from: Parent, or Layers, or neither.
type Options struct {
	// Parent is the tree that this one was copied from. It must stay as it is
	// until the Origin is closed.
	Parent rootfs.Reader
	// Layers are those that were unpacked, lowest first.
	Layers []v1.Layer
	// TempDir takes the bytes of layers that are read out of order.
	TempDir string
}

// Origin is safe for concurrent use.
type Origin struct {
	options Options

	mu sync.Mutex
	// later are files that were written since: what opens them as they were, or
	// nil for those of which nothing is left.
	later map[string]func() (io.ReadCloser, error)
	// tree is the index of the layers, made when it is first needed.
	tree     *rootfs.Tree
	contents []*layers.Contents
	failed   error
}

// New reads nothing. The caller closes what it returns.
func New(o Options) *Origin {
	return &Origin{options: o, later: map[string]func() (io.ReadCloser, error){}}
}

// Put notes files that a COPY or ADD has written.
func (o *Origin) Put(changes []snapshot.Change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range changes {
		if c := &changes[i]; c.Kind == snapshot.Write && c.Entry.Kind == rootfs.Regular {
			o.later[c.Entry.Path] = c.Open
		}
	}
}

// Changed notes files that a command has written: what they held is lost.
func (o *Origin) Changed(changes []snapshot.Change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range changes {
		if changes[i].Kind == snapshot.Write {
			o.later[changes[i].Entry.Path] = nil
		}
	}
}

// Same compares what a file holds now with what it held. What can't be found
// out counts as a difference: then nothing is lost. It is a
// snapshot.ScanOptions.SameContent.
func (o *Origin) Same(ctx context.Context, name string, now func() (io.ReadCloser, error)) (bool, error) {
	before, err := o.open(ctx, name)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err != nil {
		return false, nil
	}
	defer before.Close()
	after, err := now()
	if err != nil {
		return false, err
	}
	defer after.Close()
	return sameBytes(before, after)
}

func (o *Origin) open(ctx context.Context, name string) (io.ReadCloser, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if open, ok := o.later[name]; ok {
		if open == nil {
			return nil, errors.ErrUnsupported
		}
		return open()
	}
	if o.options.Parent != nil {
		return o.options.Parent.Open(name)
	}
	if o.tree == nil && o.failed == nil {
		o.failed = o.load(ctx)
	}
	if o.failed != nil {
		return nil, o.failed
	}
	return o.tree.Open(name)
}

func (o *Origin) load(ctx context.Context) error {
	tree := rootfs.NewTree()
	for _, l := range o.options.Layers {
		c, err := layers.Load(ctx, tree, l, layers.LoadOptions{TempDir: o.options.TempDir})
		if err != nil {
			return err
		}
		o.contents = append(o.contents, c)
	}
	o.tree = tree
	return nil
}

// Close releases the layers. All files count as different from then on.
func (o *Origin) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for _, c := range o.contents {
		errs = append(errs, c.Close())
	}
	o.contents, o.tree, o.failed = nil, nil, fs.ErrClosed
	return errors.Join(errs...)
}

// sameBytes compares two files. An error of the first is a difference.
func sameBytes(before, after io.Reader) (bool, error) {
	const chunk = 64 << 10
	a, b := make([]byte, chunk), make([]byte, chunk)
	for {
		nA, errA := io.ReadFull(before, a)
		nB, errB := io.ReadFull(after, b)
		switch {
		case errB != nil && !ended(errB):
			return false, errB
		case errA != nil && !ended(errA), !bytes.Equal(a[:nA], b[:nB]):
			return false, nil
		case ended(errA) || ended(errB):
			return ended(errA) && ended(errB), nil
		}
	}
}

func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
