package snapshot_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// TestOverlay reads upper directories made by hand: what the kernel makes is
// the matter of TestLawOfOverlay.
func TestOverlay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making whiteouts needs root")
	}
	mark := func(attr, value string) func(t *testing.T, p string) {
		return func(t *testing.T, p string) { must(t, unix.Lsetxattr(p, attr, []byte(value), 0)) }
	}
	whiteout := func(t *testing.T, p string) { must(t, unix.Mknod(p, unix.S_IFCHR, 0)) }
	for _, test := range []struct {
		name         string
		lower, upper []string
		at           string
		then         func(t *testing.T, p string)
		opts         snapshot.OverlayOptions
		want         string
		err          string
	}{
		{name: "whiteout", lower: []string{"a/", "a/f: x"}, upper: []string{"a/"}, at: "a/f", then: whiteout, want: ".a/ -a/f"},
		{name: "whiteout of a tree", lower: []string{"a/b/c/"}, upper: []string{"a/"}, at: "a/b", then: whiteout, want: ".a/ -a/b"},
		{name: "whiteout of nothing", lower: []string{"a/"}, upper: []string{"a/"}, at: "a/f", then: whiteout, want: ""},
		{name: "whiteout below what was a file", lower: []string{"a: x"}, upper: []string{"a/"}, at: "a/f", then: whiteout, want: "+a/"},
		{name: "whiteout below what was a link", lower: []string{"a -> b", "b/", "b/f: x"}, upper: []string{"a/"}, at: "a/f", then: whiteout, want: "+a/"},
		{
			name: "opaque", lower: []string{"a/", "a/gone: x", "a/kept: x", "a/b/", "a/b/gone: x"}, upper: []string{"a/b/", "a/kept: x", "a/new: x"},
			at: "a", then: mark(rootfs.OpaqueTrusted, "y"), want: ".a/ .a/b/ -a/b/gone -a/gone +a/new",
		},
		{
			name: "opaque where there was nothing", upper: []string{"a/", "a/new: x"},
			at: "a", then: mark(rootfs.OpaqueTrusted, "y"), want: "+a/ +a/new",
		},
		{
			name: "opaque where there was a file", lower: []string{"a: x"}, upper: []string{"a/", "a/new: x"},
			at: "a", then: mark(rootfs.OpaqueTrusted, "y"), want: "+a/ +a/new",
		},
		{
			name: "opaque by the user's attribute", lower: []string{"a/", "a/gone: x"}, upper: []string{"a/"},
			at: "a", then: mark(rootfs.OpaqueUser, "y"), opts: snapshot.OverlayOptions{UserXattr: true}, want: ".a/ -a/gone",
		},
		{name: "other value of opaque", lower: []string{"a/", "a/f: x"}, upper: []string{"a/"}, at: "a", then: mark(rootfs.OpaqueTrusted, "x"), want: ""},
		{name: "redirect", upper: []string{"a/"}, at: "a", then: mark("trusted.overlay.redirect", "b"), err: "redirect_dir"},
		{name: "metacopy", upper: []string{"a: x"}, at: "a", then: mark("trusted.overlay.metacopy", ""), err: "metacopy"},
		{
			name: "redirect below an opaque directory", lower: []string{"d/"}, upper: []string{"d/a/"}, at: "d",
			then: func(t *testing.T, p string) {
				mark(rootfs.OpaqueTrusted, "y")(t, p)
				mark("trusted.overlay.redirect", "b")(t, p+"/a")
			},
			err: "redirect_dir",
		},
		{name: "copied up and unchanged", lower: []string{"a/", "a/f: x"}, upper: []string{"a/", "a/f: x"}, want: ""},
		{name: "copied up and rewritten in time", lower: []string{"a/", "a/f: x"}, upper: []string{"a/", "a/f: y"}, want: ".a/ +a/f"},
		{name: "a further name of a lower file", lower: []string{"a: x"}, upper: []string{"a: x", "b = a"}, want: "+b"},
		{name: "two names of a new file", upper: []string{"a: x", "b = a"}, want: "+a +b"},
		{
			name: "a mode", lower: []string{"a/", "a/f: x"}, upper: []string{"a/"}, at: "a",
			then: func(t *testing.T, p string) { must(t, os.Chmod(p, 0o700)) }, want: "+a/",
		},
		{
			name: "other attributes", lower: []string{"a: x"}, upper: []string{"a: x"}, at: "a", then: mark("user.note", "x"), want: "",
		},
		{
			name: "a time with a fraction where there was none", lower: []string{"a: x"}, upper: []string{"a: x"}, at: "a",
			then: func(t *testing.T, p string) { must(t, os.Chtimes(p, time.Time{}, time.Unix(1e9, 1))) }, want: "+a",
		},
		{
			name: "a socket", lower: []string{"run/"}, upper: []string{"run/"}, at: "run/s",
			then: func(t *testing.T, p string) { must(t, unix.Mknod(p, unix.S_IFSOCK|0o600, 0)) }, want: "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			lower, upper := filepath.Join(t.TempDir(), "lower"), filepath.Join(t.TempDir(), "upper")
			must(t, os.Mkdir(lower, 0o755))
			must(t, os.Mkdir(upper, 0o755))
			plant(t, lower, test.lower...)
			plant(t, upper, test.upper...)
			if test.then != nil {
				test.then(t, filepath.Join(upper, test.at))
			}
			var list []snapshot.Change
			var err error
			for c, e := range snapshot.Overlay(t.Context(), openDir(t, lower), upper, test.opts) {
				if err = e; err == nil {
					list = append(list, c)
				}
			}
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			if got := brief(list); err == nil && got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			for _, c := range list {
				for attr := range c.Entry.Xattrs {
					t.Errorf("%s carries %s", c.Entry.Path, attr)
				}
			}
		})
	}
}
