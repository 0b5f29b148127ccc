package main

import (
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

const usage = `executor builds a container image from a Dockerfile, without a daemon and
without privileges.

Usage:
  executor --context DIR --dockerfile FILE --destination REGISTRY/NAME:TAG
  executor --context DIR --no-push --tar-path image.tar
  executor version
`

const exitCodes = `
Exit codes:
  0    the image was built and written
  N    a RUN instruction ended with exit code N
  1    the build failed for another reason
  2    the command line is wrong
  124  a RUN took longer than --run-timeout
  130  interrupted by a signal
`

// group is a set of flags under one heading.
type group struct {
	title string
	flags *pflag.FlagSet
}

func printHelp(w io.Writer, groups []group) {
	fmt.Fprint(w, usage)
	for _, g := range groups {
		fmt.Fprintf(w, "\n%s:\n%s", g.title, g.flags.FlagUsagesWrapped(100))
	}
	fmt.Fprint(w, exitCodes)
}
