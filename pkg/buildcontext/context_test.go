package buildcontext_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/buildcontext"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// write makes files of a directory; a name that ends in a slash is a directory.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t testing.TB, opts buildcontext.Options) *buildcontext.Context {
	t.Helper()
	if opts.TempDir == "" {
		opts.TempDir = t.TempDir()
	}
	c, err := buildcontext.Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func list(t testing.TB, r rootfs.Reader) []string {
	t.Helper()
	var names []string
	err := rootfs.Walk(r, ".", func(e rootfs.Entry) error {
		if e.Path == "." {
			return nil
		}
		name := e.Path
		if e.IsDir() {
			name += "/"
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func read(t testing.TB, r rootfs.Reader, name string) string {
	t.Helper()
	rc, err := r.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFilesLookAsSent(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"Dockerfile": "FROM scratch", "f": "data", "d/g": "more"})
	at := time.Unix(1_000_000_000, 123_456_789)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(filepath.Join(dir, "f"), 0o755|fs.ModeSetuid))
	must(os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "h")))
	must(os.Symlink("/nowhere", filepath.Join(dir, "l")))
	must(os.Link(filepath.Join(dir, "l"), filepath.Join(dir, "l2")))
	must(unix.Mkfifo(filepath.Join(dir, "p"), 0o600))
	socket, err := net.Listen("unix", filepath.Join(dir, "s"))
	must(err)
	defer socket.Close()
	root := os.Geteuid() == 0
	if root {
		must(os.Lchown(filepath.Join(dir, "d", "g"), 5, 6))
		must(unix.Setxattr(filepath.Join(dir, "d", "g"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	}
	user := unix.Setxattr(filepath.Join(dir, "d", "g"), "user.x", []byte("y"), 0) == nil
	must(os.Chtimes(filepath.Join(dir, "f"), at, at))
	must(os.Chtimes(dir, at, at))

	c := open(t, buildcontext.Options{Path: dir, Dockerfile: filepath.Join(dir, "Dockerfile")})
	stat := func(name string) rootfs.Entry {
		t.Helper()
		e, err := c.Lstat(name)
		must(err)
		return e
	}
	if e := stat("f"); e.Mode != 0o4755 || !e.ModTime.Equal(at) || e.UID != 0 || e.GID != 0 || e.Link == 0 || e.Link != stat("h").Link {
		t.Errorf("f is %+v, h %+v", e, stat("h"))
	}
	if e := stat("l"); e.Kind != rootfs.Symlink || e.Target != "/nowhere" || e.Link != 0 {
		t.Errorf("l is %+v", e)
	}
	if e := stat("s"); e.Kind != rootfs.Regular || e.Size != 0 || read(t, c, "s") != "" {
		t.Errorf("s is %+v", e)
	}
	if e := stat("p"); e.Kind != rootfs.Fifo {
		t.Errorf("p is %+v", e)
	}
	e := stat("d/g")
	if e.UID != 0 || e.GID != 0 || e.Xattrs["security.capability"] != "" || user && e.Xattrs["user.x"] != "y" {
		t.Errorf("d/g is %+v", e)
	}
	if e := stat("."); e.Mode != 0o755 || !e.ModTime.Equal(at) {
		t.Errorf("the root is %+v", e)
	}
	now := time.Unix(5, 0)
	c = open(t, buildcontext.Options{Path: "dir://" + dir, RootTime: now})
	if e := stat("."); !e.ModTime.Equal(now) {
		t.Errorf("the root is %+v", e)
	}
	if got, ok := c.Dir(); !ok || got != dir {
		t.Errorf("Dir is %s, %v", got, ok)
	}
}

func TestDockerfile(t *testing.T) {
	cwd, dir := t.TempDir(), t.TempDir()
	t.Chdir(cwd)
	write(t, cwd, map[string]string{"both": "cwd", "sub/here": "cwd sub", "here.dockerignore": "x"})
	write(t, dir, map[string]string{"both": "context", "only": "context only", "docker/Dockerfile": "context docker", "low/dockerfile": "lower", "isdir/": ""})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "from "+r.URL.Path) }))
	defer server.Close()
	for _, test := range []struct{ file, name, data, err string }{
		{file: "both", name: "both", data: "cwd"},
		{file: "only", name: "only", data: "context only"},
		{file: "sub/here", name: "sub/here", data: "cwd sub"},
		{file: filepath.Join(dir, "both"), name: filepath.Join(dir, "both"), data: "context"},
		{file: "docker/Dockerfile", name: "docker/Dockerfile", data: "context docker"},
		{file: "low/Dockerfile", name: "low/dockerfile", data: "lower"},
		{file: "-", name: "-", data: "from stdin"},
		{file: server.URL + "/x", name: server.URL + "/x", data: "from /x"},
		{file: "", err: "Dockerfile: Dockerfile is neither in the current directory nor in the context; " + dir + " holds both, docker/, isdir/, low/, only"},
		{file: "isdir", err: "isdir is neither in"},
		{file: "/no/such/file", err: "Dockerfile: /no/such/file does not exist; /no/such can't be read either"},
	} {
		c, err := buildcontext.Open(context.Background(), buildcontext.Options{Path: dir, Dockerfile: test.file, Stdin: strings.NewReader("from stdin")})
		if err != nil {
			if test.err == "" || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: %v, want %q", test.file, err, test.err)
			}
			continue
		}
		name, data, err := c.Dockerfile()
		if err != nil || test.err != "" || name != test.name || string(data) != test.data {
			t.Errorf("%q: %s, %q, %v", test.file, name, data, err)
		}
		c.Close()
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"Dockerfile": "FROM scratch", "other/": "", "f.tar": "text"})
	for _, test := range []struct {
		opts buildcontext.Options
		want string
	}{
		{buildcontext.Options{Path: dir + "/missing"}, "no such directory; " + dir + " holds Dockerfile, f.tar, other/"},
		{buildcontext.Options{Path: dir + "/f.tar"}, "is not a directory; an archive is written tar://"},
		{buildcontext.Options{Path: dir, SubPath: "missing"}, "no such directory in the context; " + dir + " holds"},
		{buildcontext.Options{Path: dir, SubPath: "Dockerfile"}, "is not a directory"},
		{buildcontext.Options{Path: "tar://" + dir + "/missing"}, "no such file; "},
		{buildcontext.Options{Path: "tar://" + dir + "/f.tar"}, "not a tar archive"},
		{buildcontext.Options{Path: "s3://bucket/key"}, "s3:// are not supported"},
		{buildcontext.Options{Path: "https://user:secret@example.com/x.git#main"}, "git repositories can't be a context"},
		{buildcontext.Options{Path: "tar://stdin", Dockerfile: "-"}, "both"},
		{buildcontext.Options{Path: "tar://stdin"}, "not a tar archive"},
		{buildcontext.Options{Path: dir, Dockerfile: "-"}, "nothing was given on standard input"},
	} {
		test.opts.TempDir = t.TempDir()
		_, err := buildcontext.Open(context.Background(), test.opts)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", test.opts.Path, err, test.want)
		}
		if left, _ := os.ReadDir(test.opts.TempDir); len(left) > 0 {
			t.Errorf("%s: %d temporary files left", test.opts.Path, len(left))
		}
	}
}

