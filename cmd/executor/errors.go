package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/cooper-build/cooper/pkg/build"
	"github.com/cooper-build/cooper/pkg/dockerfile"
	"github.com/cooper-build/cooper/pkg/run"
)

// Exit codes. A RUN that fails gives its own exit code instead.
const (
	exitOK = 0
	// exitFailed: the build failed for any reason but the ones below.
	exitFailed = 1
	// exitUsage: the command line is wrong; nothing was done.
	exitUsage = 2
	// exitTimeout: a RUN took longer than --run-timeout.
	exitTimeout = 124
	// exitInterrupted: a signal ended the build.
	exitInterrupted = 130
)

func reportUsage(w io.Writer, err error) int {
	fmt.Fprintf(w, "executor: %v\nTry 'executor --help'.\n", err)
	return exitUsage
}

// reportError shows an error and returns the exit code that belongs to it. A
// mistake in the Dockerfile is shown with its line.
func reportError(w io.Writer, color bool, err error) int {
	var diagnostic *dockerfile.Diagnostic
	if errors.As(err, &diagnostic) {
		diagnostic.Render(w, color)
	} else {
		fmt.Fprintf(w, "executor: %v\n", err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var exit *run.ExitError
	var option *build.OptionError
	var interrupted errInterrupted
	switch {
	case errors.As(err, &interrupted):
		return exitInterrupted
	case errors.As(err, &option):
		return exitUsage
	case errors.Is(err, run.ErrTimeout):
		return exitTimeout
	case errors.As(err, &exit) && exit.Code > 0 && exit.Code < 256:
		return exit.Code
	}
	return exitFailed
}
