package snapshot_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// Files may be longer or shorter by the time they are read.
func TestOpenMindsTheSize(t *testing.T) {
	for _, now := range []string{"", "shorter", "just the same", "longer than it was"} {
		dir := t.TempDir()
		empty := take(t, dir, snapshot.ScanOptions{})
		p := filepath.Join(dir, "f")
		must(t, os.WriteFile(p, []byte("just the same"), 0o644))
		list, _ := rescan(t, empty)
		must(t, os.WriteFile(p, []byte(now), 0o644))
		rc, err := list[0].Open()
		must(t, err)
		b, err := io.ReadAll(rc)
		rc.Close()
		if ok := now == "just the same"; ok != (err == nil) || ok && string(b) != now || len(b) > int(list[0].Entry.Size) {
			t.Errorf("now %q: read %q, %v", now, b, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "a/b/")
	b := take(t, dir, snapshot.ScanOptions{})
	why := errors.New("no longer wanted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := snapshot.Take(ctx, dir, snapshot.ScanOptions{}); !errors.Is(err, why) {
		t.Errorf("Take: %v", err)
	}
	if _, _, err := b.Diff(ctx); !errors.Is(err, why) {
		t.Errorf("Baseline.Diff: %v", err)
	}
	if err := b.Update(ctx, []string{"a"}); !errors.Is(err, why) {
		t.Errorf("Update: %v", err)
	}
	for _, err := range snapshot.Diff(ctx, rootfs.NewTree(), openDir(t, dir)) {
		if !errors.Is(err, why) {
			t.Errorf("Diff: %v", err)
		}
	}
	for _, err := range snapshot.Overlay(ctx, rootfs.NewTree(), dir, snapshot.OverlayOptions{}) {
		if !errors.Is(err, why) {
			t.Errorf("Overlay: %v", err)
		}
	}
}

// A consumer may stop at any change.
func TestStopEarly(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "a/b/", "a/b/f: x", "c: x", "d = c")
	for stop := 1; stop <= 5; stop++ {
		for _, seq := range []func(func(snapshot.Change, error) bool){
			snapshot.Diff(t.Context(), rootfs.NewTree(), openDir(t, dir)),
			snapshot.Overlay(t.Context(), rootfs.NewTree(), dir, snapshot.OverlayOptions{}),
		} {
			n := 0
			for _, err := range seq {
				must(t, err)
				if n++; n == stop {
					break
				}
			}
			if n != stop {
				t.Errorf("stopped after %d, not %d", n, stop)
			}
		}
	}
}
