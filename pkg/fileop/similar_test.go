package fileop_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cooper-build/cooper/pkg/fileop"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

func TestSimilar(t *testing.T) {
	src := rootfs.NewTree()
	for _, name := range []string{"package.json", "package-lock.json", "src/main.go", "srv/other", "README.md", "l"} {
		put(t, src, name, nil)
	}
	for path, want := range map[string]string{
		"pakage.json":  "[/package.json]",
		"Package.json": "[/package.json]",
		"readme.md":    "[/README.md]",
		"src/mian.go":  "[/src/main.go]",
		"scr/main.go":  "[/src/main.go]",
		"sr/main.go":   "[/src/main.go]",
		"nothing":      "[]",
		"x":            "[]",
		"src/x/y":      "[]",
	} {
		_, err := fileop.Copy(context.Background(), rootfs.NewTree(), src, fileop.CopyRequest{Paths: []string{path}, Dest: "/"})
		var missing *fileop.NotFoundError
		if !errors.As(err, &missing) {
			t.Fatalf("%s: %v", path, err)
		}
		if got := fmt.Sprint(missing.Similar(src)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// BenchmarkCopy copies 30,000 files into a tree that has them already, but for
// their times.
func BenchmarkCopy(b *testing.B) {
	src, dst := rootfs.NewTree(), rootfs.NewTree()
	for i := range 300 {
		for j := range 100 {
			for k, tree := range []*rootfs.Tree{src, dst} {
				e := rootfs.Entry{Path: fmt.Sprintf("d/%d/%d", i, j), Mode: 0o644, ModTime: time.Unix(int64(k), 0)}
				if err := tree.Put(e, nil); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	for b.Loop() {
		changes, err := fileop.Copy(context.Background(), dst, src, fileop.CopyRequest{Paths: []string{"."}, Dest: "/"})
		if err != nil || len(changes) < 30_000 {
			b.Fatal(len(changes), err)
		}
	}
}
