package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// OCILayout is an OCI image layout directory.
//
// The image keeps the media types it has, so that its digest is the same
// everywhere; some readers of layouts refuse Docker's.
type OCILayout struct {
	// Dir is the directory; it is made if necessary.
	Dir string
	// Names are the image's names; with none its index entry has no name.
	Names []string
	// Keep leaves the other images of an existing layout in its index. The
	// default is an index with this image only. Blobs are never removed.
	// Writers that keep must not run at the same time.
	Keep bool
}

var _ Destination = (*OCILayout)(nil)

// String is the directory.
func (d *OCILayout) String() string { return d.Dir }

// Write adds the blobs that are missing, each by rename, and then replaces
// index.json, so that a reader sees the old images or the new ones. When it
// fails, it removes the blobs that it had added.
func (d *OCILayout) Write(ctx context.Context, img v1.Image) (_ Result, err error) {
	fail := func(err error) (Result, error) {
		return Result{}, fmt.Errorf("write OCI layout %s: %w", d.Dir, err)
	}
	tags, err := parseTags(d.Names)
	if err != nil {
		return fail(err)
	}
	p, err := partsOf(img)
	if err != nil {
		return fail(err)
	}
	index := p.index(tags)
	if d.Keep {
		if index.Manifests, err = d.merge(index.Manifests); err != nil {
			return fail(err)
		}
	}
	text, err := json.Marshal(index)
	if err != nil {
		return fail(err)
	}
	layout, err := layoutFile()
	if err != nil {
		return fail(err)
	}
	var undo []func()
	defer func() {
		if err != nil {
			for _, u := range slices.Backward(undo) {
				u()
			}
		}
	}()
	for _, b := range p.blobs {
		file := filepath.Join(d.Dir, filepath.FromSlash(b.path()))
		if fi, serr := os.Lstat(file); serr == nil && fi.Mode().IsRegular() && b.intact(ctx, file) {
			continue
		}
		undoDirs, err := makeDirs(filepath.Dir(file))
		if err != nil {
			return fail(err)
		}
		undo = append(undo, undoDirs)
		if err := writeFile(file, func(w io.Writer) error { return b.copy(ctx, w) }); err != nil {
			return fail(err)
		}
		undo = append(undo, func() { os.Remove(file) })
	}
	if err := ctx.Err(); err != nil {
		return fail(context.Cause(ctx))
	}
	marker := filepath.Join(d.Dir, ocispec.ImageLayoutFile)
	_, serr := os.Lstat(marker)
	if err := writeFile(marker, justWrite(layout)); err != nil {
		return fail(err)
	}
	if serr != nil {
		undo = append(undo, func() { os.Remove(marker) })
	}
	if err := writeFile(filepath.Join(d.Dir, ocispec.ImageIndexFile), justWrite(text)); err != nil {
		return fail(err)
	}
	return Result{Descriptor: p.desc, Names: slices.Clone(d.Names)}, nil
}

// merge puts new entries behind those of the present index that are about other
// names.
func (d *OCILayout) merge(entries []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	file := filepath.Join(d.Dir, ocispec.ImageIndexFile)
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	if err != nil {
		return nil, err
	}
	var old ocispec.Index
	if err := json.Unmarshal(raw, &old); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	same := func(a, b ocispec.Descriptor) bool {
		an, bn := a.Annotations[annotationImageName], b.Annotations[annotationImageName]
		ar, br := a.Annotations[ocispec.AnnotationRefName], b.Annotations[ocispec.AnnotationRefName]
		switch {
		case an != "" && bn != "":
			return an == bn
		case ar != "" || br != "":
			return ar == br
		}
		return a.Digest == b.Digest
	}
	kept := slices.DeleteFunc(old.Manifests, func(o ocispec.Descriptor) bool {
		return slices.ContainsFunc(entries, func(n ocispec.Descriptor) bool { return same(o, n) })
	})
	return append(kept, entries...), nil
}

// intact reports whether file holds the blob: one that was damaged is replaced.
func (p part) intact(ctx context.Context, file string) bool {
	onDisk := p
	onDisk.open = func(context.Context) (io.ReadCloser, error) { return os.Open(file) }
	return onDisk.copy(ctx, io.Discard) == nil
}

func justWrite(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(b))
		return err
	}
}

func ociDigest(h v1.Hash) digest.Digest { return digest.Digest(h.String()) }
