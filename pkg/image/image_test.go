package image_test

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cooper-build/cooper/pkg/image"
)

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func at(second int64) *time.Time {
	t := time.Unix(second, 0).UTC()
	return &t
}

func diffID(n string) digest.Digest { return digest.FromString(n) }

func TestMarshal(t *testing.T) {
	d := image.NewDraft(image.Scratch(amd64), nil)
	d.Run([]string{"/bin/sh", "-c", "a && b > c"}, []image.Pair{{Key: "A", Value: "1"}, {Key: "B"}})
	d.Label([]image.Pair{{Key: "z", Value: "1"}, {Key: "a", Value: "<2>"}})
	d.Cmd([]string{"x", "y z"})
	d.Healthcheck(dockerspec.HealthcheckConfig{Test: []string{"CMD", "h"}, Interval: time.Second})
	d.Maintainer("me")
	d.OnBuild("RUN x")
	got, err := image.Marshal(d.Image, []image.LayerInfo{{DiffID: "sha256:aa", Created: at(5)}}, image.MarshalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	entry := func(text string, more string) string {
		return `{"created":"1970-01-01T00:00:05Z","created_by":"` + text + `","comment":"buildkit.dockerfile.v0"` + more + `}`
	}
	want := `{"architecture":"amd64","author":"me",` +
		`"config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["x","y z"],"WorkingDir":"/","Labels":{"a":"\u003c2\u003e","z":"1"},"ArgsEscaped":true,"Healthcheck":{"Test":["CMD","h"],"Interval":1000000000},"OnBuild":["RUN x"]},` +
		`"created":"1970-01-01T00:00:05Z","history":[` + strings.Join([]string{
		entry(`RUN |2 A=1 B= /bin/sh -c a \u0026\u0026 b \u003e c # buildkit`, ""),
		entry(`LABEL z=1 a=\u003c2\u003e`, `,"empty_layer":true`),
		entry(`CMD [\"x\" \"y z\"]`, `,"empty_layer":true`),
		entry(`HEALTHCHECK {Test:[CMD h] Interval:1s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}`, `,"empty_layer":true`),
		entry(`MAINTAINER me`, `,"empty_layer":true`),
	}, ",") + `],"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:aa"]}}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestHistory checks how the history is brought in line with the layers: "L"
// is an entry for a layer, "e" one without, and the number its time.
func TestHistory(t *testing.T) {
	base := dockerspec.DockerOCIImage{}
	base.History = []ocispec.History{{Created: at(50), CreatedBy: "b"}}
	for _, c := range []struct {
		name    string
		history []ocispec.History
		layers  []image.LayerInfo
		options image.MarshalOptions
		want    string
		created string
	}{
		{
			name:    "times come from the layers and their neighbours",
			history: []ocispec.History{{Created: at(1)}, {EmptyLayer: true}, {}, {EmptyLayer: true}, {}, {EmptyLayer: true}},
			layers:  []image.LayerInfo{{Created: at(9)}, {Created: at(2)}, {Created: at(3)}},
			want:    "L1 e2 L2 e2 L3 e3", created: "3",
		},
		{
			name:    "only metadata on a base",
			history: []ocispec.History{{Created: at(1)}, {Created: at(4), EmptyLayer: true}, {EmptyLayer: true}},
			layers:  []image.LayerInfo{{Created: at(9)}},
			want:    "L1 e4 e4", created: "4",
		},
		{
			name:    "layers without an entry",
			history: []ocispec.History{{Created: at(1), EmptyLayer: true}},
			layers:  []image.LayerInfo{{Created: at(7), Description: "pulled"}},
			want:    "e1 L7", created: "7",
		},
		{
			name:    "entries without a layer",
			history: []ocispec.History{{}, {}, {}},
			layers:  []image.LayerInfo{{Created: at(7)}},
			want:    "L7 e7 e7", created: "7",
		},
		{
			name:    "nothing at all",
			want:    "",
			created: "null",
		},
		{
			name:    "epoch, and the base keeps its time",
			history: []ocispec.History{{Created: at(50), CreatedBy: "b"}, {Created: at(60)}, {Created: at(5)}, {EmptyLayer: true}},
			layers:  []image.LayerInfo{{}, {}, {}},
			options: image.MarshalOptions{Epoch: at(10), Base: &base},
			want:    "L50 L10 L5 e5", created: "5",
		},
		{
			name:    "epoch without a base",
			history: []ocispec.History{{Created: at(50)}, {}},
			layers:  []image.LayerInfo{{}, {}},
			options: image.MarshalOptions{Epoch: at(10)},
			want:    "L10 L10", created: "10",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := image.Scratch(amd64)
			img.History = c.history
			config, err := image.Marshal(img, c.layers, c.options)
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Created *time.Time
				History []ocispec.History
			}
			if err := json.Unmarshal(config, &got); err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, h := range got.History {
				kind := "L"
				if h.EmptyLayer {
					kind = "e"
				}
				words = append(words, kind+stamp(h.Created))
			}
			if s := strings.Join(words, " "); s != c.want {
				t.Errorf("history %s, want %s", s, c.want)
			}
			if stamp(got.Created) != c.created {
				t.Errorf("created %s, want %s", stamp(got.Created), c.created)
			}
		})
	}
}

func stamp(t *time.Time) string {
	if t == nil {
		return "null"
	}
	b, _ := json.Marshal(t.Unix())
	return string(b)
}

func TestMarshalNeedsPlatform(t *testing.T) {
	for _, p := range []ocispec.Platform{{OS: "linux"}, {Architecture: "amd64"}} {
		if _, err := image.Marshal(image.Scratch(p), nil, image.MarshalOptions{}); err == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}

// fakeLayer knows all about itself except its contents.
type fakeLayer struct {
	name        string
	mediaType   types.MediaType
	annotations map[string]string
}

var errRead = errors.New("contents were read")

func (l *fakeLayer) Digest() (v1.Hash, error) {
	return v1.NewHash(digest.FromString("packed " + l.name).String())
}
func (l *fakeLayer) DiffID() (v1.Hash, error)             { return v1.NewHash(diffID(l.name).String()) }
func (l *fakeLayer) Compressed() (io.ReadCloser, error)   { return nil, errRead }
func (l *fakeLayer) Uncompressed() (io.ReadCloser, error) { return nil, errRead }
func (l *fakeLayer) Size() (int64, error)                 { return int64(len(l.name)), nil }
func (l *fakeLayer) MediaType() (types.MediaType, error)  { return l.mediaType, nil }
func (l *fakeLayer) Descriptor() (*v1.Descriptor, error) {
	return &v1.Descriptor{Annotations: l.annotations}, nil
}

func TestAssemble(t *testing.T) {
	layers := []v1.Layer{
		&fakeLayer{"base", types.DockerLayer, map[string]string{"containerd.io/uncompressed": "x", "com.example": "y", "containerd.io/snapshot/stargz/toc.digest": "z"}},
		&fakeLayer{"own", types.OCILayerZStd, nil},
		&fakeLayer{"foreign", types.DockerForeignLayer, nil},
	}
	config, err := image.Marshal(image.Scratch(amd64), []image.LayerInfo{{DiffID: diffID("base")}, {DiffID: diffID("own")}, {DiffID: diffID("foreign")}}, image.MarshalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for format, want := range map[image.Format]struct{ manifest, config, layers string }{
		image.OCI:    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip application/vnd.oci.image.layer.v1.tar+zstd application/vnd.oci.image.layer.v1.tar+gzip"},
		image.Docker: {"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip application/vnd.docker.image.rootfs.diff.tar.zstd application/vnd.docker.image.rootfs.diff.tar.gzip"},
	} {
		img, err := image.Assemble(config, layers, image.AssembleOptions{Format: format, Annotations: map[string]string{"a": "b"}})
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range m.Layers {
			got = append(got, string(l.MediaType))
		}
		if string(m.MediaType) != want.manifest || string(m.Config.MediaType) != want.config || strings.Join(got, " ") != want.layers {
			t.Errorf("%v: manifest %s, config %s, layers %s", format, m.MediaType, m.Config.MediaType, got)
		}
		if m.Annotations["a"] != "b" {
			t.Errorf("%v: annotations %v", format, m.Annotations)
		}
		kept := len(m.Layers[0].Annotations)
		if format == image.Docker && kept != 0 || format == image.OCI && (kept != 1 || m.Layers[0].Annotations["containerd.io/snapshot/stargz/toc.digest"] != "z") {
			t.Errorf("%v: layer annotations %v", format, m.Layers[0].Annotations)
		}
		checkImage(t, img, layers)
	}
}

func checkImage(t *testing.T, img v1.Image, layers []v1.Layer) {
	t.Helper()
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(raw), "{\n  \"schemaVersion\": 2,\n  \"mediaType\": ") {
		t.Errorf("the manifest is not written as BuildKit does: %.80s", raw)
	}
	sum, err := img.Digest()
	if err != nil || sum.String() != digest.FromBytes(raw).String() {
		t.Errorf("digest %s, %v", sum, err)
	}
	got, err := img.Layers()
	if err != nil || len(got) != len(layers) {
		t.Fatalf("%d layers, %v", len(got), err)
	}
	if got[0] != layers[0] || got[1] != layers[1] {
		t.Error("a layer was wrapped without need")
	}
	if mt, _ := got[2].MediaType(); !mt.IsDistributable() {
		t.Errorf("foreign layer is %s, so nobody would upload it", mt)
	}
	name, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	blob, err := img.LayerByDigest(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := blob.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	config, err := io.ReadAll(r)
	if err != nil || digest.FromBytes(config).String() != name.String() {
		t.Errorf("the config blob is not what the manifest says: %v", err)
	}
	for _, l := range layers {
		d, _ := l.DiffID()
		if _, err := img.LayerByDiffID(d); err != nil {
			t.Error(err)
		}
	}
	if _, err := img.LayerByDigest(v1.Hash{Algorithm: "sha256", Hex: "00"}); err == nil {
		t.Error("a blob that is not there was found")
	}
}

func TestAssembleRefuses(t *testing.T) {
	config, err := image.Marshal(image.Scratch(amd64), []image.LayerInfo{{DiffID: diffID("a")}}, image.MarshalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, layers := range map[string][]v1.Layer{
		"too few":        nil,
		"another layer":  {&fakeLayer{name: "b", mediaType: types.OCILayer}},
		"one layer more": {&fakeLayer{name: "a"}, &fakeLayer{name: "b"}},
	} {
		if _, err := image.Assemble(config, layers, image.AssembleOptions{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDecode(t *testing.T) {
	img, err := image.Decode([]byte(`{"os":"linux","architecture":"amd64","container":"x","config":{"Hostname":"h","Shell":["s"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	out, err := image.Marshal(*img, nil, image.MarshalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"architecture":"amd64","config":{"Shell":["s"]},"created":null,"history":null,"os":"linux","rootfs":{"type":"layers","diff_ids":null}}`
	if string(out) != want {
		t.Errorf("got %s\nwant %s", out, want)
	}
	for _, bad := range []string{"", "null", "[]", `{"config":{"Env":"A"}}`} {
		if _, err := image.Decode([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestDraftLeavesBaseAlone(t *testing.T) {
	base := image.Scratch(amd64)
	base.Config.Labels = map[string]string{"a": "1"}
	base.Config.Volumes = map[string]struct{}{"/a": {}}
	base.Config.Cmd = []string{"x"}
	before, err := json.Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	d := image.NewDraft(base, nil)
	d.Env([]image.Pair{{Key: "PATH", Value: "/"}, {Key: "B", Value: "c"}})
	d.Label([]image.Pair{{Key: "a", Value: "2"}})
	d.Entrypoint([]string{"e"})
	if _, err := d.Volume([]string{"/b"}); err != nil {
		t.Fatal(err)
	}
	after, err := json.Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Errorf("the base changed from\n%s\nto\n%s", before, after)
	}
	if d.Image.Config.Cmd != nil {
		t.Error("ENTRYPOINT left the base's CMD")
	}
}

func TestParsePorts(t *testing.T) {
	for spec, want := range map[string]string{
		"80":                "80/tcp",
		"80-82/UDP":         "80/udp 81/udp 82/udp",
		"0/sctp":            "0/sctp",
		"8080:80":           "80/tcp",
		"127.0.0.1::80":     "80/tcp",
		"[::1]:8080:80/tcp": "80/tcp",
		"::1:8080:80":       "80/tcp",
		"8000-8010:80":      "80/tcp",
		"8000-8001:80-81":   "80/tcp 81/tcp",
		"":                  "",
		"/tcp":              "",
		"80/http":           "",
		"65536":             "",
		"-1":                "",
		"2-1":               "",
		"80-":               "",
		"8000-8002:80-81":   "",
		"localhost:8080:80": "",
		"[::1:80:80":        "",
		"x":                 "",
	} {
		p, err := image.ParsePorts(spec)
		if got := strings.Join(p.Ports, " "); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", spec, got, err, want)
		}
	}
}

func TestPlatforms(t *testing.T) {
	for in, want := range map[string]string{
		"linux/aarch64":  "linux/arm64",
		"linux/arm64/v8": "linux/arm64",
		"linux/arm":      "linux/arm/v7",
		"linux/x86_64":   "linux/amd64",
	} {
		p, err := image.ParsePlatform(in)
		if err != nil || image.FormatPlatform(p) != want {
			t.Errorf("%s is %s, %v; want %s", in, image.FormatPlatform(p), err, want)
		}
	}
	if _, err := image.ParsePlatform("a/b/c/d/e"); err == nil {
		t.Error("nonsense was accepted")
	}
	parse := func(s string) ocispec.Platform {
		p, err := image.ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	have := []ocispec.Platform{{OS: "unknown", Architecture: "unknown"}, parse("linux/amd64"), parse("linux/arm/v6"), parse("linux/arm/v5"), {OS: "linux", Architecture: "arm64", Variant: "v8"}}
	for want, index := range map[string]int{"linux/amd64": 1, "linux/arm/v7": 2, "linux/arm/v5": 3, "linux/arm64": 4, "linux/s390x": -1} {
		if got := image.SelectPlatform(parse(want), have); got != index {
			t.Errorf("%s: image %d, want %d", want, got, index)
		}
	}
	if p := image.Host(); p.OS != "linux" || p.Architecture == "" {
		t.Errorf("host is %+v", p)
	}
}
