package build

import (
	"context"
	"errors"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"

	"github.com/cooper-build/cooper/pkg/image"
	"github.com/cooper-build/cooper/pkg/push"
	"github.com/cooper-build/cooper/pkg/registry"
)

// assemble joins the target's configuration and layers to an image.
func (b *builder) assemble() (v1.Image, []bool, error) {
	var (
		all     []v1.Layer
		infos   []image.LayerInfo
		isBase  []bool
		base    *dockerspec.DockerOCIImage
		stages  []*stage
		diffErr error
	)
	for st := b.target; st != nil; st = st.from {
		stages = append([]*stage{st}, stages...)
	}
	if img := stages[0].image; img != nil {
		base = &img.config
		pulled := b.now()
		for _, l := range img.layers {
			all, isBase = append(all, l.current()), append(isBase, true)
			infos = append(infos, image.LayerInfo{Created: &pulled, Description: "pulled from " + img.name + "@" + img.digest})
		}
	}
	for _, st := range stages {
		for _, m := range st.made {
			all, isBase = append(all, m.layer), append(isBase, false)
			infos = append(infos, image.LayerInfo{Created: &m.at, Description: m.description})
		}
	}
	for i, l := range all {
		id, err := l.DiffID()
		diffErr = errors.Join(diffErr, err)
		infos[i].DiffID = digest.Digest(id.String())
	}
	if diffErr != nil {
		return nil, nil, fmt.Errorf("image configuration: %w", diffErr)
	}
	config, err := image.Marshal(b.plan.Target.Config, infos, image.MarshalOptions{Epoch: b.epoch(), Base: base})
	if err != nil {
		return nil, nil, err
	}
	img, err := image.Assemble(config, all, image.AssembleOptions{Format: b.format()})
	return img, isBase, err
}

func (b *builder) format() image.Format {
	if b.options.Format == "docker" {
		return image.Docker
	}
	return image.OCI
}

// deliver writes the image to every output.
func (b *builder) deliver(ctx context.Context) (*Result, error) {
	img, isBase, err := b.assemble()
	if err != nil {
		return nil, err
	}
	result, err := describe(img, isBase)
	if err != nil {
		return nil, err
	}
	result.Isolation = b.used
	if err := b.write(ctx, img, result); err != nil {
		return nil, err
	}
	return result, nil
}

// describe collects what the result says about an image.
func describe(img v1.Image, isBase []bool) (*Result, error) {
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigName()
	if err != nil {
		return nil, err
	}
	media, err := img.MediaType()
	if err != nil {
		return nil, err
	}
	all, err := img.Layers()
	if err != nil {
		return nil, err
	}
	r := &Result{Digest: digest.String(), ConfigDigest: config.String(), MediaType: string(media)}
	for i, l := range all {
		digest, err := l.Digest()
		if err != nil {
			return nil, err
		}
		diff, err := l.DiffID()
		if err != nil {
			return nil, err
		}
		size, err := l.Size()
		if err != nil {
			return nil, err
		}
		r.Layers = append(r.Layers, LayerInfo{Digest: digest.String(), DiffID: diff.String(), Size: size, Base: isBase[i]})
	}
	return r, nil
}

// write sends the image to files first and to registries last: what can fail
// for lack of space does so before anybody sees the image.
func (b *builder) write(ctx context.Context, img v1.Image, result *Result) error {
	o := b.options
	var destinations []push.Destination
	if o.TarPath != "" {
		destinations = append(destinations, &push.DockerTar{Path: o.TarPath, Names: o.Destinations})
	}
	if o.OCILayoutPath != "" {
		destinations = append(destinations, &push.OCILayout{Dir: o.OCILayoutPath, Names: o.Destinations})
	}
	if o.OCITarPath != "" {
		destinations = append(destinations, &push.OCITar{Path: o.OCITarPath, Names: o.Destinations})
	}
	for _, d := range destinations {
		if _, err := d.Write(ctx, img); err != nil {
			return err
		}
		b.sink.emit(Written{Kind: "written", Name: d.String(), Digest: result.Digest})
	}
	if !o.NoPush && len(o.Destinations) > 0 {
		if err := b.push(ctx, img, result); err != nil {
			return err
		}
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	return push.DigestFiles{
		Digest: o.DigestFile, ImageName: o.ImageNameDigestFile, ImageNameTag: o.ImageNameTagDigestFile,
		BuilderOutput: os.Getenv("BUILDER_OUTPUT"),
	}.Write(ctx, digest, o.Destinations)
}

func (b *builder) push(ctx context.Context, img v1.Image, result *Result) error {
	to := &push.Registry{Client: b.client, Refs: b.options.Destinations}
	to.Options.Progress = func(p registry.BlobProgress) {
		b.sink.emit(Progress{What: "push", Name: p.Digest.String(), Done: p.Done, Total: p.Total, Note: p.Note, Finished: p.Finished})
	}
	pushed, err := to.Write(ctx, img)
	for _, name := range pushed.Names {
		b.sink.emit(Written{Kind: "pushed", Name: name, Digest: result.Digest})
		result.Pushed = append(result.Pushed, name+"@"+result.Digest)
	}
	return err
}
