package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// LoadOptions say how Load works.
type LoadOptions struct {
	// TempDir takes a layer's bytes when they are asked for out of order; the
	// system's directory for temporary files when empty.
	TempDir string
}

// Load applies a layer to an index: it reads the layer once for the headers of
// its files and puts them into tree, with functions that read the bytes from
// the layer when somebody asks. These work until the returned Contents is
// closed. After an error tree holds part of the layer.
//
// Layers are loaded in order, the lowest first.
func Load(ctx context.Context, tree *rootfs.Tree, layer v1.Layer, opts LoadOptions) (*Contents, error) {
	rc, err := layer.Uncompressed()
	if err != nil {
		return nil, fmt.Errorf("reading layer: %w", err)
	}
	defer rc.Close()
	c := NewContents(layer, opts)
	if err := Index(ctx, tree, rc, c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Index is Load for a layer that is being read anyway: r is the uncompressed
// tar, and is read to its end; contents says where the bytes will be found
// later.
func Index(ctx context.Context, tree *rootfs.Tree, r io.Reader, contents *Contents) error {
	s := &indexer{tree: tree, contents: contents, own: names{}}
	counted := &counter{r: r}
	return apply(ctx, counted, s, nil, func(hdr *tar.Header) {
		// archive/tar reads no further than the header.
		s.hdr, s.offset = hdr, counted.n
		s.ordinal++
	})
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// indexer applies a layer to a Tree.
type indexer struct {
	tree     *rootfs.Tree
	contents *Contents
	own      names
	// of the current file
	hdr     *tar.Header
	offset  int64
	ordinal int
}

func (x *indexer) place(name string) (string, error) {
	dir := path.Dir(name)
	if e, err := x.tree.Lstat(dir); err == nil && e.IsDir() {
		return name, nil
	}
	dir, exists, err := rootfs.ResolveMissing(x.tree, dir)
	if err != nil {
		return "", err
	}
	placed := path.Join(dir, path.Base(name))
	if !exists {
		x.own.add(dir)
	}
	return placed, x.makeDir(dir)
}

// makeDir makes a directory and its parents where they are missing.
func (x *indexer) makeDir(dir string) error {
	e, err := x.tree.Lstat(dir)
	switch {
	case err == nil && e.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkdir", Path: dir, Err: errNotDir}
	}
	if err := x.makeDir(path.Dir(dir)); err != nil {
		return err
	}
	return x.tree.Put(impliedDir(dir), nil)
}

func (x *indexer) put(e rootfs.Entry, _ io.Reader) error {
	x.own.add(e.Path)
	if e.Kind != rootfs.Regular || e.Size == 0 {
		return x.tree.Put(e, nil)
	}
	return x.tree.Put(e, x.contents.opener(x.offset, e.Size, x.ordinal, isSparse(x.hdr)))
}

// isSparse tells files whose bytes are not in the tar one after the other.
func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (x *indexer) link(old string, e rootfs.Entry) error {
	dir, err := rootfs.Resolve(x.tree, path.Dir(old), true)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", old, err)
	}
	x.own.add(e.Path)
	if err := x.tree.Link(path.Join(dir, path.Base(old)), e.Path); err != nil {
		return err
	}
	return x.tree.SetMeta(e)
}

func (x *indexer) whiteout(name string) error {
	if x.own.has(name) {
		return x.opaque(name)
	}
	x.tree.Remove(name)
	return nil
}

func (x *indexer) opaque(name string) error {
	entries, err := x.tree.ReadDir(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) {
			return nil
		}
		return err
	}
	for _, e := range entries {
		if !x.own.has(e.Path) {
			x.tree.Remove(e.Path)
		} else if e.IsDir() {
			if err := x.opaque(e.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *indexer) finish() error { return nil }
