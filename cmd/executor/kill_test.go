package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// A build that is killed at any moment leaves no process and no mount, and the
// next one gives the right image and removes what the dead one left on disk.
func TestKilledBuild(t *testing.T) {
	if !canRun() || !staticBusybox() {
		t.Skip("needs namespaces for RUN and a static busybox in /bin")
	}
	t.Parallel()
	t.Run("own user", func(t *testing.T) { testKilled(t, nil, 10) })
	t.Run("ordinary user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root to become somebody else")
		}
		if err := exec.Command("setpriv", "--reuid=1000", "--clear-groups", "unshare", "-Urm", "true").Run(); err != nil {
			t.Skip("user namespaces are refused here")
		}
		testKilled(t, &syscall.Credential{Uid: 1000, Gid: 1000}, 3)
	})
}

const killDockerfile = `FROM scratch AS one
COPY busybox /bin/sh
RUN --mount=type=cache,target=/c echo 1 >/a; sleep 0.1; echo 1 >>/c/count; : %[1]s; sleep 0.1
FROM %[2]s
COPY busybox /bin/busybox
RUN rm /usr/file-1 && mkdir /d && for i in 1 2 3 4 5; do echo $i >/d/$i; done; : %[1]s; sleep 0.15
COPY --from=one /a /a
RUN (/bin/sh -c 'sleep 40; : %[1]s' &); sleep 0.2; dd if=/dev/zero of=/zero.bin bs=1M count=8 2>/dev/null; rm -r /d; : %[1]s
`

// testKilled kills a build rounds times, each at a random moment.
func testKilled(t *testing.T, user *syscall.Credential, rounds int) {
	dir := sharedDir(t, user)
	marker := fmt.Sprintf("killed-%d-%d", os.Getpid(), rand.Int32())
	server := httptest.NewServer(newBackend())
	defer server.Close()
	base := strings.TrimPrefix(server.URL, "http://") + "/base:1"
	_, err := pushBase(base)
	check(t, err)
	program, err := os.ReadFile(busybox)
	check(t, err)
	check(t, os.Mkdir(filepath.Join(dir, "ctx"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "ctx/busybox"), program, 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "ctx/Dockerfile"), fmt.Appendf(nil, killDockerfile, marker, base), 0o644))
	self, err := os.Executable()
	check(t, err)
	program, err = os.ReadFile(self)
	check(t, err)
	executor := filepath.Join(dir, "executor")
	check(t, os.WriteFile(executor, program, 0o755))

	cache := filepath.Join(dir, "cache")
	work, out := filepath.Join(dir, "work"), filepath.Join(dir, "out.tar")
	build := func() (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command(executor, "--context", "ctx", "--no-push", "--tar-path", out, "--cache-dir", cache)
		cmd.Dir = dir
		cmd.Env = []string{"KANIKO_DIR=" + work, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user, Setpgid: true}
		var text bytes.Buffer
		cmd.Stdout, cmd.Stderr = &text, &text
		// Processes that live on would keep the pipe of the output open.
		cmd.WaitDelay = 5 * time.Second
		return cmd, &text
	}
	complete := func() string {
		t.Helper()
		cmd, text := build()
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		img, err := tarball.ImageFromPath(out, nil)
		check(t, err)
		var list bytes.Buffer
		check(t, describeImage(&list, img, false))
		if left := append(leftBuilds(work), leftMounts(dir)...); len(left) > 0 {
			t.Fatalf("left behind: %v", left)
		}
		check(t, os.Remove(out))
		return list.String()
	}
	start := time.Now()
	want := complete()
	took := time.Since(start)

	died, left := 0, 0
	for range rounds {
		// The base is unpacked anew, into a place that builds share.
		check(t, os.RemoveAll(cache))
		cmd, _ := build()
		check(t, cmd.Start())
		after := rand.N(took)
		time.Sleep(after)
		check(t, cmd.Process.Kill())
		if err := cmd.Wait(); err == nil {
			// It was done already.
			check(t, os.Remove(out))
		} else {
			died++
		}
		left += len(leftBuilds(work))
		if _, err := os.Stat(out); err == nil {
			check(t, os.Remove(out))
		}
		for deadline := time.Now().Add(5 * time.Second); processIn(dir, marker); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("killed after %s: a process lives on", after)
			}
		}
		if left := leftMounts(dir); len(left) > 0 {
			t.Fatalf("killed after %s: %v", after, left)
		}
		if got := complete(); got != want {
			t.Fatalf("killed after %s: the next build gives\n%s\nwant\n%s", after, got, want)
		}
	}
	if died == 0 {
		t.Error("no build was killed before it was done")
	}
	t.Logf("of %d builds that take %s, %d were killed, and %d left a directory", rounds, took, died, left)
}

// processIn reports whether a process of a build runs: one with the marker in
// its arguments, or the executor itself.
func processIn(dir, marker string) bool {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		// A process may end while we look.
		line, err := os.ReadFile(name)
		if err == nil && (bytes.Contains(line, []byte(marker)) || bytes.HasPrefix(line, []byte(dir))) {
			return true
		}
		if exe, err := os.Readlink(filepath.Join(filepath.Dir(name), "exe")); err == nil && exe == filepath.Join(dir, "executor") {
			return true
		}
	}
	return false
}

// sharedDir is a temporary directory that a user may use.
func sharedDir(t *testing.T, user *syscall.Credential) string {
	dir, err := os.MkdirTemp("", "executor-killed-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	if user != nil {
		check(t, os.Chown(dir, int(user.Uid), int(user.Gid)))
	}
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
