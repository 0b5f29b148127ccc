package run

import "github.com/cooper-build/cooper/pkg/run/child"

// Init must be called first thing in main. RUN starts its commands through a
// child of the same program; in such a child Init does the child's work and
// never returns. Elsewhere it only notes that children can be started: an
// isolation in a program that does not call Init says so instead of starting
// the program a second time.
func Init() { child.Main() }
