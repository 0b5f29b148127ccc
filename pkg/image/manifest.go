package image

import (
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Format is a family of media types. The zero value is OCI.
type Format int

// The two formats that registries know.
const (
	OCI Format = iota
	Docker
)

func (f Format) String() string {
	if f == Docker {
		return "docker"
	}
	return "oci"
}

func (f Format) manifestType() types.MediaType {
	if f == Docker {
		return types.DockerManifestSchema2
	}
	return types.OCIManifestSchema1
}

func (f Format) configType() types.MediaType {
	if f == Docker {
		return types.DockerConfigJSON
	}
	return types.OCIConfigJSON
}

const (
	dockerLayerZstd      = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	dockerForeignTar     = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	ociRestrictedTarZstd = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
)

// LayerType is the media type that a layer of type t has in an image of format
// f. A type that says "not to be distributed" becomes the ordinary one, as
// BuildKit makes it where no URLs are kept. Unknown types stay as they are.
func (f Format) LayerType(t types.MediaType) types.MediaType {
	oci, docker := t, t
	switch t {
	case types.OCILayer, types.DockerLayer, types.OCIRestrictedLayer, types.DockerForeignLayer:
		oci, docker = types.OCILayer, types.DockerLayer
	case types.OCIUncompressedLayer, types.DockerUncompressedLayer, types.OCIUncompressedRestrictedLayer, dockerForeignTar:
		oci, docker = types.OCIUncompressedLayer, types.DockerUncompressedLayer
	case types.OCILayerZStd, dockerLayerZstd, ociRestrictedTarZstd:
		oci, docker = types.OCILayerZStd, dockerLayerZstd
	}
	if f == Docker {
		return docker
	}
	return oci
}

// Manifest writes the manifest blob: indented by two spaces, as BuildKit's. The
// layers' media types are converted to the format. Of the layers' annotations
// those survive that tell how to read a layer; in Docker format none do.
func Manifest(config []byte, layers []ocispec.Descriptor, f Format, annotations map[string]string) ([]byte, error) {
	m := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   string(f.manifestType()),
		Annotations: annotations,
		Config: ocispec.Descriptor{
			MediaType: string(f.configType()),
			Digest:    digest.FromBytes(config),
			Size:      int64(len(config)),
		},
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{
			MediaType:   string(f.LayerType(types.MediaType(l.MediaType))),
			Digest:      l.Digest,
			Size:        l.Size,
			Annotations: publicAnnotations(l.Annotations, f),
		})
	}
	out, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("marshal image manifest: %w", err)
	}
	return out, nil
}

// publicAnnotations picks what may be said about a layer: how to read it
// lazily, and that its times were rewritten. All else that a base image's
// manifest says stays with that manifest.
func publicAnnotations(all map[string]string, f Format) map[string]string {
	var public map[string]string
	for k, v := range all {
		switch {
		case f == Docker:
		case k == "containerd.io/snapshot/stargz/toc.digest",
			k == "io.containers.estargz.uncompressed-size",
			k == "buildkit/rewritten-timestamp",
			strings.HasPrefix(k, "containerd.io/snapshot/overlaybd/"):
			if public == nil {
				public = map[string]string{}
			}
			public[k] = v
		}
	}
	return public
}

// describe gives a layer's descriptor from what the layer knows of itself; one
// that came with a manifest (it has a Descriptor method) has annotations there.
func describe(l v1.Layer) (ocispec.Descriptor, error) {
	sum, err := l.Digest()
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("digest: %w", err)
	}
	size, err := l.Size()
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("size: %w", err)
	}
	mediaType, err := l.MediaType()
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("media type: %w", err)
	}
	d := ocispec.Descriptor{MediaType: string(mediaType), Digest: digest.Digest(sum.String()), Size: size}
	if known, ok := l.(interface {
		Descriptor() (*v1.Descriptor, error)
	}); ok {
		desc, err := known.Descriptor()
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("descriptor: %w", err)
		}
		d.Annotations = desc.Annotations
	}
	return d, nil
}
