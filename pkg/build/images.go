package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cooper-build/cooper/pkg/image"
	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/registry"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// images are the images that a build reads: each is resolved once, each layer
// downloaded at most once, and only when somebody needs its bytes.
type images struct {
	client *registry.Client
	work   *workdir
	sink   *sink

	mu     sync.Mutex
	byName map[string]*baseImage
}

func newImages(client *registry.Client, work *workdir, sink *sink) *images {
	return &images{client: client, work: work, sink: sink, byName: map[string]*baseImage{}}
}

// baseImage is one image as it is in its registry.
type baseImage struct {
	owner    *images
	name     string
	platform ocispec.Platform

	resolve sync.Once
	err     error
	// digest is the manifest's.
	digest string
	config dockerspec.DockerOCIImage
	layers []*baseLayer

	// unpack shows the image's files where its layers are unpacked anyway,
	// because some stage runs commands on it; nil elsewhere.
	unpack func(context.Context, []v1.Layer) (rootfs.Reader, error)

	index sync.Once
	tree  *rootfs.Tree
	// contents are the opened layers behind tree.
	contents []*layers.Contents
	ierr     error
}

// get returns an image without asking its registry for anything.
func (i *images) get(name string, platform ocispec.Platform) *baseImage {
	key := name + " " + image.FormatPlatform(platform)
	i.mu.Lock()
	defer i.mu.Unlock()
	img, ok := i.byName[key]
	if !ok {
		img = &baseImage{owner: i, name: name, platform: platform}
		i.byName[key] = img
	}
	return img
}

// close releases the layers that trees read from.
func (i *images) close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var errs []error
	for _, img := range i.byName {
		for _, c := range img.contents {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// load fetches manifest and configuration.
func (b *baseImage) load(ctx context.Context) error {
	b.resolve.Do(func() { b.err = b.loadOnce(ctx) })
	return b.err
}

func (b *baseImage) loadOnce(ctx context.Context) error {
	remote, err := b.owner.client.Image(ctx, b.name, b.platform)
	if err != nil {
		return err
	}
	digest, err := remote.Digest()
	if err != nil {
		return fmt.Errorf("manifest of %s: %w", b.name, err)
	}
	b.digest = digest.String()
	raw, err := remote.RawConfigFile()
	if err != nil {
		return fmt.Errorf("configuration of %s: %w", b.name, err)
	}
	config, err := image.Decode(raw)
	if err != nil {
		return fmt.Errorf("configuration of %s: %w", b.name, err)
	}
	b.config = *config
	all, err := remote.Layers()
	if err != nil {
		return fmt.Errorf("layers of %s: %w", b.name, err)
	}
	for n, l := range all {
		b.layers = append(b.layers, &baseLayer{image: b, number: n, remote: l})
	}
	return nil
}

// reader returns an index over the image's layers, which is shared: callers
// that change it clone it first.
func (b *baseImage) reader(ctx context.Context) (*rootfs.Tree, error) {
	b.index.Do(func() { b.tree, b.ierr = b.indexOnce(ctx) })
	return b.tree, b.ierr
}

func (b *baseImage) indexOnce(ctx context.Context) (*rootfs.Tree, error) {
	dir, err := b.owner.work.sub("spool")
	if err != nil {
		return nil, err
	}
	files, err := b.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if unpack := b.unpack; unpack != nil {
		base, err := unpack(ctx, files)
		if err != nil {
			return nil, fmt.Errorf("unpacking %s: %w", b.name, err)
		}
		if base != nil {
			return treeOf(ctx, base)
		}
	}
	tree := rootfs.NewTree()
	for _, l := range files {
		contents, err := layers.Load(ctx, tree, l, layers.LoadOptions{TempDir: dir})
		if err != nil {
			return nil, fmt.Errorf("index of %s: %w", b.name, err)
		}
		b.contents = append(b.contents, contents)
	}
	return tree, nil
}

// fetch downloads all layers that were not yet, several at a time, and returns
// them as files.
func (b *baseImage) fetch(ctx context.Context) ([]v1.Layer, error) {
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	files := make([]v1.Layer, len(b.layers))
	group, ctx := groupWithLimit(ctx, downloads)
	for n, l := range b.layers {
		group.Go(func() error {
			local, err := l.fetch(ctx)
			if err == nil {
				files[n] = plainLayer{local}
			}
			return err
		})
	}
	return files, group.Wait()
}

// downloads bounds the layers of one image that are downloaded at once.
const downloads = 4

// baseLayer is a layer of a base image: in its registry, and as a file once
// somebody has needed its bytes.
type baseLayer struct {
	image  *baseImage
	number int
	remote v1.Layer

	mu    sync.Mutex
	local v1.Layer
}

// fetch downloads the layer unless it is here. A failure is not remembered, so
// that another context can try again.
func (l *baseLayer) fetch(ctx context.Context) (v1.Layer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.local != nil {
		return l.local, nil
	}
	dir, err := l.image.owner.work.sub("blobs")
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s layer %d/%d", l.image.name, l.number+1, len(l.image.layers))
	local, err := l.image.owner.client.FetchLayer(ctx, l.remote, dir, func(done, total int64) {
		l.image.owner.sink.emit(Progress{What: "pull", Name: name, Done: done, Total: total, Finished: total > 0 && done >= total})
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l.local = local
	return local, nil
}

// current is the file where there is one, else the registry's layer: an image
// that is only pushed on needs no file.
func (l *baseLayer) current() v1.Layer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.local != nil {
		return l.local
	}
	return l.remote
}

// plainLayer decompresses ahead of the reader, in any compression.
type plainLayer struct{ v1.Layer }

func (l plainLayer) Uncompressed() (io.ReadCloser, error) {
	compressed, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	plain, err := layers.Decompress(compressed)
	if err != nil {
		compressed.Close()
		return nil, err
	}
	return readCloser{plain, compressed}, nil
}

// readCloser closes what it reads and what lies under it.
type readCloser struct {
	io.ReadCloser
	under io.Closer
}

func (r readCloser) Close() error {
	return errors.Join(r.ReadCloser.Close(), r.under.Close())
}

// layersDir is where unpacked layers are kept: beside the cache when it lasts.
func (b *builder) layersDir() string {
	if b.options.CacheDir != "" {
		return filepath.Join(b.options.CacheDir, "layers")
	}
	return filepath.Join(b.work.path, "layers")
}
