package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// site is a registry in memory whose front can misbehave.
type site struct {
	host string
	// front sees every request first; true means that it has answered.
	mu    sync.Mutex
	front func(w http.ResponseWriter, r *http.Request) bool
	seen  []string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{}
	h := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Method+" "+r.URL.RequestURI())
		front := s.front
		s.mu.Unlock()
		if front != nil && front(w, r) {
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.host = strings.TrimPrefix(srv.URL, "http://")
	return s
}

func (s *site) set(front func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.front, s.seen = front, nil
}

func (s *site) count(prefix string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.seen {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func (s *site) put(t *testing.T, repoTag string, img remote.Taggable) {
	t.Helper()
	ref, err := name.ParseReference(s.host + "/" + repoTag)
	if err != nil {
		t.Fatal(err)
	}
	switch img := img.(type) {
	case v1.Image:
		err = remote.Write(ref, img)
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, o Options) *Client {
	t.Helper()
	if o.RetryDelay == 0 {
		o.RetryDelay = time.Millisecond
	}
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func randomImage(t *testing.T, size int64, layers int64) v1.Image {
	t.Helper()
	img, err := random.Image(size, layers)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digestOf(t *testing.T, img interface{ Digest() (v1.Hash, error) }) v1.Hash {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var linux = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func TestPullIsValidAndKept(t *testing.T) {
	s := newSite(t)
	want := randomImage(t, 3000, 3)
	s.put(t, "team/app:1", want)
	c := client(t, Options{})
	img, err := c.Image(t.Context(), s.host+"/team/app:1", linux)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	if digestOf(t, img) != digestOf(t, want) {
		t.Error("another image")
	}
	s.put(t, "team/app:1", randomImage(t, 10, 1))
	s.set(nil)
	again, err := c.Image(t.Context(), s.host+"/team/app:1", linux)
	if err != nil || again != img {
		t.Errorf("the second look-up gives %p, %v, not %p", again, err, img)
	}
	if n := s.count(""); n != 0 {
		t.Errorf("the second look-up made %d requests", n)
	}
	direct, err := c.Direct(t.Context(), s.host+"/team/app:1", linux)
	if err != nil || digestOf(t, direct) == digestOf(t, img) {
		t.Errorf("Direct does not see the moved tag: %v", err)
	}
}

// Each fault passes after a few requests, and the pull succeeds all the same.
func TestFaultsThatPass(t *testing.T) {
	cutAfter := func(w http.ResponseWriter, n int64) http.ResponseWriter { return &cutter{w, n} }
	for _, tt := range []struct {
		name  string
		fault func(n int, w http.ResponseWriter, r *http.Request, real http.Handler) bool
		push  bool
	}{
		{"503 everywhere", func(n int, w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
			if n%5 == 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return n%5 == 0
		}, true},
		{"429 with Retry-After", func(n int, w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
			if n == 2 {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusTooManyRequests)
			}
			return n == 2
		}, true},
		{"connection reset", func(n int, w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
			if n%4 == 1 {
				panic(http.ErrAbortHandler)
			}
			return false
		}, true},
		{"every blob cut short, no ranges", func(_ int, w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || r.Header.Get("Range") != "" {
				r.Header.Del("Range")
				return false
			}
			h.ServeHTTP(cutAfter(w, 400), r)
			return true
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
			var n atomic.Int64
			var faulty atomic.Bool
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if faulty.Load() && tt.fault(int(n.Add(1)), w, r, h) {
					return
				}
				h.ServeHTTP(w, r)
			}))
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			defer srv.Close()
			ref := strings.TrimPrefix(srv.URL, "http://") + "/a:1"
			img := randomImage(t, 2000, 3)
			faulty.Store(tt.push)
			if _, err := client(t, Options{}).Push(t.Context(), ref, img, PushOptions{}); err != nil {
				t.Fatal("push: ", err)
			}
			faulty.Store(true)
			got, err := client(t, Options{}).Image(t.Context(), ref, linux)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(got); err != nil {
				t.Error(err)
			}
		})
	}
}

// cutter ends the connection after n bytes of a body.
type cutter struct {
	http.ResponseWriter
	left int64
}

func (c *cutter) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		c.ResponseWriter.Write(p[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= int64(len(p))
	return c.ResponseWriter.Write(p)
}

// ranger serves one blob with ranges and cuts every answer after some bytes.
func TestDownloadResumes(t *testing.T) {
	s := newSite(t)
	img := randomImage(t, 100<<10, 1)
	s.put(t, "a:1", img)
	ls, _ := img.Layers()
	rc, _ := ls[0].Compressed()
	content, _ := io.ReadAll(rc)
	var ranges []string
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digestOf(t, ls[0]).String()) {
			return false
		}
		ranges = append(ranges, r.Header.Get("Range"))
		http.ServeContent(&cutter{w, 30 << 10}, r, "", time.Time{}, bytes.NewReader(content))
		return true
	})
	c := client(t, Options{})
	got, err := c.Image(t.Context(), s.host+"/a:1", linux)
	if err != nil {
		t.Fatal(err)
	}
	layers, _ := got.Layers()
	dir := t.TempDir()
	var last int64
	f, err := c.FetchLayer(t.Context(), layers[0], dir, func(done, _ int64) { last = done })
	if err != nil {
		t.Fatal(err)
	}
	if len(ranges) < 4 || ranges[1] == "" {
		t.Errorf("ranges asked for: %q", ranges)
	}
	if last != int64(len(content)) {
		t.Errorf("progress ended at %d of %d", last, len(content))
	}
	if err := validate.Layer(f); err != nil {
		t.Error(err)
	}
	entries, _ := os.ReadDir(filepath.Join(dir, "sha256"))
	if len(entries) != 1 {
		t.Errorf("%d files in the directory", len(entries))
	}
}

