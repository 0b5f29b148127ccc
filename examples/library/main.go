// Command library builds an image from a program: it takes a directory and
// writes image.tar.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/cooper-build/cooper/pkg/build"
	"github.com/cooper-build/cooper/pkg/run"
)

func main() {
	run.Init() // RUN starts its commands through a child of this program
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: library CONTEXT")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	result, err := build.Build(ctx, build.Options{
		Context: os.Args[1],
		NoPush:  true,
		TarPath: "image.tar",
		Events: func(e build.Event) {
			if step, ok := e.(build.StepStarted); ok {
				fmt.Printf("%s %d/%d: %s\n", step.Step.Stage, step.Step.Number, step.Step.Total, step.Text)
			}
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(result.Digest)
}
