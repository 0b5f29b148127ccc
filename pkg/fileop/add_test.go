package fileop_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/ulikunitz/xz"

	"github.com/cooper-build/cooper/pkg/fileop"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// archive makes a tar; headers without a type are regular files with text.
func archive(t *testing.T, text string, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = text
		}
		h.Size = int64(len(body))
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(10, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func put(t *testing.T, tree *rootfs.Tree, name string, data []byte) {
	t.Helper()
	e := rootfs.Entry{Path: name, Mode: 0o644, UID: 5, Size: int64(len(data)), ModTime: time.Unix(20, 0)}
	if err := tree.Put(e, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }); err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, dst, src rootfs.Reader, req fileop.AddRequest) string {
	t.Helper()
	req.Time = now
	if req.TempDir == "" {
		req.TempDir = t.TempDir()
	}
	changes, err := fileop.Add(context.Background(), dst, src, req)
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	return describe(t, changes)
}

func request(dest string, paths ...string) fileop.AddRequest {
	return fileop.AddRequest{CopyRequest: fileop.CopyRequest{Paths: paths, Dest: dest}}
}

func check(t *testing.T, got, want string) {
	t.Helper()
	want = strings.TrimLeft(want, "\n")
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func TestAddUnpacks(t *testing.T) {
	base := `
d 0755 0:0 1 have
f 0644 0:0 1 have/file old
d 0755 0:0 1 have/dir
f 0644 0:0 1 have/dir/old old
l 0:0 1 have/lib /usr/lib
d 0755 0:0 1 have/usr
d 0755 0:0 1 have/usr/lib
l 0:0 1 to have
l 0:0 1 have/nowhere missing
`
	for _, test := range []struct {
		name    string
		headers []tar.Header
		req     fileop.AddRequest
		want    string
	}{
		{
			name: "owners, modes and the root",
			headers: []tar.Header{
				{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 3},
				{Name: "./d/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 5, Gid: 6},
				{Name: "./d/f", Mode: 0o4755, Uid: 5, Gid: 6},
				{Name: "./d/l", Typeflag: tar.TypeSymlink, Linkname: "../..", Uid: 5},
				{Name: "./e", Typeflag: tar.TypeLink, Linkname: "d/f", Mode: 0o711, Uid: 7, ModTime: time.Unix(11, 0)},
			},
			req: request("/new", "a"),
			want: `
write d 0755 0:0 now new
write d 0750 5:6 10 new/d
write f 0711 7:0 11 new/d/f link=1 "text"
write l 0777 5:0 10 new/d/l -> ../..
write f 0711 7:0 11 new/e link=1 "text"
`,
		},
		{
			name: "chown wins, chmod does not count",
			headers: []tar.Header{
				{Name: "x/y/f", Mode: 0o640, Uid: 5, Gid: 6},
			},
			req: fileop.AddRequest{CopyRequest: fileop.CopyRequest{Paths: []string{"a"}, Dest: "/new/er", Chown: "9:8", Chmod: "777"}},
			want: `
write d 0755 9:8 now new
write d 0755 9:8 now new/er
write d 0755 0:0 now new/er/x
write d 0755 0:0 now new/er/x/y
write f 0640 9:8 10 new/er/x/y/f "text"
`,
		},
		{
			name: "conflicts are replaced",
			headers: []tar.Header{
				{Name: "file/", Typeflag: tar.TypeDir, Mode: 0o755},
				{Name: "file/in", Mode: 0o644},
				{Name: "dir", Mode: 0o644},
				{Name: "dir", Typeflag: tar.TypeDir, Mode: 0o755},
			},
			req: request("/to/", "a"),
			want: `
parent d 0755 0:0 now have
parent d 0755 0:0 10 have/dir
remove have/dir/old
write d 0755 0:0 10 have/file
write f 0644 0:0 10 have/file/in "text"
`,
		},
		{
			name: "links of the destination lead inside of it",
			headers: []tar.Header{
				{Name: "lib/f", Mode: 0o644},
				{Name: "../../up", Mode: 0o644},
				{Name: "/abs", Mode: 0o644},
				{Name: "hard", Typeflag: tar.TypeLink, Linkname: "lib/f", Mode: 0o644},
			},
			req: request("/to", "a"),
			want: `
parent d 0755 0:0 now have
write f 0644 0:0 10 have/abs "text"
write f 0644 0:0 10 have/hard link=1 "text"
write f 0644 0:0 10 have/up "text"
parent d 0755 0:0 1 have/usr
parent d 0755 0:0 now have/usr/lib
write f 0644 0:0 10 have/usr/lib/f link=1 "text"
`,
		},
		{
			name:    "a hard link to a file that was there",
			headers: []tar.Header{{Name: "more", Typeflag: tar.TypeLink, Linkname: "file", Mode: 0o600, Uid: 4}},
			req:     request("/have", "a"),
			want: `
parent d 0755 0:0 now have
write f 0600 4:0 10 have/file link=1 "old"
write f 0600 4:0 10 have/more link=1 "old"
`,
		},
		{
			name: "whiteouts are files",
			headers: []tar.Header{
				{Name: ".wh.file", Mode: 0o644},
			},
			req: request("/have", "a"),
			want: `
parent d 0755 0:0 now have
write f 0644 0:0 10 have/.wh.file "text"
`,
		},
		{
			name: "capabilities",
			headers: []tar.Header{
				{Name: "f", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "v"}},
				{Name: "g", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "v"}},
				{Name: "h", Mode: 0o755, Typeflag: tar.TypeLink, Linkname: "g"},
			},
			req: request("/new", "a"),
			want: `
write d 0755 0:0 now new
write f 0755 0:0 10 new/f security.capability=v "text"
write f 0755 0:0 10 new/g link=1 "text"
write f 0755 0:0 10 new/h link=1 "text"
`,
		},
		{
			name:    "nothing is made behind a link to nowhere",
			headers: []tar.Header{{Name: "nowhere/f", Mode: 0o644}},
			req:     request("/have", "a"),
			want:    "error: add a: unpack nowhere/f: mkdir /have/nowhere: file does not exist\n",
		},
		{
			name:    "a file as a directory",
			headers: []tar.Header{{Name: "file/f", Mode: 0o644}},
			req:     request("/have", "a"),
			want:    "error: add a: unpack file/f: open /have/file: not a directory\n",
		},
		{
			name:    "a destination that is a file",
			headers: []tar.Header{{Name: "f", Mode: 0o644}},
			req:     request("/have/file", "a"),
			want:    "error: add a: mkdir /have/file: not a directory\n",
		},
		{
			name:    "a link to nothing",
			headers: []tar.Header{{Name: "f", Typeflag: tar.TypeLink, Linkname: "g"}},
			req:     request("/have", "a"),
			want:    "error: add a: unpack f: hard link to g: resolve g: file does not exist\n",
		},
		{
			name:    "not asked to",
			headers: []tar.Header{{Name: "f"}},
			req:     fileop.AddRequest{CopyRequest: fileop.CopyRequest{Paths: []string{"none*"}, Dest: "/x"}},
			want:    "nothing\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			src, dst := rootfs.NewTree(), rootfs.NewTree()
			fill(t, dst, base)
			put(t, src, "a", archive(t, "text", test.headers...))
			check(t, add(t, dst, src, test.req), test.want)
		})
	}
}

