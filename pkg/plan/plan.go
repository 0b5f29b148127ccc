// Package plan decides what a build has to do.
//
// [New] reads the stages of a Dockerfile, follows what the target needs and
// drops the rest. The plan then names the images whose configurations the
// caller has to fetch ([Plan.Images]). With each configuration [Plan.Resolve]
// goes through a stage's instructions in order: it expands variables, runs the
// base's ONBUILD triggers, writes history and configuration with package
// image, and leaves a list of [Step]s, in which every choice has been made and
// only files remain to be moved and commands to be run. Triggers can bring in
// further stages and images, so the caller goes on until [Plan.Next] gives nil.
//
// The package is pure: it reads no file and asks no registry. Mistakes are
// *dockerfile.Diagnostic.
package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/cooper-build/cooper/pkg/dockerfile"
	"github.com/cooper-build/cooper/pkg/image"
)

// Options are what a build is asked for. The zero value builds the last stage
// for the platform of this machine.
type Options struct {
	// Target is the stage to build, by name, case-insensitive, or by index,
	// counted from 0; "" is the last.
	Target string
	// BuildArgs are values for ARG, global ones and predefined ones included.
	// The map is not changed.
	BuildArgs map[string]string
	// Platform is that of the image; the zero value is BuildPlatform, and then
	// the image keeps the platform that its base image states.
	Platform ocispec.Platform
	// BuildPlatform is that of the machine; the zero value finds it out.
	BuildPlatform ocispec.Platform
	// Labels are added to the target's configuration.
	Labels map[string]string
}

// Plan is a build, before and while its stages are resolved. It is not safe for
// concurrent use while Resolve is called; afterwards it is only read.
type Plan struct {
	// Stages are those that the target needs, each after all that it needs.
	// Resolve replaces the slice when a trigger needs a stage that was not in it.
	Stages []*Stage
	// Target is the stage whose image is asked for, the last of Stages.
	Target *Stage
	// Platform is that of the image, and of images that COPY and mounts read
	// from, whatever the platform of their stage. BuildPlatform is the machine's.
	Platform, BuildPlatform ocispec.Platform
	// SourceDateEpoch is the time of everything in the image; nil when neither
	// build argument nor global ARG gives one.
	SourceDateEpoch *time.Time
	// Hostname is that of RUN, from BUILDKIT_SANDBOX_HOSTNAME; "" for the default.
	Hostname string
	// Warnings are the linter's about what the plan expands; those about the
	// text alone are in the File. Resolve appends to it.
	Warnings []dockerfile.Warning

	file       *dockerfile.File
	lint       *linter.Linter
	buildArgs  map[string]string
	labels     map[string]string
	globals    *env
	globalKeys map[string]struct{}
	implicit   bool
	all        []*Stage
	byName     map[string]*Stage
}

// New plans a build. The File is not changed and may serve several plans.
func New(f *dockerfile.File, o Options) (*Plan, error) {
	stages, metaArgs, err := f.Instructions()
	if err != nil {
		return nil, err
	}
	p := &Plan{
		file:      f,
		buildArgs: maps.Clone(o.BuildArgs),
		labels:    o.Labels,
		byName:    map[string]*Stage{},
		Hostname:  o.BuildArgs["BUILDKIT_SANDBOX_HOSTNAME"],
	}
	p.lint = f.Linter(func(w dockerfile.Warning) { p.Warnings = append(p.Warnings, w) })
	p.setPlatforms(o)

	target := o.Target
	if target == "" {
		target = stages[len(stages)-1].Name
	}
	p.lintDefaultBases(stages, metaArgs, target)
	if err := p.setGlobals(metaArgs, target); err != nil {
		return nil, err
	}
	if err := p.addStages(stages); err != nil {
		return nil, err
	}
	if err := p.setTarget(o.Target); err != nil {
		return nil, err
	}
	if err := p.connect(); err != nil {
		return nil, err
	}
	return p, p.order()
}

func (p *Plan) setPlatforms(o Options) {
	p.BuildPlatform = image.Host()
	if o.BuildPlatform.OS != "" {
		p.BuildPlatform = image.NormalizePlatform(o.BuildPlatform)
	}
	p.Platform, p.implicit = p.BuildPlatform, true
	if o.Platform.OS != "" {
		p.Platform, p.implicit = image.NormalizePlatform(o.Platform), false
	}
}

