package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// manifestLimit and configLimit keep a hostile registry from filling the
	// memory. The specification makes registries take 4 MiB manifests.
	manifestLimit = 16 << 20
	configLimit   = 64 << 20
	indexDepth    = 4
)

// source is a repository that an image can be read from.
type source struct {
	endpoint *endpoint
	repo     name.Repository
}

func (s source) access() []access {
	return []access{{repository: s.repo.RepositoryStr()}}
}

type imageKey struct {
	ref      string
	platform string
}

// Image resolves a reference as a pull: the targets of mirrors and maps are
// asked in order, then the registry itself. Of an index it takes the manifest
// that BuildKit would take for platform (see the package
// github.com/containerd/platforms, Only); the zero platform is linux on this
// machine's architecture. A manifest that is not in an index is taken whatever
// its platform is.
//
// The manifest and the configuration have been read and verified when Image
// returns; layers are read on demand. Answers are kept: a reference means the
// same image for the client's life, also when its tag is moved meanwhile.
func (c *Client) Image(ctx context.Context, ref string, platform ocispec.Platform) (*Image, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w", ref, err)
	}
	m := newMatcher(platform)
	key := imageKey{r.Name(), m.String()}
	return onceFor(&c.mu, c.images, key).do(ctx, func() (*Image, error) {
		img, err := c.resolve(ctx, r, m)
		if err != nil {
			return nil, err
		}
		if _, err := img.RawConfigFileContext(ctx); err != nil {
			return nil, err
		}
		return img, nil
	})
}

// Direct resolves a reference as pushes see it: the registry that it names is
// asked, with the rules for pushes, nothing is kept, and the configuration is
// read on demand. It serves the layer cache and the look at what was pushed.
func (c *Client) Direct(ctx context.Context, ref string, platform ocispec.Platform) (*Image, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w", ref, err)
	}
	s := source{c.endpoint(push, r.Context().Registry), r.Context()}
	return c.resolveAt(ctx, []source{s}, r, newMatcher(platform))
}

// Digest asks for the digest of what a reference names now, as pushes see it.
func (c *Client) Digest(ctx context.Context, ref string) (v1.Hash, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("image name %q: %w", ref, err)
	}
	s := source{c.endpoint(push, r.Context().Registry), r.Context()}
	m, err := s.manifest(ctx, r.Identifier())
	if err != nil {
		return v1.Hash{}, err
	}
	return m.desc.Digest, nil
}

