package snapshot_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// plant makes files: "dir/", "file: text", "link -> target", "name = old" (a
// further name). Regular files get a time without fraction.
func plant(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		var err error
		if name, old, ok := strings.Cut(f, " = "); ok {
			err = os.Link(filepath.Join(dir, old), filepath.Join(dir, name))
		} else if name, target, ok := strings.Cut(f, " -> "); ok {
			err = os.Symlink(target, filepath.Join(dir, name))
		} else if name, text, ok := strings.Cut(f, ": "); ok {
			p := filepath.Join(dir, name)
			if err = os.WriteFile(p, []byte(text), 0o644); err == nil {
				err = os.Chtimes(p, time.Time{}, time.Unix(1e9, 0))
			}
		} else {
			err = os.MkdirAll(filepath.Join(dir, f), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// brief shows changes in one line each: "+" written, "." parent, "-" removed.
func brief(list []snapshot.Change) string {
	var b strings.Builder
	for _, c := range list {
		name := c.Entry.Path
		if c.Entry.IsDir() {
			name += "/"
		}
		fmt.Fprintf(&b, "%c%s ", "+.-"[c.Kind], name)
	}
	return strings.TrimSpace(b.String())
}

func TestScan(t *testing.T) {
	for _, test := range []struct {
		name   string
		before []string
		change func(t *testing.T, in func(string) string)
		want   string
	}{
		{
			name:   "nothing",
			before: []string{"a/", "a/f: x"},
			change: func(t *testing.T, in func(string) string) {},
			want:   "",
		},
		{
			name:   "only a directory's time",
			before: []string{"a/", "a/f: x"},
			change: func(t *testing.T, in func(string) string) {
				must(t, os.Chtimes(in("a"), time.Time{}, time.Unix(5, 0)))
			},
			want: "",
		},
		{
			name:   "a tree is gone: one removal",
			before: []string{"a/b/c/", "a/b/c/f: x", "a/b-c: y", "a/z: z"},
			change: func(t *testing.T, in func(string) string) { must(t, os.RemoveAll(in("a/b"))) },
			want:   ".a/ -a/b",
		},
		{
			name:   "names around the slash",
			before: []string{"a/", "a-b: x", "a/f: x", "a!: x"},
			change: func(t *testing.T, in func(string) string) {
				plant(t, in("."), "a/f: longer", "a-b: longer", "a!: longer")
			},
			want: ".a/ +a/f +a! +a-b",
		},
		{
			name:   "a directory becomes a file, a file a directory",
			before: []string{"d/", "d/x: x", "f: x"},
			change: func(t *testing.T, in func(string) string) {
				must(t, os.RemoveAll(in("d")))
				must(t, os.Remove(in("f")))
				plant(t, in("."), "d: file", "f/", "f/y: y")
			},
			want: "+d +f/ +f/y",
		},
		{
			name:   "a directory becomes a link to another",
			before: []string{"d/", "d/x: x", "e/", "e/x: x"},
			change: func(t *testing.T, in func(string) string) {
				must(t, os.RemoveAll(in("d")))
				plant(t, in("."), "d -> e")
			},
			want: "+d",
		},
		{
			name:   "a new name of an old file, after it",
			before: []string{"b/", "b/old: x"},
			change: func(t *testing.T, in func(string) string) { plant(t, in("."), "c/", "c/new = b/old") },
			want:   "+c/ +c/new .b/ +b/old",
		},
		{
			name:   "a new name of an old file, before it",
			before: []string{"b/", "b/old: x"},
			change: func(t *testing.T, in func(string) string) { plant(t, in("."), "a/", "a/new = b/old") },
			want:   "+a/ +a/new .b/ +b/old",
		},
		{
			name:   "one of two names is gone",
			before: []string{"b: x", "c = b"},
			change: func(t *testing.T, in func(string) string) { must(t, os.Remove(in("c"))) },
			want:   "-c",
		},
		{
			name:   "one of two names is another file now",
			before: []string{"b: x", "c = b"},
			change: func(t *testing.T, in func(string) string) {
				must(t, os.Remove(in("c")))
				plant(t, in("."), "c: new")
			},
			want: "+c",
		},
		{
			name:   "a socket, and nothing for its sake",
			before: []string{"run/"},
			change: func(t *testing.T, in func(string) string) {
				must(t, unix.Mknod(in("run/sock"), unix.S_IFSOCK|0o600, 0))
			},
			want: "",
		},
		{
			name:   "same size and second",
			before: []string{"f: one"},
			change: func(t *testing.T, in func(string) string) {
				must(t, os.WriteFile(in("f"), []byte("two"), 0o644))
				must(t, os.Chtimes(in("f"), time.Time{}, time.Unix(1e9, 1)))
			},
			want: "+f",
		},
		{
			name:   "same size and time: only the bytes tell",
			before: []string{"f: one"},
			change: func(t *testing.T, in func(string) string) { plant(t, in("."), "f: two") },
			want:   "+f",
		},
		{
			name:   "away and back",
			before: []string{"d/", "d/f: one"},
			change: func(t *testing.T, in func(string) string) {
				must(t, os.Rename(in("d/f"), in("d/g")))
				must(t, os.Rename(in("d/g"), in("d/f")))
				must(t, os.Chmod(in("d/f"), 0o644))
			},
			want: "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			tmp := t.TempDir()
			tree, before := filepath.Join(tmp, "tree"), filepath.Join(tmp, "before")
			must(t, os.Mkdir(tree, 0o755))
			plant(t, tree, test.before...)
			b := take(t, tree, snapshot.ScanOptions{SameContent: contentOf(before)})
			copyTree(t, tree, before)
			test.change(t, func(name string) string { return filepath.Join(tree, name) })
			list, next := rescan(t, b)
			if got := brief(list); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if got := brief(all(t, snapshot.Diff(t.Context(), openDir(t, before), openDir(t, tree)))); got != test.want {
				t.Errorf("Diff: got  %s\nwant %s", got, test.want)
			}
			if list, _ := rescan(t, next); len(list) > 0 {
				t.Errorf("then: %s", brief(list))
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestScanExcludes(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "kaniko/x/", "etc/", "etc/hosts: x", "etc/passwd: x")
	b := take(t, dir, snapshot.ScanOptions{Exclude: func(name string) bool {
		return name == "kaniko" || name == "etc/hosts" || name == "etc/new"
	}})
	plant(t, dir, "kaniko/x/f: x", "kaniko/y/", "etc/hosts: changed", "etc/new/", "etc/new/f: x")
	must(t, b.Update(t.Context(), []string{"kaniko/x/f", "etc/new/f", "etc/hosts"}))
	if list, _ := rescan(t, b); len(list) > 0 {
		t.Errorf("excluded files are reported: %s", brief(list))
	}
	must(t, os.RemoveAll(filepath.Join(dir, "etc")))
	if list, _ := rescan(t, b); brief(list) != "-etc" {
		t.Errorf("got %s", brief(list))
	}
}

// A name may be given to, or taken from, a file behind a Baseline's back as
// long as Update hears of that name.
func TestUpdateMindsSiblings(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "a: x", "d/", "d/b = a", "c: y")
	b := take(t, dir, snapshot.ScanOptions{}) // no SameContent: a touched file counts as changed
	must(t, os.Remove(filepath.Join(dir, "d/b")))
	plant(t, dir, "d/b: new", "e = c")
	must(t, b.Update(t.Context(), []string{"d/b", "e"}))
	if list, _ := rescan(t, b); len(list) > 0 {
		t.Errorf("after Update: %s", brief(list))
	}
}

func TestUpdateRefusesNamesOutside(t *testing.T) {
	dir := t.TempDir()
	b := take(t, dir, snapshot.ScanOptions{})
	for _, name := range []string{"/etc", "..", "../x", "a/../../x"} {
		if b.Update(t.Context(), []string{name}) == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

// What is changed right after Take must get a time of its own.
func TestTakeWaitsForTheClock(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		p := filepath.Join(dir, fmt.Sprint(i))
		must(t, os.WriteFile(p, nil, 0o644))
		take(t, dir, snapshot.ScanOptions{})
		var st unix.Stat_t
		must(t, unix.Stat(p, &st))
		var now unix.Timespec
		must(t, unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now))
		if st.Ctim.Nano() >= now.Nano() {
			t.Fatalf("the clock that stamps files still stands at %d", now.Nano())
		}
	}
}

func TestScanSkipsMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if !inNamespaces(t, "mounts", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}) {
		return
	}
	dir := t.TempDir()
	plant(t, dir, "tmp/", "same/", "later/", "d/", "f: x", "src: y", "gone/")
	mount := func(from, to, kind string, flags uintptr) {
		t.Helper()
		to = filepath.Join(dir, to)
		must(t, unix.Mount(from, to, kind, flags, ""))
		t.Cleanup(func() { unix.Unmount(to, unix.MNT_DETACH) })
	}
	mount("tmpfs", "tmp", "tmpfs", 0)
	mount(filepath.Join(dir, "d"), "same", "", unix.MS_BIND) // the same device
	mount(filepath.Join(dir, "src"), "f", "", unix.MS_BIND)
	mount("tmpfs", "gone", "tmpfs", 0)

	b := take(t, dir, snapshot.ScanOptions{})
	plant(t, dir, "tmp/new: x", "d/new: x", "gone/new: x")
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("changes src"), 0o644))
	mount("tmpfs", "later", "tmpfs", 0)
	plant(t, dir, "later/new: x")
	must(t, unix.Unmount(filepath.Join(dir, "gone"), 0))
	list, next := rescan(t, b)
	if got, want := brief(list), ".d/ +d/new +src"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	must(t, next.Update(t.Context(), []string{"tmp/new", "same", "f"}))
	if list, _ := rescan(t, next); len(list) > 0 {
		t.Errorf("then: %s", brief(list))
	}
}

// A Root in a user namespace notes owners and devices that it can't make.
func TestScanBelievesOverrides(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "f: x", "null: ")
	note := func(name string, o rootfs.Override) {
		t.Helper()
		err := unix.Lsetxattr(filepath.Join(dir, name), rootfs.OverrideXattr, []byte(o.String()), 0)
		if errors.Is(err, unix.ENOTSUP) {
			t.Skip("no extended attributes here")
		}
		must(t, err)
	}
	note("f", rootfs.Override{UID: 42, GID: 43})
	b := take(t, dir, snapshot.ScanOptions{Overrides: true})
	must(t, os.Chmod(filepath.Join(dir, "f"), 0o600))
	note("null", rootfs.Override{UID: 1, Mode: 0o666, Kind: rootfs.CharDevice, Major: 1, Minor: 3})
	list, _ := rescan(t, b)
	if len(list) != 2 {
		t.Fatalf("got %s", brief(list))
	}
	if e := list[0].Entry; e.UID != 42 || e.GID != 43 || e.Mode != 0o600 {
		t.Errorf("f is %s", describe(e, true))
	}
	if e := list[1].Entry; e.Kind != rootfs.CharDevice || e.UID != 1 || e.Minor != 3 || list[1].Open != nil {
		t.Errorf("null is %s", describe(e, true))
	}
}

func TestTakeOfNoDirectory(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "f: x")
	for _, name := range []string{"f", "missing"} {
		if _, err := snapshot.Take(t.Context(), filepath.Join(dir, name), snapshot.ScanOptions{}); err == nil {
			t.Errorf("%s was recorded", name)
		}
	}
}