// Next is a stage that is not resolved yet and whose base is; nil when all
// stages are.
func (p *Plan) Next() *Stage {
	for _, s := range p.Stages {
		if !s.resolver.done && (s.Base.Stage == nil || s.Base.Stage.resolver.done) {
			return s
		}
	}
	return nil
}

// Resolve expands a stage and sets its Steps and Config. base is the
// configuration of an image base and nil for scratch and for a stage, which
// must have been resolved before. base is not changed. A stage that is
// resolved already is left as it is. After the target, Resolve also reports
// warnings as an error if the file's check options ask for that.
func (p *Plan) Resolve(s *Stage, base *dockerspec.DockerOCIImage) error {
	r := s.resolver
	if r.done {
		return nil
	}
	if err := r.start(base); err != nil {
		return err
	}
	if base != nil && s.Base.Image != "" && len(base.Config.OnBuild) > 0 {
		if err := p.addTriggers(s, imageTriggers(base.Config.OnBuild)); err != nil {
			return err
		}
		if err := p.order(); err != nil {
			return err
		}
	}
	for _, c := range r.commands {
		if err := r.dispatch(c); err != nil {
			return p.fail(s, c, err)
		}
	}
	s.Config = r.draft.Image
	r.done = true
	if s == p.Target {
		return p.finish()
	}
	return nil
}

// fail places an error at the instruction, or at FROM for a trigger that came
// with the base image.
func (p *Plan) fail(s *Stage, c command, err error) error {
	var d *dockerfile.Diagnostic
	if errors.As(err, &d) {
		return d
	}
	if c.loc != nil {
		return p.file.Diagnose(c.loc, err)
	}
	d = p.file.Diagnose(s.Location, err)
	d.Detail = fmt.Sprintf("This comes from an ONBUILD trigger of %s: %v", s.BaseName, c.ins)
	return d
}

// finish gives the target's image what the command line asked for.
func (p *Plan) finish() error {
	img := &p.Target.Config
	if len(p.labels) > 0 {
		img.Config.Labels = maps.Clone(img.Config.Labels)
		if img.Config.Labels == nil {
			img.Config.Labels = map[string]string{}
		}
		maps.Copy(img.Config.Labels, p.labels)
	}
	if want := p.Platform; !p.implicit {
		same := want.OS == img.OS && want.Architecture == img.Architecture
		img.OS, img.Architecture = want.OS, want.Architecture
		if want.Variant != "" || !same {
			img.Variant = want.Variant
		}
		if want.OSVersion != "" || !same {
			img.OSVersion = want.OSVersion
		}
		if want.OSFeatures != nil {
			img.OSFeatures = slices.Clone(want.OSFeatures)
		}
	}
	img.Platform = image.NormalizePlatform(img.Platform)
	return p.lintError()
}

// ImageRef is an image that a plan reads.
type ImageRef struct {
	// Name is the full reference, such as "docker.io/library/alpine:latest".
	Name     string
	Platform ocispec.Platform
	// Location is the first instruction that names the image.
	Location []parser.Range
	// Base says that some stage starts from the image; otherwise only its
	// files are needed.
	Base bool
}

// Images are the images that the planned stages need, each name and platform
// once, in file order. Resolve can add to them.
func (p *Plan) Images() []ImageRef {
	var refs []ImageRef
	add := func(ref ImageRef) {
		for i, r := range refs {
			if r.Name == ref.Name && image.FormatPlatform(r.Platform) == image.FormatPlatform(ref.Platform) {
				refs[i].Base = r.Base || ref.Base
				return
			}
		}
		refs = append(refs, ref)
	}
	for _, s := range p.Stages {
		if s.Base.Image != "" {
			add(ImageRef{Name: s.Base.Image, Platform: s.Platform, Location: s.Location, Base: true})
		}
		for _, c := range s.resolver.commands {
			for _, src := range c.sources {
				if src.Image == "" {
					continue
				}
				loc := c.loc
				if loc == nil {
					loc = s.Location
				}
				add(ImageRef{Name: src.Image, Platform: p.Platform, Location: loc})
			}
		}
	}
	return refs
}
