package push

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cooper-build/cooper/pkg/registry"
)

// annotationImageName is how containerd keeps an image's full name in an index.
const annotationImageName = "io.containerd.image.name"

// parts is what an image consists of, on its way into an archive or layout.
type parts struct {
	desc   v1.Descriptor
	config v1.Hash
	// layers are the paths of the layers' blobs, the lowest first.
	layers []string
	// blobs are all distinct ones, sorted by path.
	blobs []part
}

// part is one blob.
type part struct {
	digest v1.Hash
	size   int64
	open   func(ctx context.Context) (io.ReadCloser, error)
}

func (p part) path() string { return blobPath(p.digest) }

func blobPath(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }

// partsOf lists an image's blobs without reading any layer.
func partsOf(img v1.Image) (*parts, error) {
	desc, err := partial.Descriptor(img)
	if err != nil {
		return nil, err
	}
	p := &parts{desc: v1.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	p.desc.Platform = cfg.Platform()
	raw, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	if p.config, err = img.ConfigName(); err != nil {
		return nil, err
	}
	seen := map[v1.Hash]bool{}
	add := func(h v1.Hash, size int64, open func(context.Context) (io.ReadCloser, error)) {
		if !seen[h] {
			seen[h] = true
			p.blobs = append(p.blobs, part{h, size, open})
		}
	}
	add(desc.Digest, int64(len(raw)), inMemory(raw))
	add(p.config, int64(len(config)), inMemory(config))
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		mt, err := l.MediaType()
		if err != nil {
			return nil, err
		}
		h, err := l.Digest()
		if err != nil {
			return nil, err
		}
		if !mt.IsDistributable() {
			return nil, fmt.Errorf("layer %s (%s) may not be distributed, so it cannot be part of an archive", h, mt)
		}
		size, err := l.Size()
		if err != nil {
			return nil, err
		}
		p.layers = append(p.layers, blobPath(h))
		add(h, size, func(ctx context.Context) (io.ReadCloser, error) { return registry.Open(ctx, l) })
	}
	slices.SortFunc(p.blobs, func(a, b part) int { return cmp.Compare(a.path(), b.path()) })
	return p, nil
}

func inMemory(b []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// copy writes the blob's bytes to w and fails if they are not those that the
// digest promises.
func (p part) copy(ctx context.Context, w io.Writer) (err error) {
	rc, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	h, err := v1.Hasher(p.digest.Algorithm)
	if err != nil {
		return fmt.Errorf("digest %s: %w", p.digest, err)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(w, h)},
		until{ctx, io.LimitReader(rc, p.size+1)}, make([]byte, 256<<10))
	if err != nil {
		return fmt.Errorf("blob %s: %w", p.digest, err)
	}
	if n != p.size {
		return fmt.Errorf("blob %s has %d bytes, not %d", p.digest, n, p.size)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != p.digest.Hex {
		return fmt.Errorf("blob %s has digest %s:%s", p.digest, p.digest.Algorithm, got)
	}
	return nil
}

// until is a reader that ends with ctx, whatever it reads.
type until struct {
	ctx context.Context
	io.Reader
}

func (u until) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.Reader.Read(p)
}

// tag is one name of an image in its two customary forms.
type tag struct {
	// given is what the caller wrote.
	given string
	// full has the registry ("docker.io/library/app:1"), short is what docker
	// shows ("app:1"), ref is the tag alone ("1").
	full, short, ref string
}

// parseTags reads image names; a missing tag is "latest". A digest is refused:
// an archive cannot carry it.
func parseTags(names []string) ([]tag, error) {
	var tags []tag
	for _, n := range names {
		t, err := name.NewTag(n)
		if err != nil {
			return nil, fmt.Errorf("image name %q: %w", n, err)
		}
		repo := t.RepositoryStr()
		full, short := t.RegistryStr()+"/"+repo, t.RegistryStr()+"/"+repo
		if t.RegistryStr() == name.DefaultRegistry {
			full, short = "docker.io/"+repo, strings.TrimPrefix(repo, "library/")
		}
		tags = append(tags, tag{n, full + ":" + t.TagStr(), short + ":" + t.TagStr(), t.TagStr()})
	}
	return tags, nil
}

// index is an OCI index with one entry per name, or one without a name.
func (p *parts) index(tags []tag) ocispec.Index {
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	x.SchemaVersion = 2
	entry := p.entry()
	if len(tags) == 0 {
		x.Manifests = []ocispec.Descriptor{entry}
	}
	for _, t := range tags {
		e := entry
		e.Annotations = map[string]string{annotationImageName: t.full, ocispec.AnnotationRefName: t.ref}
		x.Manifests = append(x.Manifests, e)
	}
	return x
}

func (p *parts) entry() ocispec.Descriptor {
	d := ocispec.Descriptor{
		MediaType: string(p.desc.MediaType), Digest: ociDigest(p.desc.Digest), Size: p.desc.Size,
	}
	if pf := p.desc.Platform; pf != nil && pf.OS != "" && pf.Architecture != "" {
		d.Platform = &ocispec.Platform{OS: pf.OS, Architecture: pf.Architecture, Variant: pf.Variant,
			OSVersion: pf.OSVersion, OSFeatures: pf.OSFeatures}
	}
	return d
}

// layoutFile is the content of an oci-layout file.
func layoutFile() ([]byte, error) {
	return json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
}
