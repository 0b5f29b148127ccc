package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnion(t *testing.T) {
	var paths []string
	for i, l := range [][]string{
		{"a/x=1", "a/y=1", "b/x=1", "b/z/deep=1", "f=1", "file2dir=1", "dir2file/x=1", "gone/x=1", "w=1", "lib→usr", "usr/x=1"},
		{"a/y=2", "a/-x", "b/=opaque", "b/n=2", "-gone", "file2dir/x=2", "dir2file=2", "-w", "lib/in=2"},
		{"a/x=3", "gone/y=3", "b/z/new=3", "-none"},
	} {
		dir := t.TempDir()
		paths = append(paths, dir)
		opts := RootOptions{}
		if !privileged() {
			opts.Owners = OwnRecorded
		}
		r, err := OpenRoot(dir, opts)
		must(t, err)
		for _, s := range l {
			d, base := splitName(strings.SplitN(s, "=", 2)[0])
			name, text, _ := strings.Cut(s, "=")
			from, target, isLink := strings.Cut(s, "→")
			switch {
			case isLink:
				write(t, r, Entry{Path: from, Kind: Symlink, Target: target}, "")
			case strings.HasPrefix(base, "-"):
				must(t, r.MkdirParents(s, nil))
				if err := r.Whiteout(joinName(d, base[1:])); errors.Is(err, syscall.EPERM) {
					t.Skip("whiteouts can't be made: ", err)
				} else {
					must(t, err)
				}
			case text == "opaque":
				name = strings.TrimSuffix(name, "/")
				write(t, r, Entry{Path: name, Kind: Directory, Mode: 0o700 + uint32(i)}, "")
				must(t, r.SetXattr(name, OpaqueUser, "y"))
			default:
				write(t, r, Entry{Path: name, Mode: 0o644}, text)
			}
		}
		r.Close()
	}
	u, err := OpenUnion(paths, DirOptions{AllXattrs: true})
	must(t, err)
	defer u.Close()
	var got strings.Builder
	must(t, Walk(u, ".", func(e Entry) error {
		fmt.Fprint(&got, e.Path)
		switch e.Kind {
		case Regular:
			rc, err := u.Open(e.Path)
			must(t, err)
			b, _ := io.ReadAll(rc)
			rc.Close()
			fmt.Fprintf(&got, "=%s", b)
		case Symlink:
			fmt.Fprintf(&got, "→%s", e.Target)
		}
		if len(e.Xattrs) > 0 && privileged() {
			fmt.Fprint(&got, e.Xattrs)
		}
		same, err := u.Lstat(e.Path)
		if err != nil || fmt.Sprint(same) != fmt.Sprint(e) {
			t.Errorf("Lstat %+v, %v; ReadDir %+v", same, err, e)
		}
		got.WriteString(" ")
		return nil
	}))
	want := ". a a/x=3 a/y=2 b b/n=2 b/z b/z/new=3 dir2file=2 f=1 file2dir file2dir/x=2 gone gone/x=1 gone/y=3 lib lib/in=2 usr usr/x=1 "
	// gone was whited out in the middle, so the lowest gone/x is hidden.
	want = strings.Replace(want, "gone/x=1 ", "", 1)
	if got.String() != want {
		t.Errorf("got  %s\nwant %s", got.String(), want)
	}
	for _, n := range []string{"w", "b/x", "b/z/deep", "none", "gone/x", "dir2file/x", "f/x", "w/x"} {
		if _, err := u.Lstat(n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", n, err)
		}
		if _, err := u.Open(n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open %s: %v", n, err)
		}
	}
	if _, err := u.ReadDir("f"); !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
	if _, err := u.Open("a"); !errors.Is(err, syscall.EISDIR) {
		t.Error(err)
	}
	t.Run("as overlayfs shows it", func(t *testing.T) { againstOverlay(t, paths, u) })
}

// againstOverlay compares with a mount, made in a mount namespace of its own.
func againstOverlay(t *testing.T, paths []string, u *Union) {
	if !privileged() {
		t.Skip("needs root to mount")
	}
	mnt := t.TempDir()
	var lower []string
	for i := len(paths) - 1; i >= 0; i-- {
		lower = append(lower, paths[i])
	}
	if err := unix.Mount("overlay", mnt, "overlay", unix.MS_RDONLY, "userxattr,lowerdir="+strings.Join(lower, ":")); err != nil {
		t.Skip("overlayfs does not mount: ", err)
	}
	defer unix.Unmount(mnt, unix.MNT_DETACH)
	d, err := OpenDir(mnt, DirOptions{})
	must(t, err)
	defer d.Close()
	if got, want := names(t, u), names(t, d); got != want {
		t.Errorf("union %s\nmount %s", got, want)
	}
	must(t, Walk(d, ".", func(e Entry) error {
		got, err := u.Lstat(e.Path)
		if err != nil || got.Mode != e.Mode || got.Size != e.Size || !got.ModTime.Equal(e.ModTime) {
			t.Errorf("union %+v (%v)\nmount %+v", got, err, e)
		}
		return nil
	}))
}
