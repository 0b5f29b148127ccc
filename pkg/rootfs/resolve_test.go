package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// build makes a tree from lines: "dir/" a directory, "name → target" a link,
// "name" a file holding its name.
func build(t testing.TB, lines ...string) *Tree {
	t.Helper()
	tree := NewTree()
	for _, l := range lines {
		var e Entry
		if name, target, ok := strings.Cut(l, " → "); ok {
			e = Entry{Path: name, Kind: Symlink, Target: target, Mode: 0o777}
		} else if name, ok := strings.CutSuffix(l, "/"); ok {
			e = Entry{Path: name, Kind: Directory, Mode: 0o755}
		} else {
			e = Entry{Path: l, Mode: 0o644}
		}
		if err := tree.Put(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func TestResolve(t *testing.T) {
	tree := build(t, "usr/lib/x", "lib → usr/lib", "abs → /usr/lib", "up → ../../usr", "deep/up → ../lib/..",
		"dangling → usr/new/dir", "absdangling → /no/where", "loop → loop2", "loop2 → loop", "self → .",
		"tofile → usr/lib/x", "chain → lib", "trailing → usr/lib/", "dots → /../../usr/./lib/../lib")
	for _, tt := range []struct {
		name         string
		follow       string // what Resolve with follow gives, or an error
		last         string // and without; "" for the same
		missing      string // ResolveMissing, "" for the same as follow
		missingFails bool
	}{
		{name: "/", follow: "."},
		{name: "", follow: "."},
		{name: "..", follow: "."},
		{name: "/usr/../../usr/./lib//x", follow: "usr/lib/x"},
		{name: "lib", follow: "usr/lib", last: "lib"},
		{name: "lib/", follow: "usr/lib", last: "lib"},
		{name: "lib/x", follow: "usr/lib/x"},
		{name: "abs/x", follow: "usr/lib/x"},
		{name: "up/lib", follow: "usr/lib"},
		{name: "deep/up", follow: "usr", last: "deep/up"},
		{name: "deep/up/lib/x", follow: "usr/lib/x"},
		{name: "lib/../x", follow: "ENOENT", missing: "usr/x"},
		{name: "chain/x", follow: "usr/lib/x"},
		{name: "trailing/x", follow: "usr/lib/x"},
		{name: "dots/x", follow: "usr/lib/x"},
		{name: "self/self/lib", follow: "usr/lib", last: "lib"},
		{name: "tofile", follow: "usr/lib/x", last: "tofile"},
		{name: "tofile/y", follow: "ENOTDIR", missingFails: true},
		{name: "usr/lib/x/y", follow: "ENOTDIR", missingFails: true},
		{name: "usr/lib/x/..", follow: "ENOTDIR", missingFails: true},
		{name: "dangling", follow: "ENOENT", last: "dangling", missing: "usr/new/dir"},
		{name: "dangling/sub", follow: "ENOENT", missing: "usr/new/dir/sub"},
		{name: "dangling/../../lib/x", follow: "usr/lib/x"},
		{name: "absdangling", follow: "ENOENT", last: "absdangling", missing: "no/where"},
		{name: "a/b/../c", follow: "ENOENT", missing: "a/c"},
		{name: "a/../lib", follow: "usr/lib", last: "lib"},
		{name: "loop", follow: "ELOOP", last: "loop", missingFails: true},
		{name: "loop/x", follow: "ELOOP", missingFails: true},
	} {
		text := func(name string, err error) string {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return "ENOENT"
			case errors.Is(err, syscall.ENOTDIR):
				return "ENOTDIR"
			case errors.Is(err, syscall.ELOOP):
				return "ELOOP"
			case err != nil:
				return err.Error()
			}
			return name
		}
		if tt.last == "" {
			tt.last = tt.follow
		}
		if tt.missing == "" {
			tt.missing = tt.follow
		}
		if got := text(Resolve(tree, tt.name, true)); got != tt.follow {
			t.Errorf("%q: %s, want %s", tt.name, got, tt.follow)
		}
		if got := text(Resolve(tree, tt.name, false)); got != tt.last {
			t.Errorf("%q not followed: %s, want %s", tt.name, got, tt.last)
		}
		got, exists, err := ResolveMissing(tree, tt.name)
		if text(got, err) != tt.missing || (err != nil) != tt.missingFails {
			t.Errorf("%q missing: %s, %v, want %s", tt.name, got, err, tt.missing)
		}
		if err == nil {
			if _, lerr := tree.Lstat(got); (lerr == nil) != exists {
				t.Errorf("%q: exists is %v", tt.name, exists)
			}
		}
	}
}

func TestResolveCountsLinks(t *testing.T) {
	var lines []string
	for i := range 256 {
		lines = append(lines, fmt.Sprintf("l%d → l%d", i, i+1))
	}
	tree := build(t, append(lines, "l256")...)
	if got, err := Resolve(tree, "l1", true); got != "l256" || err != nil {
		t.Errorf("255 links: %q, %v", got, err)
	}
	if _, err := Resolve(tree, "l0", true); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("256 links: %v", err)
	}
}

func TestWalk(t *testing.T) {
	tree := build(t, "foo/a", "foo-bar", "foo/b/c", "a → foo", "z")
	walk := func(skip string, with error) (string, error) {
		var got []string
		err := Walk(tree, ".", func(e Entry) error {
			got = append(got, e.Path)
			if e.Path == skip {
				return with
			}
			return nil
		})
		return strings.Join(got, " "), err
	}
	stop := errors.New("stop")
	for _, tt := range []struct {
		skip string
		with error
		want string
		err  error
	}{
		{"", nil, ". a foo foo/a foo/b foo/b/c foo-bar z", nil},
		{"foo", fs.SkipDir, ". a foo foo-bar z", nil},
		{"foo/a", fs.SkipDir, ". a foo foo/a foo-bar z", nil},
		{"foo/b", fs.SkipAll, ". a foo foo/a foo/b", nil},
		{"foo/b", stop, ". a foo foo/a foo/b", stop},
		{".", fs.SkipDir, ".", nil},
	} {
		if got, err := walk(tt.skip, tt.with); got != tt.want || err != tt.err {
			t.Errorf("%s %v: %s, %v", tt.skip, tt.with, got, err)
		}
	}
}
