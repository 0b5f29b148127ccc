//go:build linux

package keeper_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run/inplace/keeper"
)

// victimVariable makes the test program take a directory over and wait.
const victimVariable = "KEEPER_TEST_VICTIM"

func TestMain(m *testing.M) {
	keeper.Main()
	if root := os.Getenv(victimVariable); root != "" {
		if err := victim(root); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// victim puts files away, leaves others in their place, and waits to be killed.
func victim(root string) error {
	file, err := keeper.TempFile(filepath.Dir(root))
	if err != nil {
		return err
	}
	keep := []string{filepath.Join(root, "keep/this")}
	masks, err := keeper.NewMasks(root, keep)
	if err != nil {
		return err
	}
	if err := keeper.Save(context.Background(), root, masks, file, nil); err != nil {
		return err
	}
	k, err := keeper.Start(root, keep, file, nil)
	if err != nil {
		return err
	}
	if os.Getenv("ARM") != "" {
		if err := k.Arm(); err != nil {
			return err
		}
		if err := keeper.Clear(root, masks); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, "image"), []byte("x"), 0o644); err != nil {
			return err
		}
	}
	fmt.Println("ready", k.PID())
	time.Sleep(time.Hour)
	return nil
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for owners and devices")
	}
}

// furnish makes files of every kind below root.
func furnish(t *testing.T, root string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(root, name) }
	must(os.MkdirAll(at("a/b/c"), 0o755))
	must(os.MkdirAll(at("keep/this/deep"), 0o755))
	must(os.WriteFile(at("keep/this/deep/file"), []byte("kept"), 0o644))
	must(os.WriteFile(at("keep/other"), []byte("other"), 0o600))
	must(os.WriteFile(at("a/b/file"), []byte(strings.Repeat("content ", 100000)), 0o640))
	must(os.Link(at("a/b/file"), at("linked")))
	must(os.Symlink("/nowhere", at("dangling")))
	must(os.Symlink("keep/this", at("to-kept")))
	must(unix.Mkfifo(at("a/fifo"), 0o600))
	must(unix.Mknod(at("a/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(at("a/socket"), unix.S_IFSOCK|0o600, 0))
	must(os.WriteFile(at("a/suid \xff\n name"), []byte("x"), 0o755))
	must(os.Chown(at("a/suid \xff\n name"), 1000, 1001))
	must(unix.Chmod(at("a/suid \xff\n name"), 0o6755))
	must(os.WriteFile(at("a/"+strings.Repeat("long", 60)), nil, 0o400))
	if err := unix.Setxattr(at("a/b/file"), "user.test", []byte("a\x00=b\n"), 0); err != nil {
		t.Logf("no user attributes here: %v", err)
	}
	must(unix.Setxattr(at("a/suid \xff\n name"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	sparse, err := os.Create(at("sparse"))
	must(err)
	must(sparse.Truncate(10 << 20))
	must(sparse.Close())
	old := time.Unix(1234567890, 987654321)
	for _, name := range []string{"a/b/file", "a/b/c", "a/b", "a", "keep", "."} {
		must(os.Chtimes(at(name), old, old))
	}
}

// manifest lists a tree with everything that must come back.
func manifest(t *testing.T, root string) []string {
	t.Helper()
	d, err := rootfs.OpenDir(root, rootfs.DirOptions{AllXattrs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var list []string
	links := map[uint64]string{}
	err = rootfs.Walk(d, ".", func(e rootfs.Entry) error {
		line := ""
		if e.Link != 0 {
			if links[e.Link] == "" {
				links[e.Link] = e.Path
			}
			line, e.Link = "same as "+links[e.Link], 0
		}
		sum := sha256.New()
		if e.Kind == rootfs.Regular {
			f, err := d.Open(e.Path)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := io.Copy(sum, f); err != nil {
				return err
			}
		}
		list = append(list, fmt.Sprintf("%q %+v %x", line, e, sum.Sum(nil)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("new:     %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("missing: %s", line)
		}
	}
}

func TestSaveClearRestore(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	furnish(t, root)
	keep := []string{filepath.Join(root, "to-kept")}
	masks, err := keeper.NewMasks(root, keep)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := masks.Names(), []string{"keep/this", "to-kept"}; !slices.Equal(got, want) {
		t.Fatalf("masks %q, want %q", got, want)
	}
	before := manifest(t, root)
	file, err := keeper.TempFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := keeper.Save(t.Context(), root, masks, file, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := keeper.Clear(root, masks); err != nil {
			t.Fatal(err)
		}
		left, err := filepath.Glob(filepath.Join(root, "*"))
		if err != nil || len(left) != 2 {
			t.Errorf("left: %q, %v", left, err)
		}
		// An image whose files have the same names, and other kinds.
		if err := os.MkdirAll(filepath.Join(root, "linked/a"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "a"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(root, "keep"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := keeper.BringBack(root, keep, file); err != nil {
			t.Fatal(err)
		}
		compare(t, manifest(t, root), before)
	}
}

func TestSaveIsCancelled(t *testing.T) {
	root := t.TempDir()
	masks, err := keeper.NewMasks(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	file, err := keeper.TempFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := keeper.Save(ctx, root, masks, file, nil); err == nil {
		t.Error("no error")
	}
}

// TestDeath kills a process whose files are away.
func TestDeath(t *testing.T) {
	needRoot(t)
	for _, arm := range []bool{true, false} {
		root := filepath.Join(t.TempDir(), "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		furnish(t, root)
		before := manifest(t, root)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimVariable+"="+root)
		if arm {
			cmd.Env = append(cmd.Env, "ARM=1")
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Fscanf(out, "ready %d", &pid); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Join(root, "image")); (err == nil) != arm {
			t.Errorf("armed %v: %v", arm, err)
		}
		// What reaches the whole group must not reach the keeper.
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			if err := syscall.Kill(pid, s); err != nil {
				t.Error(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		for deadline := time.Now().Add(10 * time.Second); running(pid); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the keeper does not end")
			}
		}
		compare(t, manifest(t, root), before)
	}
}

// running reports whether a process is there and no zombie.
func running(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

func TestMasks(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	masks, err := keeper.NewMasks(root, []string{at("a/b/c"), at("a/b/c/d"), at("x"), "/elsewhere", at("not/there")})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		".": "above", "a": "above", "a/b": "above", "a/b/c": "covers", "a/b/c/d/e": "covers", "a/b/cc": "", "a/x": "",
		"x": "covers", "x/y": "covers", "xy": "", "not": "above", "not/there": "covers", "other": "",
	} {
		got := ""
		switch {
		case masks.Covers(name) && masks.Above(name):
			got = "both"
		case masks.Covers(name):
			got = "covers"
		case masks.Above(name):
			got = "above"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if (masks.Covering(name) != "") != (want == "covers") {
			t.Errorf("Covering(%s) is %q", name, masks.Covering(name))
		}
	}
	if got, want := masks.Directories(), []string{".", "a", "a/b", "not"}; !slices.Equal(got, want) {
		t.Errorf("directories %q, want %q", got, want)
	}
	more := masks.Add("a")
	if !more.Covers("a/b") || more.Above("a") || masks.Covers("a") {
		t.Error("Add does not add, or changes what it is called on")
	}
	if _, err := keeper.NewMasks(root, []string{"relative"}); err == nil {
		t.Error("a relative path was taken")
	}
	system, err := keeper.NewMasks("/", nil)
	if err != nil || !system.Covers("proc/self") || !system.Mount("proc") {
		t.Errorf("/proc is not masked: %v", err)
	}
}
