package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// twoStages is a build that takes about half a second. %[1]s marks its
// processes.
const twoStages = `FROM scratch AS one
COPY busybox /bin/sh
RUN echo %[1]s >/a; sleep 0.15
FROM scratch
COPY busybox /bin/sh
RUN --mount=type=cache,target=/c echo %[1]s >/b; (/bin/sh -c 'sleep 60; : %[1]s' &); sleep 0.2
COPY --from=one /a /a
RUN --mount=from=one,target=/one cat /one/a /b >/c.txt; : %[1]s
`

func TestCancel(t *testing.T) {
	needsRun(t)
	marker := fmt.Sprintf("cancelled-%d", os.Getpid())
	dir := newContext(t, fmt.Sprintf(twoStages, marker))
	work, out := t.TempDir(), t.TempDir()
	o := Options{Context: dir, WorkDir: work, NoPush: true, TarPath: filepath.Join(out, "sub", "out.tar")}
	before := runtime.NumGoroutine()
	start := time.Now()
	if _, err := Build(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	check(t, os.RemoveAll(filepath.Join(out, "sub")))

	reason := errors.New("the test's reason")
	ended := 0
	for range 15 {
		ctx, cancel := context.WithCancelCause(context.Background())
		after := rand.N(took)
		timer := time.AfterFunc(after, func() { cancel(reason) })
		_, err := Build(ctx, o)
		timer.Stop()
		cancel(nil)
		if err == nil {
			check(t, os.RemoveAll(filepath.Join(out, "sub")))
		} else {
			ended++
			if !errors.Is(err, context.Canceled) && !errors.Is(err, reason) {
				t.Errorf("cancelled after %s: error %v", after, err)
			}
		}
		for _, place := range []string{work, out} {
			entries, err := os.ReadDir(place)
			check(t, err)
			for _, e := range entries {
				t.Errorf("cancelled after %s: left %s", after, filepath.Join(place, e.Name()))
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		check(t, err)
		if bytes.Contains(mounts, []byte(work)) {
			t.Errorf("cancelled after %s: left a mount", after)
		}
		if running(marker) {
			t.Errorf("cancelled after %s: left a process", after)
		}
		if t.Failed() {
			return
		}
	}
	if ended == 0 {
		t.Error("no build was cancelled before it was done")
	}
	// Goroutines may take a moment to end after those who wait for them went on.
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// running reports whether a process has the marker among its arguments.
func running(marker string) bool {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		// A process may end while we look.
		if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte(marker)) {
			return true
		}
	}
	return false
}

// Builds in one process do not know of each other, even in one working
// directory.
func TestSideBySide(t *testing.T) {
	needsRun(t)
	work := t.TempDir()
	var group sync.WaitGroup
	for n := range 2 {
		marker := fmt.Sprintf("side-%d-%d", n, os.Getpid())
		dir := newContext(t, fmt.Sprintf(twoStages, marker))
		group.Go(func() {
			var steps, lines int
			out := filepath.Join(dir, "out.tar")
			result, err := Build(context.Background(), Options{
				Context: dir, WorkDir: work, NoPush: true, TarPath: out,
				Events: func(e Event) {
					switch e.(type) {
					case StepStarted:
						steps++
					case StepOutput:
						lines++
					}
				},
			})
			if err != nil {
				t.Errorf("build %d: %v", n, err)
				return
			}
			if len(result.Layers) != 4 || steps != 8 || lines != 0 {
				t.Errorf("build %d: %d layers, %d steps, %d lines of output", n, len(result.Layers), steps, lines)
			}
			files, err := filesOf(out)
			if err != nil {
				t.Errorf("build %d: %v", n, err)
				return
			}
			delete(files, "bin/sh")
			want := map[string]string{"a": marker + "\n", "b": marker + "\n", "c.txt": marker + "\n" + marker + "\n"}
			if !maps.Equal(files, want) {
				t.Errorf("build %d: files %q, want %q", n, files, want)
			}
		})
	}
	group.Wait()
	if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// filesOf reads the regular files of all layers of a docker tar.
func filesOf(path string) (map[string]string, error) {
	img, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			return nil, err
		}
		defer r.Close()
		for archive := tar.NewReader(r); ; {
			h, err := archive.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return nil, err
			}
			if h.Typeflag != tar.TypeReg {
				continue
			}
			text, err := io.ReadAll(archive)
			if err != nil {
				return nil, err
			}
			files[h.Name] = string(text)
		}
	}
	return files, nil
}