func TestWrongBytes(t *testing.T) {
	s := newSite(t)
	img := randomImage(t, 500, 1)
	s.put(t, "a:1", img)
	ls, _ := img.Layers()
	h := digestOf(t, ls[0])
	size, _ := ls[0].Size()
	gets := 0
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, h.String()) {
			return false
		}
		gets++
		w.Write(make([]byte, size))
		return true
	})
	c := client(t, Options{})
	got, err := c.Image(t.Context(), s.host+"/a:1", linux)
	if err != nil {
		t.Fatal(err)
	}
	layers, _ := got.Layers()
	dir := t.TempDir()
	_, err = c.FetchLayer(t.Context(), layers[0], dir, nil)
	if !IsKind(err, Corrupt) {
		t.Fatalf("error is %v", err)
	}
	for _, part := range []string{s.host, "/a@", h.String(), "wrong bytes"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if gets != 2 {
		t.Errorf("asked %d times", gets)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", ".*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestWrongManifest(t *testing.T) {
	s := newSite(t)
	img := randomImage(t, 10, 1)
	s.put(t, "a:1", img)
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
			fmt.Fprint(w, `{"schemaVersion":2}`)
			return true
		}
		return false
	})
	_, err := client(t, Options{}).Image(t.Context(), s.host+"/a@"+digestOf(t, img).String(), linux)
	if !IsKind(err, Corrupt) || s.count("GET /v2/a/manifests") != 1 {
		t.Errorf("%d requests, error %v", s.count("GET /v2/a/manifests"), err)
	}
}

func TestFetchOnce(t *testing.T) {
	s := newSite(t)
	s.put(t, "a:1", randomImage(t, 50<<10, 1))
	c := client(t, Options{})
	img, err := c.Image(t.Context(), s.host+"/a:1", linux)
	if err != nil {
		t.Fatal(err)
	}
	ls, _ := img.Layers()
	s.set(nil)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.FetchLayer(t.Context(), ls[0], dir, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.count("GET "); n != 1 {
		t.Errorf("%d downloads", n)
	}
	// Another client finds the file; it notices damage when it reads it.
	c2 := client(t, Options{})
	img2, err := c2.Image(t.Context(), s.host+"/a:1", linux)
	if err != nil {
		t.Fatal(err)
	}
	ls2, _ := img2.Layers()
	s.set(nil)
	f, err := c2.FetchLayer(t.Context(), ls2[0], dir, nil)
	if err != nil || s.count("GET ") != 0 {
		t.Fatalf("%d downloads, %v", s.count("GET "), err)
	}
	path := f.(*FileLayer).Path()
	data, _ := os.ReadFile(path)
	data[len(data)/2] ^= 1
	os.WriteFile(path, data, 0o644)
	rc, err := f.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, rc); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("reading the damaged file: %v", err)
	}
	rc.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the damaged file is still there")
	}
}

