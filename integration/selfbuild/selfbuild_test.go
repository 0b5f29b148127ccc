// Package selfbuild checks that Cooper builds its own image, and that this
// image works.
package selfbuild

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cooper-build/cooper/integration/machine"
)

// skipMissing skips a test for something that this computer lacks.
func skipMissing(t *testing.T, err error) {
	t.Helper()
	var missing *machine.Missing
	if errors.As(err, &missing) {
		t.Skip(missing.What)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestOwnImage builds the repository's Dockerfile with Cooper, gives the image
// to an engine, and builds the demo with it in a container that has no
// privileges.
func TestOwnImage(t *testing.T) {
	m, err := machine.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	engine, err := m.Engine(ctx)
	skipMissing(t, err)
	registry, err := m.Registry(ctx)
	skipMissing(t, err)
	skipMissing(t, registry.Need(ctx, "golang", "busybox"))
	executor, err := m.Executor(ctx)
	skipMissing(t, err)

	const name = "cooper-build.test/self:debug"
	shared, err := m.Sub("self-")
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(shared, "own.tar")
	root := machine.Repository()
	build(ctx, t, executor, "--context", root, "--dockerfile", filepath.Join(root, "Dockerfile"),
		"--target", "debug", "--build-arg", "GO_IMAGE=golang", "--build-arg", "BUSYBOX_IMAGE=busybox",
		"--registry-mirror", registry.Host, "--insecure-registry", registry.Host,
		"--no-push", "--destination", name, "--tar-path", own)
	docker(ctx, t, engine, "load", "--input", own)

	demo(ctx, t, filepath.Join(shared, "demo"))
	script := `set -e
/kaniko/executor --context /shared/demo --dockerfile /shared/demo/Dockerfile --no-push \
	--destination cooper-build.test/demo:latest --tar-path /shared/demo.tar
test -x /kaniko/executor && test -s /kaniko/ssl/certs/ca-certificates.crt
echo still here`
	out := docker(ctx, t, engine, "run", "--rm", "--network=host", "--entrypoint", "", "--volume", shared+":/shared", name, "sh", "-c", script)
	if !strings.Contains(out, "isolation inplace") || !strings.Contains(out, "still here") {
		t.Errorf("the build in the container said:\n%s", out)
	}
	docker(ctx, t, engine, "load", "--input", filepath.Join(shared, "demo.tar"))
	greeting := docker(ctx, t, engine, "run", "--rm", "--network=host", "cooper-build.test/demo:latest")
	if !strings.HasPrefix(greeting, "hello, world, from process ") {
		t.Errorf("the demo image says %q", greeting)
	}
}

func build(ctx context.Context, t *testing.T, executor string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, executor, args...).CombinedOutput(); err != nil {
		t.Fatalf("executor: %v\n%s", err, out)
	}
}

func docker(ctx context.Context, t *testing.T, engine *machine.Engine, args ...string) string {
	t.Helper()
	out, err := engine.Docker(ctx, nil, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// demo makes the context of examples/demo with its program in it.
func demo(ctx context.Context, t *testing.T, dir string) {
	t.Helper()
	source := filepath.Join(machine.Repository(), "examples", "demo")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(source, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(dir, "greeter"), "./examples/demo")
	cmd.Dir, cmd.Env = machine.Repository(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
}
