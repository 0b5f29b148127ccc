package main

import (
	"archive/tar"
	"bytes"
	"fmt"
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

// cmdBase pushes an image with busybox as its shell, and sets $BASE_DIGEST:
//
//	base REFERENCE
func cmdBase(ts *testscript.TestScript, neg bool, args []string) {
	digest, err := pushBase(args[0])
	ts.Check(err)
	ts.Setenv("BASE_DIGEST", digest)
}

// pushBase pushes an image with busybox as its shell, and some hundred files,
// and returns its digest.
func pushBase(reference string) (string, error) {
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		return "", err
	}
	files, err := baseFiles()
	if err != nil {
		return "", err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)), nil
	})
	if err != nil {
		return "", err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return "", err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", hostArch
	config.Config = v1.Config{Env: []string{"PATH=/bin"}, Labels: map[string]string{"base": "yes"}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return "", err
	}
	if err := remote.Write(ref, img); err != nil {
		return "", err
	}
	digest, err := img.Digest()
	return digest.String(), err
}

// baseFiles is the base's layer.
func baseFiles() ([]byte, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	headers := []tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/sh", Typeflag: tar.TypeReg, Mode: 0o755},
		{Name: "bin/cat", Typeflag: tar.TypeLink, Linkname: "bin/sh", Mode: 0o755},
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755},
	}
	for n := range 400 {
		headers = append(headers, tar.Header{Name: fmt.Sprintf("usr/file-%d", n), Typeflag: tar.TypeReg, Mode: 0o644})
	}
	contents := map[string][]byte{"bin/sh": program, "etc/passwd": []byte("root:x:0:0::/root:/bin/sh\n")}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		h.Size = int64(len(contents[h.Name]))
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(contents[h.Name]); err != nil {
			return nil, err
		}
	}
	err = w.Close()
	return out.Bytes(), err
}
