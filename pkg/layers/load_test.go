package layers_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// counting tells how often a layer was decompressed.
type counting struct {
	v1.Layer
	mu     sync.Mutex
	opened int
}

func (c *counting) Uncompressed() (io.ReadCloser, error) {
	c.mu.Lock()
	c.opened++
	c.mu.Unlock()
	return c.Layer.Uncompressed()
}

func loadBig(t *testing.T) (*rootfs.Tree, *layers.Contents, *counting, []string, string) {
	t.Helper()
	var items []item
	var names []string
	for i := range 40 {
		name := fmt.Sprintf("f%02d", i)
		size := 100
		if i%3 == 0 {
			size = 100 << 10
		}
		items = append(items, file(name, strings.Repeat(name, size/3)))
		names = append(names, name)
	}
	dir := t.TempDir()
	l, err := layers.CreateFrom(dir, layers.Compression{}, func(w io.Writer) error {
		_, err := w.Write(tarOf(t, items...))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{Layer: l}
	tree := rootfs.NewTree()
	temp := t.TempDir()
	contents, err := layers.Load(t.Context(), tree, c, layers.LoadOptions{TempDir: temp})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { contents.Close() })
	return tree, contents, c, names, temp
}

func check(t *testing.T, tree rootfs.Reader, name string) {
	t.Helper()
	rc, err := tree.Open(name)
	if err != nil {
		t.Error(err)
		return
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	e, _ := tree.Lstat(name)
	if err != nil || int64(len(data)) != e.Size || !bytes.HasPrefix(data, []byte(name)) || !bytes.HasSuffix(data, []byte(name)) {
		t.Errorf("%s: %d bytes of %d, %v", name, len(data), e.Size, err)
	}
}

func TestLoadInOrder(t *testing.T) {
	tree, _, c, names, temp := loadBig(t)
	for i, n := range names {
		if i%2 == 0 {
			check(t, tree, n)
		}
	}
	if c.opened != 2 {
		t.Errorf("decompressed %d times: once for the headers and once for the files is enough", c.opened)
	}
	if left, _ := os.ReadDir(temp); len(left) != 0 {
		t.Errorf("temporary files: %v", left)
	}
}

func TestLoadOutOfOrder(t *testing.T) {
	tree, contents, c, names, temp := loadBig(t)
	for round := range 3 {
		for i := range names {
			check(t, tree, names[(i*7+round)%len(names)])
		}
		for range 10 {
			check(t, tree, names[1])
		}
	}
	if c.opened > 6 {
		t.Errorf("decompressed %d times", c.opened)
	}
	if left, _ := os.ReadDir(temp); len(left) != 0 {
		t.Errorf("temporary files: %v", left)
	}
	if err := contents.Close(); err != nil {
		t.Error(err)
	}
	if _, err := tree.Open(names[0]); err == nil {
		t.Error("a file opens after Close")
	}
}

func TestLoadConcurrently(t *testing.T) {
	tree, _, _, names, _ := loadBig(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range names {
				check(t, tree, names[(i*(w+1)+w)%len(names)])
			}
		})
	}
	wg.Wait()
}

