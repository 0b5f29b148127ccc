package layers_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// benchLayer is of the shape of a distribution's: 20,000 files, most of them
// small.
func benchLayer(b *testing.B) []byte {
	b.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	data := make([]byte, 256<<10)
	_, _ = io.ReadFull(&text{rng: newRand(), left: int64(len(data))}, data)
	for i := range 20000 {
		if i%40 == 0 {
			_ = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("usr/share/d%03d/", i/40), Mode: 0o755, ModTime: noon})
		}
		size := (i * 7919) % 6000
		if i%500 == 0 {
			size = len(data)
		}
		_ = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/share/d%03d/file%d", i/40, i), Mode: 0o644, Size: int64(size), ModTime: noon})
		_, _ = tw.Write(data[:size])
	}
	_ = tw.Close()
	return buf.Bytes()
}

func BenchmarkUnpack(b *testing.B) {
	layer := benchLayer(b)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		b.StopTimer()
		dir, err := os.MkdirTemp(b.TempDir(), "")
		if err != nil {
			b.Fatal(err)
		}
		root := openRoot(b, dir)
		b.StartTimer()
		if err := layers.Unpack(b.Context(), bytes.NewReader(layer), root, layers.UnpackOptions{}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		os.RemoveAll(dir)
		b.StartTimer()
	}
	b.ReportMetric(20000*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

func BenchmarkLoad(b *testing.B) {
	layer := layerOf(benchLayer(b))
	for b.Loop() {
		c, err := layers.Load(b.Context(), rootfs.NewTree(), layer, layers.LoadOptions{})
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

func BenchmarkCreate(b *testing.B) {
	for _, tt := range compressions {
		b.Run(fmt.Sprintf("%s-%d", tt.c.Algorithm, tt.c.Level), func(b *testing.B) {
			const size = 64 << 20
			b.SetBytes(size)
			for b.Loop() {
				if _, err := layers.Create(b.Context(), b.TempDir(), list(bigFile(size)), tt.c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecompress(b *testing.B) {
	l, err := layers.Create(b.Context(), b.TempDir(), list(bigFile(64<<20)), layers.Compression{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 20)
	for b.Loop() {
		rc, err := l.Uncompressed()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rc); err != nil {
			b.Fatal(err)
		}
		rc.Close()
	}
}
