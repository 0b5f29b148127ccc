package snapshot_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// In namespaces of its own the test binary may mount; the variable says that
// it is there, and with which option overlayfs is to be mounted.
const insideEnv = "SNAPSHOT_TEST_INSIDE"

// inNamespaces runs the calling test again in new namespaces, and returns true
// in there.
func inNamespaces(t *testing.T, mode string, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(insideEnv) == mode {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	args := []string{"-test.run", "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$", "-law.n", fmt.Sprint(*lawN), "-law.seed", fmt.Sprint(*lawSeed)}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), insideEnv+"="+mode)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("namespaces are not allowed here: %v", err)
	}
	if _, why, ok := strings.Cut(string(out), "SKIP: "); ok {
		t.Skip(strings.SplitN(why, "\n", 2)[0])
	}
	if err != nil {
		t.Fatalf("in namespaces: %v\n%s", err, out)
	}
	return false
}

func TestLawOfOverlay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting overlayfs with trusted attributes needs root")
	}
	if inNamespaces(t, "trusted", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}) {
		seeds(t, 5, func(t *testing.T, seed uint64) { overlayLaw(t, seed, false) })
	}
}

func TestLawOfOverlayInUserNamespace(t *testing.T) {
	ids := 1
	if os.Geteuid() == 0 {
		ids = 65536
	}
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: ids}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: ids}},
	}
	attr.GidMappingsEnableSetgroups = ids > 1
	if inNamespaces(t, "user", attr) {
		seeds(t, 5, func(t *testing.T, seed uint64) { overlayLaw(t, seed, true) })
	}
}

// mountOverlay mounts lowers, the lowest first, with upper at merged.
func mountOverlay(t *testing.T, lowers []string, upper, merged string, user bool) {
	t.Helper()
	for _, d := range []string{upper, upper + ".work", merged} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	option := "lowerdir="
	for i := len(lowers) - 1; i >= 0; i-- {
		option += lowers[i]
		if i > 0 {
			option += ":"
		}
	}
	option += ",upperdir=" + upper + ",workdir=" + upper + ".work,redirect_dir=off,index=off,metacopy=off"
	if user {
		option = strings.Replace(option, ",redirect_dir=off,index=off,metacopy=off", ",userxattr", 1)
	}
	if err := unix.Mount("overlay", merged, "overlay", 0, option); err != nil {
		fmt.Printf("SKIP: overlayfs does not mount here (%s): %v\n", option, err)
		os.Exit(0)
	}
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
}

// overlayLaw changes a tree through overlay mounts, one above the other, as
// steps of a build do.
func overlayLaw(t *testing.T, seed uint64, user bool) {
	tmp := quickDir(t)
	base := filepath.Join(tmp, "base")
	if err := os.Mkdir(base, 0o755); err != nil {
		t.Fatal(err)
	}
	f := newForester(t, base, seed)
	f.devices = f.devices && !user
	f.links = seed%2 == 0
	logSteps(t, f)
	f.grow(5 + f.rng.IntN(40))

	lowers := []string{base}
	for round := range 3 {
		name := func(s string) string { return filepath.Join(tmp, fmt.Sprint(s, round)) }
		upper, merged, before := name("upper"), name("merged"), name("before")
		mountOverlay(t, lowers, upper, merged, user)
		f.root = merged
		f.log = append(f.log, fmt.Sprintf("-- round %d", round))

		scan := take(t, merged, snapshot.ScanOptions{SameContent: contentOf(before)})
		copyTree(t, merged, before)
		f.change(1 + f.rng.IntN(20))

		lower, err := rootfs.OpenUnion(lowers, rootfs.DirOptions{})
		if err != nil {
			t.Fatal(err)
		}
		opts := snapshot.OverlayOptions{UserXattr: user}
		list := all(t, snapshot.Overlay(t.Context(), lower, upper, opts))
		checkLaw(t, before, merged, list, true)
		if !f.links {
			scanned, _ := rescan(t, scan)
			if a, b := text(list), text(scanned); a != b {
				t.Errorf("Overlay finds\n%s\nScan finds\n%s", a, b)
			}
			diffed := all(t, snapshot.Diff(t.Context(), lower, openDir(t, merged)))
			if a, b := text(list), text(diffed); a != b {
				t.Errorf("Overlay finds\n%s\nDiff finds\n%s", a, b)
			}
		}
		lower.Close()
		lowers = append(lowers, upper)
	}
}
