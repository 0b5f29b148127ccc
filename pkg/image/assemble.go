package image

import (
	"bytes"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// AssembleOptions choose the manifest's form. The zero value is an OCI manifest
// without annotations.
type AssembleOptions struct {
	Format      Format
	Annotations map[string]string
}

// Assemble joins a config blob, as Marshal makes it, and the image's layers,
// lowest first, to an image. It asks each layer for digest, size, media type
// and diff ID, never for contents; the diff IDs must be the config's. The
// image hands out the very layers it was given, so that what a layer of a base
// image knows of its origin is not lost; the manifest speaks of them in the
// media types of the format. Only a layer that says "not to be distributed" is
// wrapped, because it has to be uploaded now.
func Assemble(config []byte, layers []v1.Layer, o AssembleOptions) (v1.Image, error) {
	parsed, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return nil, fmt.Errorf("assemble image: parse config: %w", err)
	}
	if len(parsed.RootFS.DiffIDs) != len(layers) {
		return nil, fmt.Errorf("assemble image: %d layers, but the config names %d", len(layers), len(parsed.RootFS.DiffIDs))
	}
	img := &assembled{config: config, configFile: parsed, mediaType: o.Format.manifestType()}
	for _, l := range layers {
		mediaType, err := l.MediaType()
		if err != nil {
			return nil, fmt.Errorf("assemble image: layer's media type: %w", err)
		}
		if to := o.Format.LayerType(mediaType); to.IsDistributable() && !mediaType.IsDistributable() {
			l = retyped{l, to}
		}
		img.layers = append(img.layers, l)
	}
	descriptors, err := img.index()
	if err != nil {
		return nil, fmt.Errorf("assemble image: %w", err)
	}
	if img.manifest, err = Manifest(config, descriptors, o.Format, o.Annotations); err != nil {
		return nil, fmt.Errorf("assemble image: %w", err)
	}
	if img.parsed, err = v1.ParseManifest(bytes.NewReader(img.manifest)); err != nil {
		return nil, fmt.Errorf("assemble image: parse manifest: %w", err)
	}
	if img.digest, _, err = v1.SHA256(bytes.NewReader(img.manifest)); err != nil {
		return nil, fmt.Errorf("assemble image: digest manifest: %w", err)
	}
	return img, nil
}

// assembled is an image whose blobs are all known. It is immutable.
type assembled struct {
	config, manifest []byte
	configFile       *v1.ConfigFile
	parsed           *v1.Manifest
	mediaType        types.MediaType
	digest           v1.Hash
	layers           []v1.Layer
	byDigest         map[v1.Hash]v1.Layer
	byDiffID         map[v1.Hash]v1.Layer
}

// The methods of v1.Image. What they return must not be changed.

func (i *assembled) Layers() ([]v1.Layer, error)         { return i.layers, nil }
func (i *assembled) MediaType() (types.MediaType, error) { return i.mediaType, nil }
func (i *assembled) Size() (int64, error)                { return int64(len(i.manifest)), nil }
func (i *assembled) ConfigName() (v1.Hash, error)        { return i.parsed.Config.Digest, nil }
func (i *assembled) ConfigFile() (*v1.ConfigFile, error) { return i.configFile.DeepCopy(), nil }
func (i *assembled) RawConfigFile() ([]byte, error)      { return i.config, nil }
func (i *assembled) Digest() (v1.Hash, error)            { return i.digest, nil }
func (i *assembled) Manifest() (*v1.Manifest, error)     { return i.parsed.DeepCopy(), nil }
func (i *assembled) RawManifest() ([]byte, error)        { return i.manifest, nil }

func (i *assembled) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if h == i.parsed.Config.Digest {
		return static.NewLayer(i.config, i.parsed.Config.MediaType), nil
	}
	if l, ok := i.byDigest[h]; ok {
		return l, nil
	}
	return nil, fmt.Errorf("image %s has no blob %s", i.digest, h)
}

func (i *assembled) LayerByDiffID(h v1.Hash) (v1.Layer, error) {
	if l, ok := i.byDiffID[h]; ok {
		return l, nil
	}
	return nil, fmt.Errorf("image %s has no layer with diff ID %s", i.digest, h)
}

// index fills the maps, checks the diff IDs and describes the layers.
func (i *assembled) index() ([]ocispec.Descriptor, error) {
	i.byDigest = make(map[v1.Hash]v1.Layer, len(i.layers))
	i.byDiffID = make(map[v1.Hash]v1.Layer, len(i.layers))
	descriptors := make([]ocispec.Descriptor, len(i.layers))
	for n, l := range i.layers {
		desc, err := describe(l)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", n, err)
		}
		diffID, err := l.DiffID()
		if err != nil {
			return nil, fmt.Errorf("layer %d: diff ID: %w", n, err)
		}
		if want := i.configFile.RootFS.DiffIDs[n]; diffID != want {
			return nil, fmt.Errorf("layer %d: diff ID is %s, but the config says %s", n, diffID, want)
		}
		sum, err := v1.NewHash(desc.Digest.String())
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", n, err)
		}
		i.byDigest[sum], i.byDiffID[diffID], descriptors[n] = l, l, desc
	}
	return descriptors, nil
}

// retyped is a layer under another media type.
type retyped struct {
	v1.Layer
	mediaType types.MediaType
}

func (l retyped) MediaType() (types.MediaType, error) { return l.mediaType, nil }
