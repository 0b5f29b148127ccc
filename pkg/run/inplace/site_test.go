//go:build linux

package inplace

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

var epoch = time.Unix(1600000000, 0)

// parse makes a layer of lines: "dir NAME", "file NAME TEXT", "link NAME
// TARGET", "hard NAME TARGET", "whiteout NAME", "opaque NAME".
func parse(t *testing.T, text string) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		f = append(f, "")
		h := tar.Header{Name: f[1], Mode: 0o750, ModTime: epoch, Typeflag: tar.TypeReg, Uid: 7, Gid: 8}
		switch f[0] {
		case "dir":
			h.Typeflag = tar.TypeDir
		case "file":
			h.Size = int64(len(f[2]))
		case "link":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f[2]
		case "hard":
			h.Typeflag, h.Linkname = tar.TypeLink, f[2]
		case "whiteout":
			h.Name = filepath.Join(filepath.Dir(f[1]), ".wh."+filepath.Base(f[1]))
		case "opaque":
			h.Name = filepath.Join(f[1], ".wh..wh..opq")
		default:
			t.Fatalf("line %q", line)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f[2][:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// describe lists a tree: kind, name, and what matters of it.
func describe(t *testing.T, r rootfs.Reader) string {
	t.Helper()
	var b strings.Builder
	err := rootfs.Walk(r, ".", func(e rootfs.Entry) error {
		switch {
		case e.Path == ".":
			return nil
		case e.IsDir() && e.UID == 7:
			b.WriteString("dir " + e.Path)
		case e.IsDir() && e.Mode == 0o755 && e.ModTime.Unix() == 0:
			b.WriteString("implied " + e.Path)
		case e.IsDir():
			b.WriteString("other " + e.Path)
		case e.Kind == rootfs.Symlink:
			b.WriteString("link " + e.Path + " " + e.Target)
		default:
			f, err := r.Open(e.Path)
			if err != nil {
				return err
			}
			defer f.Close()
			text, err := io.ReadAll(f)
			if err != nil {
				return err
			}
			b.WriteString("file " + e.Path + " " + string(text))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// prepared makes a directory as a container's root, and an isolation for it:
// the build's files are in work/build, the context in ctx/here, and volume/x is
// left alone too.
func prepared(t *testing.T) (*Isolation, string) {
	t.Helper()
	return preparedIn(t, t.TempDir())
}

func preparedIn(t *testing.T, root string) (*Isolation, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for owners")
	}
	for _, dir := range []string{"work/build", "ctx/here", "volume/x", "own"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"ctx/here/precious", "volume/x/precious", "own/file", "work/executor"} {
		if err := os.WriteFile(filepath.Join(root, file), []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	i := New(Options{
		Dir: filepath.Join(root, "work/build"), Keep: []string{filepath.Join(root, "ctx/here"), filepath.Join(root, "volume/x")}, root: root,
	})
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
		for _, file := range []string{"ctx/here/precious", "volume/x/precious", "own/file", "work/executor"} {
			if text, err := os.ReadFile(filepath.Join(root, file)); string(text) != file {
				t.Errorf("%s holds %q, %v", file, text, err)
			}
		}
		if left, err := filepath.Glob(filepath.Join(root, "*")); err != nil || len(left) != 4 {
			t.Errorf("left: %q, %v", left, err)
		}
	})
	return i, root
}

func TestTrees(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers []string
		want   string
	}{
		{"nothing of the container shows", []string{"dir a\nfile a/b c"}, "dir a\nfile a/b c\n"},
		{"directories that both have", []string{"dir volume\nfile volume/y y"}, "dir volume\nfile volume/y y\n"},
		{"directories that nobody describes", []string{"file volume/y y\nfile z/z z"}, "implied volume\nfile volume/y y\nimplied z\nfile z/z z\n"},
		{
			"files in masked places", []string{"dir volume\ndir volume/x\nfile volume/x/f f\nfile ctx/here/g g", "file volume/x/f F\nwhiteout ctx/here/g"},
			"implied ctx\nimplied ctx/here\ndir volume\ndir volume/x\nfile volume/x/f F\n",
		},
		{"a file in place of a masked one", []string{"file ctx/here file"}, "implied ctx\nfile ctx/here file\n"},
		{"whiteout of a directory", []string{"dir volume\ndir volume/x\nfile volume/x/f f\nfile volume/y y", "whiteout volume"}, ""},
		{"whiteout and again", []string{"file volume/y y\nfile volume/x/f f", "whiteout volume\nfile volume/z z"}, "implied volume\nfile volume/z z\n"},
		{"opaque directory", []string{"dir volume\nfile volume/y y\nfile volume/d/y y\nfile volume/x/f f", "file volume/d/z z\nopaque volume"}, "dir volume\nimplied volume/d\nfile volume/d/z z\n"},
		{"opaque root", []string{"dir volume\nfile a a\nfile volume/x/f f", "file b b\nopaque ."}, "file b b\n"},
		{
			"a link in place of a directory", []string{"dir volume\nfile volume/y y\nfile volume/x/f f", "link volume /else\nfile else/e e\nfile z z"},
			"implied else\nfile else/e e\nlink volume /else\nfile z z\n",
		},
		{"through a link", []string{"link to volume/x\ndir volume\ndir volume/x", "file to/f f"}, "link to volume/x\ndir volume\ndir volume/x\n"},
		{"hard links", []string{"file a a\nhard b a", "hard c b\nwhiteout a"}, "file b a\nfile c a\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, _ := prepared(t)
			var layers []v1.Layer
			for _, l := range c.layers {
				layers = append(layers, parse(t, l))
			}
			ws, err := i.Open(t.Context(), run.Stage{Name: "test", Layers: layers})
			if err != nil {
				t.Fatal(err)
			}
			// In root, moved aside, and copied into another stage.
			for _, how := range []string{"in root", "aside", "copied"} {
				var r rootfs.Reader = ws
				switch how {
				case "aside":
					if _, err := i.Open(t.Context(), run.Stage{Name: "next", Layers: []v1.Layer{parse(t, "file other other")}}); err != nil {
						t.Fatal(err)
					}
				case "copied":
					if r, err = i.Open(t.Context(), run.Stage{Name: "child", Parent: ws}); err != nil {
						t.Fatal(err)
					}
				}
				if got := describe(t, r); got != c.want {
					t.Errorf("%s:\n%swant\n%s", how, got, c.want)
				}
			}
		})
	}
}

func TestPutAndChanges(t *testing.T) {
	i, root := prepared(t)
	ws, err := i.Open(t.Context(), run.Stage{Name: "test", Layers: []v1.Layer{parse(t, "dir volume\nfile volume/y yyyy\nfile f ffff")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.(*workspace).record(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := func(s string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
	}
	write := func(name, s string) snapshot.Change {
		return snapshot.Change{Entry: rootfs.Entry{Path: name, Mode: 0o640, Size: int64(len(s)), ModTime: epoch}, Open: text(s)}
	}
	dir := func(name string) snapshot.Change {
		return snapshot.Change{Entry: rootfs.Entry{Path: name, Kind: rootfs.Directory, Mode: 0o700, UID: 7, ModTime: epoch}}
	}
	parent := func(name string) snapshot.Change {
		return snapshot.Change{Kind: snapshot.Parent, Entry: rootfs.Entry{Path: name, Kind: rootfs.Directory}}
	}
	if err := ws.Put(t.Context(), []snapshot.Change{dir("ctx"), write("ctx/new", "new"), write("put", "pppp"), parent("volume"), dir("volume/x"), write("volume/x/hidden", "h")}); err != nil {
		t.Fatal(err)
	}
	changes := func() string {
		var b strings.Builder
		for c, err := range ws.Changes(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			b.WriteString([]string{"+", "=", "-"}[c.Kind] + c.Entry.Path + " ")
		}
		return b.String()
	}
	if got := changes(); got != "" {
		t.Errorf("what was put is reported: %s", got)
	}
	if got, want := describe(t, ws), "dir ctx\nfile ctx/new new\nfile f ffff\nfile put pppp\ndir volume\ndir volume/x\nfile volume/x/hidden h\nfile volume/y yyyy\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if err := ws.Put(t.Context(), []snapshot.Change{{Entry: rootfs.Entry{Path: "volume", Kind: rootfs.Symlink, Target: "x"}}}); err == nil {
		t.Error("a directory that can't be replaced was replaced")
	}
	// As a command would: touched, rewritten with the old time, really changed.
	touch := func(name, s string) {
		name = filepath.Join(root, name)
		if err := os.WriteFile(name, []byte(s), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, epoch, epoch); err != nil {
			t.Fatal(err)
		}
	}
	touch("f", "ffff")
	touch("put", "PPPP")
	touch("volume/y", "yyyy")
	touch("ctx/here/precious", "ctx/here/precious")
	if err := os.WriteFile(filepath.Join(root, "work/result"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, want := changes(), "+put =work +work/result "; got != want {
		t.Errorf("changes %q, want %q", got, want)
	}
	// It is known no more what the file was before it was changed.
	touch("put", "PPPP")
	if got, want := changes(), "+put "; got != want {
		t.Errorf("changes %q, want %q", got, want)
	}
	if err := ws.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ws.Lstat("f"); err == nil {
		t.Error("a closed workspace can be read")
	}
	if err := ws.Put(t.Context(), nil); err == nil {
		t.Error("a closed workspace can be written to")
	}
}

func TestFullDisk(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("can't mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	i, _ := preparedIn(t, root)
	ws, err := i.Open(t.Context(), run.Stage{Name: "full", Layers: []v1.Layer{parse(t, "file f ffff")}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(root, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, endless{}); err == nil {
		t.Fatal("the disk does not fill")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	e := rootfs.Entry{Path: "put", Size: 1 << 20, ModTime: epoch}
	open := func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(endless{}, 1<<20)), nil }
	if err := ws.Put(t.Context(), []snapshot.Change{{Entry: e, Open: open}}); err == nil {
		t.Error("a file was put on a full disk")
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestOneBuildAtATime(t *testing.T) {
	i, root := prepared(t)
	if _, err := i.Open(t.Context(), run.Stage{Name: "one"}); err != nil {
		t.Fatal(err)
	}
	other := New(Options{Dir: filepath.Join(root, "work/build"), root: root})
	if _, err := other.Open(t.Context(), run.Stage{Name: "two"}); err == nil || !strings.Contains(err.Error(), "another build") {
		t.Errorf("error %v", err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}
