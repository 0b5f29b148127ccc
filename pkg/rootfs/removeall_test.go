package rootfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

func TestRemoveAll(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	tree := filepath.Join(dir, "tree")
	for d := range 40 {
		sub := filepath.Join(tree, fmt.Sprint(d), "deep", "deeper")
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range 60 {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(f)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"link", "1/link", "2/deep/link"} {
		if err := os.Symlink(outside, filepath.Join(tree, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := rootfs.RemoveAll(tree); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(tree); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after RemoveAll: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	for _, path := range []string{tree, filepath.Join(tree, "below")} {
		if err := rootfs.RemoveAll(path); err != nil {
			t.Errorf("RemoveAll of what does not exist: %v", err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if err := rootfs.RemoveAll(link); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

// What can be removed is, beside what can't.
func TestRemoveAllGoesOn(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may remove everything")
	}
	tree := filepath.Join(t.TempDir(), "tree")
	for _, d := range []string{"closed", "open"} {
		if err := os.MkdirAll(filepath.Join(tree, d, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	closed := filepath.Join(tree, "closed")
	if err := os.Chmod(closed, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(closed, 0o755) })
	if err := rootfs.RemoveAll(tree); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("RemoveAll: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(tree, "open")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the rest is still there: %v", err)
	}
}
