package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

func content(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

func sample() []snapshot.Change {
	at := time.Unix(1700000000, 999999999)
	reg := func(name, data string, change func(e *rootfs.Entry)) snapshot.Change {
		e := rootfs.Entry{Path: name, Mode: 0o644, Size: int64(len(data)), ModTime: at}
		if change != nil {
			change(&e)
		}
		return snapshot.Change{Entry: e, Open: content(data)}
	}
	other := func(name string, k rootfs.Kind, change func(e *rootfs.Entry)) snapshot.Change {
		e := rootfs.Entry{Path: name, Kind: k, Mode: 0o755, ModTime: at}
		if change != nil {
			change(&e)
		}
		return snapshot.Change{Entry: e}
	}
	parent := other("usr", rootfs.Directory, nil)
	parent.Kind = snapshot.Parent
	return []snapshot.Change{
		other(".", rootfs.Directory, nil),
		reg("big-owner", "", func(e *rootfs.Entry) { e.UID, e.GID = 3000000, 100000 }),
		other("dev-null", rootfs.CharDevice, func(e *rootfs.Entry) { e.Major, e.Minor, e.Mode = 1, 3, 0o666 }),
		other("disk", rootfs.BlockDevice, func(e *rootfs.Entry) { e.Major, e.Minor = 259, 1048575 }),
		reg("early", "x", func(e *rootfs.Entry) { e.ModTime = time.Unix(-5, 5) }),
		other("link", rootfs.Symlink, func(e *rootfs.Entry) { e.Target, e.Mode = "../usr", 0o700 }),
		other("pipe", rootfs.Fifo, nil),
		other("sock", rootfs.Socket, nil),
		parent,
		reg("usr/a", "hello", func(e *rootfs.Entry) {
			e.Link, e.Mode = 7, 0o4755
			e.Xattrs = map[string]string{"security.capability": "\x01\x00\x00\x02cap", "user.x": "y"}
		}),
		reg("usr/b", "hello", func(e *rootfs.Entry) { e.Link, e.Mode = 7, 0o4755 }),
		{Kind: snapshot.Remove, Entry: rootfs.Entry{Path: "usr/gone"}},
		reg("usr/"+strings.Repeat("n", 120), "", nil),
		reg("usr/ö", "", nil),
		reg("usr/\xff", "", nil),
		{Kind: snapshot.Remove, Entry: rootfs.Entry{Path: "var"}},
	}
}

const sampleDigest = "5824edf12c2a64703e0a798f9490815082b0ab268aa85cdb8b0bd5901cb0a277"

func TestWrite(t *testing.T) {
	var buf bytes.Buffer
	if err := layers.Write(t.Context(), &buf, list(sample()...)); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	tr := tar.NewReader(bytes.NewReader(buf.Bytes()))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(tr)
		name := h.Name
		if len(name) > 40 {
			name = fmt.Sprintf("%s…%d", name[:8], len(name))
		}
		fmt.Fprintf(&got, "%c %q %o %d:%d %d %q dev=%d,%d pax=%d %q\n", h.Typeflag, name, h.Mode, h.Uid, h.Gid,
			h.ModTime.Unix(), h.Linkname, h.Devmajor, h.Devminor, len(h.PAXRecords), data)
	}
	want := `0 "big-owner" 644 3000000:100000 1700000000 "" dev=0,0 pax=1 ""
3 "dev-null" 666 0:0 1700000000 "" dev=1,3 pax=0 ""
4 "disk" 755 0:0 1700000000 "" dev=259,1048575 pax=0 ""
0 "early" 644 0:0 -5 "" dev=0,0 pax=1 "x"
2 "link" 777 0:0 1700000000 "../usr" dev=0,0 pax=0 ""
6 "pipe" 755 0:0 1700000000 "" dev=0,0 pax=0 ""
5 "usr/" 755 0:0 1700000000 "" dev=0,0 pax=0 ""
0 "usr/a" 4755 0:0 1700000000 "" dev=0,0 pax=1 "hello"
1 "usr/b" 4755 0:0 1700000000 "usr/a" dev=0,0 pax=0 ""
0 "usr/.wh.gone" 0 0:0 0 "" dev=0,0 pax=0 ""
0 "usr/nnnn…124" 644 0:0 1700000000 "" dev=0,0 pax=1 ""
0 "usr/ö" 644 0:0 1700000000 "" dev=0,0 pax=1 ""
0 "usr/\xff" 644 0:0 1700000000 "" dev=0,0 pax=1 ""
0 ".wh.var" 0 0:0 0 "" dev=0,0 pax=0 ""
`
	if got.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
	}
	// These bytes were compared with those of containerd's ChangeWriter. Another
	// digest means layers that differ from BuildKit's.
	if got, want := fmt.Sprintf("%x", sha256.Sum256(buf.Bytes())), sampleDigest; got != want {
		t.Errorf("digest of the tar is %s, want %s", got, want)
	}
}

func TestWriteRefusesOtherLengths(t *testing.T) {
	for _, data := range []string{"shor", "longer"} {
		c := snapshot.Change{Entry: rootfs.Entry{Path: "f", Size: 5}, Open: content(data)}
		err := layers.Write(t.Context(), io.Discard, list(c))
		if err == nil || !strings.Contains(err.Error(), "f: file changed its length") {
			t.Errorf("%q: %v", data, err)
		}
	}
}

func TestWriteEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if err := layers.Write(ctx, io.Discard, list(sample()...)); !errors.Is(err, stop) {
		t.Errorf("after cancel: %v", err)
	}
	failing := func(yield func(snapshot.Change, error) bool) { yield(snapshot.Change{}, stop) }
	if err := layers.Write(t.Context(), io.Discard, failing); !errors.Is(err, stop) {
		t.Errorf("failing sequence: %v", err)
	}
}