func TestMirrorsAndFallback(t *testing.T) {
	origin, dead, mirror := newSite(t), newSite(t), newSite(t)
	img := randomImage(t, 100, 2)
	origin.put(t, "team/app:1", img)
	mirror.put(t, "cache/team/app:1", img)
	dead.set(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true })
	targets := map[string][]string{origin.host: {dead.host, mirror.host + "/cache"}}

	c := client(t, Options{Map: targets, PullRetries: -1})
	got, err := c.Image(t.Context(), origin.host+"/team/app:1", linux)
	if err != nil {
		t.Fatal(err)
	}
	if r := got.Repository.Name(); r != mirror.host+"/cache/team/app" {
		t.Errorf("it comes from %s", r)
	}
	// A blob that the mirror has lost comes from the origin.
	mirror.set(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w.WriteHeader(404)
			return true
		}
		return false
	})
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	mirror.set(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(502); return true })
	if _, err := client(t, Options{Map: targets, PullRetries: -1}).Image(t.Context(), origin.host+"/team/app:1", linux); err != nil {
		t.Errorf("fallback to the origin: %v", err)
	}
	origin.set(nil)
	_, err = client(t, Options{Map: targets, PullRetries: -1, SkipDefaultFallback: true}).Image(t.Context(), origin.host+"/team/app:1", linux)
	if err == nil || origin.count("") != 0 {
		t.Errorf("without fallback: %v, %d requests", err, origin.count(""))
	}
	if _, err := c.Direct(t.Context(), origin.host+"/team/app:1", linux); err != nil || origin.count("GET") == 0 {
		t.Errorf("Direct goes by the map: %v", err)
	}
}

func TestPlatforms(t *testing.T) {
	s := newSite(t)
	var idx v1.ImageIndex = empty.Index
	images := map[string]v1.Image{}
	for _, p := range []string{"linux/386", "linux/arm/v6", "linux/arm/v7", "linux/amd64", "linux/arm64/v8", "unknown/unknown"} {
		images[p] = randomImage(t, 10, 1)
		pl, _ := v1.ParsePlatform(p)
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: images[p], Descriptor: v1.Descriptor{Platform: pl}})
	}
	s.put(t, "multi:1", idx)
	c := client(t, Options{})
	for ask, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/amd64/v3": "linux/amd64", "linux/386": "linux/386",
		"linux/arm64": "linux/arm64/v8", "linux/arm/v7": "linux/arm/v7", "linux/arm": "linux/arm/v7",
		"linux/arm/v6": "linux/arm/v6", "linux/arm/v8": "linux/arm/v7",
	} {
		p, _ := v1.ParsePlatform(ask)
		got, err := c.Image(t.Context(), s.host+"/multi:1", spec(*p))
		if err != nil {
			t.Error(ask, err)
			continue
		}
		if digestOf(t, got) != digestOf(t, images[want]) {
			t.Errorf("%s does not give %s", ask, want)
		}
		if got.IndexDigest != digestOf(t, idx) {
			t.Errorf("%s: index digest %s", ask, got.IndexDigest)
		}
	}
	_, err := c.Image(t.Context(), s.host+"/multi:1", ocispec.Platform{OS: "linux", Architecture: "s390x"})
	var none *PlatformError
	if !errors.As(err, &none) || !strings.HasSuffix(err.Error(), "there are linux/386, linux/arm/v6, linux/arm/v7, linux/amd64, linux/arm64/v8") {
		t.Errorf("error is %v", err)
	}
}

