package push

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/cooper-build/cooper/pkg/registry"
)

// layerTar is a tar archive with one file.
func layerTar(t *testing.T, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, content)
	w.Close()
	return b.Bytes()
}

// layerOf compresses a tar archive and claims what is true of it.
type layerOf struct {
	v1.Layer
	diff v1.Hash
}

func (l layerOf) DiffID() (v1.Hash, error) { return l.diff, nil }

func compressed(t *testing.T, content []byte, mt types.MediaType) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if mt == types.OCILayerZStd {
		w, _ = zstd.NewWriter(&b)
	}
	w.Write(content)
	w.Close()
	diff, _, _ := v1.SHA256(bytes.NewReader(content))
	return layerOf{static.NewLayer(b.Bytes(), mt), diff}
}

// image has three layers, two of them the same; OCI or Docker by the media
// type of the layers.
func image(t *testing.T, mt types.MediaType) v1.Image {
	t.Helper()
	a := compressed(t, layerTar(t, "etc/a", "a"), mt)
	b := compressed(t, layerTar(t, "etc/b", strings.Repeat("b", 100000)), mt)
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	base = mutate.ConfigMediaType(base, types.OCIConfigJSON)
	if mt == types.DockerLayer {
		base = empty.Image
	}
	img, err := mutate.AppendLayers(base, a, b, a)
	if err != nil {
		t.Fatal(err)
	}
	cfg, _ := img.ConfigFile()
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

func digestOf(t *testing.T, img v1.Image) v1.Hash {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func run(t *testing.T, prog string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(prog); err != nil {
		t.Skipf("%s is not installed", prog)
	}
	out, err := exec.Command(prog, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", prog, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func tarNames(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() > 0 || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s has a time or an owner", h.Name)
		}
		names = append(names, h.Name)
	}
}

func TestDockerTar(t *testing.T) {
	for _, mt := range []types.MediaType{types.DockerLayer, types.OCILayer, types.OCILayerZStd} {
		t.Run(string(mt), func(t *testing.T) {
			img := image(t, mt)
			file := filepath.Join(t.TempDir(), "new", "image.tar")
			d := &DockerTar{Path: file, Names: []string{"app", "reg.example:5000/team/app:1.0"}}
			res, err := d.Write(t.Context(), img)
			if err != nil {
				t.Fatal(err)
			}
			if res.Descriptor.Digest != digestOf(t, img) || !slices.Equal(res.Names, d.Names) {
				t.Errorf("result %+v", res)
			}
			names := tarNames(t, file)
			if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
				t.Errorf("entries %v", names)
			}
			m, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{"app:latest", "reg.example:5000/team/app:1.0"}; len(m) != 1 || !slices.Equal(m[0].RepoTags, want) || len(m[0].Layers) != 3 {
				t.Errorf("manifest.json: %+v", m)
			}
			first, _ := os.ReadFile(file)
			if _, err := d.Write(t.Context(), img); err != nil {
				t.Fatal(err)
			}
			if second, _ := os.ReadFile(file); !bytes.Equal(first, second) {
				t.Error("the second archive is different")
			}
			t.Run("skopeo docker-archive", func(t *testing.T) {
				out := run(t, "skopeo", "inspect", "--raw", "docker-archive:"+file+":app:latest")
				if !strings.Contains(out, `"layers"`) {
					t.Error(out)
				}
				run(t, "skopeo", "copy", "docker-archive:"+file+":app:latest", "dir:"+t.TempDir())
			})
			t.Run("skopeo oci-archive", func(t *testing.T) {
				if mt == types.DockerLayer {
					t.Skip("not an OCI image")
				}
				out := run(t, "skopeo", "inspect", "oci-archive:"+file+":1.0")
				if !strings.Contains(out, digestOf(t, img).String()) {
					t.Error(out)
				}
			})
			t.Run("podman load", func(t *testing.T) {
				if _, err := exec.LookPath("podman"); err != nil {
					t.Skip("podman is not installed")
				}
				// podman wants short paths.
				root, err := os.MkdirTemp("", "pod")
				if err != nil {
					t.Fatal(err)
				}
				defer os.RemoveAll(root)
				args := []string{"--root", root + "/r", "--runroot", root + "/rr", "--storage-driver", "vfs"}
				out, err := exec.Command("podman", append(args, "load", "-i", file)...).CombinedOutput()
				if err != nil {
					t.Skipf("podman does not work here: %s", out)
				}
				if !strings.Contains(string(out), "app:latest") {
					t.Errorf("%s", out)
				}
			})
			t.Run("docker load", func(t *testing.T) {
				if err := exec.Command("docker", "version").Run(); err != nil {
					t.Skip("no docker daemon")
				}
				if out := run(t, "docker", "load", "-i", file); !strings.Contains(out, "app:latest") {
					t.Error(out)
				}
				run(t, "docker", "rmi", "app:latest", "reg.example:5000/team/app:1.0")
			})
		})
	}
}

