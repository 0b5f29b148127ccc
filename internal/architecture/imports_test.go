package architecture_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/cooper-build/cooper/"

// allowed lists, for each package, the packages of this module that it may
// import. The direction is the flow of a build: File, Plan, Tree, Changes,
// Layer, Image.
var allowed = map[string]string{
	"cmd/executor":      "pkg/build pkg/dockerfile pkg/layers pkg/run pkg/run/namespace",
	"pkg/build":         "pkg/buildcontext pkg/cache pkg/dockerfile pkg/fileop pkg/image pkg/layers pkg/plan pkg/push pkg/registry pkg/rootfs pkg/run pkg/run/inplace pkg/run/namespace pkg/snapshot",
	"pkg/dockerfile":    "",
	"pkg/rootfs":        "",
	"pkg/registry":      "",
	"pkg/cache":         "",
	"pkg/image":         "pkg/dockerfile",
	"pkg/plan":          "pkg/dockerfile pkg/image",
	"pkg/snapshot":      "pkg/rootfs",
	"pkg/layers":        "pkg/snapshot pkg/rootfs",
	"pkg/buildcontext":  "pkg/rootfs pkg/layers",
	"pkg/fileop":        "pkg/rootfs pkg/snapshot pkg/layers",
	"pkg/push":          "pkg/registry",
	"pkg/run":           "pkg/rootfs pkg/snapshot pkg/run/child pkg/run/inplace/keeper",
	"pkg/run/child":     "",
	"pkg/run/origin":    "pkg/rootfs pkg/snapshot pkg/layers",
	"pkg/run/namespace": "pkg/run pkg/run/child pkg/run/origin pkg/rootfs pkg/snapshot pkg/layers",
	"pkg/run/inplace":   "pkg/run pkg/run/child pkg/run/inplace/keeper pkg/rootfs pkg/snapshot pkg/layers",
	// The keeper is a process of its own, which run.Init turns into one.
	"pkg/run/inplace/keeper": "pkg/rootfs pkg/snapshot pkg/layers",
	"pkg/run/runtest":        "pkg/run pkg/rootfs pkg/snapshot pkg/layers",
	"examples/library":       "pkg/build pkg/run",
	"examples/demo":          "",
}

// why explains, for a forbidden import, what would go wrong.
var why = map[string]string{
	"pkg/dockerfile": "dockerfile is a leaf: it is useful alone, to check a Dockerfile without building",
	"pkg/rootfs":     "rootfs is a leaf: the one door to a file system must not depend on who goes through it",
	"pkg/registry":   "registry is a leaf: pulling, pushing and the cache share it",
	"pkg/snapshot":   "snapshot tells what changed and does not know how it is stored",
	"pkg/plan":       "plan is pure: it reads no file system and reaches no network",
	"pkg/build":      "what is under pkg does not know the program that joins it",
}

// readSources reads what the test depends on, so that the result of an earlier
// run is not taken for this one's.
func readSources(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"cmd", "pkg", "examples"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			_, err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestImports(t *testing.T) {
	readSources(t)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(name, "internal/") {
			continue
		}
		list, known := allowed[name]
		if !known {
			t.Errorf("package %s has no place in the architecture: add it to the table of this test and to docs/architecture.md", name)
			continue
		}
		may := strings.Fields(list)
		for _, imported := range p.Imports {
			other, ours := strings.CutPrefix(imported, module)
			if !ours || contains(may, other) {
				continue
			}
			t.Errorf("%s imports %s, which it may not: %s%s", name, other, why[name], why[other])
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
