package snapshot_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/cooper-build/cooper/pkg/snapshot"
)

// forest makes a tree of many files for benchmarks.
func forest(b *testing.B, dirs, files int) string {
	root := b.TempDir()
	for d := range dirs {
		dir := filepath.Join(root, fmt.Sprintf("dir-%d", d%20), fmt.Sprintf("sub-%d", d))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		for f := range files {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d.txt", f)), bytes.Repeat([]byte("x"), f), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	return root
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkTake(b *testing.B) {
	const n = 50_000
	root := forest(b, n/50, 50)
	start := heap()
	var base *snapshot.Baseline
	for b.Loop() {
		var err error
		if base, err = snapshot.Take(b.Context(), root, snapshot.ScanOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(heap()-start)/n, "B/file")
	runtime.KeepAlive(base)
}

func BenchmarkRescan(b *testing.B) {
	root := forest(b, 1000, 50)
	base, err := snapshot.Take(b.Context(), root, snapshot.ScanOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := base.Diff(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