func TestDockerTarWithoutName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	if _, err := (&DockerTar{Path: file}).Write(t.Context(), image(t, types.DockerLayer)); err != nil {
		t.Fatal(err)
	}
	m, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
	if err != nil || m[0].RepoTags[0] != "unset-repo/unset-image-name:latest" {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := (&DockerTar{Path: file, Names: []string{"a@" + strings.Repeat("0", 64)}}).Write(t.Context(), image(t, types.DockerLayer)); err == nil {
		t.Error("a digest passes for a tag")
	}
}

func TestOCITar(t *testing.T) {
	img := image(t, types.OCILayer)
	file := filepath.Join(t.TempDir(), "image.tar")
	if _, err := (&OCITar{Path: file, Names: []string{"app:2"}}).Write(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(tarNames(t, file), "manifest.json") {
		t.Error("it has docker's manifest")
	}
	if out := run(t, "skopeo", "inspect", "oci-archive:"+file+":2"); !strings.Contains(out, digestOf(t, img).String()) {
		t.Error(out)
	}
}

func TestOCILayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "layout")
	one, two := image(t, types.OCILayer), image(t, types.OCILayerZStd)
	if _, err := (&OCILayout{Dir: dir, Names: []string{"app:1"}}).Write(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if _, err := (&OCILayout{Dir: dir, Names: []string{"app:2"}, Keep: true}).Write(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	check := func(want ...v1.Image) {
		t.Helper()
		idx, err := layout.ImageIndexFromPath(dir)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := idx.IndexManifest()
		if len(m.Manifests) != len(want) {
			t.Fatalf("%d entries, not %d", len(m.Manifests), len(want))
		}
		for i, w := range want {
			if m.Manifests[i].Digest != digestOf(t, w) {
				t.Errorf("entry %d is another image", i)
			}
			img, err := idx.Image(m.Manifests[i].Digest)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(img, validate.Fast); err != nil {
				t.Error(err)
			}
		}
	}
	check(one, two)
	t.Run("umoci", func(t *testing.T) {
		run(t, "umoci", "unpack", "--rootless", "--image", dir+":1", t.TempDir()+"/bundle")
	})
	t.Run("skopeo", func(t *testing.T) { run(t, "skopeo", "inspect", "oci:"+dir+":2") })
	if _, err := (&OCILayout{Dir: dir, Names: []string{"app:1"}, Keep: true}).Write(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	check(two, two)
	// A damaged blob is written again.
	ls, _ := one.Layers()
	h, _ := ls[0].Digest()
	blob := filepath.Join(dir, "blobs", "sha256", h.Hex)
	os.Chmod(blob, 0o644)
	os.WriteFile(blob, []byte("rubbish"), 0o644)
	if _, err := (&OCILayout{Dir: dir}).Write(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	check(one)
}

// broken has a last layer that fails in the middle.
type broken struct {
	v1.Image
	read func()
}

var errBroken = errors.New("out of paper")

func (b broken) Layers() ([]v1.Layer, error) {
	ls, err := b.Image.Layers()
	if err != nil {
		return nil, err
	}
	ls = slices.Clone(ls)
	for i := range ls {
		ls[i] = brokenLayer{ls[i], b.read}
	}
	return ls, nil
}

type brokenLayer struct {
	v1.Layer
	read func()
}

func (b brokenLayer) Compressed() (io.ReadCloser, error) {
	if b.read != nil {
		b.read()
		return b.Layer.Compressed()
	}
	rc, err := b.Layer.Compressed()
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(rc, 20), iotestErr{}), rc}, nil
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, errBroken }

func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != dir {
			rel, _ := filepath.Rel(dir, p)
			all = append(all, rel)
		}
		return nil
	})
	return all
}

// Every destination in the file system passes this.
func TestFailureLeavesNothing(t *testing.T) {
	for name, make := range map[string]func(dir string) Destination{
		"docker tar": func(dir string) Destination { return &DockerTar{Path: filepath.Join(dir, "sub", "i.tar")} },
		"oci tar":    func(dir string) Destination { return &OCITar{Path: filepath.Join(dir, "sub", "i.tar")} },
		"oci layout": func(dir string) Destination { return &OCILayout{Dir: filepath.Join(dir, "sub")} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := make(dir)
			img := image(t, types.OCILayer)
			if _, err := d.Write(t.Context(), broken{Image: img}); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), d.String()) {
				t.Errorf("error is %v", err)
			}
			if left := files(t, dir); len(left) != 0 {
				t.Errorf("a failed write leaves %v", left)
			}
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := d.Write(ctx, broken{img, cancel}); !errors.Is(err, context.Canceled) {
				t.Errorf("error is %v", err)
			}
			if left := files(t, dir); len(left) != 0 {
				t.Errorf("an interrupted write leaves %v", left)
			}
			if _, err := d.Write(t.Context(), img); err != nil {
				t.Fatal(err)
			}
			before := files(t, dir)
			other := image(t, types.OCILayerZStd)
			if _, err := d.Write(t.Context(), broken{Image: other}); err == nil {
				t.Error("no error")
			}
			if after := files(t, dir); !slices.Equal(before, after) {
				t.Errorf("files before %v, after %v", before, after)
			}
		})
	}
}