// TestAddTellsArchives goes by bytes, not by names, and leaves no file behind
// for what is none.
func TestAddTellsArchives(t *testing.T) {
	plain := archive(t, "text", tar.Header{Name: "f", Mode: 0o644})
	zipped := func(data []byte, wrap func(io.Writer) io.WriteCloser) []byte {
		var buf bytes.Buffer
		w := wrap(&buf)
		w.Write(data)
		w.Close()
		return buf.Bytes()
	}
	gz := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	zs := func(w io.Writer) io.WriteCloser { e, _ := zstd.NewWriter(w); return e }
	x := func(w io.Writer) io.WriteCloser { e, _ := xz.NewWriter(w); return e }
	skippable := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 0x184D2A50), 0)
	src := rootfs.NewTree()
	for name, data := range map[string][]byte{
		"plain": plain, "gzip.txt": zipped(plain, gz), "zstd": zipped(plain, zs), "xz": zipped(plain, x),
		"skippable": append(skippable, zipped(plain, zs)...),
		"text.tar":  []byte("text"), "text.gz": zipped([]byte("text"), gz), "empty.tar": nil,
		"zeros": make([]byte, 4096), "broken.gz": []byte("\x1f\x8b\x08broken"),
		"cut.gz": zipped(plain, gz)[:40],
	} {
		put(t, src, name, data)
	}
	put(t, src, "dir/plain", plain)
	no, yes := false, true
	for _, test := range []struct {
		path     string
		unpack   *bool
		unpacked bool
	}{
		{path: "plain", unpacked: true},
		{path: "gzip.txt", unpacked: true},
		{path: "zstd", unpacked: true},
		{path: "skippable", unpacked: true},
		{path: "xz", unpacked: true},
		{path: "plain", unpack: &yes, unpacked: true},
		{path: "plain", unpack: &no},
		{path: "text.tar"},
		{path: "text.gz"},
		{path: "empty.tar"},
		{path: "zeros"},
		{path: "broken.gz"},
		{path: "cut.gz"},
		{path: "dir"},
	} {
		req := request("/to/", test.path)
		req.Unpack, req.TempDir = test.unpack, t.TempDir()
		got := add(t, rootfs.NewTree(), src, req)
		if unpacked := strings.Contains(got, `f 0644 0:0 10 to/f "text"`); unpacked != test.unpacked {
			t.Errorf("%s: unpacked: %v, want %v\n%s", test.path, unpacked, test.unpacked, got)
		}
		left, err := os.ReadDir(req.TempDir)
		if err != nil || (len(left) > 0) != test.unpacked {
			t.Errorf("%s: %d temporary files, %v", test.path, len(left), err)
		}
	}
	if got := add(t, rootfs.NewTree(), src, request("/to/", "cu*", "pl*")); !strings.Contains(got, "to/cut.gz") || !strings.Contains(got, "to/f") {
		t.Errorf("each match stands for itself, got\n%s", got)
	}
}

