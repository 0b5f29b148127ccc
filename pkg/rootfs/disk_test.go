package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var noon = time.Unix(43200, 5)

// privileged tells root from the root of a user namespace with one user.
func privileged() bool { return os.Geteuid() == 0 && os.Getenv("ROOTFS_TEST_AGAIN") != "ns" }

func testRoot(t testing.TB, portable bool) (*Root, *Dir, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	opts := RootOptions{}
	if !privileged() {
		opts.Owners = OwnRecorded
	}
	r, err := OpenRoot(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	r.root.portable.Store(portable)
	t.Cleanup(func() { r.Close() })
	d, err := r.Dir(DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.root.portable.Store(portable)
	t.Cleanup(func() { d.Close() })
	return r, d, dir
}

// both runs a test with openat2 and without.
func both(t *testing.T, test func(t *testing.T, r *Root, d *Dir, dir string)) {
	for _, portable := range []bool{false, true} {
		t.Run(map[bool]string{false: "openat2", true: "portable"}[portable], func(t *testing.T) {
			r, d, dir := testRoot(t, portable)
			test(t, r, d, dir)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, r *Root, e Entry, content string) {
	t.Helper()
	if e.Kind == Regular {
		e.Size = int64(len(content))
		if e.Mode == 0 && os.Geteuid() != 0 {
			e.Mode = 0o600 // attributes of others can't be read
		}
	}
	must(t, r.MkdirParents(e.Path, nil))
	must(t, r.Write(e, strings.NewReader(content)))
}

func TestRootWritesEveryKind(t *testing.T) {
	both(t, func(t *testing.T, r *Root, d *Dir, dir string) {
		root := privileged()
		entries := []Entry{
			{Path: "d/e", Kind: Directory, Mode: 0o1777},
			{Path: "d/e/f", Mode: 0o4755, Size: 2},
			{Path: "d/readonly", Kind: Directory, Mode: 0o555},
			{Path: "nothing", Mode: 0},
			{Path: "l", Kind: Symlink, Mode: 0o777, Target: "/nowhere"},
			{Path: "p", Kind: Fifo, Mode: 0o640},
			{Path: "s", Kind: Socket, Mode: 0o600},
			{Path: "c", Kind: CharDevice, Mode: 0o666, Major: 1, Minor: 3},
			{Path: "b", Kind: BlockDevice, Mode: 0o660, Major: 8, Minor: 300},
		}
		for i := range entries {
			e := &entries[i]
			if e.Path == "nothing" && os.Geteuid() != 0 {
				e.Mode = 0o400 // who can't read it can't read its attributes
			}
			e.ModTime = noon.Add(time.Duration(i) * time.Hour)
			if root || e.Kind == Regular || e.Kind == Directory {
				e.UID, e.GID = 1000+i, 2000+i
			} else {
				e.UID, e.GID = os.Geteuid(), os.Getegid()
			}
			if root && e.Path == "d/e/f" {
				e.Xattrs = map[string]string{XattrCapability: "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
			}
			write(t, r, *e, "hi"[:e.Size])
		}
		must(t, r.Chtimes("d/e", entries[0].ModTime))
		for _, want := range entries {
			got, err := d.Lstat(want.Path)
			must(t, err)
			if !got.ModTime.Equal(want.ModTime) {
				t.Errorf("%s: time %v", want.Path, got.ModTime)
			}
			got.ModTime = want.ModTime
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		}
		if parent, err := d.Lstat("d"); err != nil || parent.Mode != 0o755 || !root && (parent.UID != 0) {
			t.Errorf("parent: %+v, %v", parent, err)
		}
		// Written again, as other kinds.
		for i, e := range entries {
			e.Kind = []Kind{Symlink, Regular, Directory}[i%3]
			e.Size, e.Target, e.Xattrs = 0, "t", nil
			if e.Kind != Symlink {
				e.Target = ""
			}
			if strings.HasPrefix(e.Path, "d/e/") {
				continue
			}
			must(t, r.Write(e, nil))
			got, err := d.Lstat(e.Path)
			if err != nil || got.Kind != e.Kind {
				t.Errorf("%+v, %v", got, err)
			}
		}
	})
}

func TestRootContent(t *testing.T) {
	r, d, dir := testRoot(t, false)
	big := strings.Repeat("0123456789abcdef", 60000)
	holes := strings.Repeat("\x00", 1<<20) + "x" + strings.Repeat("\x00", 1<<20)
	must(t, os.WriteFile(filepath.Join(filepath.Dir(dir), "src"), []byte(big), 0o600))
	for name, want := range map[string]string{"empty": "", "small": "x", "big": big, "holes": holes} {
		write(t, r, Entry{Path: name, Mode: 0o600}, want)
		rc, err := d.Open(name)
		must(t, err)
		got, err := io.ReadAll(rc)
		rc.Close()
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(dir, "holes"), &st))
	if st.Blocks*512 > 1<<20 {
		t.Errorf("a file of holes takes %d bytes", st.Blocks*512)
	}
	f, err := os.Open(filepath.Join(filepath.Dir(dir), "src"))
	must(t, err)
	defer f.Close()
	must(t, r.Write(Entry{Path: "copied", Size: int64(len(big)), Mode: 0o600}, f))
	if got, _ := os.ReadFile(filepath.Join(dir, "copied")); string(got) != big {
		t.Error("copy of a file differs")
	}
	for _, tt := range []struct {
		size    int64
		content io.Reader
	}{{3, strings.NewReader("ab")}, {1, strings.NewReader("ab")}, {1, nil}, {0, strings.NewReader("a")}, {1 << 20, f}} {
		if err := r.Write(Entry{Path: "wrong", Size: tt.size}, tt.content); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d: %v", tt.size, err)
		}
	}
	failing := errors.New("failing")
	if err := r.Write(Entry{Path: "f", Size: 4}, io.MultiReader(strings.NewReader("ab"), reader(func() error { return failing }))); !errors.Is(err, failing) {
		t.Error(err)
	}
}

type reader func() error

func (r reader) Read([]byte) (int, error) { return 0, r() }

func TestRootStaysInside(t *testing.T) {
	both(t, func(t *testing.T, r *Root, d *Dir, dir string) {
		outside := filepath.Join(filepath.Dir(dir), "victim")
		must(t, os.Mkdir(outside, 0o755))
		must(t, os.WriteFile(outside+"/f", []byte("f"), 0o600))
		write(t, r, Entry{Path: "in/f"}, "in")
		for name, target := range map[string]string{
			"up": "..", "abs": outside, "root": "/", "more": "up/../../victim", "proc": "/proc/self/root" + outside, "dangling": "new/dir", "ok": "in",
		} {
			write(t, r, Entry{Path: name, Kind: Symlink, Target: target}, "")
		}
		state := func() string {
			var st unix.Stat_t
			must(t, unix.Stat(outside, &st))
			b, _ := os.ReadFile(outside + "/f")
			n, _ := os.ReadDir(filepath.Dir(dir))
			m, _ := os.ReadDir(outside)
			return fmt.Sprint(st.Mtim, st.Mode, st.Uid, string(b), len(n), len(m))
		}
		before := state()
		for _, p := range []string{"../victim", "up/victim", "up/up/victim", "abs", "root/../../victim", "more", "proc", "../../../../victim", "/../victim", "abs/..", "up/"} {
			for _, n := range []string{p, p + "/f", p + "/new"} {
				for _, e := range []Entry{{Path: n, Mode: 0o777}, {Path: n, Kind: Directory, Mode: 0o777, UID: os.Geteuid()}, {Path: n, Kind: Symlink, Target: "x"}} {
					_ = r.Write(e, nil)
					_ = r.SetMeta(e)
				}
				_ = r.MkdirParents(n, nil)
				_ = r.Chtimes(n, noon)
				_ = r.Link("in/f", n)
				_ = r.Link(n, "linked")
				_ = r.SetXattr(n, "user.x", "y")
				_ = r.Whiteout(n)
				_ = r.RemoveChildren(n, func(string) bool { return true })
				_, _ = r.Canonical(n)
				if _, err := d.Open(n); err == nil && strings.HasPrefix(n, "..") {
					t.Errorf("%s was opened for reading", n)
				}
				if after := state(); after != before {
					t.Fatalf("%s: outside changed from %s to %s", n, before, after)
				}
				// The links have been replaced by now.
				for name, target := range map[string]string{"up": "..", "abs": outside, "more": "up/../../victim", "proc": "/proc/self/root" + outside} {
					must(t, r.Remove(name))
					write(t, r, Entry{Path: name, Kind: Symlink, Target: target}, "")
				}
			}
			_ = r.Remove(p)
			_ = r.RemoveChildren(p, nil)
			if after := state(); after != before {
				t.Fatalf("removing %s: outside changed from %s to %s", p, before, after)
			}
		}
	})
}

func TestRootFollowsParents(t *testing.T) {
	both(t, func(t *testing.T, r *Root, d *Dir, dir string) {
		write(t, r, Entry{Path: "usr/lib/x"}, "x")
		for name, target := range map[string]string{"lib": "usr/lib", "a/abs": "/usr/../lib", "dangling": "made/here", "loop": "loop", "last": "usr"} {
			write(t, r, Entry{Path: name, Kind: Symlink, Target: target}, "")
		}
		write(t, r, Entry{Path: "a/abs/y"}, "y")
		write(t, r, Entry{Path: "dangling/deep/z"}, "z")
		must(t, r.Link("lib/x", "dangling/x"))
		must(t, r.Write(Entry{Path: "last", Mode: 0o600}, nil))
		for _, want := range []string{"usr/lib/y", "made/here/deep/z", "made/here/x", "last"} {
			if e, err := d.Lstat(want); err != nil || e.Kind != Regular {
				t.Errorf("%s: %+v, %v", want, e, err)
			}
		}
		for name, want := range map[string]string{"lib/new": "usr/lib/new", "a/abs": "a/abs", "a/abs/..": "usr", "/": ".", "lib/../../..": ".", "dangling/deep/z": "made/here/deep/z"} {
			if got, err := r.Canonical(name); got != want || err != nil {
				t.Errorf("%s: %s, %v", name, got, err)
			}
		}
		if err := r.Write(Entry{Path: "loop/x"}, nil); !errors.Is(err, syscall.ELOOP) {
			t.Error(err)
		}
		if err := r.Write(Entry{Path: "usr/lib/x/y"}, nil); !errors.Is(err, syscall.ENOTDIR) {
			t.Error(err)
		}
		if err := r.MkdirParents("usr/lib/x/y/z", nil); !errors.Is(err, syscall.ENOTDIR) {
			t.Error(err)
		}
		if err := r.Write(Entry{Path: "no/x"}, nil); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		// A directory that was kept open is not used after its name changed.
		write(t, r, Entry{Path: "kept/sub/f"}, "f")
		must(t, r.Write(Entry{Path: "kept", Kind: Symlink, Target: "usr"}, nil))
		write(t, r, Entry{Path: "kept/sub/g"}, "g")
		if _, err := d.Lstat("usr/sub/g"); err != nil {
			t.Error(err)
		}
		for i := range 3 * maxOpenDirs {
			write(t, r, Entry{Path: fmt.Sprintf("many/%d/f", i%100)}, "f")
		}
	})
}

func TestRootRemove(t *testing.T) {
	both(t, func(t *testing.T, r *Root, d *Dir, dir string) {
		for _, n := range []string{"a/b/c", "a/b/d/e", "a/f", "g/h"} {
			write(t, r, Entry{Path: n}, n)
		}
		write(t, r, Entry{Path: "a/closed", Kind: Directory, Mode: 0}, "")
		write(t, r, Entry{Path: "l", Kind: Symlink, Target: "g"}, "")
		must(t, r.RemoveChildren("a", func(n string) bool { return n == "a/b/d/e" }))
		must(t, r.RemoveChildren("l", nil))
		must(t, r.RemoveChildren("none/x", nil))
		must(t, r.Remove("none"))
		must(t, r.Remove("none/x"))
		must(t, r.Remove("g/h/x"))
		if got, want := names(t, d), ". a a/b a/b/d a/b/d/e g g/h l"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		must(t, r.Remove("l"))
		must(t, r.Remove("a"))
		if r.Remove("/") == nil || r.Remove("a/..") != nil && false {
			t.Error("the root was removed")
		}
		if got, want := names(t, d), ". g g/h"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		must(t, r.RemoveChildren(".", nil))
		if got := names(t, d); got != "." {
			t.Error(got)
		}
	})
}

func names(t testing.TB, r Reader) string {
	t.Helper()
	var n []string
	must(t, Walk(r, ".", func(e Entry) error { n = append(n, e.Path); return nil }))
	return strings.Join(n, " ")
}

// An attacker exchanges a directory for a link while files are written below.
func TestRootWinsRaces(t *testing.T) {
	both(t, func(t *testing.T, r *Root, d *Dir, dir string) {
		outside := filepath.Join(filepath.Dir(dir), "victim")
		must(t, os.Mkdir(outside, 0o755))
		write(t, r, Entry{Path: "a", Kind: Directory, Mode: 0o755}, "")
		must(t, os.Symlink(outside, filepath.Join(dir, "evil")))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/evil", unix.RENAME_EXCHANGE)
				}
			}
		})
		for range 600 {
			r.forget()
			_ = r.Write(Entry{Path: "a/f", Mode: 0o600}, nil)
			_ = r.Write(Entry{Path: "a", Kind: Directory, Mode: 0o755, UID: os.Geteuid(), GID: os.Getegid()}, nil)
			_ = r.Remove("a/f")
			_, _ = d.Open("a/f")
			_ = r.MkdirParents("a/b/c", nil)
			_, _ = d.ReadDir("a")
		}
		close(stop)
		wg.Wait()
		if left, _ := os.ReadDir(outside); len(left) != 0 {
			t.Errorf("%v came to lie outside", left)
		}
		if fi, _ := os.Stat(outside); fi.Mode().Perm() != 0o755 {
			t.Error("mode changed outside")
		}
	})
}