func TestWriteFileInPlace(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	os.WriteFile(target, []byte("old and long"), 0o600)
	os.Symlink("target", link)
	if err := writeFile(link, justWrite([]byte("new"))); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(target); string(b) != "new" {
		t.Errorf("target has %q", b)
	}
	if fi, _ := os.Lstat(link); fi.Mode().Type() != fs.ModeSymlink {
		t.Error("the link is gone")
	}
	if err := writeFile("/dev/null", justWrite([]byte("new"))); err != nil {
		t.Error(err)
	}
	if err := writeFile(dir, justWrite(nil)); err == nil {
		t.Error("a directory was written")
	}
	// A single file mounted into a container.
	mounted := filepath.Join(dir, "mounted")
	os.WriteFile(mounted, []byte("a termination message"), 0o644)
	if out, err := exec.Command("mount", "--bind", target, mounted).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %s", out)
	}
	defer exec.Command("umount", mounted).Run()
	if err := writeFile(mounted, justWrite([]byte("done"))); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(target); string(b) != "done" {
		t.Errorf("through the mount: %q", b)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".cooper-*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestDigestFiles(t *testing.T) {
	h := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}
	var put, kind string
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		put, kind = r.Method+" "+string(b), r.Header.Get("Content-Type")
		if r.URL.Path == "/no" {
			w.WriteHeader(403)
		}
	}))
	defer srv.Close()
	dir := t.TempDir()
	d := DigestFiles{Digest: dir + "/x/digest", ImageName: dir + "/name", ImageNameTag: dir + "/tagged", BuilderOutput: dir}
	if err := d.Write(t.Context(), h, []string{"app", "reg.example/team/app:1"}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"x/digest": h.String(),
		"name":     "index.docker.io/library/app@" + h.String() + "\nreg.example/team/app@" + h.String() + "\n",
		"tagged":   "index.docker.io/library/app:latest@" + h.String() + "\nreg.example/team/app:1@" + h.String() + "\n",
		"images":   fmt.Sprintf("{\"name\":\"app\",\"digest\":%q}\n{\"name\":\"reg.example/team/app:1\",\"digest\":%q}\n", h, h),
	} {
		if b, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", file, b, err)
		}
	}
	if err := (DigestFiles{ImageName: dir + "/n"}).Write(t.Context(), h, nil); err == nil {
		t.Error("names without a destination")
	}
	if err := (DigestFiles{Digest: srv.URL + "/yes?sig=secret", Client: srv.Client()}).Write(t.Context(), h, nil); err != nil || put != "PUT "+h.String() || kind != "text/plain" {
		t.Errorf("%q as %q, %v", put, kind, err)
	}
	err := (DigestFiles{Digest: srv.URL + "/no?sig=secret", Client: srv.Client()}).Write(t.Context(), h, nil)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("refused: %v", err)
	}
}

// pushes records what is pushed and refuses one reference.
type pushes struct {
	mu   sync.Mutex
	refs []string
	no   string
}

func (p *pushes) Push(_ context.Context, ref string, _ v1.Image, _ registry.PushOptions) (v1.Descriptor, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ref == p.no {
		return v1.Descriptor{}, errors.New("no")
	}
	p.refs = append(p.refs, ref)
	return v1.Descriptor{}, nil
}

func TestRegistry(t *testing.T) {
	p := &pushes{no: "a.example/x:2"}
	img := image(t, types.OCILayer)
	r := &Registry{Client: p, Refs: []string{"a.example/x:1", "b.example/x:1", "a.example/x:2", "a.example/x:3"}}
	res, err := r.Write(t.Context(), img)
	if err == nil || !slices.Equal(res.Names, []string{"a.example/x:1", "b.example/x:1", "a.example/x:3"}) {
		t.Errorf("%v, %v", res.Names, err)
	}
	if i, j := slices.Index(p.refs, "a.example/x:1"), slices.Index(p.refs, "a.example/x:3"); i < 0 || j < i {
		t.Errorf("order %v", p.refs)
	}
	if _, err := json.Marshal(res.Descriptor); err != nil {
		t.Error(err)
	}
}
