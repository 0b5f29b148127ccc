package build

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/cooper-build/cooper/pkg/dockerfile"
	"github.com/cooper-build/cooper/pkg/fileop"
	"github.com/cooper-build/cooper/pkg/plan"
	"github.com/cooper-build/cooper/pkg/run"
)

// resolve fetches the configurations of all images that the plan names, and
// expands every stage. An ONBUILD trigger of a base image can add stages and
// images, which then have their turn.
func (b *builder) resolve(ctx context.Context) error {
	if err := b.loadImages(ctx); err != nil {
		return err
	}
	warned := 0
	for s := b.plan.Next(); s != nil; s = b.plan.Next() {
		base, err := b.baseConfig(ctx, s)
		if err != nil {
			return err
		}
		err = b.plan.Resolve(s, base)
		for ; warned < len(b.plan.Warnings); warned++ {
			b.warn(b.plan.Warnings[warned])
		}
		if err != nil {
			return err
		}
	}
	return b.loadImages(ctx)
}

func (b *builder) warn(w dockerfile.Warning) {
	b.sink.emit(LintWarning{Rule: w.Rule, Text: w.Message, URL: w.URL, File: b.file.Name, Line: w.Line})
}

// baseConfig is nil for scratch and for a stage that continues another one.
func (b *builder) baseConfig(ctx context.Context, s *plan.Stage) (*dockerspec.DockerOCIImage, error) {
	if s.Base.Image == "" {
		return nil, nil
	}
	img := b.images.get(s.Base.Image, s.Platform)
	if err := img.load(ctx); err != nil {
		return nil, b.imageError(s.Base.Image, s.Location, err)
	}
	return &img.config, nil
}

// loadImages resolves all images at the same time.
func (b *builder) loadImages(ctx context.Context) error {
	group, ctx := groupWithLimit(ctx, 8)
	for _, want := range b.plan.Images() {
		group.Go(func() error {
			if err := b.images.get(want.Name, want.Platform).load(ctx); err != nil {
				return b.imageError(want.Name, want.Location, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// imageError points at the line that names the image.
func (b *builder) imageError(name string, at []parser.Range, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return b.file.Diagnose(at, fmt.Errorf("cannot use image %s: %w", name, err))
}

// stepError points at a step's line. An error that is a diagnostic already, or
// the end of the build, stays what it is.
func (b *builder) stepError(step *plan.Step, err error) error {
	var diagnostic *dockerfile.Diagnostic
	if err == nil || errors.Is(err, context.Canceled) || errors.As(err, &diagnostic) {
		return err
	}
	var exit *run.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("the command failed: %w", err)
	}
	var missing *fileop.NotFoundError
	if errors.As(err, &missing) {
		diagnostic = b.file.At(step.Location, missing.Source, "%w", err)
		diagnostic.Suggestion, diagnostic.Detail = b.explainMissing(step, missing)
	} else {
		diagnostic = b.file.Diagnose(step.Location, err)
	}
	if !shows(diagnostic.Source, step.Text) {
		// A trigger of a base image stands in no line of this file.
		diagnostic.Summary = step.Text + ": " + diagnostic.Summary
	}
	return diagnostic
}

// shows reports whether lines of the Dockerfile hold the instruction.
func shows(source []string, instruction string) bool {
	keyword, _, _ := strings.Cut(instruction, " ")
	if len(source) == 0 {
		return false
	}
	first, _, _ := strings.Cut(strings.TrimSpace(source[0]), " ")
	return strings.EqualFold(first, keyword)
}

func stepID(s *plan.Stage, step *plan.Step) StepID {
	return StepID{Stage: s.Label(), Number: step.Number, Total: s.Total()}
}