func TestPushMountsAndSendsOnce(t *testing.T) {
	s := newSite(t)
	s.put(t, "base:1", randomImage(t, 1000, 2))
	c := client(t, Options{})
	base, err := c.Image(t.Context(), s.host+"/base:1", linux)
	if err != nil {
		t.Fatal(err)
	}
	l, err := random.Layer(500, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(base, l)
	if err != nil {
		t.Fatal(err)
	}
	// The registry in memory has one pool of blobs for all repositories.
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodHead && strings.HasPrefix(r.URL.Path, "/v2/app/blobs/"):
			w.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodPost && r.URL.Query().Get("from") == "base":
			w.WriteHeader(http.StatusCreated)
		default:
			return false
		}
		return true
	})
	var mu sync.Mutex
	notes := map[string]int{}
	o := PushOptions{Progress: func(p BlobProgress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Finished {
			notes[p.Note]++
		}
	}}
	for _, tag := range []string{"1", "2"} {
		if _, err := c.Push(t.Context(), s.host+"/app:"+tag, img, o); err != nil {
			t.Fatal(err)
		}
	}
	if notes["mounted from base"] != 2 || notes[""] != 2 || len(notes) != 2 {
		t.Errorf("blobs: %v", notes)
	}
	if n := s.count("PUT /v2/app/blobs/uploads"); n != 2 {
		t.Errorf("%d uploads, not the new layer and the configuration", n)
	}
	if n := s.count("GET /v2/base/blobs"); n != 0 {
		t.Errorf("%d base layers were read", n)
	}
	got, err := client(t, Options{}).Image(t.Context(), s.host+"/app:2", linux)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
}

