package layers

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/cooper-build/cooper/pkg/snapshot"
)

// Create writes changes as a layer (see Write) into a file of dir, which must
// exist. The file appears under its final name, the hexadecimal digest, when it
// is complete; nothing stays behind otherwise. The caller owns the file.
func Create(ctx context.Context, dir string, changes iter.Seq2[snapshot.Change, error], c Compression) (*Layer, error) {
	return CreateFrom(dir, c, func(w io.Writer) error { return Write(ctx, w, changes) })
}

// CreateFrom is Create for a tar that write writes.
func CreateFrom(dir string, c Compression, write func(w io.Writer) error) (_ *Layer, err error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, ".layer-*")
	if err != nil {
		return nil, fmt.Errorf("creating layer: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	// tar → diff ID → compressor → digest → file
	out := &hashWriter{w: f, h: sha256.New()}
	buffered := bufio.NewWriterSize(out, 256<<10)
	zw, err := c.compressor(buffered)
	if err != nil {
		return nil, err
	}
	in := &hashWriter{w: zw, h: sha256.New()}
	tarBuffer := bufio.NewWriterSize(in, 256<<10)
	err = write(tarBuffer)
	if err == nil {
		err = tarBuffer.Flush()
	}
	// Closed also after an error: it joins the compressor's goroutines.
	if cerr := zw.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("compressing layer: %w", cerr)
	}
	if err == nil {
		err = buffered.Flush()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	l := &Layer{diffID: in.sum(), digest: out.sum(), size: out.n, mediaType: c.mediaType()}
	l.path = filepath.Join(dir, l.digest.Hex)
	if err := os.Rename(f.Name(), l.path); err != nil {
		return nil, fmt.Errorf("creating layer: %w", err)
	}
	return l, nil
}

type hashWriter struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (w *hashWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.h.Write(p[:n])
	w.n += int64(n)
	return n, err
}

func (w *hashWriter) sum() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(w.h.Sum(nil))}
}

// Layer is a layer in a file. It is immutable and safe for concurrent use.
type Layer struct {
	path           string
	digest, diffID v1.Hash
	size           int64
	mediaType      types.MediaType
}

var _ v1.Layer = (*Layer)(nil)

// FileLayer returns the layer whose blob is in the file at path, as recorded
// when it was made. What is read from it is checked against digest and size.
func FileLayer(path string, digest, diffID v1.Hash, size int64, mediaType types.MediaType) *Layer {
	return &Layer{path: path, digest: digest, diffID: diffID, size: size, mediaType: mediaType}
}

// Path is the file that holds the blob.
func (l *Layer) Path() string { return l.path }

// Digest is the digest of the blob.
func (l *Layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID is the digest of the uncompressed tar.
func (l *Layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Size is the blob's length in bytes.
func (l *Layer) Size() (int64, error) { return l.size, nil }

// MediaType is the blob's media type.
func (l *Layer) MediaType() (types.MediaType, error) { return l.mediaType, nil }

// Compressed opens the blob. Digest and size are checked at its end.
func (l *Layer) Compressed() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, fmt.Errorf("opening layer: %w", err)
	}
	return Verify(f, l.digest, l.size), nil
}

// Uncompressed opens the tar. The blob's digest and size are checked at its end.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	rc, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	zr, err := Decompress(rc)
	if err != nil {
		rc.Close()
		return nil, fmt.Errorf("opening layer: %w", err)
	}
	return &both{zr, rc}, nil
}

// both reads from a decompressor and closes it with what it reads from.
type both struct {
	io.ReadCloser
	source io.Closer
}

func (b *both) Close() error {
	err := b.ReadCloser.Close()
	if cerr := b.source.Close(); err == nil {
		err = cerr
	}
	return err
}
