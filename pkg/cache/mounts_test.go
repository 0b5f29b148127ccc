package cache_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cooper-build/cooper/pkg/cache"
)

func nothing(string) error { return nil }

func TestSharedGivesEverybodyTheSameDirectory(t *testing.T) {
	m := cache.NewMounts(t.TempDir())
	made := 0
	create := func(string) error { made++; return nil }
	a, releaseA, err := m.Acquire(t.Context(), "npm", cache.Shared, create)
	if err != nil {
		t.Fatal(err)
	}
	defer releaseA()
	b, releaseB, err := m.Acquire(t.Context(), "npm", cache.Shared, create)
	if err != nil {
		t.Fatal(err)
	}
	defer releaseB()
	if a != b || made != 1 {
		t.Errorf("directories %q and %q, made %d times; want one, made once", a, b, made)
	}
}

func TestPrivateGivesAnotherDirectoryWhileTheFirstIsInUse(t *testing.T) {
	m := cache.NewMounts(t.TempDir())
	a, releaseA, err := m.Acquire(t.Context(), "npm", cache.Private, nothing)
	if err != nil {
		t.Fatal(err)
	}
	b, releaseB, err := m.Acquire(t.Context(), "npm", cache.Private, nothing)
	if err != nil {
		t.Fatal(err)
	}
	defer releaseB()
	if a == b {
		t.Errorf("both got %q", a)
	}
	releaseA()
	c, releaseC, err := m.Acquire(t.Context(), "npm", cache.Private, nothing)
	if err != nil {
		t.Fatal(err)
	}
	defer releaseC()
	if c != a {
		t.Errorf("after release got %q, want %q again", c, a)
	}
}

func TestLockedWaitsAndCanBeCancelled(t *testing.T) {
	m := cache.NewMounts(t.TempDir())
	_, release, err := m.Acquire(t.Context(), "npm", cache.Locked, nothing)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, _, err := m.Acquire(ctx, "npm", cache.Locked, nothing); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want the context's", err)
	}
	got := make(chan error)
	go func() {
		_, r, err := m.Acquire(t.Context(), "npm", cache.Locked, nothing)
		if err == nil {
			r()
		}
		got <- err
	}()
	release()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	root := t.TempDir()
	m := cache.NewMounts(root)
	bad := errors.New("no")
	_, _, err := m.Acquire(t.Context(), "x", cache.Shared, func(dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), bad)
	})
	if !errors.Is(err, bad) {
		t.Fatalf("error %v, want create's", err)
	}
	dir, release, err := m.Acquire(t.Context(), "x", cache.Shared, nothing)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("directory holds %v (%v), want nothing", left, err)
	}
}