func TestImmutableTags(t *testing.T) {
	s := newSite(t)
	old, img := randomImage(t, 10, 1), randomImage(t, 10, 1)
	s.put(t, "a:1", old)
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"errors":[{"code":"TAG_INVALID","message":"The image tag '1' already exists in the 'a' repository and cannot be overwritten because the repository is immutable."}]}`)
		return true
	})
	c := client(t, Options{})
	if _, err := c.Push(t.Context(), s.host+"/a:1", img, PushOptions{}); !IsKind(err, Immutable) {
		t.Errorf("error is %v", err)
	}
	if _, err := c.Push(t.Context(), s.host+"/a:1", img, PushOptions{IgnoreImmutableTag: true}); err != nil {
		t.Error(err)
	}
	if _, err := c.Push(t.Context(), s.host+"/a:1", old, PushOptions{}); err != nil {
		t.Errorf("the same image: %v", err)
	}
}

func TestUploadInPieces(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 70 MB")
	}
	s := newSite(t)
	img := randomImage(t, chunkSize+5<<20, 1)
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.ContentLength > chunkSize {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return true
		}
		return false
	})
	if _, err := client(t, Options{}).Push(t.Context(), s.host+"/a:1", img, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := s.count("PATCH"); n != 2 {
		t.Errorf("%d pieces", n)
	}
}

func TestCancelledPushStops(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			cancel(why)
			// The server sees the end of the connection only once the body
			// has been read.
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return true
		}
		return false
	})
	start := time.Now()
	_, err := client(t, Options{}).Push(ctx, s.host+"/a:1", randomImage(t, 1<<20, 1), PushOptions{})
	if !errors.Is(err, why) {
		t.Errorf("error is %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}

// A failing layer is reported as such, not as a registry that is down.
func TestBrokenLayerIsNotTheRegistry(t *testing.T) {
	s := newSite(t)
	l, err := random.Layer(10000, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("disk on fire")
	img, err := mutate.AppendLayers(empty.Image, broken{l, why})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client(t, Options{}).Push(t.Context(), s.host+"/a:1", img, PushOptions{})
	if !errors.Is(err, why) || IsKind(err, Unreachable) {
		t.Errorf("error is %v", err)
	}
	if n := s.count("POST"); n > 2 {
		t.Errorf("tried %d times", n)
	}
}

type broken struct {
	v1.Layer
	why error
}

func (b broken) Compressed() (io.ReadCloser, error) {
	rc, err := b.Layer.Compressed()
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(rc, 5000), failing{b.why}), rc}, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// tokenSite puts the token protocol in front of a site.
type tokenSite struct {
	*site
	mu     sync.Mutex
	issued map[string]string // token → scopes
	asked  []url.Values
	dead   map[string]bool
}

func newTokenSite(t *testing.T, user, pass string) *tokenSite {
	ts := &tokenSite{site: newSite(t), issued: map[string]string{}, dead: map[string]bool{}}
	ts.set(func(w http.ResponseWriter, r *http.Request) bool {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		if r.URL.Path == "/token" {
			r.ParseForm()
			ts.asked = append(ts.asked, r.Form)
			u, p, _ := r.BasicAuth()
			ok := u == user && p == pass || r.Method == http.MethodPost && r.Form.Get("refresh_token") == pass
			if !ok {
				w.WriteHeader(401)
				io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}`)
				return true
			}
			tok := fmt.Sprintf("tok%d", len(ts.asked))
			ts.issued[tok] = strings.Join(r.Form["scope"], " ")
			json.NewEncoder(w).Encode(map[string]any{"token": tok, "expires_in": 300})
			return true
		}
		tok := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if _, ok := ts.issued[tok]; ok && !ts.dead[tok] {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="reg, the one",scope="x"`, ts.host))
		w.WriteHeader(401)
		return true
	})
	return ts
}

func dockerEnv(t *testing.T, config string) func(string) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(k string) string { return map[string]string{"DOCKER_CONFIG": dir}[k] }
}

func TestTokens(t *testing.T) {
	ts := newTokenSite(t, "bob", "geheim")
	auth := base64.StdEncoding.EncodeToString([]byte("bob:geheim"))
	env := dockerEnv(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, ts.host, auth))
	c := client(t, Options{Getenv: env})
	// The configuration may vanish once the client is made.
	os.RemoveAll(env("DOCKER_CONFIG"))
	img := randomImage(t, 100, 4)
	if err := c.CheckPush(t.Context(), ts.host+"/a:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Push(t.Context(), ts.host+"/a:1", img, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Direct(t.Context(), ts.host+"/a:1", linux); err != nil {
		t.Fatal(err)
	}
	if len(ts.asked) != 1 || ts.asked[0].Get("service") != "reg, the one" || ts.asked[0].Get("scope") != "repository:a:pull,push" {
		t.Errorf("tokens asked for: %v", ts.asked)
	}
	// A token that is no longer accepted is replaced.
	ts.mu.Lock()
	ts.dead["tok1"] = true
	ts.mu.Unlock()
	if _, err := c.Direct(t.Context(), ts.host+"/a:1", linux); err != nil {
		t.Error(err)
	}
	if _, err := client(t, Options{}).Image(t.Context(), ts.host+"/a:1", linux); !IsKind(err, Denied) ||
		!strings.Contains(err.Error(), "no credentials were found for "+ts.host) {
		t.Errorf("without credentials: %v", err)
	}
	bad := dockerEnv(t, fmt.Sprintf(`{"auths":{%q:{"username":"bob","password":"falsch"}}}`, ts.host))
	_, err := client(t, Options{Getenv: bad}).Image(t.Context(), ts.host+"/a:1", linux)
	if !IsKind(err, Denied) || !strings.Contains(err.Error(), "config.json") || strings.Contains(err.Error(), "falsch") {
		t.Errorf("with wrong credentials: %v", err)
	}
	oauth := dockerEnv(t, fmt.Sprintf(`{"auths":{%q:{"identitytoken":"geheim"}}}`, ts.host))
	if _, err := client(t, Options{Getenv: oauth}).Image(t.Context(), ts.host+"/a:1", linux); err != nil {
		t.Errorf("with an identity token: %v", err)
	}
}

func TestCheckPushLeavesNothing(t *testing.T) {
	s := newSite(t)
	var deleted bool
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodDelete {
			deleted = true
			w.WriteHeader(http.StatusNoContent)
			return true
		}
		return false
	})
	if err := client(t, Options{}).CheckPush(t.Context(), s.host+"/a:1"); err != nil || !deleted {
		t.Errorf("%v, upload deleted: %v", err, deleted)
	}
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			w.WriteHeader(403)
			return true
		}
		return false
	})
	err := client(t, Options{}).CheckPush(t.Context(), s.host+"/a:1")
	if !IsKind(err, Denied) || s.count("POST") != 1 {
		t.Errorf("error %v after %d requests", err, s.count("POST"))
	}
}

func TestUnreachable(t *testing.T) {
	srv := httptest.NewServer(nil)
	host := strings.TrimPrefix(srv.URL, "http://")
	srv.Close()
	_, err := client(t, Options{}).Image(t.Context(), host+"/a:1", linux)
	if !IsKind(err, Unreachable) {
		t.Errorf("error is %v", err)
	}
}
