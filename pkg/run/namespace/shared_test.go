package namespace_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/namespace"
	"github.com/cooper-build/cooper/pkg/run/runtest"
)

// TestBuildsShareLayers: several builds with the same base at the same time,
// each with several stages.
func TestBuildsShareLayers(t *testing.T) {
	shared := t.TempDir()
	base := []v1.Layer{runtest.Busybox(t)}
	var wait sync.WaitGroup
	for range 3 {
		i := isolation(t, namespace.Options{Layers: shared})
		for range 2 {
			ws := open(t, i, run.Stage{Name: "shared", Layers: base})
			wait.Go(func() {
				for range 3 {
					var out bytes.Buffer
					spec := shell("echo x > /mine; cat /old/file /mine")
					spec.Stdout, spec.Stderr = &out, &out
					if err := ws.Run(t.Context(), spec); err != nil || out.String() != "old\nx\n" {
						t.Errorf("%v: %q", err, &out)
					}
				}
			})
		}
	}
	wait.Wait()
}

// TestUnfinishedLayers: what a build that died was unpacking is removed, what
// another one is unpacking is not.
func TestUnfinishedLayers(t *testing.T) {
	shared := t.TempDir()
	base := []v1.Layer{runtest.Busybox(t)}
	i := isolation(t, namespace.Options{Layers: shared})
	open(t, i, run.Stage{Name: "first", Layers: base})
	stores, err := filepath.Glob(filepath.Join(shared, "*"))
	if err != nil || len(stores) != 1 {
		t.Fatalf("%v, %v", stores, err)
	}
	dead := filepath.Join(stores[0], ".unpacking-dead")
	if err := os.MkdirAll(filepath.Join(dead, "fs", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	open(t, i, run.Stage{Name: "second", Layers: base})
	if _, err := os.Lstat(dead); err == nil {
		t.Error("the unfinished layer is still there")
	}
	left, err := filepath.Glob(filepath.Join(stores[0], "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("directories %v, %v; want one layer", left, err)
	}
}