func TestDirOptions(t *testing.T) {
	r, _, dir := testRoot(t, false)
	for _, n := range []string{"a/b", "a/c", "proc/x", "z"} {
		write(t, r, Entry{Path: n, Xattrs: map[string]string{"user.x": "y", "user.overlay.opaque": "y", "trusted.x": "y"}}, n)
	}
	must(t, r.Link("z", "y"))
	d, err := OpenDir(dir, DirOptions{Skip: func(n string) bool { return n == "proc" || n == "a/b" }, AllXattrs: true})
	must(t, err)
	defer d.Close()
	if got, want := names(t, d), ". a a/c y z"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, n := range []string{"proc", "proc/x", "a/b"} {
		if _, err := d.Lstat(n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", n, err)
		}
		if _, err := d.Open(n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", n, err)
		}
	}
	y, _ := d.Lstat("y")
	z, _ := d.Lstat("z")
	c, _ := d.Lstat("a/c")
	if y.Link == 0 || y.Link != z.Link || c.Link != 0 {
		t.Error("links")
	}
	if privileged() && fmt.Sprint(z.Xattrs) != "map[user.x:y]" {
		t.Errorf("attributes %v", z.Xattrs)
	}
	for _, n := range []string{"/z", "a/../z", "", "a/"} {
		if _, err := d.Lstat(n); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", n, err)
		}
	}
	must(t, os.Symlink("a", filepath.Join(dir, "l")))
	for _, n := range []string{"l/c", "z/c", "none/c"} {
		if _, err := d.Lstat(n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", n, err)
		}
	}
	if _, err := d.ReadDir("l"); !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
	if _, err := d.Open("l"); err == nil {
		t.Error("a link was opened")
	}
	if _, err := OpenDir(filepath.Join(dir, "none"), DirOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if !strings.HasPrefix(d.HostPath(), "/") || d.Plain() {
		t.Error("HostPath or Plain")
	}
}

