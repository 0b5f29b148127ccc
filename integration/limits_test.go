package integration

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cooper-build/cooper/integration/confirm"
	"github.com/cooper-build/cooper/integration/machine"
)

// memoryLimit is how much memory a build may take, whatever its size.
const memoryLimit = 150 << 20

const largeDockerfile = `FROM busybox
RUN dd if=/dev/urandom of=/large bs=1M count=700
`

// TestMemory builds a layer of 700 MB that nothing can compress.
func TestMemory(t *testing.T) {
	reg := needs(t)
	check := func(t *testing.T, bytes int64) {
		t.Helper()
		t.Logf("peak memory: %d MB", bytes>>20)
		if bytes > memoryLimit {
			t.Errorf("a build takes %d MB of memory, more than %d", bytes>>20, memoryLimit>>20)
		}
	}
	for _, user := range []string{"root", "ordinary user"} {
		t.Run(user, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			dir := folder(t, map[string]string{"context/Dockerfile": largeDockerfile})
			cmd := executor(t, ctx, dir, user != "root", append([]string{"--context", dir + "/context", "--dockerfile", dir + "/context/Dockerfile",
				"--no-push", "--tar-path", dir + "/out.tar"}, pull(reg)...)...)
			check(t, peakWhile(ownProgram(t, cmd, dir), func() {
				if log, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, log)
				}
			}))
		})
	}
	t.Run("container", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		dir := folder(t, map[string]string{"Dockerfile": largeDockerfile})
		out, err := container(t, ctx, dir, `time -v /kaniko/executor --context . --dockerfile Dockerfile --no-push \
			--tar-path /builds/project/out.tar `+strings.Join(pull(reg), " "))
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		m := regexp.MustCompile(`Maximum resident set size \(kbytes\): (\d+)`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("time said nothing of memory:\n%s", out)
		}
		kb, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		check(t, kb<<10)
	})
}

// TestKilledBuilds ends builds at random moments by SIGKILL. What they leave
// in the cache directory must not spoil the next one, no process of theirs may
// go on, and an output file is complete or not there.
func TestKilledBuilds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	reg := needs(t)
	bases, err := reg.Layers()
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t, map[string]string{
		"context/f": "f\n",
		"context/Dockerfile": `FROM busybox AS a
RUN --mount=type=cache,target=/cache dd if=/dev/zero of=/a bs=1M count=40 && cp /a /cache/a
FROM layered AS b
RUN for i in $(seq 200); do echo $i > /stack/$i; done
FROM busybox
COPY f /f
COPY --from=a /a /a
COPY --from=b /stack /stack
RUN rm /f && mkdir /d && seq 100000 > /d/numbers
`})
	out := filepath.Join(dir, "out.tar")
	program := ""
	start := func() *exec.Cmd {
		cmd := executor(t, ctx, dir, false, append([]string{"--context", dir + "/context", "--dockerfile", dir + "/context/Dockerfile",
			"--no-push", "--tar-path", out, "--cache-dir", dir + "/cache"}, pull(reg)...)...)
		if program == "" {
			program = ownProgram(t, cmd, dir)
		}
		cmd.Path = program
		return cmd
	}
	build := func() (*confirm.Picture, time.Duration) {
		t.Helper()
		built := confirm.Moment{Begin: time.Now()}
		if log, err := start().CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		built.End = time.Now()
		p, err := confirm.ReadPicture(out, built, bases)
		if err != nil {
			t.Fatal(err)
		}
		return p, built.End.Sub(built.Begin)
	}
	want, took := build()
	if err := os.RemoveAll(dir + "/cache"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := os.Remove(out); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		begin := time.Now()
		cmd := start()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		moment := time.Duration(rand.Int64N(int64(took)))
		time.Sleep(moment)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := os.Stat(out); err == nil {
			if _, err := confirm.ReadPicture(out, confirm.Moment{Begin: begin, End: time.Now()}, bases); err != nil {
				t.Errorf("build %d, killed after %s, has left half an output: %v", i, moment, err)
			}
		}
		if left := waitForNone(program); len(left) > 0 {
			t.Errorf("build %d, killed after %s, has left processes: %s", i, moment, strings.Join(left, "; "))
		}
	}
	got, _ := build()
	for _, d := range confirm.Compare(want, got) {
		t.Errorf("an undisturbed build (first) and one after ten that were killed (second): %s", d)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("a mount is left (%v)", err)
	}
}

// waitForNone gives the processes of a program five seconds to end, and returns
// the command lines of those that have not.
func waitForNone(program string) []string {
	var left []string
	for range 100 {
		left = nil
		for _, id := range processes(program) {
			line, _ := os.ReadFile("/proc/" + id + "/cmdline")
			left = append(left, id+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
		if len(left) == 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return left
}

// TestOffline builds the demo with no network at all.
func TestOffline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := folder(t, nil)
	source := filepath.Join(machine.Repository(), "examples", "demo")
	if err := os.CopyFS(dir+"/context", os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	compile := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", dir+"/context/greeter", "./examples/demo")
	compile.Dir, compile.Env = machine.Repository(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := executor(t, ctx, dir, false, "--context", dir+"/context", "--dockerfile", dir+"/context/Dockerfile",
		"--no-push", "--destination", "example.test/demo", "--tar-path", dir+"/out.tar")
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("unshare is not installed")
	}
	cmd.Args = append([]string{"unshare", "--net", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = unshare
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(dir + "/out.tar"); err != nil {
		t.Error(err)
	}
}
