package registry

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// opener is a layer whose reading a context can end. *Layer and *FileLayer are.
type opener interface {
	Open(ctx context.Context) (io.ReadCloser, error)
}

// Open streams the compressed bytes of any layer, under ctx where the layer
// allows it.
func Open(ctx context.Context, l v1.Layer) (io.ReadCloser, error) {
	if o, ok := l.(opener); ok {
		return o.Open(ctx)
	}
	return l.Compressed()
}

// FetchLayer has the compressed bytes of a layer in a file below dir, named
// after their digest as in an OCI layout: <dir>/sha256/<hex>. A file that is
// there already is used; else the layer is read, verified, and renamed into
// place, once however many ask at the same time. dir is made if necessary and
// may be shared with other processes. progress, which may be nil, is called from
// one goroutine as bytes arrive; done starts again at 0 when a download has to.
//
// The layer returned keeps what the given one knows (descriptor, DiffID,
// repositories to mount from) and is valid as long as the file is.
func (c *Client) FetchLayer(ctx context.Context, l v1.Layer, dir string, progress func(done, total int64)) (v1.Layer, error) {
	if f, ok := l.(*FileLayer); ok {
		return f, nil
	}
	digest, err := l.Digest()
	if err != nil {
		return nil, fmt.Errorf("fetch layer: %w", err)
	}
	size, err := l.Size()
	if err != nil {
		return nil, fmt.Errorf("fetch layer %s: %w", digest, err)
	}
	f := &FileLayer{Layer: l, path: filepath.Join(dir, digest.Algorithm, digest.Hex), digest: digest, size: size}
	_, err = onceFor(&c.mu, c.files, f.path).do(ctx, func() (struct{}, error) {
		if fi, err := os.Stat(f.path); err == nil && fi.Mode().IsRegular() && fi.Size() == size {
			return struct{}{}, nil
		}
		return struct{}{}, c.download(ctx, f, progress)
	})
	if err != nil {
		return nil, err
	}
	if progress != nil {
		progress(size, size)
	}
	return f, nil
}

// download fills f's file. Wrong bytes are asked for once more: they may come
// from a connection that was taken up again on another server.
func (c *Client) download(ctx context.Context, f *FileLayer, progress func(done, total int64)) (err error) {
	ctx, cancel := c.scope(ctx)
	defer cancel()
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return fmt.Errorf("fetch layer %s: %w", f.digest, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(f.path), ".fetch-*")
	if err != nil {
		return fmt.Errorf("fetch layer %s: %w", f.digest, err)
	}
	defer func() {
		tmp.Close()
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	for attempt := 0; ; attempt++ {
		err := copyLayer(ctx, tmp, f, progress)
		if err == nil {
			break
		}
		if attempt > 0 || !IsKind(err, Corrupt) || ctx.Err() != nil {
			return fmt.Errorf("fetch layer %s: %w", f.digest, err)
		}
		if err := tmp.Truncate(0); err != nil {
			return fmt.Errorf("fetch layer %s: %w", f.digest, err)
		}
		if _, err := tmp.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("fetch layer %s: %w", f.digest, err)
		}
	}
	if err := tmp.Chmod(0o644); err != nil {
		return fmt.Errorf("fetch layer %s: %w", f.digest, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("fetch layer %s: %w", f.digest, err)
	}
	if err := os.Rename(tmp.Name(), f.path); err != nil {
		return fmt.Errorf("fetch layer %s: %w", f.digest, err)
	}
	return nil
}

func copyLayer(ctx context.Context, w io.Writer, f *FileLayer, progress func(done, total int64)) error {
	rc, err := Open(ctx, f.Layer)
	if err != nil {
		return err
	}
	v, err := newVerifier(rc, f.digest, f.size)
	if err != nil {
		rc.Close()
		return err
	}
	defer v.Close()
	v.progress = progress
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, v, make([]byte, 256<<10))
	return err
}

// FileLayer is a layer whose compressed bytes are in a local file.
type FileLayer struct {
	v1.Layer
	path   string
	digest v1.Hash
	size   int64
}

// Path is the file's name.
func (f *FileLayer) Path() string { return f.path }

// Digest, Size and MediaType are those of the layer that was fetched.
func (f *FileLayer) Digest() (v1.Hash, error) { return f.digest, nil }

// Descriptor is that of the layer that was fetched.
func (f *FileLayer) Descriptor() (*v1.Descriptor, error) {
	if d, ok := f.Layer.(interface {
		Descriptor() (*v1.Descriptor, error)
	}); ok {
		return d.Descriptor()
	}
	mt, err := f.MediaType()
	if err != nil {
		return nil, err
	}
	return &v1.Descriptor{MediaType: mt, Digest: f.digest, Size: f.size}, nil
}

// MediaType is that of the layer that was fetched.
func (f *FileLayer) MediaType() (types.MediaType, error) { return f.Layer.MediaType() }

// Repositories lists where a push can mount the layer from.
func (f *FileLayer) Repositories() []name.Repository { return repositories(f.Layer) }

// Open streams the file. It is verified once more, since a disk can fail and a
// cache directory can be written by others: a file that turns out to be wrong
// is removed, and reading it ends with an error in place of io.EOF.
func (f *FileLayer) Open(context.Context) (io.ReadCloser, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("read layer %s: %w", f.digest, err)
	}
	v, err := newVerifier(file, f.digest, f.size)
	if err != nil {
		file.Close()
		return nil, err
	}
	v.wrong = func(err error) error {
		rerr := os.Remove(f.path)
		return errors.Join(fmt.Errorf("layer file %s was damaged and is removed; build again to fetch it: %w", f.path, err), rerr)
	}
	return v, nil
}

// Compressed is Open.
func (f *FileLayer) Compressed() (io.ReadCloser, error) { return f.Open(context.Background()) }

// Uncompressed streams the content.
func (f *FileLayer) Uncompressed() (io.ReadCloser, error) {
	rc, err := f.Compressed()
	if err != nil {
		return nil, err
	}
	return decompress(rc)
}

// verifier checks a stream against a digest and a size: only right bytes end
// with io.EOF.
type verifier struct {
	io.ReadCloser
	hash     hash.Hash
	want     v1.Hash
	size     int64
	done     int64
	progress func(done, total int64)
	wrong    func(error) error
}

func newVerifier(rc io.ReadCloser, want v1.Hash, size int64) (*verifier, error) {
	h, err := v1.Hasher(want.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("digest %s: %w", want, err)
	}
	return &verifier{ReadCloser: rc, hash: h, want: want, size: size}, nil
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	if n > 0 {
		v.hash.Write(p[:n])
		v.done += int64(n)
		if v.progress != nil {
			v.progress(v.done, v.size)
		}
	}
	if err == io.EOF || v.done > v.size {
		if bad := v.check(); bad != nil {
			if v.wrong != nil {
				bad = v.wrong(bad)
			}
			return n, bad
		}
	}
	return n, err
}

func (v *verifier) check() error {
	if v.done != v.size {
		return fmt.Errorf("%s should have %d bytes, not %d", v.want, v.size, v.done)
	}
	if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.want.Hex {
		return fmt.Errorf("%s should not have digest %s:%s", v.want, v.want.Algorithm, got)
	}
	return nil
}
