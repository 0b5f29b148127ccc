package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is an image in a registry. It is a v1.Image whose layers are *Layer,
// and may be used by several goroutines. What it returns must not be changed.
type Image struct {
	// Ref is the reference that was resolved.
	Ref name.Reference
	// Repository is where it was found, after mirrors and maps.
	Repository name.Repository
	// IndexDigest is the digest of the index that led to it; zero when there
	// was none.
	IndexDigest v1.Hash

	c        *Client
	sources  []source
	desc     v1.Descriptor
	raw      []byte
	manifest *v1.Manifest

	mu     sync.Mutex
	config []byte
	parsed *v1.ConfigFile
}

var _ v1.Image = (*Image)(nil)

// RawManifest is the manifest as the registry gave it.
func (i *Image) RawManifest() ([]byte, error) { return i.raw, nil }

// Manifest is the manifest, decoded.
func (i *Image) Manifest() (*v1.Manifest, error) { return i.manifest, nil }

// MediaType is the manifest's media type.
func (i *Image) MediaType() (types.MediaType, error) { return i.desc.MediaType, nil }

// Size is the manifest's size in bytes.
func (i *Image) Size() (int64, error) { return i.desc.Size, nil }

// Digest is the manifest's digest.
func (i *Image) Digest() (v1.Hash, error) { return i.desc.Digest, nil }

// Descriptor describes the manifest.
func (i *Image) Descriptor() (*v1.Descriptor, error) { d := i.desc; return &d, nil }

// ConfigName is the configuration's digest.
func (i *Image) ConfigName() (v1.Hash, error) { return i.manifest.Config.Digest, nil }

// RawConfigFile is RawConfigFileContext for the client's life.
func (i *Image) RawConfigFile() ([]byte, error) { return i.RawConfigFileContext(i.c.life) }

// RawConfigFileContext is the configuration as the registry gave it, verified.
// It is read once.
func (i *Image) RawConfigFileContext(ctx context.Context) ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.config != nil {
		return i.config, nil
	}
	d := i.manifest.Config
	if d.Size > configLimit {
		return nil, fmt.Errorf("configuration of %s: %d bytes are too many", i.Repository, d.Size)
	}
	data := d.Data
	if int64(len(data)) != d.Size || verifyBytes(data, d.Digest) != nil {
		b := i.blob(d)
		err := i.c.retry(ctx, false, func() error {
			rc, err := b.open(ctx)
			if err != nil {
				return err
			}
			defer rc.Close()
			data, err = io.ReadAll(rc)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	i.config = data
	return data, nil
}

// ConfigFile is the configuration, decoded.
func (i *Image) ConfigFile() (*v1.ConfigFile, error) {
	raw, err := i.RawConfigFile()
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.parsed == nil {
		cfg := &v1.ConfigFile{}
		if err := json.NewDecoder(bytes.NewReader(raw)).Decode(cfg); err != nil {
			return nil, fmt.Errorf("configuration %s of %s: %w", i.manifest.Config.Digest, i.Repository, err)
		}
		i.parsed = cfg
	}
	return i.parsed, nil
}

// Layers lists the layers, the lowest first; each is a *Layer. Nothing is read.
func (i *Image) Layers() ([]v1.Layer, error) {
	ls := make([]v1.Layer, len(i.manifest.Layers))
	for n, d := range i.manifest.Layers {
		ls[n] = &Layer{image: i, index: n, blob: i.blob(d)}
	}
	return ls, nil
}

// LayerByDigest finds a layer, or the configuration as a layer.
func (i *Image) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if h == i.manifest.Config.Digest {
		return partial.ConfigLayer(i)
	}
	for n, d := range i.manifest.Layers {
		if d.Digest == h {
			return &Layer{image: i, index: n, blob: i.blob(d)}, nil
		}
	}
	return nil, fmt.Errorf("%s has no layer %s", i.Repository, h)
}

// LayerByDiffID finds a layer by the digest of its content.
func (i *Image) LayerByDiffID(h v1.Hash) (v1.Layer, error) {
	d, err := partial.DiffIDToBlob(i, h)
	if err != nil {
		return nil, err
	}
	return i.LayerByDigest(d)
}

func (i *Image) blob(d v1.Descriptor) blob {
	return blob{sources: i.sources, desc: d}
}
