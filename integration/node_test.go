package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cooper-build/cooper/integration/confirm"
	"github.com/cooper-build/cooper/integration/machine"
)

// nodeProject is a copy of examples/node.
func nodeProject(t *testing.T) string {
	t.Helper()
	dir := folder(t, nil)
	source := filepath.Join(machine.Repository(), "examples", "node")
	if err := os.CopyFS(filepath.Join(dir, "project"), os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	age(t, dir)
	return dir
}

// TestNodePipelineInContainer is a CI job without privileges: it builds a
// two-stage Node application in Cooper's own image. The engine loads and runs
// the result, and the page it serves is looked at.
func TestNodePipelineInContainer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	reg := needs(t, "node")
	engine := must[*machine.Engine](t)(lab.Engine(ctx))
	project := nodeProject(t)
	out, err := container(t, ctx, filepath.Join(project, "project"),
		`/kaniko/executor --context . --dockerfile Dockerfile --no-push --destination example.test/node:1 \
			--tar-path /builds/project/image.tar `+strings.Join(pull(reg), " ")+`
		ls -l image.tar
		test -x /kaniko/executor && echo still here`)
	if err != nil || !strings.Contains(out, "still here") {
		t.Fatalf("the job failed: %v\n%s", err, out)
	}
	if !strings.Contains(out, "inplace") {
		t.Errorf("the job does not say that it built in place:\n%s", out)
	}
	tar, err := os.Open(filepath.Join(project, "project", "image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer tar.Close()
	if _, err := engine.Docker(ctx, tar, "load"); err != nil {
		t.Fatal(err)
	}

	// A network of its own: the image's port can't be taken by somebody else.
	id, err := engine.Docker(ctx, nil, "run", "--detach", "--rm", "--network=none", "example.test/node:1")
	if err != nil {
		t.Fatal(err)
	}
	id = strings.TrimSpace(id)
	defer func() {
		if _, err := engine.Docker(context.WithoutCancel(ctx), nil, "kill", id); err != nil {
			t.Error(err)
		}
	}()
	const ask = `const get = async (path) => (await fetch("http://127.0.0.1:3000" + path)).text();
		(async () => {
			for (let i = 0; ; i++) {
				try { console.log(await get("/") + (await get("/main.js")).includes("built in a container")); return; }
				catch (e) { if (i > 100) throw e; await new Promise((r) => setTimeout(r, 100)); }
			}
		})()`
	page, err := engine.Docker(ctx, nil, "exec", id, "node", "-e", ask)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page, "<title>Cooper's Node example</title>") || !strings.Contains(page, "true") {
		t.Errorf("the application serves:\n%s", page)
	}
}

// TestNodePipelineIsBuildKits builds the same application as root, as an
// ordinary user and with BuildKit: the images agree but for times.
func TestNodePipelineIsBuildKits(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	reg := needs(t, "node")
	bases, err := reg.Layers()
	if err != nil {
		t.Fatal(err)
	}
	look := func(name string, build func(context, out string)) *confirm.Picture {
		t.Helper()
		dir := nodeProject(t)
		out := filepath.Join(dir, "image.tar")
		built := confirm.Moment{Begin: time.Now()}
		build(dir, out)
		built.End = time.Now()
		t.Logf("%s: %s", name, built.End.Sub(built.Begin).Round(time.Second))
		p, err := confirm.ReadPicture(out, built, bases)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	cooper := func(rootless bool) func(dir, out string) {
		return func(dir, out string) {
			args := append([]string{"--context", dir + "/project", "--dockerfile", dir + "/project/Dockerfile",
				"--no-push", "--destination", "example.test/node:1", "--tar-path", out}, pull(reg)...)
			if log, err := executor(t, ctx, dir, rootless, args...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, log)
			}
		}
	}
	root := look("root", cooper(false))
	for _, d := range confirm.Compare(root, look("ordinary user", cooper(true))) {
		t.Errorf("root (first) and an ordinary user (second): %s", d)
	}
	buildkit := must[*machine.BuildKit](t)(lab.BuildKit(ctx))
	oracle := look("BuildKit", func(dir, out string) {
		log, err := buildkit.Build(ctx, machine.Request{
			Context: dir + "/project", Dockerfile: dir + "/project/Dockerfile",
			Output: "type=docker,name=example.test/node:1,dest=" + out,
		})
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
	})
	for _, d := range confirm.Compare(oracle, root) {
		t.Errorf("%s", d)
	}
}
