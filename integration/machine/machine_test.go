package machine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// skip ends the test if err says that this computer lacks something.
func skip(t *testing.T, err error) {
	t.Helper()
	var missing *Missing
	if errors.As(err, &missing) {
		t.Skip(missing.What)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEverythingStartsAndEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	m, err := New()
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			m.Close()
		}
	}()
	_, err = m.Registry(ctx)
	skip(t, err)
	b, err := m.BuildKit(ctx)
	skip(t, err)
	e, err := m.Engine(ctx)
	skip(t, err)

	dir := t.TempDir()
	file := filepath.Join(dir, "Dockerfile")
	if err := os.WriteFile(file, []byte("FROM busybox\nRUN echo hello > /greeting\nCMD [\"cat\", \"/greeting\"]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.tar")
	if log, err := b.Build(ctx, Request{Context: dir, Dockerfile: file, Output: "type=docker,name=greeter,dest=" + out}); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := e.Docker(ctx, f, "load"); err != nil {
		t.Fatal(err)
	}
	said, err := e.Docker(ctx, nil, "run", "--rm", "--network=host", "greeter")
	if err != nil || said != "hello\n" {
		t.Fatalf("the container said %q, %v", said, err)
	}

	var pids []int
	for _, p := range m.processes {
		pids = append(pids, p.cmd.Process.Pid)
	}
	closed = true
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	for _, pid := range pids {
		if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); err == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
	if _, err := os.Stat(m.Dir); err == nil {
		t.Errorf("%s is still there", m.Dir)
	}
	if mounts, err := exec.Command("cat", "/proc/self/mountinfo").Output(); err != nil || strings.Contains(string(mounts), m.Dir) {
		t.Errorf("a mount is still there (%v)", err)
	}
}