func TestOverride(t *testing.T) {
	for _, o := range []Override{
		{}, {UID: 33, GID: 4000000000, Mode: 0o7777, Kind: CharDevice, Major: 1, Minor: 3}, {Kind: Socket}, {Kind: Directory, Mode: 0o755},
	} {
		if got, err := ParseOverride(o.String()); got != o || err != nil {
			t.Errorf("%s: %+v, %v", o, got, err)
		}
	}
	for _, s := range []string{"", "1:2:3:file:4", "1:2:9:file:4:5", "-1:2:3:file:4:5", "1:2:3:door:4:5", "1:2:10000:file:4:5", "1:2:3:file:4:5:6", "1:2:3:file:4:99999999999"} {
		if _, err := ParseOverride(s); err == nil {
			t.Errorf("%q was parsed", s)
		}
	}
}

// TestOrdinaryUser runs the tests of this file again without privileges, as
// themselves and as the only user of a user namespace.
func TestOrdinaryUser(t *testing.T) {
	if os.Getenv("ROOTFS_TEST_AGAIN") != "" {
		t.Skip("this is the second run")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	tmp, err := os.MkdirTemp("", "rootfs-user-")
	must(t, err)
	defer os.RemoveAll(tmp)
	must(t, os.Chmod(tmp, 0o755))
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	exe := filepath.Join(tmp, "test")
	must(t, os.WriteFile(exe, self, 0o755))
	work := filepath.Join(tmp, "work")
	must(t, os.Mkdir(work, 0o700))
	must(t, os.Chown(work, 1000, 1000))
	for name, attr := range map[string]*syscall.SysProcAttr{
		"user": {Credential: &syscall.Credential{Uid: 1000, Gid: 1000}},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(exe, "-test.run", "TestRoot|TestDir|TestUnion|TestUserNamespace", "-test.v")
			cmd.Dir = work
			cmd.Env = append(os.Environ(), "ROOTFS_TEST_AGAIN=1", "TMPDIR="+work)
			cmd.SysProcAttr = attr
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestUserNamespace writes a tree as the only user of a namespace, where
// owners and devices can only be noted.
func TestUserNamespace(t *testing.T) {
	if os.Getenv("ROOTFS_TEST_AGAIN") == "ns" {
		inUserNamespace(t)
		return
	}
	if os.Geteuid() == 0 {
		t.Skip("runs as an ordinary user only")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestUserNamespace$|^TestRoot", "-test.v")
	cmd.Env = append(os.Environ(), "ROOTFS_TEST_AGAIN=ns")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skip("no user namespaces: ", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func inUserNamespace(t *testing.T) {
	dir := t.TempDir()
	r, err := OpenRoot(dir, RootOptions{Owners: OwnRecorded})
	must(t, err)
	defer r.Close()
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	entries := []Entry{
		{Path: "f", Mode: 0o4755, UID: 33, GID: 34, Xattrs: map[string]string{XattrCapability: caps}},
		{Path: "mine", Mode: 0o644},
		{Path: "d", Kind: Directory, Mode: 0o2750, UID: 5},
		{Path: "null", Kind: CharDevice, Mode: 0o666, UID: 1, Major: 1, Minor: 3},
		{Path: "sda", Kind: BlockDevice, Mode: 0o660, GID: 6, Major: 8},
		{Path: "l", Kind: Symlink, Mode: 0o777, Target: "x"},
	}
	for i := range entries {
		entries[i].ModTime = noon
		must(t, r.Write(entries[i], nil))
	}
	d, err := r.Dir(DirOptions{AllXattrs: true})
	must(t, err)
	defer d.Close()
	for _, want := range entries {
		got, err := d.Lstat(want.Path)
		must(t, err)
		got.ModTime = want.ModTime
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	// Changing a placeholder's metadata leaves it what it is.
	must(t, r.SetMeta(Entry{Path: "null", UID: 9, Mode: 0o600, ModTime: noon}))
	if e, err := d.Lstat("null"); err != nil || e.Kind != CharDevice || e.UID != 9 || e.Mode != 0o600 {
		t.Errorf("%+v, %v", e, err)
	}
	// A directory written over by its true owner carries no note any more.
	must(t, r.Write(Entry{Path: "d", Kind: Directory, Mode: 0o755, ModTime: noon}, nil))
	if e, err := d.Lstat("d"); err != nil || e.UID != 0 || e.Xattrs != nil {
		t.Errorf("%+v, %v", e, err)
	}
	must(t, r.Whiteout("gone"))
	if e, err := d.Lstat("gone"); err != nil || !isWhiteout(e) {
		t.Errorf("%+v, %v", e, err)
	}
}
