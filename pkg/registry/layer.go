package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Layer is a layer in a registry, read on demand.
type Layer struct {
	image *Image
	index int
	blob  blob
}

var _ v1.Layer = (*Layer)(nil)

// Digest is the digest of the compressed bytes.
func (l *Layer) Digest() (v1.Hash, error) { return l.blob.desc.Digest, nil }

// Size counts the compressed bytes.
func (l *Layer) Size() (int64, error) { return l.blob.desc.Size, nil }

// MediaType is as in the manifest.
func (l *Layer) MediaType() (types.MediaType, error) { return l.blob.desc.MediaType, nil }

// Descriptor is the layer's entry in the manifest, with its annotations.
func (l *Layer) Descriptor() (*v1.Descriptor, error) { d := l.blob.desc; return &d, nil }

// Repositories lists where the layer can be read, the one it was found in
// first; a push to one of their registries need not carry its bytes.
func (l *Layer) Repositories() []name.Repository {
	repos := make([]name.Repository, len(l.blob.sources))
	for i, s := range l.blob.sources {
		repos[i] = s.repo
	}
	return repos
}

// DiffID is the digest of the uncompressed bytes, from the configuration.
func (l *Layer) DiffID() (v1.Hash, error) {
	cfg, err := l.image.ConfigFile()
	if err != nil {
		return v1.Hash{}, err
	}
	if len(cfg.RootFS.DiffIDs) != len(l.image.manifest.Layers) {
		return v1.Hash{}, fmt.Errorf("%s: the manifest has %d layers, the configuration %d",
			l.image.Repository, len(l.image.manifest.Layers), len(cfg.RootFS.DiffIDs))
	}
	return cfg.RootFS.DiffIDs[l.index], nil
}

// Open streams the compressed bytes. Cut connections are taken up again where
// they ended; a wrong digest or size is an error in place of io.EOF, so bytes
// count only when io.EOF was seen. The caller closes the reader; ctx bounds
// the reading too.
func (l *Layer) Open(ctx context.Context) (io.ReadCloser, error) { return l.blob.open(ctx) }

// Compressed is Open for the client's life.
func (l *Layer) Compressed() (io.ReadCloser, error) { return l.Open(l.image.c.life) }

// Uncompressed streams the content, unpacked by what the bytes turn out to be:
// gzip, zstd or plain.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	rc, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	return decompress(rc)
}

// decompress takes over rc.
func decompress(rc io.ReadCloser) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(rc, 64<<10)
	head, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		rc.Close()
		return nil, err
	}
	u := &unpacked{Reader: br, raw: br, close: rc.Close}
	switch {
	case len(head) >= 2 && head[0] == 0x1f && head[1] == 0x8b:
		z, err := gzip.NewReader(br)
		if err != nil {
			rc.Close()
			return nil, err
		}
		u.Reader = z
	case len(head) == 4 && head[0] == 0x28 && head[1] == 0xb5 && head[2] == 0x2f && head[3] == 0xfd:
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1))
		if err != nil {
			rc.Close()
			return nil, err
		}
		u.Reader = z
		u.close = func() error { z.Close(); return rc.Close() }
	}
	return u, nil
}

// unpacked reads on to the end of the compressed bytes when the content ends,
// for only there is their digest checked.
type unpacked struct {
	io.Reader
	raw   io.Reader
	close func() error
}

func (u *unpacked) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err == io.EOF {
		if _, derr := io.Copy(io.Discard, u.raw); derr != nil {
			return n, derr
		}
	}
	return n, err
}

func (u *unpacked) Close() error { return u.close() }
