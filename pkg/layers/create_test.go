package layers_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// text is compressible and differs from block to block.
type text struct {
	rng  *rand.Rand
	left int64
}

func (t *text) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), t.left)]
	for i := 0; i < len(p); {
		at := t.rng.IntN(len(prose) - 64)
		i += copy(p[i:], prose[at:at+8+at%50])
	}
	t.left -= int64(len(p))
	return len(p), nil
}

var prose = strings.Repeat("A layer is a list of changes, and a change is a file or its absence. ", 3) +
	"0123456789abcdefghijklmnopqrstuvwxyz/usr/share/doc/usr/lib/x86_64-linux-gnu"

func (t *text) Close() error { return nil }

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func bigFile(size int64) snapshot.Change {
	return snapshot.Change{
		Entry: rootfs.Entry{Path: "big", Mode: 0o644, Size: size},
		Open: func() (io.ReadCloser, error) {
			return &text{newRand(), size}, nil
		},
	}
}

var compressions = []struct {
	c    layers.Compression
	want types.MediaType
}{
	{layers.Compression{}, types.OCILayer},
	{layers.Compression{Level: 1}, types.OCILayer},
	{layers.Compression{Algorithm: layers.Gzip, Level: 9, Docker: true}, types.DockerLayer},
	{layers.Compression{Algorithm: layers.Zstd}, types.OCILayerZStd},
	{layers.Compression{Algorithm: layers.Zstd, Level: 19}, types.OCILayerZStd},
	{layers.Compression{Algorithm: layers.None}, types.OCIUncompressedLayer},
	{layers.Compression{Algorithm: layers.None, Docker: true}, types.DockerUncompressedLayer},
}

func TestCreate(t *testing.T) {
	for _, tt := range compressions {
		t.Run(fmt.Sprintf("%+v", tt.c), func(t *testing.T) {
			dir := t.TempDir()
			l, err := layers.Create(t.Context(), dir, list(append(sample(), bigFile(300<<10))...), tt.c)
			if err != nil {
				t.Fatal(err)
			}
			// validate knows gzip only.
			if mt := tt.want; mt == types.OCILayer || mt == types.DockerLayer {
				if err := validate.Layer(l); err != nil {
					t.Error(err)
				}
			}
			diffID, _ := l.DiffID()
			rc, err := l.Uncompressed()
			if err != nil {
				t.Fatal(err)
			}
			v := layers.Verify(rc, diffID, -1)
			if _, err := io.Copy(io.Discard, v); err != nil {
				t.Error(err)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
			if mt, _ := l.MediaType(); mt != tt.want {
				t.Errorf("media type %s", mt)
			}
			names, _ := os.ReadDir(dir)
			digest, _ := l.Digest()
			if len(names) != 1 || names[0].Name() != digest.Hex {
				t.Errorf("directory holds %v", names)
			}
		})
	}
}

func TestCreateIsDeterministic(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, c := range []layers.Compression{{}, {Level: 1}, {Algorithm: layers.Zstd}, {Algorithm: layers.Zstd, Level: 1}} {
		seen := map[string]int{}
		for _, procs := range []int{1, 2, 7} {
			runtime.GOMAXPROCS(procs)
			l, err := layers.Create(t.Context(), t.TempDir(), list(bigFile(9<<20+123)), c)
			if err != nil {
				t.Fatal(err)
			}
			d, _ := l.Digest()
			seen[d.Hex] = procs
		}
		if len(seen) != 1 {
			t.Errorf("%+v: digests by processors: %v", c, seen)
		}
	}
}

func TestCreateLeavesNothingAfterAnError(t *testing.T) {
	stop := errors.New("stop")
	for _, tt := range compressions {
		dir := t.TempDir()
		_, err := layers.Create(t.Context(), dir, func(yield func(snapshot.Change, error) bool) {
			if yield(bigFile(3<<20), nil) {
				yield(snapshot.Change{}, stop)
			}
		}, tt.c)
		if !errors.Is(err, stop) {
			t.Errorf("%+v: %v", tt.c, err)
		}
		if names, _ := os.ReadDir(dir); len(names) != 0 {
			t.Errorf("%+v: %v stayed behind", tt.c, names)
		}
	}
}

func TestCompressionCheck(t *testing.T) {
	for _, c := range []layers.Compression{
		{Algorithm: "lz4"}, {Level: 10}, {Level: -1}, {Algorithm: layers.Zstd, Docker: true},
		{Algorithm: layers.Zstd, Level: 23}, {Algorithm: layers.None, Level: 1}, {Algorithm: layers.XZ},
	} {
		if c.Check() == nil {
			t.Errorf("%+v passes", c)
		}
	}
}

// A layer far larger than the memory that making it may take.
func TestMemoryIsConstant(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 400 MB")
	}
	peak := func(size int64, c layers.Compression) uint64 {
		done := make(chan uint64)
		stop := make(chan struct{})
		debug.FreeOSMemory()
		go func() {
			var top uint64
			var m runtime.MemStats
			for {
				select {
				case <-stop:
					done <- top
					return
				default:
					runtime.ReadMemStats(&m)
					top = max(top, m.HeapInuse)
					time.Sleep(5 * time.Millisecond)
				}
			}
		}()
		l, err := layers.Create(t.Context(), t.TempDir(), list(bigFile(size)), c)
		if err != nil {
			t.Fatal(err)
		}
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		root := openRoot(t, t.TempDir())
		if err := layers.Unpack(t.Context(), rc, root, layers.UnpackOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := rc.Close(); err != nil {
			t.Fatal(err)
		}
		close(stop)
		return <-done
	}
	for _, c := range []layers.Compression{{Level: 1}, {Algorithm: layers.Zstd, Level: 1}} {
		small := peak(20<<20, c)
		if large := peak(200<<20, c); large > small+small/2+16<<20 {
			t.Errorf("%+v: heap grows from %d to %d MB with the layer", c, small>>20, large>>20)
		}
	}
}

func TestVerify(t *testing.T) {
	l, err := layers.Create(t.Context(), t.TempDir(), list(bigFile(2<<20)), layers.Compression{})
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(l.Path())
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(good)-1] ^= 1
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"good", good, ""},
		{"flipped", flipped, "digest"},
		{"short", good[:len(good)-1], "size"},
		{"long", append(bytes.Clone(good), 0), "size"},
		{"empty", nil, "size"},
	} {
		digest, _ := l.Digest()
		rc := layers.Verify(io.NopCloser(bytes.NewReader(tt.data)), digest, int64(len(good)))
		_, err := io.Copy(io.Discard, rc)
		cerr := rc.Close()
		var m *layers.MismatchError
		if tt.want == "" && (err != nil || cerr != nil) {
			t.Errorf("%s: %v, %v", tt.name, err, cerr)
		}
		if tt.want != "" && (!errors.As(err, &m) || m.What != tt.want || cerr == nil) {
			t.Errorf("%s: %v, %v", tt.name, err, cerr)
		}
	}
	digest, _ := l.Digest()
	rc := layers.Verify(io.NopCloser(bytes.NewReader(flipped)), digest, -1)
	if _, err := io.ReadFull(rc, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := rc.Close(); err == nil {
		t.Error("Close does not look at the rest")
	}
	if err := os.WriteFile(l.Path(), flipped, 0o600); err != nil {
		t.Fatal(err)
	}
	urc, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, urc); err == nil {
		t.Error("a damaged file was read without an error")
	}
	urc.Close()
}