func TestAddBrokenArchive(t *testing.T) {
	data := archive(t, strings.Repeat("x", 5000), tar.Header{Name: "f"}, tar.Header{Name: "g"})
	src := rootfs.NewTree()
	put(t, src, "a", data[:7000])
	req := request("/", "a")
	req.TempDir = t.TempDir()
	if got := add(t, rootfs.NewTree(), src, req); !strings.HasPrefix(got, "error: add a: unpack: ") {
		t.Errorf("got %s", got)
	}
	if left, _ := os.ReadDir(req.TempDir); len(left) > 0 {
		t.Errorf("%d files left", len(left))
	}
}

// TestAddLinkThenIndex takes changes into the index that they were computed
// from: a file that they name again must not become its own source.
func TestAddLinkThenIndex(t *testing.T) {
	src, dst := rootfs.NewTree(), rootfs.NewTree()
	put(t, dst, "old", []byte("bytes"))
	put(t, src, "a", archive(t, "", tar.Header{Name: "new", Typeflag: tar.TypeLink, Linkname: "old", Mode: 0o600}))
	req := request("/", "a")
	req.TempDir = t.TempDir()
	changes, err := fileop.Add(context.Background(), dst, src, req)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if err := dst.Put(c.Entry, c.Open); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"old", "new"} {
		rc, err := dst.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(rc); err != nil || string(data) != "bytes" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		rc.Close()
	}
}

func TestAddURL(t *testing.T) {
	tries := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dir/file.txt":
			w.Header().Set("Last-Modified", time.Unix(1234567890, 0).UTC().Format(http.TimeFormat))
			io.WriteString(w, "fetched "+r.Header.Get("Authorization"))
		case "/plain", "/":
			io.WriteString(w, "plain")
		case "/moved":
			http.Redirect(w, r, "/plain", http.StatusFound)
		case "/flaky":
			if tries++; tries < 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			io.WriteString(w, "at last")
		case "/a.tar":
			w.Write(archive(t, "text", tar.Header{Name: "f", Mode: 0o644}))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	yes := true
	for _, test := range []struct {
		name, dest, path string
		change           func(*fileop.AddRequest)
		want             string
	}{
		{name: "to a name", dest: "/to", path: "/dir/file.txt", want: `write f 0600 0:0 1234567890 to "fetched "` + "\n"},
		{name: "to a directory", dest: "/to/", path: "/plain?q=1", want: "write d 0755 0:0 now to\n" + `write f 0600 0:0 0 to/plain "plain"` + "\n"},
		{name: "without a name", dest: "/to/", path: "/", want: "write d 0755 0:0 now to\n" + `write f 0600 0:0 0 to/__unnamed__ "plain"` + "\n"},
		{name: "redirected", dest: "/to/", path: "/moved", want: "write d 0755 0:0 now to\n" + `write f 0600 0:0 0 to/moved "plain"` + "\n"},
		{name: "tried again", dest: "/to", path: "/flaky", want: `write f 0600 0:0 0 to "at last"` + "\n"},
		{name: "missing", dest: "/to", path: "/missing", want: "error: add http://" + host + "/missing: invalid response status 404\n"},
		{name: "flags", dest: "/to", path: "/plain", want: `write f 0755 7:8 0 to "plain"` + "\n",
			change: func(r *fileop.AddRequest) { r.Chown, r.Chmod = "7:8", "755" }},
		{name: "checksum", dest: "/to", path: "/plain", want: `write f 0600 0:0 0 to "plain"` + "\n",
			change: func(r *fileop.AddRequest) { r.Checksum = digest.FromString("plain").String() }},
		{name: "wrong checksum", dest: "/to", path: "/plain",
			want:   "error: add http://" + host + "/plain: digest mismatch: " + digest.FromString("plain").String() + " (expected: " + digest.FromString("other").String() + ")\n",
			change: func(r *fileop.AddRequest) { r.Checksum = digest.FromString("other").String() }},
		{name: "secret", dest: "/to", path: "/dir/file.txt", want: `write f 0600 0:0 1234567890 to "fetched Bearer t"` + "\n",
			change: func(r *fileop.AddRequest) {
				r.Secret = func(name string) ([]byte, bool) { return []byte("t"), name == "HTTP_AUTH_TOKEN_127.0.0.1" }
			}},
		{name: "archive", dest: "/to", path: "/a.tar", want: "write d 0755 0:0 now to\n" + `write f 0644 0:0 10 to/f "text"` + "\n",
			change: func(r *fileop.AddRequest) { r.Unpack = &yes }},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := request(test.dest, server.URL+test.path)
			if test.change != nil {
				test.change(&req)
			}
			check(t, add(t, rootfs.NewTree(), rootfs.NewTree(), req), test.want)
		})
	}
	got := add(t, rootfs.NewTree(), rootfs.NewTree(), request("/to/", server.URL+"/a.tar"))
	if !strings.Contains(got, "to/a.tar") {
		t.Errorf("an archive that was fetched was unpacked:\n%s", got)
	}
}

