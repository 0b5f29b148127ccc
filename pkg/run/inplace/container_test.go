//go:build linux

package inplace_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cooper-build/cooper/pkg/run/runtest"
)

// dockerVariable names the socket of an engine for TestContainer.
const dockerVariable = "COOPER_TEST_DOCKER"

// engine starts containers with the engine's default profile.
type engine struct {
	t     *testing.T
	host  string
	image string
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	socket := os.Getenv(dockerVariable)
	if socket == "" {
		t.Skipf("needs a container engine: set %s to the socket of one", dockerVariable)
	}
	e := &engine{t: t, host: "unix://" + strings.TrimPrefix(socket, "unix://")}
	if out, err := e.docker(nil, "version"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e.image = fmt.Sprintf("cooper-inplace-test-%d", os.Getpid())
	e.load()
	t.Cleanup(func() {
		if out, err := e.docker(nil, "rmi", "-f", e.image); err != nil {
			t.Errorf("removing the image: %v: %s", err, out)
		}
	})
	return e
}

func (e *engine) docker(stdin []byte, args ...string) (string, error) {
	cmd := exec.Command("docker", append([]string{"-H", e.host}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// load makes the image: busybox, this test, and what an executor's image has.
func (e *engine) load() {
	e.t.Helper()
	dir := e.t.TempDir()
	binary := filepath.Join(dir, "inplace.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		e.t.Fatalf("%v: %s", err, out)
	}
	busybox, err := os.ReadFile(runtest.BusyboxPath(e.t))
	if err != nil {
		e.t.Fatal(err)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		e.t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			e.t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			e.t.Fatal(err)
		}
	}
	for _, d := range []string{"bin/", "etc/", "kaniko/", "kaniko/.docker/", "own/", "own/deep/", "root/", "tmp/", "var/", "var/run/", "workspace/"} {
		add(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, busybox)
	for _, applet := range []string{"sh", "cat", "cmp", "cp", "diff", "find", "grep", "kill", "ls", "mkdir", "mkfifo", "mknod", "nc", "ps", "readlink", "rm", "sha256sum", "sleep", "sort", "stat", "touch", "xargs"} {
		add(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Name: "kaniko/executor", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	add(tar.Header{Name: "kaniko/.docker/config.json", Typeflag: tar.TypeReg, Mode: 0o600}, []byte("CREDENTIALS"))
	add(tar.Header{Name: "own/file", Typeflag: tar.TypeReg, Mode: 0o4751, Uid: 12, Gid: 34}, []byte("own"))
	add(tar.Header{Name: "own/link", Typeflag: tar.TypeLink, Linkname: "own/file"}, nil)
	add(tar.Header{Name: "own/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, nil)
	add(tar.Header{
		Name: "own/deep/capable", Typeflag: tar.TypeReg, Mode: 0o755, Format: tar.FormatPAX,
		PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
	}, []byte("x"))
	if err := w.Close(); err != nil {
		e.t.Fatal(err)
	}
	if out, err := e.docker(b.Bytes(), "import", "-", e.image); err != nil {
		e.t.Fatalf("%v: %s", err, out)
	}
}

// run executes a shell script in a new container.
func (e *engine) run(options []string, script string) (string, error) {
	args := append([]string{"run", "--rm", "--network=host", "-e", insideVariable + "=1", "-e", "PATH=/bin"}, options...)
	return e.docker(nil, append(args, e.image, "/bin/sh", "-c", script)...)
}

// whole frames a script with a comparison of all files of the container, before
// and after.
func whole(script string) string {
	return `set -e
manifest() { MANIFEST=$1 /kaniko/executor -test.run '^TestInsideManifest$' >/dev/null; }
mkdir /kaniko/build
mkfifo /own/pipe
echo context > /workspace/context
cd /workspace
manifest before
` + script + `
manifest after
cmp /verdict/before /verdict/after || { diff /verdict/before /verdict/after; exit 1; }
[ "$(pwd)" = /workspace ]
cat /verdict/after | grep -c .
`
}

func TestContainer(t *testing.T) {
	e := newEngine(t)
	volume := t.TempDir()
	for name, text := range map[string]string{"data/precious": "precious\n", "token/token": "t", "docker/config.json": "{}"} {
		name = filepath.Join(volume, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	test := func(name string) string {
		return "/kaniko/executor -test.v -test.run '^TestInside" + name + "$' || { echo FAILED; }"
	}
	for _, c := range []struct {
		name    string
		options []string
		script  string
		// lossy: files with capabilities, and devices, don't come back as they were.
		lossy bool
	}{
		{name: "exam", script: test("Exam")},
		{name: "exam with the least capabilities", script: test("Exam"), options: []string{
			"-e", "NO_DEVICES=1", "--cap-drop", "MKNOD", "--cap-drop", "SETFCAP", "--cap-drop", "SYS_CHROOT", "--cap-drop", "AUDIT_WRITE", "--cap-drop", "NET_RAW",
		}, lossy: true},
		{name: "exam with the build's files on a volume", script: test("Exam"), options: []string{"--tmpfs", "/volume:exec", "-e", "TMPDIR=/volume"}},
		{name: "scratch", script: test("Scratch")},
		{name: "stages", script: test("Stages")},
		{name: "twenty stages", script: test("TwentyStages")},
		{name: "failure", script: test("Failure")},
		{name: "bad layer", script: test("BadLayer")},
		{name: "mounts", script: test("Mounts") + `
			rm /tmp/agent.sock; manifest before`},
		{name: "volumes", script: test("Volumes") + `
			[ -e /own/deep/by-run ]; rm /own/deep/by-run; manifest before`,
			options: []string{
				"-v", volume + "/data:/data/volume", "-v", volume + "/token:/var/run/secrets/token",
				"-v", volume + "/docker:/kaniko/.docker:ro",
			}},
		{name: "killed", script: `
			/kaniko/executor -test.run '^TestInsideHang$' & pid=$!
			while [ ! -e /verdict/started ]; do /kaniko/executor -test.run NONE >/dev/null 2>&1 || true; done
			kill -9 $pid
			wait $pid || true
			tries=0
			# Only what the shell itself can do works before the files are back.
			while [ ! -e /own/file ] || [ ! -e /workspace/context ] || [ -e /noise ] || pgrep_keeper; do tries=$((tries+1)); done
			ps | grep '[s]leep 301' && exit 1
			true`},
		{name: "interrupted", script: `
			/kaniko/executor -test.v -test.run '^TestInsideHang$' & pid=$!
			while [ ! -e /verdict/started ]; do true; done
			kill -TERM $pid
			wait $pid || echo FAILED
			ps | grep '[s]leep 301' && exit 1
			true`},
	} {
		t.Run(c.name, func(t *testing.T) {
			script := c.script
			if c.lossy {
				script = "rm /own/null /own/deep/capable; manifest before\n" + script
			}
			out, err := e.run(append([]string{"--tmpfs", "/verdict"}, c.options...), strings.Replace(whole(script), "manifest before\n", keeperAlive+"manifest before\n", 1))
			if err != nil || strings.Contains(out, "FAILED") {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Log(out)
		})
	}
	t.Run("as process 1", func(t *testing.T) {
		for _, name := range []string{"Exam", "Failure"} {
			out, err := e.run([]string{"--tmpfs", "/verdict"}, "mkdir /kaniko/build; exec /kaniko/executor -test.v -test.run '^TestInside"+name+"$'")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
	})
}

// keeperAlive is a shell function that needs no program: it tells whether the
// process is there that brings files back.
const keeperAlive = `pgrep_keeper() {
	for p in /proc/[0-9]*; do
		IFS= read -r line 2>/dev/null <$p/comm || true
		case "$line" in exe|cooper-keeper) return 0;; esac
	done
	return 1
}
`
