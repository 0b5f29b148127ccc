package snapshot_test

import (
	"io"
	"os"
	"slices"
	"sort"
	"testing"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// copyTree copies a directory or file with all metadata to a path that does
// not exist.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if st, err := os.Lstat(from); err != nil || !st.IsDir() {
		t.Fatalf("copying %s: %v", from, err)
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	src, err := rootfs.OpenDir(from, rootfs.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := rootfs.OpenRoot(to, rootfs.RootOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	var dirs []rootfs.Entry
	first := map[uint64]string{}
	err = rootfs.Walk(src, ".", func(e rootfs.Entry) error {
		if e.IsDir() {
			dirs = append(dirs, e)
		}
		if e.Link != 0 {
			if old, ok := first[e.Link]; ok {
				return dst.Link(old, e.Path)
			}
			first[e.Link] = e.Path
		}
		if e.Kind != rootfs.Regular {
			return dst.Write(e, nil)
		}
		rc, err := src.Open(e.Path)
		if err != nil {
			return err
		}
		defer rc.Close()
		return dst.Write(e, rc)
	})
	slices.Reverse(dirs)
	for _, d := range dirs {
		if err == nil {
			err = dst.Chtimes(d.Path, d.ModTime)
		}
	}
	if err != nil {
		t.Fatalf("copying %s: %v", from, err)
	}
}

// grove is a tree as the law sees it.
type grove map[string]rootfs.Entry

func survey(t *testing.T, dir string) (grove, map[string]string) {
	t.Helper()
	d, err := rootfs.OpenDir(dir, rootfs.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	g, text := grove{}, map[string]string{}
	err = rootfs.Walk(d, ".", func(e rootfs.Entry) error {
		if e.Path == "." {
			return nil
		}
		g[e.Path] = e
		if e.Kind == rootfs.Regular {
			rc, err := d.Open(e.Path)
			if err != nil {
				return err
			}
			defer rc.Close()
			b, err := io.ReadAll(rc)
			text[e.Path] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatalf("surveying %s: %v", dir, err)
	}
	return g, text
}

func (g grove) sorted() []string {
	var all []string
	for p := range g {
		all = append(all, p)
	}
	sort.Strings(all)
	return all
}
