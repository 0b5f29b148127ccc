// Package inplace runs commands in the root of the container that the build
// itself runs in.
package inplace

import (
	"context"
	"errors"

	"github.com/cooper-build/cooper/pkg/run"
)

// Options say where the isolation keeps its files.
type Options struct {
	// Dir is the build's own directory. It stays where it is.
	Dir string
	// Keep are absolute paths that stay as they are: the context, the cache
	// directory. Nothing of the image is visible below them.
	Keep []string
	// Force works outside a container too.
	Force bool
	// Warn tells people about something that is not an error; nil discards.
	Warn func(string)
	// BeforeTakeover is called right before the container's own files go away;
	// nil does nothing.
	BeforeTakeover func() error
}

// Isolation implements run.Isolation.
type Isolation struct{ options Options }

// New makes an isolation; nothing is done before Probe or Open.
func New(o Options) *Isolation { return &Isolation{options: o} }

// Name implements run.Isolation.
func (*Isolation) Name() string { return "inplace" }

// Probe implements run.Isolation.
func (i *Isolation) Probe(context.Context) (run.Ability, error) {
	return run.Ability{Reason: "it is not finished"}, nil
}

// Open implements run.Isolation.
func (i *Isolation) Open(context.Context, run.Stage) (run.Workspace, error) {
	return nil, errors.New("isolation inplace is not finished")
}

// Close gives the container its own files back.
func (i *Isolation) Close() error { return nil }
