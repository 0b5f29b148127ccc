package main

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
)

// backendKey finds the registry's content, which all servers of a script share.
type backendKey struct{}

func newBackend() http.Handler { return registry.New(registry.Logger(log.New(io.Discard, "", 0))) }

// cmdRegistry starts a registry and puts its address into $REGISTRY:
//
//	registry [readonly|wrong-blobs|wrong-manifests|broken|down]
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	kind := strings.Join(args, " ")
	server := httptest.NewServer(faulty(kind, ts.Value(backendKey{}).(http.Handler)))
	ts.Defer(server.Close)
	ts.Setenv("REGISTRY", strings.TrimPrefix(server.URL, "http://"))
	if kind == "down" {
		server.Close()
	}
}

// faulty puts a fault before a registry.
func faulty(kind string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		read := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case kind == "readonly" && !read:
			http.Error(w, `{"errors":[{"code":"DENIED","message":"this registry is read only"}]}`, http.StatusForbidden)
		case kind == "broken" && r.URL.Path != "/v2/":
			http.Error(w, `{"errors":[{"code":"UNKNOWN","message":"out of order"}]}`, http.StatusInternalServerError)
		case kind == "wrong-blobs" && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/"),
			kind == "wrong-manifests" && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/"):
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			body := answer.Body.Bytes()
			if len(body) > 0 {
				body[len(body)/2] ^= 1
			}
			for k, v := range answer.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(answer.Code)
			_, _ = w.Write(body)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// cmdBase pushes an image with busybox as its shell, and prints its digest:
//
//	base REFERENCE
func cmdBase(ts *testscript.TestScript, neg bool, args []string) {
	ref, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	program, err := os.ReadFile(busybox)
	ts.Check(err)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		ts.Check(w.WriteHeader(&h))
		_, err := w.Write(data)
		ts.Check(err)
	}
	add(tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(tar.Header{Name: "bin/sh", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	for _, applet := range []string{"cat", "echo", "sleep", "dd", "true", "false", "ls", "mkdir", "nc", "rm"} {
		add(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeLink, Linkname: "bin/sh", Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\n"))
	ts.Check(w.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(out.Bytes())), nil
	})
	ts.Check(err)
	img, err := mutate.AppendLayers(empty.Image, layer)
	ts.Check(err)
	config, err := img.ConfigFile()
	ts.Check(err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", hostArch
	config.Config = v1.Config{Env: []string{"PATH=/bin"}, Labels: map[string]string{"base": "yes"}}
	img, err = mutate.ConfigFile(img, config)
	ts.Check(err)
	ts.Check(remote.Write(ref, img))
	digest, err := img.Digest()
	ts.Check(err)
	ts.Setenv("BASE_DIGEST", digest.String())
}
