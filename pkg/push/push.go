// Package push puts finished images where they shall go: into registries, into
// archives for docker load and other tools, or into OCI layout directories.
//
// Each place is a Destination; a build writes its image to all of them. The
// file formats share one description of what an image consists of (parts):
// blobs that stream from the image's layers, and the small JSON files that
// name them. Layers are written as they are, compressed and unchanged, and are
// verified on the way, so an archive has the same digests as a registry.
//
// A file appears under its name only when it is complete; a write that fails
// or is interrupted removes what it had begun.
package push

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"

	"github.com/cooper-build/cooper/pkg/registry"
)

// UnsetName is the image name in archives when no destination gives one.
const UnsetName = "docker.io/unset-repo/unset-image-name:latest"

// Destination is a place for images.
type Destination interface {
	// Write puts the image there. It either succeeds as a whole or leaves
	// nothing that a reader would take for an image. An existing one is
	// replaced. ctx ends it.
	Write(ctx context.Context, img v1.Image) (Result, error)
	// String names the place for messages.
	String() string
}

// Result tells what was written.
type Result struct {
	// Descriptor is the manifest's.
	Descriptor v1.Descriptor
	// Names lists the names that the image now has there, as the caller gave
	// them; it may be empty.
	Names []string
}

// Pusher sends images to registries. *registry.Client is one.
type Pusher interface {
	Push(ctx context.Context, ref string, img v1.Image, o registry.PushOptions) (v1.Descriptor, error)
}

// Registry pushes an image to one or several references, in any number of
// registries.
type Registry struct {
	Client  Pusher
	Refs    []string
	Options registry.PushOptions
}

var _ Destination = (*Registry)(nil)

// String lists the references.
func (r *Registry) String() string {
	switch len(r.Refs) {
	case 0:
		return "no registry"
	case 1:
		return r.Refs[0]
	}
	return fmt.Sprintf("%s and %d more", r.Refs[0], len(r.Refs)-1)
}

// Write pushes to all references: references of one repository one after the
// other, so that its blobs are sent once, repositories at the same time. All
// are tried even if one fails; Result names those that worked.
func (r *Registry) Write(ctx context.Context, img v1.Image) (Result, error) {
	desc, err := partial.Descriptor(img)
	if err != nil {
		return Result{}, fmt.Errorf("push: %w", err)
	}
	var order []string
	groups := map[string][]int{}
	for i, s := range r.Refs {
		ref, err := name.ParseReference(s)
		if err != nil {
			return Result{}, fmt.Errorf("image name %q: %w", s, err)
		}
		repo := ref.Context().Name()
		if groups[repo] == nil {
			order = append(order, repo)
		}
		groups[repo] = append(groups[repo], i)
	}
	errs := make([]error, len(r.Refs))
	var wg sync.WaitGroup
	for _, repo := range order {
		wg.Go(func() {
			for _, i := range groups[repo] {
				_, errs[i] = r.Client.Push(ctx, r.Refs[i], img, r.Options)
			}
		})
	}
	wg.Wait()
	res := Result{Descriptor: *desc}
	for i, s := range r.Refs {
		if errs[i] == nil {
			res.Names = append(res.Names, s)
		}
	}
	return res, errors.Join(errs...)
}
