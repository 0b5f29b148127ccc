package confirm

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBuildKitTwice checks the oracle with itself: two builds of BuildKit differ
// in nothing.
func TestBuildKitTwice(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, name := range []string{"config-overwritten", "copy-all-of-the-context", "from-odd", "add-url", "user-and-groups"} {
		c, err := ParseCase(filepath.Join(casesDir, name+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		first, err := BuildKit(ctx, shared, c)
		check(t, err)
		second, err := BuildKit(ctx, shared, c)
		check(t, err)
		if first.Picture.Failed {
			t.Fatalf("%s\n%s", name, first.Log)
		}
		for _, d := range Compare(first.Picture, second.Picture) {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// sample is an archive with one image of one layer, to be changed.
type sample struct {
	manifest, config map[string]any
	layer            []tar.Header
	bodies           []string
	format           tar.Format
	// trailing is how many bytes of zeros follow the tar.
	trailing int
	// diffID, when set, is written whatever the layer's is.
	diffID string
}

var (
	sampleBuilt = Moment{Begin: time.Unix(2000000000, 0), End: time.Unix(2000000010, 0)}
	sampleTime  = time.Unix(1700000000, 0)
)

func newSample() *sample {
	h := func(kind byte, name, target string, mode int64) tar.Header {
		return tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: mode, ModTime: sampleTime}
	}
	s := &sample{
		config: map[string]any{
			"architecture": "amd64", "os": "linux", "created": "2033-05-18T03:33:21Z",
			"config":  map[string]any{"Env": []any{"A=1", "B=2"}, "Cmd": []any{"sh"}},
			"history": []any{map[string]any{"created": "2033-05-18T03:33:21Z", "created_by": "RUN x", "comment": "c"}},
		},
		manifest: map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"},
		layer: []tar.Header{
			h(tar.TypeDir, "d/", "", 0o755), h(tar.TypeReg, "d/a", "", 0o644), h(tar.TypeReg, "d/b", "", 0o644),
			h(tar.TypeLink, "d/c", "d/b", 0o644), h(tar.TypeSymlink, "d/l", "a", 0o777), h(tar.TypeChar, "d/n", "", 0o666),
		},
		bodies: []string{"", "aaaa", "bbbb", "", "", ""},
		format: tar.FormatPAX,
	}
	s.layer[2].ModTime = sampleBuilt.Begin.Add(3 * time.Second)
	return s
}

func (s *sample) picture(t *testing.T, bases map[string]string) (*Picture, error) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for i, h := range s.layer {
		h.Size, h.Format = int64(len(s.bodies[i])), s.format
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, s.bodies[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer.Write(make([]byte, s.trailing))

	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	put := func(name string, data []byte) {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	blob := func(mediaType string, v any) map[string]any {
		data, ok := v.([]byte)
		if !ok {
			var err error
			if data, err = json.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		d := descriptor{MediaType: mediaType, Digest: digestOf(data), Size: int64(len(data))}
		put(d.member(), data)
		return map[string]any{"mediaType": d.MediaType, "digest": d.Digest, "size": d.Size}
	}
	if s.diffID == "" {
		s.diffID = digestOf(layer.Bytes())
	}
	s.config["rootfs"] = map[string]any{"type": "layers", "diff_ids": []any{s.diffID}}
	if s.manifest["layers"] == nil {
		s.manifest["layers"] = []any{blob("application/vnd.oci.image.layer.v1.tar", layer.Bytes())}
	}
	s.manifest["config"] = blob("application/vnd.oci.image.config.v1+json", s.config)
	index, err := json.Marshal(map[string]any{"manifests": []any{blob(s.manifest["mediaType"].(string), s.manifest)}})
	if err != nil {
		t.Fatal(err)
	}
	put("index.json", index)
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return ReadPicture(path, sampleBuilt, bases)
}

// TestCompareSees changes one thing of an image at a time: each is seen, under
// the path that says what it is.
func TestCompareSees(t *testing.T) {
	entry := func(i int, f func(*tar.Header)) func(*sample) { return func(s *sample) { f(&s.layer[i]) } }
	history := func(s *sample) map[string]any { return s.config["history"].([]any)[0].(map[string]any) }
	for _, c := range []struct {
		what   string
		change func(*sample)
		path   string // "" for no difference
	}{
		{"nothing", func(*sample) {}, ""},
		{"a time within the build", entry(2, func(h *tar.Header) { h.ModTime = sampleBuilt.Begin.Add(5 * time.Second) }), ""},
		{"created within the build", func(s *sample) { s.config["created"] = "2033-05-18T03:33:25.5Z" }, ""},
		{"created before the build", func(s *sample) { s.config["created"] = "2033-05-18T03:33:15Z" }, "config.created"},
		{"no created", func(s *sample) { delete(s.config, "created") }, "config.created"},
		{"history's time", func(s *sample) { history(s)["created"] = "1970-01-01T00:00:00Z" }, "history[0].created"},
		{"history's text", func(s *sample) { history(s)["created_by"] = "RUN y" }, "history[0].created_by"},
		{"history's comment", func(s *sample) { delete(history(s), "comment") }, "history[0].comment"},
		{"an empty layer", func(s *sample) { history(s)["empty_layer"] = true }, "history[0].empty_layer"},
		{"one more in history", func(s *sample) { s.config["history"] = append(s.config["history"].([]any), map[string]any{"x": "y"}) }, "history[1].x"},
		{"a variable", func(s *sample) { s.config["config"].(map[string]any)["Env"] = []any{"A=1", "B=3"} }, "config.config.Env[1]"},
		{"the order of variables", func(s *sample) { s.config["config"].(map[string]any)["Env"] = []any{"B=2", "A=1"} }, "config.config.Env[0]"},
		{"null for nothing", func(s *sample) { s.config["config"].(map[string]any)["Volumes"] = nil }, "config.config.Volumes"},
		{"an empty list for nothing", func(s *sample) { s.config["config"].(map[string]any)["Shell"] = []any{} }, "config.config.Shell"},
		{"the manifest's media type", func(s *sample) { s.manifest["mediaType"] = "application/x" }, "media_type"},
		{"an annotation", func(s *sample) { s.manifest["annotations"] = map[string]any{"a": "b"} }, "annotations.a"},
		{"a mode", entry(1, func(h *tar.Header) { h.Mode = 0o600 }), "layers[0]/d/a"},
		{"an owner", entry(1, func(h *tar.Header) { h.Uid = 5 }), "layers[0]/d/a"},
		{"a group", entry(0, func(h *tar.Header) { h.Gid = 5 }), "layers[0]/d"},
		{"a group's name", entry(0, func(h *tar.Header) { h.Gname = "root" }), "layers[0]/d"},
		{"a time outside the build", entry(1, func(h *tar.Header) { h.ModTime = sampleTime.Add(time.Second) }), "layers[0]/d/a"},
		{"a time that should be now", entry(2, func(h *tar.Header) { h.ModTime = sampleBuilt.Begin.Add(-2 * time.Second) }), "layers[0]/d/b"},
		{"content of equal size", func(s *sample) { s.bodies[1] = "aaab" }, "layers[0]/d/a"},
		{"a link's target", entry(4, func(h *tar.Header) { h.Linkname = "b" }), "layers[0]/d/l"},
		{"a hardlink's target", entry(3, func(h *tar.Header) { h.Linkname = "/d/b" }), "layers[0]/d/c"},
		{"a file for a hardlink", entry(3, func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeReg, "" }), "layers[0]/d/c"},
		{"a device's number", entry(5, func(h *tar.Header) { h.Devminor = 3 }), "layers[0]/d/n"},
		{"an attribute", entry(1, func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y"} }), "layers[0]/d/a"},
		{"a name", entry(1, func(h *tar.Header) { h.Name = "d/A" }), "layers[0]/d/A"},
		{"the form of a name", entry(1, func(h *tar.Header) { h.Name = "./d/a" }), "layers[0]/./d/a"},
		{"the order of entries", func(s *sample) {
			s.layer[1], s.layer[2] = s.layer[2], s.layer[1]
			s.bodies[1], s.bodies[2] = s.bodies[2], s.bodies[1]
		}, "layers[0].order"},
		{"an entry twice", func(s *sample) {
			s.layer, s.bodies = append(s.layer, s.layer[0]), append(s.bodies, "")
		}, "layers[0]/d/ (2)"},
		{"an entry less", func(s *sample) { s.layer, s.bodies = s.layer[:5], s.bodies[:5] }, "layers[0]/d/n"},
		{"the format of the tar", func(s *sample) { s.format = tar.FormatGNU }, "layers[0].bytes"},
		{"the end of the tar", func(s *sample) { s.trailing = 512 }, "layers[0].bytes"},
		{"no layer", func(s *sample) { s.manifest["layers"], s.diffID = []any{}, "none" }, "error"},
		{"a wrong diff id", func(s *sample) { s.diffID = digestOf(nil) }, "error"},
	} {
		t.Run(c.what, func(t *testing.T) {
			want, err := newSample().picture(t, nil)
			if err != nil {
				t.Fatal(err)
			}
			s := newSample()
			c.change(s)
			got, err := s.picture(t, nil)
			if c.path == "error" {
				if err == nil {
					t.Error("an archive that contradicts itself was read")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			found := Compare(want, got)
			var paths []string
			for _, d := range found {
				paths = append(paths, d.Path)
			}
			if c.path == "" && len(found) > 0 || c.path != "" && !slices.Contains(paths, c.path) {
				t.Errorf("differences at %q, want %q\n%v", paths, c.path, found)
			}
		})
	}
}

// TestBaseLayers checks that layers of base images are known by name.
func TestBaseLayers(t *testing.T) {
	plain, err := newSample().picture(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSample()
	if _, err := s.picture(t, nil); err != nil {
		t.Fatal(err)
	}
	named, err := newSample().picture(t, map[string]string{s.diffID: "busybox#0"})
	if err != nil {
		t.Fatal(err)
	}
	if named.Layers[0].Base != "busybox#0" || len(named.Layers[0].Entries) > 0 {
		t.Errorf("the base's layer is %+v", named.Layers[0])
	}
	if len(Compare(plain, named)) == 0 {
		t.Error("a base's layer is no different from any other")
	}
}

// TestSift checks what a case accepts, and that it must be there.
func TestSift(t *testing.T) {
	c := &Case{Accepted: []Accepted{
		{Path: "layers[1]/dev/*", Reason: "all"}, {Path: "history[0].created_by", Reason: "one", Isolation: "inplace"},
	}}
	found := []Difference{{Path: "layers[1]/dev/a/b"}, {Path: "layers[1]/dev"}, {Path: "history[0].created_by"}}
	unexpected, stale := c.Sift("inplace", found)
	if len(unexpected) != 1 || unexpected[0].Path != "layers[1]/dev" || len(stale) != 0 {
		t.Errorf("inplace: %v, %v", unexpected, stale)
	}
	unexpected, stale = c.Sift("namespace", found[1:])
	if len(unexpected) != 2 || len(stale) != 1 {
		t.Errorf("namespace: %v, %v", unexpected, stale)
	}
}

// TestParseCase checks mistakes in directives.
func TestParseCase(t *testing.T) {
	for text, want := range map[string]string{
		"mode f":                      "mode takes 2 words, not 1",
		"moode f 1":                   `unknown directive "moode"`,
		"isolations somewhere":        `no isolation "somewhere"`,
		`accept x "never closed`:      "invalid syntax",
		"archive a.tar d 1":           "archive takes 2 or 4 words, not 3",
		"# a comment\narg A=1  # end": "",
	} {
		path := filepath.Join(t.TempDir(), "x.txtar")
		if err := os.WriteFile(path, fmt.Appendf(nil, "-- case --\n%s\n", text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := ParseCase(path)
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestRecords checks that a picture outlives being written down.
func TestRecords(t *testing.T) {
	p, err := newSample().picture(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = p.named(""); err != nil {
		t.Fatal(err)
	}
	dir, c := t.TempDir(), &Case{Name: "x", Source: []byte("a case")}
	if err := WriteRecord(dir, c, p); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRecord(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(p, got); len(d) > 0 {
		t.Error(d)
	}
	c.Source = []byte("another case")
	if _, err := ReadRecord(dir, c); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a record of another case: %v", err)
	}
}
