package build

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// sequence gives a list as the sequence that a layer is written from.
func sequence(changes []snapshot.Change) iter.Seq2[snapshot.Change, error] {
	return func(yield func(snapshot.Change, error) bool) {
		for _, c := range changes {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// indexChanges brings an index up to date with changes that were computed
// against it.
func indexChanges(tree *rootfs.Tree, changes []snapshot.Change) error {
	in := indexer{tree: tree}
	for _, c := range changes {
		switch c.Kind {
		case snapshot.Remove:
			tree.Remove(c.Entry.Path)
		case snapshot.Write, snapshot.Parent:
			// What was done in a parent has changed its modification time.
			if err := in.add(c.Entry, c.Open); err != nil {
				return fmt.Errorf("index: %w", err)
			}
		}
	}
	return nil
}

// indexer adds files to an index and joins the names of one file.
type indexer struct {
	tree  *rootfs.Tree
	first map[uint64]string
}

func (in *indexer) add(e rootfs.Entry, open func() (io.ReadCloser, error)) error {
	if e.Link == 0 {
		return in.tree.Put(e, open)
	}
	if first, ok := in.first[e.Link]; ok {
		return in.tree.Link(first, e.Path)
	}
	if in.first == nil {
		in.first = map[uint64]string{}
	}
	in.first[e.Link] = e.Path
	return in.tree.Put(e, open)
}

// treeOf makes an index of any tree, which must stay as it is as long as the
// index is used.
func treeOf(ctx context.Context, r rootfs.Reader) (*rootfs.Tree, error) {
	tree := rootfs.NewTree()
	in := indexer{tree: tree}
	err := rootfs.Walk(r, ".", func(e rootfs.Entry) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var open func() (io.ReadCloser, error)
		if e.Kind == rootfs.Regular {
			open = func() (io.ReadCloser, error) { return r.Open(e.Path) }
		}
		return in.add(e, open)
	})
	return tree, err
}
