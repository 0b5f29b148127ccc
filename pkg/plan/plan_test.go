package plan_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/cooper-build/cooper/pkg/dockerfile"
	"github.com/cooper-build/cooper/pkg/image"
	"github.com/cooper-build/cooper/pkg/plan"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// defaultBase is the configuration of an image that a case does not spell out.
const defaultBase = `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/bin:/bin"],"Cmd":["/bin/sh"]},
"rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000001"]},
"history":[{"created":"2024-01-02T03:04:05Z","created_by":"base layer"}]}`

// TestPlans plans the Dockerfiles in testdata and compares the text of the plan,
// or the diagnostic. A case is a Dockerfile, the lines of "args" ("target",
// "arg", "label", "platform"), and the configurations of base images.
func TestPlans(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, name := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			want := -1
			for i, f := range archive.Files {
				files[f.Name] = string(f.Data)
				if f.Name == "want" {
					want = i
				}
			}
			got := planText(t, files)
			if *update {
				if want < 0 {
					archive.Files = append(archive.Files, txtar.File{Name: "want"})
					want = len(archive.Files) - 1
				}
				archive.Files[want].Data = []byte(got)
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != files["want"] {
				t.Errorf("the plan is not the expected one\n--- got\n%s--- want\n%s", got, files["want"])
			}
		})
	}
}

func planText(t *testing.T, files map[string]string) string {
	t.Helper()
	var b strings.Builder
	f, err := dockerfile.Parse("Dockerfile", []byte(files["Dockerfile"]), dockerfile.Options{})
	if err == nil {
		for _, w := range f.Warnings {
			b.WriteString("lint " + w.Rule + ": " + w.Message + "\n")
		}
		err = writePlan(&b, f, options(t, files["args"]), files)
	}
	if err != nil {
		var d *dockerfile.Diagnostic
		if !errors.As(err, &d) {
			t.Fatalf("an error that is no diagnostic: %v", err)
		}
		if err := d.Render(&b, false); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func writePlan(b *strings.Builder, f *dockerfile.File, o plan.Options, files map[string]string) error {
	p, err := plan.New(f, o)
	if err != nil {
		return err
	}
	for s := p.Next(); s != nil; s = p.Next() {
		base, err := baseOf(s, files)
		if err != nil {
			return err
		}
		if err := p.Resolve(s, base); err != nil {
			return err
		}
	}
	return p.WriteText(b)
}

func baseOf(s *plan.Stage, files map[string]string) (*dockerspec.DockerOCIImage, error) {
	if s.Base.Image == "" {
		return nil, nil
	}
	config, ok := files[s.Base.Image]
	if !ok {
		config = defaultBase
	}
	return image.Decode([]byte(config))
}

func options(t *testing.T, args string) plan.Options {
	t.Helper()
	build, err := image.ParsePlatform("linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	o := plan.Options{BuildPlatform: build, BuildArgs: map[string]string{}, Labels: map[string]string{}}
	for line := range strings.Lines(args) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		key, value, _ := strings.Cut(rest, "=")
		switch word {
		case "target":
			o.Target = rest
		case "arg":
			o.BuildArgs[key] = value
		case "label":
			o.Labels[key] = value
		case "platform":
			if o.Platform, err = image.ParsePlatform(rest); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("args: unknown word %q", word)
		}
	}
	return o
}
