package integration

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cooper-build/cooper/integration/machine"
)

// lab is the machine of all tests of this process.
var lab *machine.Machine

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		var err error
		if lab, err = machine.New(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if err := lab.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

// must ends the test for err: as skipped if this computer lacks something.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		var missing *machine.Missing
		if errors.As(err, &missing) {
			t.Skip(missing.What)
		}
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// needs starts the registry with the base images.
func needs(t *testing.T, bases ...string) *machine.Registry {
	t.Helper()
	reg := must[*machine.Registry](t)(lab.Registry(t.Context()))
	must[any](t)(nil, reg.Need(t.Context(), bases...))
	return reg
}

// folder is a fresh directory with files, below the lab's own so that ordinary
// users and containers can come in.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := must[string](t)(lab.Sub("test"))
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	age(t, dir)
	return dir
}

// age gives all files below dir a time that is before any build's.
func age(t *testing.T, dir string) {
	t.Helper()
	past := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(p, past, past))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pull is the flags with which the executor finds base images.
func pull(reg *machine.Registry) []string {
	return []string{"--registry-mirror", reg.Host, "--insecure-registry", reg.Host, "--skip-default-registry-fallback", "--log-format", "text"}
}

// executor is the command that runs Cooper on this machine, as root or, with
// rootless, as an ordinary user who owns dir.
func executor(t *testing.T, ctx context.Context, dir string, rootless bool, args ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("builds on the machine are tested by root, as itself and as an ordinary user")
	}
	path := must[string](t)(lab.Executor(ctx))
	args = append(args, "--isolation", "namespace", "--kaniko-dir", filepath.Join(dir, "work"))
	cmd := exec.CommandContext(ctx, path, args...)
	if rootless {
		u, err := user.Lookup("cooper-test")
		if err != nil {
			t.Skip("there is no user cooper-test; integration/setup.sh adds one")
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		giveAway(t, dir, uid, gid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "DOCKER_CONFIG=" + dir, "TMPDIR=" + dir}
	return cmd
}

func giveAway(t *testing.T, dir string, uid, gid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(p, uid, gid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// container runs a script in Cooper's own image as a CI runner does: the
// engine's default profile, no entry point, the script on the shell's standard
// input, the project's directory mounted at /builds/project.
func container(t *testing.T, ctx context.Context, project, script string, more ...string) (output string, err error) {
	t.Helper()
	engine := must[*machine.Engine](t)(lab.Engine(ctx))
	image := must[string](t)(lab.CooperImage(ctx))
	args := []string{"--config", engine.Config, "--host", engine.Host, "run", "--rm", "--interactive", "--network=host",
		"--entrypoint", "", "--volume", project + ":/builds/project", "--workdir", "/builds/project"}
	args = append(append(args, more...), image, "sh")
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stdin = strings.NewReader("set -eu\n" + script)
	out, err := cmd.CombinedOutput()
	return string(bytes.TrimSpace(out)), err
}

// ownProgram gives a command a copy of its program below dir, so that its
// processes can be told from all others, and returns the copy's path.
func ownProgram(t *testing.T, cmd *exec.Cmd, dir string) string {
	t.Helper()
	data, err := os.ReadFile(cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = filepath.Join(dir, "program")
	if err := os.WriteFile(cmd.Path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return cmd.Path
}

// processes are the ids of those that run a program.
func processes(program string) []string {
	var ids []string
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		if exe, err := os.Readlink(l); err == nil && exe == program {
			ids = append(ids, filepath.Base(filepath.Dir(l)))
		}
	}
	return ids
}

// peakWhile runs f and returns the highest resident memory, in bytes, that a
// process of the program has meanwhile, as the kernel keeps it (VmHWM). The
// resource usage of an ended process would not do: it begins with that of the
// process that started it.
func peakWhile(program string, f func()) int64 {
	done := make(chan struct{})
	result := make(chan int64)
	go func() {
		var highest int64
		for {
			for _, id := range processes(program) {
				status, _ := os.ReadFile("/proc/" + id + "/status")
				if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
					kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
					highest = max(highest, kb<<10)
				}
			}
			select {
			case <-done:
				result <- highest
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	f()
	close(done)
	return <-result
}
