// Package runtest is the exam that every run.Isolation takes, and the small
// base image that it is taken on.
package runtest

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// epoch is the time of all files of the base layer.
var epoch = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

// BusyboxPath finds a static busybox on this machine, or skips the test.
func BusyboxPath(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed (Debian package busybox-static)")
	}
	return path
}

// Busybox is a layer with busybox, a link for each of its commands, and the
// files and directories that an image usually has.
func Busybox(t testing.TB) v1.Layer {
	t.Helper()
	path := BusyboxPath(t)
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command(path, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content []byte) {
		h.ModTime, h.Size = epoch, int64(len(content))
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "dev", "etc", "home", "home/app", "old", "old/tree", "proc", "root", "sys", "usr", "usr/bin", "var"} {
		h := tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}
		if d == "home/app" {
			h.Uid, h.Gid = 1000, 1000
		}
		add(h, nil)
	}
	add(tar.Header{Name: "tmp", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	for _, name := range strings.Fields(string(list)) {
		if name != "busybox" {
			add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	for name, text := range map[string]string{
		"etc/passwd":    "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
		"etc/group":     "root:x:0:\napp:x:1000:\nwheel:x:10:app\n",
		"old/file":      "old\n",
		"old/other":     "other\n",
		"old/tree/leaf": "leaf\n",
	} {
		add(tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, []byte(text))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return layer
}
