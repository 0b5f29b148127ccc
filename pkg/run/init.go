package run

import (
	"github.com/cooper-build/cooper/pkg/run/child"
	"github.com/cooper-build/cooper/pkg/run/inplace/keeper"
)

// Init must be called first thing in main. RUN starts its commands through a
// child of the same program, and a build in place has another one keep the
// container's own files; in such a child Init does the child's work and never
// returns. Elsewhere it only notes that children can be started: an
// isolation in a program that does not call Init says so instead of starting
// the program a second time.
func Init() {
	keeper.Main()
	child.Main()
}
