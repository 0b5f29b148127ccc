package layers_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// file, dir and so on make a tar read like a list of nouns.
type item struct {
	hdr  tar.Header
	data string
}

var noon = time.Unix(43200, 0)

func file(name, data string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: noon, Size: int64(len(data))}, data}
}

func dir(name string) item {
	return item{hdr: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: noon}}
}

func symlink(name, target string) item {
	return item{hdr: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: noon}}
}

func hardlink(name, target string) item {
	return item{hdr: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644, ModTime: noon}}
}

func fifo(name string) item {
	return item{hdr: tar.Header{Typeflag: tar.TypeFifo, Name: name, Mode: 0o600, ModTime: noon}}
}

func (i item) with(change func(h *tar.Header)) item {
	change(&i.hdr)
	return i
}

func tarOf(t testing.TB, items ...item) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, i := range items {
		if err := tw.WriteHeader(&i.hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, i.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func layerOf(b []byte) v1.Layer { return static.NewLayer(b, types.OCIUncompressedLayer) }

// dump writes a tree as text, one line for each file. Numbers of links are
// replaced by the first name.
func dump(t testing.TB, r rootfs.Reader) string {
	t.Helper()
	var b strings.Builder
	first := map[uint64]string{}
	err := rootfs.Walk(r, ".", func(e rootfs.Entry) error {
		if e.Path == "." {
			return nil
		}
		fmt.Fprintf(&b, "%s %q %o %d:%d %d", [...]string{"file", "dir", "symlink", "fifo", "char", "block", "socket"}[e.Kind],
			e.Path, e.Mode, e.UID, e.GID, e.ModTime.Unix())
		switch e.Kind {
		case rootfs.Symlink:
			fmt.Fprintf(&b, " → %q", e.Target)
		case rootfs.CharDevice, rootfs.BlockDevice:
			fmt.Fprintf(&b, " %d,%d", e.Major, e.Minor)
		case rootfs.Regular:
			rc, err := r.Open(e.Path)
			if err != nil {
				return err
			}
			data, err := io.ReadAll(rc)
			rc.Close()
			if err != nil {
				return err
			}
			if int64(len(data)) != e.Size {
				return fmt.Errorf("%s: %d bytes instead of %d", e.Path, len(data), e.Size)
			}
			if len(data) > 40 {
				data = fmt.Appendf(nil, "%d bytes %x", len(data), sha256.Sum256(data))[:40]
			}
			fmt.Fprintf(&b, " %q", data)
		}
		if e.Link != 0 {
			if name, ok := first[e.Link]; ok {
				fmt.Fprintf(&b, " = %q", name)
			} else {
				first[e.Link] = e.Path
			}
		}
		for k, v := range e.Xattrs {
			fmt.Fprintf(&b, " %s=%q", k, v)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func openDir(t testing.TB, path string) *rootfs.Dir {
	t.Helper()
	d, err := rootfs.OpenDir(path, rootfs.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func openRoot(t testing.TB, path string) *rootfs.Root {
	t.Helper()
	opts := rootfs.RootOptions{}
	if os.Geteuid() != 0 {
		opts.Owners = rootfs.OwnRecorded
	}
	r, err := rootfs.OpenRoot(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// tempDir is below a directory of its own, so that what lies beside it shows.
func tempDir(t testing.TB) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(p, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// changesOf lists a whole tree as written.
func changesOf(r rootfs.Reader) iter.Seq2[snapshot.Change, error] {
	return func(yield func(snapshot.Change, error) bool) {
		err := rootfs.Walk(r, ".", func(e rootfs.Entry) error {
			c := snapshot.Change{Entry: e}
			if e.Kind == rootfs.Regular {
				c.Open = func() (io.ReadCloser, error) { return r.Open(e.Path) }
			}
			if e.Path != "." && !yield(c, nil) {
				return io.EOF
			}
			return nil
		})
		if err != nil && err != io.EOF {
			yield(snapshot.Change{}, err)
		}
	}
}

func list(changes ...snapshot.Change) iter.Seq2[snapshot.Change, error] {
	return func(yield func(snapshot.Change, error) bool) {
		for _, c := range changes {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners and devices")
	}
}
