package build

import (
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/inplace"
	"github.com/cooper-build/cooper/pkg/run/namespace"
)

// DefaultIsolations are the ways to run commands that need no further
// dependency, best first.
func DefaultIsolations(p Places) []run.Isolation {
	return []run.Isolation{
		namespace.New(namespace.Options{Dir: p.Work, Layers: p.Layers, AllowInsecure: p.AllowInsecure}),
		inplace.New(inplace.Options{
			Dir: p.Work, Keep: p.Keep, Force: p.Force,
			Warn: p.Warn, BeforeTakeover: p.BeforeTakeover,
		}),
	}
}
