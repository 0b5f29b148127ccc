package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/cooper-build/cooper/integration/machine"
)

// workload is a build: make fills an empty directory with the context and a
// Dockerfile.
type workload struct {
	name, about string
	make        func(dir string) error
}

func (w workload) String() string { return w.name }

var workloads = []workload{
	{"node", "the two-stage Node pipeline of examples/node", nodeApp},
	{"big", "one RUN that writes 700 MB of random data", dockerfile(
		"FROM debian",
		"RUN head -c 700M /dev/urandom >/data",
	)},
	{"copy", "COPY of 30,000 files and one RUN", manyFiles},
	{"small", "one RUN that makes 50,000 files, and ten small ones", dockerfile(append([]string{
		"FROM debian",
		`RUN mkdir /many && cd /many && for d in $(seq 500); do mkdir $d; for f in $(seq 100); do echo $d $f >$d/$f; done; done`,
	}, tenSmall()...)...)},
	{"stages", "three stages that sleep for 3 s each, and one that copies from them", dockerfile(
		"FROM debian AS one", "RUN sleep 3 && echo 1 >/one",
		"FROM debian AS two", "RUN sleep 3 && echo 2 >/two",
		"FROM debian AS three", "RUN sleep 3 && echo 3 >/three",
		"FROM debian", "COPY --from=one /one /", "COPY --from=two /two /", "COPY --from=three /three /",
	)},
}

func dockerfile(lines ...string) func(dir string) error {
	return func(dir string) error {
		text := strings.Join(lines, "\n") + "\n"
		return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644)
	}
}

func tenSmall() []string {
	var lines []string
	for i := range 10 {
		lines = append(lines, fmt.Sprintf("RUN echo %d >/small-%d", i, i))
	}
	return lines
}

func nodeApp(dir string) error {
	app := os.DirFS(filepath.Join(machine.Repository(), "examples", "node"))
	return os.CopyFS(dir, app)
}

// manyFiles are 30,000 files of 0 to 8 KiB in 300 directories; half of their
// bytes compress well, half do not.
func manyFiles(dir string) error {
	random := rand.NewChaCha8([32]byte{})
	numbers := rand.New(random)
	buf := make([]byte, 8<<10)
	for d := range 300 {
		sub := filepath.Join(dir, "files", fmt.Sprint(d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		for f := range 100 {
			content := buf[:numbers.IntN(len(buf))]
			clear(content)
			if _, err := random.Read(content[len(content)/2:]); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(f)), content, 0o644); err != nil {
				return err
			}
		}
	}
	return dockerfile("FROM debian", "COPY files /files", "RUN find /files -type f | wc -l >/count")(dir)
}