// Memory does not grow with what a RUN writes.
func TestMemory(t *testing.T) {
	needsRun(t)
	if testing.Short() {
		t.Skip("writes 300 MB")
	}
	const limit = 150 << 10 // kB
	dir := newContext(t, "FROM scratch\nCOPY busybox /bin/sh\nRUN dd if=/dev/urandom of=/big bs=1M count=300 2>/dev/null\n")
	self, err := os.Executable()
	check(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), memoryVariable+"="+dir)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	check(t, err)
	var peak int
	if _, err := fmt.Sscanf(string(text), "VmHWM: %d kB", &peak); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	t.Logf("peak of %d MB", peak>>10)
	if peak > limit {
		t.Errorf("peak of %d kB, want at most %d kB", peak, limit)
	}
}

// A diagnostic does not repeat the lines that it shows, and says what was meant.
func TestDiagnostics(t *testing.T) {
	for name, test := range map[string]struct {
		dockerfile string
		files      []string
		want       string
	}{
		"missing source":  {"FROM scratch\nCOPY nothing /\n", nil, "Dockerfile:2: copy nothing: \"/nothing\": not found"},
		"typo":            {"FROM scratch\nCOPY sub/fiel /\n", []string{"sub/file"}, "Dockerfile:2: copy sub/fiel: \"/sub/fiel\": not found (did you mean sub/file?)"},
		"typo in parent":  {"FROM scratch\nCOPY sbu/file /\n", []string{"sub/file"}, "Dockerfile:2: copy sbu/file: \"/sbu/file\": not found (did you mean sub?)"},
		"case":            {"FROM scratch\nCOPY readme /\n", []string{"README"}, "Dockerfile:2: copy readme: \"/readme\": not found (did you mean README?)"},
		"unlike anything": {"FROM scratch\nCOPY abc /\n", []string{"xyz"}, "Dockerfile:2: copy abc: \"/abc\": not found"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(test.dockerfile), 0o644))
			for _, f := range test.files {
				check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755))
				check(t, os.WriteFile(filepath.Join(dir, f), nil, 0o644))
			}
			_, err := Build(context.Background(), Options{Context: dir, WorkDir: t.TempDir(), NoPush: true})
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

// Options that contradict themselves are found before anything is made.
func TestOptionErrors(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\n"), 0o644))
	file := filepath.Join(dir, "file")
	check(t, os.WriteFile(file, nil, 0o644))
	for name, change := range map[string]func(*Options){
		"format":               func(o *Options) { o.Format = "v3" },
		"platform":             func(o *Options) { o.Platform = "plan9/amd64" },
		"destination":          func(o *Options) { o.Destinations = []string{"UPPER/case"} },
		"level":                func(o *Options) { o.Compression.Level = 99 },
		"tar is a directory":   func(o *Options) { o.TarPath = dir },
		"layout is a file":     func(o *Options) { o.OCILayoutPath = file },
		"tar below a file":     func(o *Options) { o.TarPath = filepath.Join(file, "out.tar") },
		"secret without value": func(o *Options) { o.Secrets = []Secret{{ID: "s", File: filepath.Join(dir, "nothing")}} },
	} {
		t.Run(name, func(t *testing.T) {
			work := filepath.Join(t.TempDir(), "work")
			o := Options{Context: dir, WorkDir: work, NoPush: true}
			change(&o)
			_, err := Build(context.Background(), o)
			var option *OptionError
			if !errors.As(err, &option) {
				t.Errorf("error %v is no OptionError", err)
			}
			if _, err := os.Stat(work); err == nil {
				t.Error("the working directory was made")
			}
		})
	}
}

// A build removes what a dead one left, and leaves alone what is not a build's.
func TestRemoveDead(t *testing.T) {
	root := t.TempDir()
	alive, err := newWorkdir(root)
	check(t, err)
	dead, err := newWorkdir(root)
	check(t, err)
	check(t, os.MkdirAll(filepath.Join(dead.path, "upper", "closed"), 0o755))
	check(t, os.Chmod(filepath.Join(dead.path, "upper", "closed"), 0))
	check(t, dead.lock.Close())
	check(t, os.MkdirAll(filepath.Join(root, "build-without-lock"), 0o755))
	check(t, os.MkdirAll(filepath.Join(root, "something"), 0o755))
	next, err := newWorkdir(root)
	check(t, err)
	entries, err := os.ReadDir(root)
	check(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{filepath.Base(alive.path), filepath.Base(next.path), "build-without-lock", "something"}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("got %s, want %s", strings.Join(names, " "), strings.Join(want, " "))
	}
	check(t, alive.close())
	check(t, next.close())
}
