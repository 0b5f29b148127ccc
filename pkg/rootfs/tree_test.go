package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func list(t testing.TB, r Reader) string {
	t.Helper()
	var b strings.Builder
	err := Walk(r, ".", func(e Entry) error {
		if e.Path != "." {
			fmt.Fprintf(&b, "%s %d %o\n", e.Path, e.Kind, e.Mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTreePut(t *testing.T) {
	tree := build(t, "a/b/c", "f", "l → a")
	put := func(e Entry) error { return tree.Put(e, nil) }
	if err := put(Entry{Path: "a/b", Kind: Directory, Mode: 0o700}); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Lstat("a/b/c"); err != nil {
		t.Error("a directory over a directory lost its files")
	}
	if err := put(Entry{Path: "a", Kind: Regular}); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Lstat("a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file over a directory kept files")
	}
	if err := put(Entry{Path: "a", Kind: Directory, Mode: 0o711}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f/x", "l/x"} {
		if err := put(Entry{Path: name}); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "/a", "a/", "a/../b", "..", "a//b", "a\x00"} {
		if err := put(Entry{Path: name}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := put(Entry{Path: ".", Kind: Directory, Mode: 0o500}); err != nil {
		t.Error(err)
	}
	if err := put(Entry{Path: "."}); err == nil {
		t.Error("the root became a file")
	}
	if got, want := list(t, tree), "a 1 711\nf 0 644\nl 2 777\n"; got != want {
		t.Errorf("got %s", got)
	}
	if e, _ := tree.Lstat("."); e.Mode != 0o500 {
		t.Errorf("root: %+v", e)
	}
}

func TestTreeKeepsEntries(t *testing.T) {
	tree := NewTree()
	at := time.Unix(1700000000, 123456789)
	for _, e := range []Entry{
		{Path: "reg", Mode: 0o4755, UID: 4000000000, GID: 7, Size: 5 << 30, ModTime: at, Xattrs: map[string]string{"security.capability": "x"}},
		{Path: "dir", Kind: Directory, Mode: 0o1777, ModTime: at},
		{Path: "sym", Kind: Symlink, Mode: 0o777, Target: "../x", ModTime: at},
		{Path: "chr", Kind: CharDevice, Major: 259, Minor: 1 << 19, ModTime: at},
		{Path: "old", Kind: Fifo, ModTime: time.Unix(-1e9, 5)},
	} {
		if err := tree.Put(e, nil); err != nil {
			t.Fatal(err)
		}
		got, err := tree.Lstat(e.Path)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(e) || !got.ModTime.Equal(e.ModTime) {
			t.Errorf("%v, %v, want %v", got, err, e)
		}
	}
}

func TestTreeLinks(t *testing.T) {
	tree := build(t, "d/a", "e")
	for _, l := range [][2]string{{"d/a", "b"}, {"b", "c"}, {"b", "b"}} {
		if err := tree.Link(l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name string) uint64 { e, _ := tree.Lstat(name); return e.Link }
	if link("b") == 0 || link("b") != link("d/a") || link("b") != link("c") || link("e") != 0 {
		t.Error("names of one file differ")
	}
	clone := tree.Clone()
	if err := tree.SetMeta(Entry{Path: "c", Mode: 0o600, UID: 5}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "c", "d/a"} {
		if e, _ := tree.Lstat(name); e.Mode != 0o600 || e.UID != 5 || e.Link == 0 {
			t.Errorf("%+v", e)
		}
		if e, _ := clone.Lstat(name); e.Mode != 0o644 || e.UID != 0 {
			t.Errorf("in the clone: %+v", e)
		}
	}
	if err := tree.Put(Entry{Path: "b", Mode: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if link("b") != 0 || link("c") != link("d/a") {
		t.Error("replacing one name changed the others")
	}
	if err := tree.Link("e", "f"); err != nil || link("e") == link("c") {
		t.Error("two files share a link")
	}
	for _, l := range [][2]string{{"d", "x"}, {"none", "x"}, {"d/a", "d"}, {"e", "."}, {"e", "f/x"}} {
		if tree.Link(l[0], l[1]) == nil {
			t.Errorf("%v was linked", l)
		}
	}
}

func TestTreeOpen(t *testing.T) {
	tree := build(t, "d/", "empty", "l → empty")
	open := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("hi")), nil }
	if err := tree.Put(Entry{Path: "f", Size: 2}, open); err != nil {
		t.Fatal(err)
	}
	if err := tree.Link("f", "g"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": "hi", "g": "hi", "empty": "", "d": "error", "l": "error", "none": "error", "f/x": "error"} {
		got := "error"
		if rc, err := tree.Open(name); err == nil {
			b, _ := io.ReadAll(rc)
			got = string(b)
		}
		if got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Clones behave like copies, whatever is done to whichever of them.
func TestTreeClones(t *testing.T) {
	type pair struct {
		tree  *Tree
		model map[string]uint32 // files and directories by name, with modes
	}
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 0))
		all := []pair{{NewTree(), map[string]uint32{}}}
		for range 200 {
			p := all[rng.IntN(len(all))]
			name := string("abc"[rng.IntN(3)])
			for rng.IntN(2) == 0 {
				name += "/" + string("abc"[rng.IntN(3)])
			}
			below := func(n string) bool { return strings.HasPrefix(n, name+"/") }
			switch rng.IntN(5) {
			case 0:
				all = append(all, pair{p.tree.Clone(), cloneMap(p.model)})
			case 1:
				p.tree.Remove(name)
				for n := range p.model {
					if n == name || below(n) {
						delete(p.model, n)
					}
				}
			default:
				mode := uint32(rng.IntN(0o777))
				if err := p.tree.Put(Entry{Path: name, Kind: Directory, Mode: mode}, nil); err != nil {
					t.Fatal(err)
				}
				p.model[name] = mode
				for i, c := range name {
					if c == '/' {
						if _, ok := p.model[name[:i]]; !ok {
							p.model[name[:i]] = 0o755
						}
					}
				}
			}
			for i, p := range all {
				n := 0
				err := Walk(p.tree, ".", func(e Entry) error {
					if e.Path != "." {
						if m, ok := p.model[e.Path]; !ok || m != e.Mode {
							t.Fatalf("seed %d: tree %d has %s %o", seed, i, e.Path, e.Mode)
						}
						n++
					}
					return nil
				})
				if err != nil || n != len(p.model) {
					t.Fatalf("seed %d: tree %d has %d files, want %d (%v)", seed, i, n, len(p.model), err)
				}
			}
			if len(all) > 6 {
				all = slices.Delete(all, 0, 3)
			}
		}
	}
}

func cloneMap(m map[string]uint32) map[string]uint32 {
	c := map[string]uint32{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

func TestTreeIsCompact(t *testing.T) {
	const n = 100000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tree := NewTree()
	for i := range n {
		name := fmt.Sprintf("usr/share/%03d/file%05d", i/100, i)
		if err := tree.Put(Entry{Path: name, Mode: 0o644, Size: 5, ModTime: time.Unix(1, 0)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	clone := tree.Clone()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if per := (after.HeapAlloc - before.HeapAlloc) / n; per > 250 {
		t.Errorf("%d bytes for each file", per)
	} else {
		t.Logf("%d bytes for each file", per)
	}
	runtime.KeepAlive(clone)
}