func TestLoadTwoAtOnceAndHalf(t *testing.T) {
	tree, _, _, names, _ := loadBig(t)
	a, err := tree.Open(names[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(a, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	check(t, tree, names[3])
	rest, err := io.ReadAll(a)
	if e, _ := tree.Lstat(names[0]); err != nil || int64(len(rest)) != e.Size-10 {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
	a.Close()
	check(t, tree, names[6])
}

// A file with holes as GNU tar writes it: the map is in front of the data.
func TestSparse(t *testing.T) {
	data := "1\n4096\n5\n" + strings.Repeat("\x00", 512-9) + "hello"
	h := tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/s", Size: int64(len(data)), Mode: 0o644, Format: tar.FormatPAX}
	var buf bytes.Buffer
	pax := ""
	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=s", "GNU.sparse.realsize=8192"} {
		n := len(kv) + 4 // two digits, a space and a newline
		pax += fmt.Sprintf("%d %s\n", n, kv)
	}
	x := tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: int64(len(pax))}
	tw := tar.NewWriter(&buf)
	if err := tw.WriteHeader(&x); err != nil {
		t.Fatal(err)
	}
	io.WriteString(tw, pax)
	tw.WriteHeader(&h)
	io.WriteString(tw, data)
	tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "after", Size: 3, Mode: 0o644})
	io.WriteString(tw, "yes")
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	b := buf.Bytes()
	b[156] = 'x' // archive/tar writes no such headers itself
	sum := int64(0)
	copy(b[148:156], "        ")
	for _, c := range b[:512] {
		sum += int64(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))

	dir := t.TempDir()
	if err := layers.Unpack(t.Context(), bytes.NewReader(b), openRoot(t, dir), layers.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	tree := rootfs.NewTree()
	c, err := layers.Load(t.Context(), tree, layerOf(b), layers.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := strings.Repeat("\x00", 4096) + "hello" + strings.Repeat("\x00", 8192-4096-5)
	for _, r := range []rootfs.Reader{openDir(t, dir), tree} {
		rc, err := r.Open("s")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rc)
		rc.Close()
		if err != nil || string(got) != want {
			t.Errorf("%T: %d bytes, %v", r, len(got), err)
		}
		rc, err = r.Open("after")
		if err != nil {
			t.Fatal(err)
		}
		got, _ = io.ReadAll(rc)
		rc.Close()
		if string(got) != "yes" {
			t.Errorf("%T: %q", r, got)
		}
	}
}

func TestDecompress(t *testing.T) {
	// bzip2 and xz of "hello\n", which nothing here can write.
	for name, b := range map[string]string{
		"gzip":  "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\x48\xcd\xc9\xc9\xe7\x02\x00\x20\x30\x3a\x36\x06\x00\x00\x00",
		"bzip2": "BZh91AY&SY\xc1\xc0\x80\xe2\x00\x00\x01A\x00\x00\x10\x02D\xa0\x000\xcd\x00\xc3F)\x97\x17rE8P\x90\xc1\xc0\x80\xe2",
		"none":  "hello\n",
	} {
		rc, err := layers.Decompress(strings.NewReader(b))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(rc)
		if string(got) != "hello\n" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if err := rc.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, b := range []string{"\x1f\x8b\x08", "\x1f\x8b\x08\x00garbage", "\x28\xb5\x2f\xfdgarbage", "BZh9garbage", "\xfd7zXZ\x00garbage"} {
		rc, err := layers.Decompress(strings.NewReader(b))
		if err == nil {
			_, err = io.ReadAll(rc)
			rc.Close()
		}
		if err == nil {
			t.Errorf("%q was decompressed", b)
		}
	}
	if rc, err := layers.Decompress(strings.NewReader("")); err != nil {
		t.Error(err)
	} else if got, _ := io.ReadAll(rc); len(got) != 0 {
		t.Error("something comes from nothing")
	}
}

func TestRoundTrip(t *testing.T) {
	needRoot(t)
	first := t.TempDir()
	b := tarOf(t, dir("d/").with(func(h *tar.Header) { h.Mode = 0o3775; h.Gid = 9 }), file("d/a", "a"), hardlink("d/b", "d/a"), fifo("d/p"),
		symlink("d/s", "nowhere"), file("big", strings.Repeat("xyz", 100000)), file("zero", strings.Repeat("\x00", 300000)),
		item{hdr: tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Devmajor: 8, Devminor: 1}},
		file(strings.Repeat("long/", 60)+"é\xff", ""))
	if err := layers.Unpack(t.Context(), bytes.NewReader(b), openRoot(t, first), layers.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	want := dump(t, openDir(t, first))
	for _, tt := range compressions {
		l, err := layers.Create(t.Context(), t.TempDir(), changesOf(openDir(t, first)), tt.c)
		if err != nil {
			t.Fatal(err)
		}
		again := t.TempDir()
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		if err := layers.Unpack(t.Context(), rc, openRoot(t, again), layers.UnpackOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := rc.Close(); err != nil {
			t.Fatal(err)
		}
		if got := dump(t, openDir(t, again)); got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	}
}
