// Command executor builds a container image from a Dockerfile, without a
// daemon and without privileges. It turns its flags into build.Options, calls
// build.Build and reports what happens; everything else is in package build.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/build"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/namespace"
)

func main() {
	run.Init()
	os.Exit(execute(process{
		args: os.Args[1:], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, lookupEnv: os.LookupEnv,
	}))
}

// process is what a run of the program gets from outside.
type process struct {
	args           []string
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	lookupEnv      func(string) (string, bool)
}

// execute runs the program and returns its exit code.
func execute(p process) int {
	if len(p.args) == 1 && p.args[0] == "version" {
		printVersion(p.stdout)
		return exitOK
	}
	s, err := parseFlags(p)
	switch {
	case errors.Is(err, pflag.ErrHelp), len(p.args) == 1 && p.args[0] == "help":
		printHelp(p.stdout, s.groups)
		return exitOK
	case err != nil:
		return reportUsage(p.stderr, err)
	case s.version:
		printVersion(p.stdout)
		return exitOK
	}

	if s.wantsNamespace() {
		// As an ordinary user the whole program goes on in a user namespace of
		// its own, where files can have their true owners. Signals are passed on
		// to it, so they must not also end a context here.
		code, entered, err := namespace.Enter(context.Background())
		switch {
		case entered:
			return code
		case err != nil && s.options.Isolation == "namespace":
			return reportError(p.stderr, s.color(p), err)
		}
	}
	ctx, stop := interruptible(context.Background())
	defer stop()
	// Whoever reads the log may go away; the build goes on. Ignoring the signal
	// instead would have RUN's commands ignore it, too.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	printer := s.printer(p)
	s.options.Events = printer.event
	result, err := build.Build(ctx, s.options)
	if err != nil {
		err = interruption(ctx, err)
		printer.failed(err, exitCode(err))
		return reportError(p.stderr, s.color(p), err)
	}
	printer.summary(result)
	return exitOK
}

// errInterrupted is the cause of a context that a signal ended.
type errInterrupted struct{ signal syscall.Signal }

func (e errInterrupted) Error() string { return "interrupted by " + unix.SignalName(e.signal) }

// interruption puts the signal in the place of the errors that follow from it:
// whatever a build says that was told to end, it ended because of that.
func interruption(ctx context.Context, err error) error {
	var interrupted errInterrupted
	if errors.As(context.Cause(ctx), &interrupted) {
		return interrupted
	}
	return err
}

// interruptible returns a context that ends at SIGINT, SIGTERM or SIGHUP. The
// build then takes away what it has made; a second signal ends the program at
// once.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		// What nohup or a shell's background job ignores stays ignored.
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	done := make(chan struct{})
	go func() {
		select {
		case s := <-signals:
			if s, ok := s.(syscall.Signal); ok {
				cancel(errInterrupted{s})
			}
		case <-done:
			return
		}
		select {
		case <-signals:
			os.Exit(exitInterrupted)
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}
