package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// indexDepth is how deep indexes may nest.
const indexDepth = 4

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
