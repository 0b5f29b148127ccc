//go:build linux

package inplace_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/inplace"
	"github.com/cooper-build/cooper/pkg/run/inplace/keeper"
	"github.com/cooper-build/cooper/pkg/run/runtest"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

func TestMain(m *testing.M) {
	run.Init()
	os.Exit(m.Run())
}

// insideVariable is set in the containers that TestContainer starts. The tests
// of this file replace all files of the machine, so they run only there.
const insideVariable = "COOPER_TEST_INSIDE"

func inside(t *testing.T) {
	t.Helper()
	if os.Getenv(insideVariable) == "" {
		t.Skip("runs in a container that TestContainer starts")
	}
}

func TestInsideExam(t *testing.T) {
	inside(t)
	runtest.Exam(t, func(_ *testing.T, dir string) run.Isolation {
		return inplace.New(inplace.Options{Dir: dir, Warn: func(text string) { t.Log(text) }})
	}, runtest.Options{NoDevices: os.Getenv("NO_DEVICES") != "", WritableBinds: true})
}

func TestInsideScratch(t *testing.T) {
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	ws := b.open(run.Stage{Name: "scratch"})
	entries, err := ws.ReadDir(".")
	if err != nil || len(entries) != 0 {
		t.Errorf("an empty stage holds %v, %v", entries, err)
	}
	e := rootfs.Entry{Path: "busybox", Mode: 0o755, Size: int64(len(program)), ModTime: time.Unix(1700000000, 0)}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(program)), nil }
	if err := b.ws.Put(t.Context(), []snapshot.Change{{Entry: e, Open: open}}); err != nil {
		t.Fatal(err)
	}
	if err := b.ws.Run(t.Context(), run.Spec{Args: []string{"/busybox", "touch", "/made"}}); err != nil {
		t.Fatal(err)
	}
	if got := b.changes(); got != "+dev +made +proc +sys" {
		t.Errorf("changes %q", got)
	}
}