// resolve asks every source in turn.
func (c *Client) resolve(ctx context.Context, r name.Reference, m matcher) (*Image, error) {
	sources, err := c.sources(r.Context())
	if err != nil {
		return nil, err
	}
	var errs []error
	for i := range sources {
		img, err := c.resolveAt(ctx, sources[i:], r, m)
		if err == nil {
			return img, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		errs = append(errs, err)
		if i+1 < len(sources) {
			c.logf("%v; trying %s", err, sources[i+1].repo.RegistryStr())
		}
	}
	return nil, errors.Join(errs...)
}

// sources lists where pulls of repo go.
func (c *Client) sources(repo name.Repository) ([]source, error) {
	var all []source
	targets := c.mapped[repo.RegistryStr()]
	for _, t := range targets {
		mapped, err := t.apply(repo)
		if err != nil {
			return nil, err
		}
		all = append(all, source{c.endpoint(pull, t.registry), mapped})
	}
	if len(targets) == 0 || !c.opt.SkipDefaultFallback {
		all = append(all, source{c.endpoint(pull, repo.Registry), repo})
	}
	return all, nil
}

// resolveAt resolves at the first source; the others are for the blobs.
func (c *Client) resolveAt(ctx context.Context, sources []source, r name.Reference, want matcher) (*Image, error) {
	s := sources[0]
	m, err := s.manifest(ctx, r.Identifier())
	if err != nil {
		return nil, err
	}
	img := &Image{Ref: r, Repository: s.repo, sources: sources, c: c}
	for depth := 0; m.index != nil; depth++ {
		if depth == indexDepth {
			return nil, fmt.Errorf("%s: indexes nest deeper than %d", r, indexDepth)
		}
		if depth == 0 {
			img.IndexDigest = m.desc.Digest
		}
		d, err := c.choose(ctx, sources, m, want)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		if m, err = s.manifest(ctx, d.Digest.String()); err != nil {
			return nil, err
		}
	}
	img.desc, img.raw, img.manifest = m.desc, m.raw, m.image
	return img, nil
}

// choose picks the entry of an index for a platform. Entries that do not say
// what they are for come last, and are asked through their configuration.
func (c *Client) choose(ctx context.Context, sources []source, m *manifest, want matcher) (v1.Descriptor, error) {
	var images []v1.Descriptor
	for _, d := range m.index.Manifests {
		if d.MediaType.IsIndex() || d.MediaType.IsImage() {
			images = append(images, d)
		}
	}
	if i := want.choose(images); i >= 0 {
		return images[i], nil
	}
	none := &PlatformError{Want: want.String()}
	for _, d := range images {
		if d.Platform != nil {
			none.Available = append(none.Available, d.Platform.String())
			continue
		}
		if d.MediaType.IsIndex() {
			return d, nil
		}
		child, err := sources[0].manifest(ctx, d.Digest.String())
		if err != nil {
			return d, err
		}
		if child.image == nil {
			continue
		}
		img := &Image{Repository: sources[0].repo, sources: sources, c: c,
			desc: child.desc, raw: child.raw, manifest: child.image}
		if _, err := img.RawConfigFileContext(ctx); err != nil {
			return d, err
		}
		cfg, err := img.ConfigFile()
		if err != nil {
			return d, err
		}
		p := cfg.Platform()
		if p != nil && want.Match(spec(*p)) {
			return d, nil
		}
		if p != nil {
			none.Available = append(none.Available, p.String())
		}
	}
	return v1.Descriptor{}, none
}

// manifest is a manifest or an index as a registry gave it; one of image and
// index is set.
type manifest struct {
	desc  v1.Descriptor
	raw   []byte
	image *v1.Manifest
	index *v1.IndexManifest
}

var acceptManifests = strings.Join([]string{
	string(types.OCIImageIndex), string(types.DockerManifestList),
	string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
}, ", ")

// manifest reads and verifies one, by tag or digest.
func (s source) manifest(ctx context.Context, reference string) (*manifest, error) {
	in := call{
		op: "get manifest", method: http.MethodGet,
		path:   "/v2/" + s.repo.RepositoryStr() + "/manifests/" + reference,
		header: http.Header{"Accept": {acceptManifests}},
		access: s.access(), reference: reference, ok: []int{http.StatusOK},
	}
	var m *manifest
	err := s.endpoint.c.retry(ctx, false, func() error {
		resp, err := s.endpoint.send(ctx, in)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(io.LimitReader(resp.Body, manifestLimit+1))
		if err != nil {
			return s.endpoint.explain(ctx, in, "", err)
		}
		m, err = parseManifest(raw, resp.Header.Get("Content-Type"), reference)
		if err != nil {
			return s.endpoint.explain(ctx, in, "", err)
		}
		return nil
	})
	return m, err
}

func parseManifest(raw []byte, contentType, reference string) (*manifest, error) {
	corrupt := func(format string, args ...any) error {
		return &Error{Kind: Corrupt, Err: fmt.Errorf(format, args...)}
	}
	if len(raw) > manifestLimit {
		return nil, corrupt("it is larger than %d bytes", manifestLimit)
	}
	m := &manifest{raw: raw}
	sum := sha256.Sum256(raw)
	m.desc.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
	m.desc.Size = int64(len(raw))
	if strings.Contains(reference, ":") {
		want, err := v1.NewHash(reference)
		if err != nil {
			return nil, corrupt("digest %q: %w", reference, err)
		}
		h, err := v1.Hasher(want.Algorithm)
		if err != nil {
			return nil, corrupt("digest %q: %w", reference, err)
		}
		h.Write(raw)
		if got := hex.EncodeToString(h.Sum(nil)); got != want.Hex {
			return nil, corrupt("the manifest has digest %s:%s", want.Algorithm, got)
		}
		m.desc.Digest = want
	}
	var head struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, corrupt("not a manifest: %w", err)
	}
	if head.Manifests != nil && head.Config != nil {
		return nil, corrupt("neither an index nor an image: it has both manifests and a config")
	}
	// What the text says of itself is covered by the digest; the header is not.
	mt := head.MediaType
	if mt == "" {
		ct, _, _ := strings.Cut(contentType, ";")
		mt = types.MediaType(strings.TrimSpace(ct))
		switch {
		case head.Manifests != nil && !mt.IsIndex():
			mt = types.OCIImageIndex
		case head.Config != nil && !mt.IsImage():
			mt = types.OCIManifestSchema1
		}
	}
	m.desc.MediaType = mt
	switch {
	case mt.IsSchema1() || head.SchemaVersion == 1:
		return nil, corrupt("it is in Docker's schema 1, which is not supported; push the image again with a current tool")
	case mt.IsIndex():
		idx, err := v1.ParseIndexManifest(bytes.NewReader(raw))
		if err != nil {
			return nil, corrupt("not an index: %w", err)
		}
		m.index = idx
	case mt.IsImage():
		img, err := v1.ParseManifest(bytes.NewReader(raw))
		if err != nil {
			return nil, corrupt("not a manifest: %w", err)
		}
		m.image = img
	default:
		return nil, corrupt("media type %q is not that of an image", printable(string(mt)))
	}
	return m, nil
}