func archive(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, h := range []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700, ModTime: time.Unix(9, 0)},
		{Name: "./Dockerfile", Mode: 0o644, Size: 12, Typeflag: tar.TypeReg},
		{Name: "./.dockerignore", Mode: 0o644, Size: 1, Typeflag: tar.TypeReg},
		{Name: "./f", Mode: 0o640, Uid: 5, Gid: 6, Size: 1, Typeflag: tar.TypeReg, ModTime: time.Unix(10, 0)},
		{Name: "./x", Mode: 0o640, Size: 1, Typeflag: tar.TypeReg},
		{Name: "../../escape", Mode: 0o640, Size: 1, Typeflag: tar.TypeReg},
		{Name: "sub/g", Mode: 0o640, Size: 1, Typeflag: tar.TypeReg},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "FROM scratch"[:min(h.Size, 12)])
		if h.Name == "./.dockerignore" {
			continue
		}
	}
	w.Close()
	z.Close()
	return buf.Bytes()
}

func TestArchives(t *testing.T) {
	data := archive(t) // its .dockerignore says "F", which is not "f"
	file := filepath.Join(t.TempDir(), "c.tgz")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/c.tgz":
			w.Write(data)
		case "/lone":
			io.WriteString(w, "FROM lone")
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer server.Close()
	t.Chdir(t.TempDir())
	for _, test := range []struct {
		path, sub string
		owner     int
		files     string
	}{
		{path: "tar://" + file, files: "[.dockerignore Dockerfile escape f sub/ sub/g x]"},
		{path: "tar://stdin", files: "[.dockerignore Dockerfile escape f sub/ sub/g x]"},
		{path: server.URL + "/c.tgz", owner: 5, files: "[.dockerignore Dockerfile escape f sub/ sub/g x]"},
	} {
		temp := t.TempDir()
		c := open(t, buildcontext.Options{Path: test.path, Stdin: bytes.NewReader(data), TempDir: temp})
		if got := fmt.Sprint(list(t, c)); got != test.files {
			t.Errorf("%s: files %s", test.path, got)
		}
		e, err := c.Lstat("f")
		if err != nil || e.UID != test.owner || e.Mode != 0o640 || e.ModTime.Unix() != 10 {
			t.Errorf("%s: f is %+v, %v", test.path, e, err)
		}
		if name, source, err := c.Dockerfile(); err != nil || name != "Dockerfile" || string(source) != "FROM scratch" {
			t.Errorf("%s: %s, %q, %v", test.path, name, source, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("%s: %d temporary files left", test.path, len(left))
		}
	}
	c := open(t, buildcontext.Options{Path: "tar://" + file, SubPath: "/sub", Dockerfile: "-", Stdin: strings.NewReader("FROM x")})
	if got := fmt.Sprint(list(t, c)); got != "[g]" {
		t.Errorf("sub-path: files %s", got)
	}
	c = open(t, buildcontext.Options{Path: server.URL + "/lone"})
	if name, source, err := c.Dockerfile(); err != nil || name != "lone" || string(source) != "FROM lone" {
		t.Errorf("a lone Dockerfile: %s, %q, %v", name, source, err)
	}
	_, err := buildcontext.Open(context.Background(), buildcontext.Options{Path: server.URL + "/no", TempDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a refused URL: %v", err)
	}
}

func TestSubPathStaysInside(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"c/Dockerfile": "FROM scratch", "secret/Dockerfile": "FROM secret"})
	if err := os.Symlink("../../secret", filepath.Join(dir, "c", "out")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	c, err := buildcontext.Open(context.Background(), buildcontext.Options{Path: filepath.Join(dir, "c"), SubPath: "out"})
	if err == nil {
		t.Errorf("opened %s", c.HostPath())
		c.Close()
	}
}

func TestMissingFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"Dockerfile": "", ".dockerignore": "out\n!out/in", "out/in": "", "out/not": "", "f": ""})
	c := open(t, buildcontext.Options{Path: dir, Dockerfile: dir + "/Dockerfile"})
	for _, name := range []string{"none", "out/not", "out/none", "f/x", "f/x/y"} {
		if _, err := c.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("lstat %s: %v", name, err)
		}
		if _, err := c.Open(name); err == nil {
			t.Errorf("%s opens", name)
		}
	}
	if by, ok := c.Ignored("/out/not"); !ok || by != ".dockerignore" {
		t.Errorf("out/not is ignored by %q, %v", by, ok)
	}
	if _, ok := c.Ignored("f"); ok {
		t.Error("f counts as ignored")
	}
	if _, ok := c.Dir(); ok {
		t.Error("a filtered context gives its directory")
	}
}
