package build_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/cooper-build/cooper/pkg/build"
)

// An image from a directory, without a base and without RUN. A program whose
// Dockerfiles have RUN calls run.Init at the start of main.
func ExampleBuild() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{
		"Dockerfile": "FROM scratch\nCOPY hello.txt /\nCOPY LICENSE /doc/\nCMD [\"/hello.txt\"]\n",
		"hello.txt":  "hello\n",
		"LICENSE":    "do what you like\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}

	result, err := build.Build(context.Background(), build.Options{
		Context: dir,
		WorkDir: filepath.Join(dir, ".work"),
		NoPush:  true,
		TarPath: filepath.Join(dir, "image.tar"),
		Events: func(e build.Event) {
			if step, ok := e.(build.StepStarted); ok {
				fmt.Println(step.Text)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(result.Layers), "layers")

	// Output:
	// FROM scratch
	// COPY hello.txt /
	// COPY LICENSE /doc/
	// CMD ["/hello.txt"]
	// 2 layers
}