func TestAddErrors(t *testing.T) {
	src := rootfs.NewTree()
	put(t, src, "f", []byte("x"))
	sum := digest.FromString("x").String()
	for _, test := range []struct {
		req  fileop.AddRequest
		want string
	}{
		{fileop.AddRequest{CopyRequest: fileop.CopyRequest{Paths: []string{"f"}, Dest: "/"}, Checksum: sum}, "checksum requires HTTP(S) or Git sources"},
		{fileop.AddRequest{CopyRequest: fileop.CopyRequest{Paths: []string{"f", "f"}, Dest: "/"}, Checksum: sum}, "checksum can't be specified for multiple sources"},
		{request("/", "https://user:secret@example.com/x/y.git"), "git repositories can't be a source"},
		{request("/", "http://127.0.0.1:1/%zz"), "invalid URL escape"},
	} {
		got := add(t, rootfs.NewTree(), src, test.req)
		if !strings.Contains(got, test.want) || strings.Contains(got, "secret") {
			t.Errorf("%+v: got %s", test.req.Paths, got)
		}
	}
}

func TestAddGit(t *testing.T) {
	repo := rootfs.NewTree()
	put(t, repo, "README", []byte("hi"))
	yes := true
	var asked fileop.GitSource
	req := request("/src", "https://example.com/x.git#v1:sub")
	req.KeepGitDir = &yes
	req.Git = func(_ context.Context, s fileop.GitSource) (rootfs.Reader, error) {
		asked = s
		return repo, nil
	}
	check(t, add(t, rootfs.NewTree(), rootfs.NewTree(), req), `
write d 0755 0:0 0 src
write f 0644 5:0 20 src/README "hi"
`)
	if want := (fileop.GitSource{Remote: "https://example.com/x.git", Ref: "v1", Subdir: "sub", KeepGitDir: true}); asked != want {
		t.Errorf("asked for %+v, want %+v", asked, want)
	}
}

// TestSourceChanges writes no layer from a file that is not what it was.
func TestSourceChanges(t *testing.T) {
	for _, data := range []string{"short", "much too long"} {
		src := rootfs.NewTree()
		e := rootfs.Entry{Path: "f", Mode: 0o644, Size: 8}
		if err := src.Put(e, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil }); err != nil {
			t.Fatal(err)
		}
		changes, err := fileop.Copy(context.Background(), rootfs.NewTree(), src, fileop.CopyRequest{Paths: []string{"f"}, Dest: "/g"})
		if err != nil {
			t.Fatal(err)
		}
		rc, err := changes[0].Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(rc); err == nil || !strings.Contains(err.Error(), "changed") {
			t.Errorf("%q: %v", data, err)
		}
		rc.Close()
	}
}
