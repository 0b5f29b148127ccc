package plan_test

import (
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/cooper-build/cooper/pkg/dockerfile"
	"github.com/cooper-build/cooper/pkg/image"
	"github.com/cooper-build/cooper/pkg/plan"
)

// TestOneFileManyPlans: a File serves plans for several platforms at the same
// time, and each comes out as if it were alone.
func TestOneFileManyPlans(t *testing.T) {
	f, err := dockerfile.Parse("Dockerfile", []byte(`FROM base AS a
ARG TARGETARCH
ENV A=$TARGETARCH
WORKDIR $A
COPY --from=x:1 $A /$A
RUN --mount=type=cache,target=$A true
FROM a
LABEL a=$A
`), dockerfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	platforms := []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x"}
	texts := make([]string, 4*len(platforms))
	var wg sync.WaitGroup
	for i := range texts {
		wg.Go(func() {
			var b strings.Builder
			if err := writePlan(&b, f, options(t, "platform "+platforms[i%len(platforms)]), nil); err != nil {
				t.Error(err)
			}
			texts[i] = b.String()
		})
	}
	wg.Wait()
	for i, text := range texts {
		platform := platforms[i%len(platforms)]
		if text != texts[i%len(platforms)] {
			t.Errorf("%s: two plans differ:\n%s\n%s", platform, text, texts[i%len(platforms)])
		}
		arch := strings.Split(platform, "/")[1]
		if !strings.Contains(text, `mkdir "/`+arch+`"`) || !strings.Contains(text, `"a":"`+arch+`"`) {
			t.Errorf("%s: wrong plan\n%s", platform, text)
		}
	}
}

// TestTriggersExtendThePlan: a base image's ONBUILD can need a stage that
// nothing needed before, and images.
func TestTriggersExtendThePlan(t *testing.T) {
	f, err := dockerfile.Parse("Dockerfile", []byte("FROM one AS libs\nFROM unused AS unused\nFROM parent\n"), dockerfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.New(f, options(t, "platform linux/arm64"))
	if err != nil {
		t.Fatal(err)
	}
	if got := names(p.Stages); got != "stage-2" {
		t.Errorf("stages before: %s", got)
	}
	base, err := image.Decode([]byte(`{"os":"linux","architecture":"arm64","config":{"OnBuild":["COPY --from=libs / /","COPY --from=other / /"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Resolve(p.Next(), base); err != nil {
		t.Fatal(err)
	}
	if got := names(p.Stages); got != "libs stage-2" {
		t.Errorf("stages after: %s", got)
	}
	if got := names(p.Target.Needs()); got != "libs" {
		t.Errorf("needs: %s", got)
	}
	var refs []string
	for _, r := range p.Images() {
		refs = append(refs, r.Name+" "+image.FormatPlatform(r.Platform))
	}
	want := []string{"docker.io/library/one:latest linux/arm64", "docker.io/library/parent:latest linux/arm64", "docker.io/library/other:latest linux/arm64"}
	if !slices.Equal(refs, want) {
		t.Errorf("images %q, want %q", refs, want)
	}
	if next := p.Next(); next == nil || next.Label() != "libs" {
		t.Errorf("next is %v", next)
	}
	if s := p.Target.Steps[0]; s.Location != nil || !strings.HasPrefix(s.Text, "ONBUILD COPY") {
		t.Errorf("trigger's step: %+v", s)
	}
	if len(base.Config.OnBuild) != 2 || len(base.History) != 0 {
		t.Error("the base's configuration was changed")
	}
}

func names(stages []*plan.Stage) string {
	var out []string
	for _, s := range stages {
		out = append(out, s.Label())
	}
	return strings.Join(out, " ")
}

func TestResolveOrder(t *testing.T) {
	f, err := dockerfile.Parse("Dockerfile", []byte("FROM base AS a\nFROM a\n"), dockerfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.New(f, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Resolve(p.Target, nil); err == nil {
		t.Error("a stage was resolved before its base")
	}
	if err := p.Resolve(p.Stages[0], nil); err == nil {
		t.Error("an image base without a configuration was accepted")
	}
}

// FuzzPlan: planning any Dockerfile ends with a plan or a diagnostic, and what
// a step promises holds.
func FuzzPlan(f *testing.F) {
	cases, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range cases {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(archive.Files[0].Data))
	}
	f.Fuzz(func(t *testing.T, source string) {
		// A variable that doubles itself line by line grows without limit, in
		// BuildKit too.
		if len(source) > 4000 || strings.Count(source, "$") > 60 {
			t.Skip()
		}
		file, err := dockerfile.Parse("Dockerfile", []byte(source), dockerfile.Options{})
		if err != nil {
			return
		}
		p, err := plan.New(file, plan.Options{BuildArgs: map[string]string{"A": "b"}})
		for err == nil {
			s := p.Next()
			if s == nil {
				break
			}
			var base *dockerspec.DockerOCIImage
			if base, err = baseOf(s, nil); err == nil {
				err = p.Resolve(s, base)
			}
		}
		if err != nil {
			var d *dockerfile.Diagnostic
			if !errors.As(err, &d) {
				t.Fatalf("an error that is no diagnostic: %v", err)
			}
			return
		}
		if err := p.WriteText(io.Discard); err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Stages {
			checkSteps(t, s)
		}
	})
}

func checkSteps(t *testing.T, s *plan.Stage) {
	t.Helper()
	for i, step := range s.Steps {
		if step.Number != i+2 {
			t.Errorf("step %d has number %d", i, step.Number)
		}
		layer := step.History >= 0 && !s.Config.History[step.History].EmptyLayer
		if layer != (step.Op != nil) {
			t.Errorf("%s: layer %v, operation %v", step.Text, layer, step.Op)
		}
		switch op := step.Op.(type) {
		case *plan.Run:
			if len(op.Args) == 0 || !strings.HasPrefix(op.Dir, "/") {
				t.Errorf("%s: %+v", step.Text, op)
			}
			for _, m := range op.Mounts {
				if m.Target == "" && m.Env == "" || m.Target == "/" || m.Target != "" && m.Target[0] != '/' {
					t.Errorf("%s: mount target %q", step.Text, m.Target)
				}
			}
		case *plan.Copy:
			if !strings.HasPrefix(op.Dest, "/") {
				t.Errorf("%s: destination %q", step.Text, op.Dest)
			}
		case *plan.Workdir:
			if !strings.HasPrefix(op.Path, "/") {
				t.Errorf("%s: path %q", step.Text, op.Path)
			}
		}
	}
}