// TestInsideManifest lists all files of the container in /verdict/$MANIFEST.
func TestInsideManifest(t *testing.T) {
	inside(t)
	masks, err := keeper.NewMasks("/", []string{buildDir})
	if err != nil {
		t.Fatal(err)
	}
	d, err := rootfs.OpenDir("/", rootfs.DirOptions{AllXattrs: true, Skip: masks.Covers})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	out, err := os.Create("/verdict/" + os.Getenv("MANIFEST"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	links := map[uint64]string{}
	err = rootfs.Walk(d, ".", func(e rootfs.Entry) error {
		if e.Link != 0 {
			if links[e.Link] == "" {
				links[e.Link] = e.Path
			}
			fmt.Fprintf(out, "same as %s: ", links[e.Link])
			e.Link = 0
		}
		sum := sha256.New()
		if e.Kind == rootfs.Regular {
			f, err := d.Open(e.Path)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := io.Copy(sum, f); err != nil {
				return err
			}
		}
		if e.Path == "tmp" || e.Path == "kaniko" {
			e.ModTime = time.Time{} // the test makes directories there
		}
		xattrs := e.Xattrs
		e.ModTime, e.Xattrs = e.ModTime.UTC(), nil
		_, err := fmt.Fprintf(out, "%+v %q %x\n", e, xattrs, sum.Sum(nil))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

const buildDir = "/kaniko/build"

// bench is a build in place.
type bench struct {
	t         *testing.T
	isolation *inplace.Isolation
	ws        run.Workspace
	warnings  []string
}

func newBench(t *testing.T, keep ...string) *bench {
	inside(t)
	b := &bench{t: t}
	b.isolation = inplace.New(inplace.Options{Dir: buildDir, Keep: keep, Warn: func(text string) { b.warnings = append(b.warnings, text) }})
	t.Cleanup(func() {
		if err := b.isolation.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return b
}

func (b *bench) open(stage run.Stage) run.Workspace {
	b.t.Helper()
	ws, err := b.isolation.Open(b.t.Context(), stage)
	if err != nil {
		b.t.Fatal(err)
	}
	b.ws = ws
	return ws
}

func (b *bench) try(ctx context.Context, script string, change func(*run.Spec)) (string, error) {
	var out bytes.Buffer
	spec := run.Spec{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, Stdout: &out, Stderr: &out}
	if change != nil {
		change(&spec)
	}
	err := b.ws.Run(ctx, spec)
	return out.String(), err
}

func (b *bench) want(script, want string) {
	b.t.Helper()
	if got, err := b.try(b.t.Context(), script, nil); err != nil || got != want {
		b.t.Errorf("%s\ngives %q, %v; want %q", script, got, err, want)
	}
}

func (b *bench) changes() string {
	b.t.Helper()
	var list []string
	for c, err := range b.ws.Changes(b.t.Context()) {
		if err != nil {
			b.t.Fatal(err)
		}
		list = append(list, [...]string{"+", "=", "-"}[c.Kind]+c.Entry.Path)
	}
	return strings.Join(list, " ")
}

func readFile(r rootfs.Reader, name string) string {
	f, err := r.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func exists(r rootfs.Reader, name string) bool {
	_, err := r.Lstat(name)
	return err == nil
}

// layer is a layer of headers; a regular file's content is its Linkname.
func layer(t *testing.T, headers ...tar.Header) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		var content string
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		h.ModTime = time.Unix(1700000000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dirHeader(name string) tar.Header { return tar.Header{Name: name + "/", Typeflag: tar.TypeDir} }
func fileHeader(name, text string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Linkname: text}
}
func linkHeader(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}

func TestInsideStages(t *testing.T) {
	b := newBench(t, "/workspace")
	base := []v1.Layer{runtest.Busybox(t)}
	first := b.open(run.Stage{Name: "first", Layers: base})
	b.want("ls -A /; cat /own/file /kaniko/executor /kaniko/.docker/config.json 2>/dev/null; ls /kaniko; cat /workspace/context",
		"bin\ndev\netc\nhome\nkaniko\nold\nproc\nroot\nsys\ntmp\nusr\nvar\nverdict\nworkspace\nbuild\ncontext\n")
	// Nothing of the builder's processes can be looked at, as root.
	b.want(`for p in /proc/[0-9]*; do
		pid=${p#/proc/}
		case "$(cat $p/comm 2>/dev/null)" in executor|exe) ;; *) continue;; esac
		echo process
		cat $p/environ $p/mem $p/fd/[3-9] 2>/dev/null; ls $p/root/ $p/cwd/ $p/fd/3/ 2>/dev/null; readlink $p/fd/3
		done | sort -u`, "process\n")
	b.want("echo result > /result; mkdir -p /app/deep && echo deep > /app/deep/file; mknod /zero c 1 5", "")
	if got, want := b.changes(), "+app +app/deep +app/deep/file +result +zero"; got != want {
		t.Errorf("changes %q, want %q", got, want)
	}
	for _, name := range []string{"kaniko", "workspace", "verdict", "proc/self"} {
		if exists(first, name) {
			t.Errorf("the container's /%s is part of the image", name)
		}
	}

	// Copy, and a look at the first stage, which has moved aside.
	second := b.open(run.Stage{Name: "second", Layers: base})
	b.want("ls -d /result /app 2>/dev/null | wc -l", "0\n")
	if got := readFile(first, "app/deep/file"); got != "deep\n" {
		t.Errorf("the first stage's file is %q", got)
	}
	if e, err := first.Lstat("zero"); err != nil || e.Minor != 5 {
		t.Errorf("the first stage's device is %+v, %v", e, err)
	}
	b.want("echo second > /second", "")
	if err := first.Run(t.Context(), run.Spec{Args: []string{"/bin/true"}}); err == nil {
		t.Error("a command ran in a stage that is not in /")
	}

	// A third continues the first, which is aside; a fourth goes on in the third.
	third := b.open(run.Stage{Name: "third", Parent: first})
	b.want("cat /result /app/deep/file; ls /second 2>/dev/null | wc -l; echo third >> /result; stat -c %t:%T /zero", "result\ndeep\n0\n1:5\n")
	if got := b.changes(); got != "+result" {
		t.Errorf("changes %q", got)
	}
	if readFile(first, "result") != "result\n" || readFile(second, "second") != "second\n" || readFile(third, "result") != "result\nthird\n" {
		t.Error("stages have got mixed up")
	}
	b.open(run.Stage{Name: "fourth", Parent: third, LastUse: true})
	b.want("cat /result; rm /result", "result\nthird\n")
	if got := b.changes(); got != "-result" {
		t.Errorf("changes %q", got)
	}
	if exists(third, "result") {
		t.Error("a stage that was given up can be read")
	}
}

func TestInsideTwentyStages(t *testing.T) {
	b := newBench(t)
	base := []v1.Layer{runtest.Busybox(t)}
	var all []run.Workspace
	for n := range 20 {
		all = append(all, b.open(run.Stage{Name: fmt.Sprint(n), Layers: base}))
		b.want(fmt.Sprintf("ls /stage* 2>/dev/null; echo %d > /stage%d", n, n), "")
		if got := b.changes(); got != fmt.Sprintf("+stage%d", n) {
			t.Errorf("changes %q", got)
		}
	}
	for n, ws := range all {
		if got := readFile(ws, fmt.Sprintf("stage%d", n)); got != fmt.Sprintf("%d\n", n) {
			t.Errorf("stage %d has %q", n, got)
		}
		if err := ws.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestInsideFailure(t *testing.T) {
	b := newBench(t)
	b.open(run.Stage{Name: "fails", Layers: []v1.Layer{runtest.Busybox(t)}})
	for script, want := range map[string]string{
		"echo partial > /partial; exit 3": "exit code 3",
		// The command's parent is the child that waits for it.
		"(sleep 300; echo late > /late) & kill -9 $PPID; sleep 300": "the child process died",
	} {
		start := time.Now()
		if _, err := b.try(t.Context(), script, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", script, err, want)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s took %v", script, took)
		}
	}
	b.want("ps | grep -c '[s]leep 300'; true", "0\n")
	// The keeper as well.
	_, _ = b.try(t.Context(), `for p in /proc/[0-9]*; do case "$(cat $p/cmdline 2>/dev/null)" in cooper-keeper*) kill -9 ${p#/proc/};; esac; done`, nil)
	if len(b.warnings) != 1 {
		t.Errorf("warnings %q", b.warnings)
	}
	if _, err := b.try(t.Context(), "for f in /* /.[!.]*; do [ $f = /verdict ] || rm -rf $f; done 2>/dev/null", nil); err == nil {
		// Deleting everything may well succeed; going on can't.
		if _, err := b.try(t.Context(), "true", nil); err == nil {
			t.Error("a command ran in an empty tree")
		}
	}
}

func TestInsideBadLayer(t *testing.T) {
	b := newBench(t)
	bad := layer(t, fileHeader("half", "half"), tar.Header{Name: "link", Typeflag: tar.TypeLink, Linkname: "missing"})
	if _, err := b.isolation.Open(t.Context(), run.Stage{Name: "bad", Layers: []v1.Layer{runtest.Busybox(t), bad}}); err == nil {
		t.Error("a layer with a dangling hard link was unpacked")
	}
}

// TestInsideHang is killed or interrupted by the script that starts it.
func TestInsideHang(t *testing.T) {
	b := newBench(t)
	b.open(run.Stage{Name: "hangs", Layers: []v1.Layer{runtest.Busybox(t)}})
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	_, err := b.try(ctx, "echo x > /verdict/started; setsid sleep 301 & while true; do echo x >> /noise; mkdir -p /d; touch /d/$(stat -c %s /noise); done", nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestInsideVolumes runs where volumes are mounted at /data/volume, at
// /var/run/secrets/token and, read-only, at /kaniko/.docker.
func TestInsideVolumes(t *testing.T) {
	b := newBench(t, "/own/deep")
	image := []v1.Layer{
		runtest.Busybox(t),
		layer(t, dirHeader("data"), fileHeader("data/in-image", "in-image"), dirHeader("data/volume"), fileHeader("data/volume/hidden", "hidden"),
			dirHeader("run"), dirHeader("own"), dirHeader("own/deep"), fileHeader("own/a", "a"), fileHeader("own/b", "b"), fileHeader("etc/hosts", "image-hosts")),
		layer(t, linkHeader("var/run", "/run"), fileHeader("run/here", "here"), fileHeader("own/.wh.a", ""), fileHeader("own/c", "c")),
	}
	ws := b.open(run.Stage{Name: "volumes", Layers: image})
	if len(b.warnings) == 0 || !strings.Contains(strings.Join(b.warnings, "\n"), "/data/volume") || !strings.Contains(strings.Join(b.warnings, "\n"), "/kaniko/.docker/config.json") {
		t.Errorf("warnings %q", b.warnings)
	}
	if got := readFile(ws, "data/volume/hidden"); got != "hidden" {
		t.Errorf("the image's file below the volume is %q", got)
	}
	if got := readFile(ws, "etc/hosts"); got != "image-hosts" {
		t.Errorf("the image's hosts are %q", got)
	}
	if e, err := ws.Lstat("var/run"); err != nil || e.Target != "/run" {
		t.Errorf("/var/run is %+v, %v", e, err)
	}
	b.want("cat /data/in-image /data/volume/precious /own/b /own/c /run/here; ls /own", "in-imageprecious\nbchere"+"b\nc\ndeep\n")
	b.want("mkdir /own/new; touch /own/deep/by-run", "")
	if got := b.changes(); got != "=own +own/new" {
		t.Errorf("changes %q", got)
	}
	entry := func(name string, kind rootfs.Kind) rootfs.Entry {
		return rootfs.Entry{Path: name, Kind: kind, Mode: 0o700, ModTime: time.Unix(1700000001, 0)}
	}
	empty := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }
	// Whiteouts of directories that hold what is the container's.
	removing := run.Stage{Name: "whiteouts", Layers: append(image,
		layer(t, fileHeader(".wh.data", ""), fileHeader("own/.wh..wh..opq", ""), fileHeader("own/d", "d"), fileHeader(".wh.kaniko", ""), fileHeader("var/.wh.run", "")))}
	ws2 := b.open(removing)
	if exists(ws2, "data") || exists(ws2, "own/b") || exists(ws2, "var/run") || readFile(ws2, "own/d") != "d" {
		t.Error("whiteouts were not applied")
	}
	b.want("cat /data/volume/precious; ls /own", "precious\nd\ndeep\n")
	// The first is complete where it is now.
	if readFile(ws, "data/volume/hidden") != "hidden" || readFile(ws, "own/c") != "c" || !exists(ws, "own/new") {
		t.Error("the first stage has lost files")
	}
	// A link in the place of a directory that holds a volume.
	ws3 := b.open(run.Stage{Name: "link", Layers: append(image, layer(t, linkHeader("data", "/old"), fileHeader("old/x", "x")))})
	if e, err := ws3.Lstat("data"); err != nil || e.Kind != rootfs.Symlink {
		t.Errorf("/data is %+v, %v", e, err)
	}
	// Continued by copying.
	ws4 := b.open(run.Stage{Name: "continued", Parent: ws})
	if readFile(ws4, "data/volume/hidden") != "hidden" || readFile(ws4, "own/c") != "c" {
		t.Error("the continued stage lacks files")
	}
	if e, err := ws4.Lstat("var/run"); err != nil || e.Target != "/run" {
		t.Errorf("/var/run is %+v, %v", e, err)
	}
	// COPY where commands can't see it.
	if err := b.ws.Put(t.Context(), []snapshot.Change{{Entry: entry("data/volume/put", rootfs.Regular), Open: empty}}); err != nil {
		t.Error(err)
	}
	if !exists(ws4, "data/volume/put") {
		t.Error("what was put is not there")
	}
	if _, err := b.try(t.Context(), "true", nil); err == nil || !strings.Contains(err.Error(), "data/volume/put") {
		t.Errorf("error %v, want one about /data/volume/put", err)
	}
	if err := b.ws.Put(t.Context(), []snapshot.Change{{Kind: snapshot.Remove, Entry: rootfs.Entry{Path: "data"}}}); err != nil {
		t.Error(err)
	}
	if exists(ws4, "data") {
		t.Error("a removed directory is there")
	}
	if text, err := os.ReadFile("/data/volume/precious"); err != nil || string(text) != "precious\n" {
		t.Errorf("the volume holds %q, %v", text, err)
	}
}

func TestInsideMounts(t *testing.T) {
	b := newBench(t)
	agent := "/tmp/agent.sock"
	serveAgent(t, agent)
	b.open(run.Stage{Name: "mounts", Layers: []v1.Layer{runtest.Busybox(t), layer(t, fileHeader("etc/token", "of the image"))}})
	cache := filepath.Join(buildDir, "cache")
	outside := "/verdict/cache"
	for _, dir := range []string{cache, outside} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	mounts := func(m ...run.Mount) func(*run.Spec) { return func(s *run.Spec) { s.Mounts = m } }
	check := func(script, want string, m ...run.Mount) {
		t.Helper()
		if got, err := b.try(t.Context(), script, mounts(m...)); err != nil || got != want {
			t.Errorf("%s\ngives %q, %v; want %q", script, got, err, want)
		}
	}
	for _, dir := range []string{cache, outside} {
		check("mkdir /c/sub; echo one > /c/sub/file; chown 1000 /c/sub/file", "", run.Mount{Type: run.Cache, Target: "/c", HostPath: dir})
		check("cat /old/tree/sub/file; stat -c %u /old/tree/sub/file; rm -rf /old/tree", "one\n1000\n", run.Mount{Type: run.Cache, Target: "/old/tree", HostPath: dir})
	}
	check("cat /etc/token; stat -c %a:%u:%g /etc/token; rm /etc/token", "secret400:5:6\n",
		run.Mount{Type: run.Secret, Target: "/etc/token", Data: []byte("secret"), Mode: 0o400, UID: 5, GID: 6})
	check("ls /a/b; ls /a/b/c; mv /a/b/c/x /a/b/y", "c\nx\n",
		run.Mount{Type: run.Tmpfs, Target: "/a/b"}, run.Mount{Type: run.Tmpfs, Target: "/a/b/c"}, run.Mount{Type: run.Pipe, Target: "/a/b/c/x"})
	answer := ""
	_, err := b.try(t.Context(), "stat -c %a /run/agent.sock; while [ ! -e /tmp/go ]; do sleep 0.01; done; rm /tmp/go", func(s *run.Spec) {
		s.Mounts = []run.Mount{{Type: run.SSH, Target: "/run/agent.sock", HostPath: agent, Mode: 0o600}}
		s.Stdout = writerFunc(func(p []byte) {
			answer = string(p) + ask("/run/agent.sock", "ping")
			_ = os.WriteFile("/tmp/go", nil, 0o644)
		})
	})
	if err != nil || answer != "600\nagent: ping" {
		t.Errorf("the agent answers %q, %v", answer, err)
	}
	check("cat /etc/token /old/tree/leaf", "of the imageleaf\n")
	if got := b.changes(); got != "" {
		t.Errorf("changes %q", got)
	}
	if _, err := b.try(t.Context(), "cat /etc/hosts", func(s *run.Spec) { s.ExtraHosts = []run.Host{{Name: "example", IP: "192.0.2.1"}} }); err != nil {
		t.Error(err)
	}
	b.want("grep -c example /etc/hosts; true", "0\n")
	for _, target := range []string{"/kaniko", "/kaniko/build/x", "/etc/hosts", "/proc", "/"} {
		if _, err := b.try(t.Context(), "true", mounts(run.Mount{Type: run.Tmpfs, Target: target})); err == nil {
			t.Errorf("a mount at %s was possible", target)
		}
	}
	// Touched, and as they were: BuildKit leaves these out of a layer.
	b.want("chown 0:0 /etc/token; chmod 755 /etc/token; echo -n 'of the magei' > /tmp/t && touch -r /etc/group /tmp/t", "")
	if got := b.changes(); got != "=tmp +tmp/t" {
		t.Errorf("changes %q", got)
	}
}

// serveAgent answers each line.
func serveAgent(t *testing.T, path string) {
	t.Helper()
	listener, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 100)
			n, _ := c.Read(buf)
			fmt.Fprintf(c, "agent: %s", buf[:n])
			c.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
}

type writerFunc func(p []byte)

func (w writerFunc) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// ask sends text to a socket and returns what comes back.
func ask(path, text string) string {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return err.Error()
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(answer)
}

// listenUnix leaves the socket's file alone when it is closed.
func listenUnix(path string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		l.SetUnlinkOnClose(false)
	}
	return l, err
}
