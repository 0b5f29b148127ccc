package runtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// Options say what the place of the exam can't do.
type Options struct {
	// SingleID: there is one user id, so commands run as root only.
	SingleID bool
	// OwnSystem: /dev, /proc and /sys are the container's own and part of no
	// image, so that images without them don't get them from the first RUN.
	OwnSystem bool
	// WritableBinds: a read-only bind mount can't be kept from writing.
	WritableBinds bool
	// NoDevices: device nodes can't be made.
	NoDevices bool
}

// Exam asks of an isolation everything that its documentation promises. make
// returns a new one; its files may lie below dir.
func Exam(t *testing.T, make func(t *testing.T, dir string) run.Isolation, o Options) {
	layer := Busybox(t)
	e := &exam{make: make, options: o, layers: []v1.Layer{layer}}
	for _, c := range []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"exit code", testExitCode},
		{"signal", testSignal},
		{"not found", testNotFound},
		{"output", testOutput},
		{"environment", testEnvironment},
		{"working directory", testWorkingDirectory},
		{"users", testUsers},
		{"changes", testChanges},
		{"changes of several runs", testSeveralRuns},
		{"touched files", testTouched},
		{"last use of a parent", testLastUse},
		{"deletes and replacements", testReplacements},
		{"special files", testSpecialFiles},
		{"put", testPut},
		{"parent", testParent},
		{"scratch", testScratch},
		{"mounts", testMounts},
		{"mounts leave nothing", testMountsLeaveNothing},
		{"read-only bind", testReadOnlyBind},
		{"bind from a stage", testBindFromStage},
		{"nested mounts", testNestedMounts},
		{"links in the way of mounts", testLinksInTheWay},
		{"no network", testNoNetwork},
		{"background process", testBackground},
		{"timeout", testTimeout},
		{"cancel", testCancel},
		{"umask and input", testUmaskAndInput},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, e.bench(t)) })
	}
}

type exam struct {
	make    func(t *testing.T, dir string) run.Isolation
	options Options
	layers  []v1.Layer
}

// bench is one test's isolation with an opened workspace.
type bench struct {
	*exam
	t         *testing.T
	isolation run.Isolation
	ability   run.Ability
	ws        run.Workspace
	dir       string
}

func (e *exam) bench(t *testing.T) *bench {
	t.Helper()
	b := &bench{exam: e, t: t, dir: t.TempDir()}
	b.isolation = e.make(t, b.dir)
	var err error
	if b.ability, err = b.isolation.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !b.ability.OK {
		t.Skipf("isolation %s does not work here: %s", b.isolation.Name(), b.ability.Reason)
	}
	t.Cleanup(func() {
		if closer, ok := b.isolation.(io.Closer); ok {
			if err := closer.Close(); err != nil {
				t.Errorf("closing the isolation: %v", err)
			}
		}
	})
	b.ws = b.open(run.Stage{Name: "exam", Layers: e.layers})
	return b
}

func (b *bench) open(stage run.Stage) run.Workspace {
	b.t.Helper()
	ws, err := b.isolation.Open(b.t.Context(), stage)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := ws.Close(); err != nil {
			b.t.Errorf("closing the workspace: %v", err)
		}
	})
	return ws
}

// shell is a command as RUN's shell form gives it.
func shell(script string) run.Spec {
	return run.Spec{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin", "HOME=/root"}, Dir: "/"}
}

func (b *bench) run(spec run.Spec) (string, error) {
	b.t.Helper()
	var out bytes.Buffer
	spec.Stdout, spec.Stderr = &out, &out
	err := b.ws.Run(b.t.Context(), spec)
	return out.String(), err
}

func (b *bench) mustRun(script string) string {
	b.t.Helper()
	out, err := b.run(shell(script))
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// changes lists what changed, one line each, parents left out.
func (b *bench) changes(ws run.Workspace) []string {
	b.t.Helper()
	var list []string
	for c, err := range ws.Changes(b.t.Context()) {
		if err != nil {
			b.t.Fatal(err)
		}
		switch c.Kind {
		case snapshot.Remove:
			list = append(list, "- "+c.Entry.Path)
		case snapshot.Write:
			list = append(list, "+ "+c.Entry.Path)
			if c.Entry.Kind == rootfs.Regular {
				if err := readAll(c); err != nil {
					b.t.Errorf("reading %s: %v", c.Entry.Path, err)
				}
			}
		}
	}
	return list
}

func readAll(c snapshot.Change) error {
	f, err := c.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(io.Discard, f)
	if err == nil && n != c.Entry.Size {
		err = fmt.Errorf("%d bytes, want %d", n, c.Entry.Size)
	}
	return err
}

func (b *bench) wantChanges(want ...string) {
	b.t.Helper()
	if got := b.changes(b.ws); !slices.Equal(got, want) {
		b.t.Errorf("changes\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (b *bench) wantOutput(script, want string) {
	b.t.Helper()
	if got := b.mustRun(script); got != want {
		b.t.Errorf("%s gives %q, want %q", script, got, want)
	}
}

func exitCode(t *testing.T, err error) *run.ExitError {
	t.Helper()
	var exit *run.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("error %v, want an exit error", err)
	}
	return exit
}

func testExitCode(t *testing.T, b *bench) {
	for _, code := range []int{0, 1, 42, 255} {
		_, err := b.run(shell(fmt.Sprintf("exit %d", code)))
		if code == 0 {
			if err != nil {
				t.Errorf("exit 0: %v", err)
			}
			continue
		}
		if got := exitCode(t, err).Code; got != code {
			t.Errorf("exit code %d, want %d", got, code)
		}
	}
}

func testSignal(t *testing.T, b *bench) {
	_, err := b.run(shell("kill -KILL $$"))
	if exit := exitCode(t, err); exit.Code != 137 || exit.Signal != "SIGKILL" {
		t.Errorf("got %+v, want SIGKILL and 137", exit)
	}
}

func testNotFound(t *testing.T, b *bench) {
	for _, c := range []struct {
		command, says string
		code          int
	}{
		{"no-such-command", "not found", 127},
		{"/no/such/file", "no such file", 127},
		{"/etc/passwd", "permission denied", 126},
	} {
		spec := shell("")
		spec.Args = []string{c.command}
		out, err := b.run(spec)
		if got := exitCode(t, err).Code; got != c.code || !strings.Contains(out, c.says) {
			t.Errorf("%s: code %d and output %q, want %d and %q", c.command, got, out, c.code, c.says)
		}
	}
}

func testOutput(t *testing.T, b *bench) {
	var out, errs bytes.Buffer
	spec := shell("echo out; echo err >&2; printf 'no end'")
	spec.Stdout, spec.Stderr = &out, &errs
	if err := b.ws.Run(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if out.String() != "out\nno end" || errs.String() != "err\n" {
		t.Errorf("stdout %q and stderr %q", &out, &errs)
	}
}

func testEnvironment(t *testing.T, b *bench) {
	spec := shell("env | grep -v -e ^PWD= -e ^SHLVL= | sort")
	spec.Env = append(spec.Env, "A=1", "B=two words")
	out, err := b.run(spec)
	if err != nil {
		t.Fatal(err)
	}
	if want := "A=1\nB=two words\nHOME=/root\nPATH=/bin:/usr/bin\n"; out != want {
		t.Errorf("environment %q, want %q", out, want)
	}
}

func testWorkingDirectory(t *testing.T, b *bench) {
	spec := shell("pwd")
	spec.Dir = "/new/place"
	out, err := b.run(spec)
	if err != nil || out != "/new/place\n" {
		t.Errorf("pwd gives %q, %v", out, err)
	}
	b.wantChanges("+ new", "+ new/place")
}

func testUsers(t *testing.T, b *bench) {
	b.wantOutput("id -u; id -g", "0\n0\n")
	if b.options.SingleID {
		t.Skip("there is only one id here")
	}
	spec := shell("id -u; id -g; id -G; touch mine && stat -c %u:%g mine; echo own > /dev/stdout")
	spec.Dir = "/home/app"
	spec.User = run.Identity{UID: 1000, GID: 1000, Groups: []int{10}}
	out, err := b.run(spec)
	if err != nil || out != "1000\n1000\n1000 10\n1000:1000\nown\n" {
		t.Errorf("got %q, %v", out, err)
	}
	spec = shell("touch /etc/not-allowed")
	spec.User = run.Identity{UID: 1000, GID: 1000}
	if _, err := b.run(spec); err == nil {
		t.Error("an ordinary user could write to /etc")
	}
	b.mustRun("chown 33:44 /old/file")
	for c, err := range b.ws.Changes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Entry.Path == "old/file" && (c.Entry.UID != 33 || c.Entry.GID != 44) {
			t.Errorf("owner %d:%d, want 33:44", c.Entry.UID, c.Entry.GID)
		}
	}
}

func testChanges(t *testing.T, b *bench) {
	b.wantChanges()
	b.mustRun("mkdir -p /a/b; echo x > /a/b/c; echo new >> /old/file; cat /old/other; ls -lR /old /bin >/dev/null 2>&1")
	b.wantChanges("+ a", "+ a/b", "+ a/b/c", "+ old/file")
	b.wantChanges()
}

func testSeveralRuns(t *testing.T, b *bench) {
	b.mustRun("echo one > /one")
	b.wantChanges("+ one")
	b.mustRun("echo two > /two; cat /one")
	b.wantChanges("+ two")
	b.mustRun("rm /one")
	b.wantChanges("- one")
	b.wantOutput("cat /two; ls /one 2>/dev/null || echo gone", "two\ngone\n")
	b.wantChanges()
}

// testTouched: what a command touches and leaves as it was is no change, as in
// BuildKit, and what it writes is one even with the old size and time.
func testTouched(t *testing.T, b *bench) {
	b.mustRun(`chown 0:0 /old/file; chmod 644 /old/other; mv /old/tree/leaf /old/x && mv /old/x /old/tree/leaf
		printf 'new\n' > /old/other; touch -d '2024-01-02 03:04:05' /old/other`)
	got := b.changes(b.ws)
	if slices.Contains(got, "+ old/file") {
		t.Errorf("a file that was only touched is listed: %q", got)
	}
	if !slices.Contains(got, "+ old/other") {
		t.Errorf("a file with other bytes is not listed: %q", got)
	}
	for c, err := range b.ws.Changes(t.Context()) {
		t.Errorf("a second time: %v, %v", c.Entry.Path, err)
	}
	b.wantOutput("cat /old/other", "new\n")
}

func testLastUse(t *testing.T, b *bench) {
	b.mustRun("echo parent > /parent; rm /old/file")
	b.changes(b.ws)
	b.ws = b.open(run.Stage{Name: "child", Parent: b.ws, LastUse: true})
	b.wantOutput("cat /parent; ls /old/file 2>/dev/null || echo gone", "parent\ngone\n")
	b.mustRun("echo child > /child; rm /parent")
	b.wantChanges("+ child", "- parent")
}

func testReplacements(t *testing.T, b *bench) {
	b.mustRun(`rm -r /old/tree && echo file > /old/tree
		rm /old/file && mkdir /old/file && echo in > /old/file/in
		ln /old/other /old/link
		mv /etc/group /etc/groups
		chmod 600 /etc/passwd; chmod 700 /root`)
	got := strings.Join(b.changes(b.ws), "\n")
	for _, want := range []string{"+ old/tree", "+ old/file", "+ old/file/in", "+ old/link", "- etc/group", "+ etc/groups", "+ etc/passwd", "+ root"} {
		if !strings.Contains(got+"\n", want+"\n") {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "leaf") {
		t.Errorf("a file below a removed directory is listed:\n%s", got)
	}
}

func testSpecialFiles(t *testing.T, b *bench) {
	b.mustRun("mkfifo /pipe; ln -s /nowhere /dangling; touch /empty; chmod 4755 /empty")
	want := []string{"+ dangling", "+ empty", "+ pipe"}
	if !b.options.NoDevices {
		b.mustRun("mknod /zero c 1 5")
		want = append(want, "+ zero")
	}
	if b.options.NoDevices || !isOverlay(b) {
		b.wantChanges(want...)
		return
	}
	// Two runs without a look in between: both are told.
	b.wantChanges(want...)
}

func isOverlay(b *bench) bool { _, ok := b.ws.(run.Stable); return ok }

func testPut(t *testing.T, b *bench) {
	b.mustRun("echo before > /before")
	b.changes(b.ws)
	dir := rootfs.Entry{Path: "put", Kind: rootfs.Directory, Mode: 0o755, ModTime: epoch}
	file := rootfs.Entry{Path: "put/file", Kind: rootfs.Regular, Mode: 0o640, Size: 4, ModTime: epoch}
	changes := []snapshot.Change{{Entry: dir}, {Entry: file, Open: content("put\n")}}
	if err := b.ws.Put(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	b.wantChanges()
	b.mustRun("cat /put/file >> /put/more")
	b.wantChanges("+ put/more")
	b.wantOutput("cat /put/file /before; stat -c %a:%Y /put/file", "put\nbefore\n640:1704164645\n")
	got, err := b.ws.Lstat("put/file")
	if err != nil || got.Mode != 0o640 || got.Size != 4 {
		t.Errorf("Lstat gives %+v, %v", got, err)
	}
}

func content(text string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
}

func testParent(t *testing.T, b *bench) {
	b.mustRun("echo parent > /parent; rm /old/file")
	b.changes(b.ws)
	parent := b.ws
	b.ws = b.open(run.Stage{Name: "child", Parent: parent})
	b.wantOutput("cat /parent; ls /old/file 2>/dev/null || echo gone", "parent\ngone\n")
	b.mustRun("echo child > /child; rm /parent")
	b.wantChanges("+ child", "- parent")
	if _, err := parent.Lstat("parent"); err != nil {
		t.Errorf("the parent has lost a file: %v", err)
	}
	if _, err := parent.Lstat("child"); err == nil {
		t.Error("the parent has got the child's file")
	}
}

func testScratch(t *testing.T, b *bench) {
	b.ws = b.open(run.Stage{Name: "scratch"})
	program, err := os.ReadFile(BusyboxPath(t))
	if err != nil {
		t.Fatal(err)
	}
	e := rootfs.Entry{Path: "busybox", Kind: rootfs.Regular, Mode: 0o755, Size: int64(len(program)), ModTime: epoch}
	if err := b.ws.Put(t.Context(), []snapshot.Change{{Entry: e, Open: content(string(program))}}); err != nil {
		t.Fatal(err)
	}
	if out, err := b.run(run.Spec{Args: []string{"/busybox", "touch", "/made"}}); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if b.options.OwnSystem {
		b.wantChanges("+ made")
		return
	}
	b.wantChanges("+ dev", "+ made", "+ proc", "+ sys")
}

// tree is a small source for bind mounts.
func tree(t *testing.T) *rootfs.Tree {
	t.Helper()
	r := rootfs.NewTree()
	for name, text := range map[string]string{"src/a": "a\n", "src/sub/b": "b\n"} {
		e := rootfs.Entry{Path: name, Kind: rootfs.Regular, Mode: 0o644, Size: int64(len(text)), ModTime: epoch}
		if err := r.Put(e, content(text)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func testMounts(t *testing.T, b *bench) {
	cache := filepath.Join(b.dir, "cache")
	if err := os.Mkdir(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := shell(`set -e
		cat /src/a /src/sub/b /one
		cat /run/secrets/token; stat -c %a:%u /run/secrets/token
		echo kept > /cache/kept
		echo gone > /scratch/gone
		/dev/pipes/script`)
	spec.Mounts = []run.Mount{
		{Type: run.Bind, Target: "/src", Source: tree(t), SourcePath: "src", ReadOnly: true},
		{Type: run.Bind, Target: "/one", Source: tree(t), SourcePath: "src/a", ReadOnly: true},
		{Type: run.Secret, Target: "/run/secrets/token", Data: []byte("s3cret\n"), Mode: 0o400},
		{Type: run.Cache, Target: "/cache", HostPath: cache},
		{Type: run.Tmpfs, Target: "/scratch"},
		{Type: run.Pipe, Target: "/dev/pipes/script", Data: []byte("#!/bin/sh\necho script\n"), Mode: 0o755},
	}
	out, err := b.run(spec)
	if want := "a\nb\na\ns3cret\n400:0\nscript\n"; err != nil || out != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
	b.wantChanges()
	spec = shell("cat /cache/kept; ls /scratch /src /run/secrets 2>/dev/null | wc -l")
	spec.Mounts = []run.Mount{{Type: run.Cache, Target: "/cache", HostPath: cache}}
	if out, err := b.run(spec); err != nil || out != "kept\n0\n" {
		t.Errorf("got %q, %v", out, err)
	}
	b.wantChanges()
}

func testMountsLeaveNothing(t *testing.T, b *bench) {
	spec := shell("cat /etc/hosts /etc/resolv.conf >/dev/null; ls /proc/self/status /sys /dev/null >/dev/null; echo x > /old/tree/new")
	spec.Mounts = []run.Mount{
		{Type: run.Tmpfs, Target: "/old/tree/a/b/c"},
		{Type: run.Secret, Target: "/etc/deep/secret", Data: []byte("x"), Mode: 0o400},
	}
	if out, err := b.run(spec); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.wantChanges("+ old/tree/new")
}

func testReadOnlyBind(t *testing.T, b *bench) {
	source := tree(t)
	spec := shell("echo changed > /src/a; cat /src/a")
	spec.Mounts = []run.Mount{{Type: run.Bind, Target: "/src", Source: source, SourcePath: "src"}}
	if out, err := b.run(spec); err != nil || out != "changed\n" {
		t.Errorf("a writable bind mount gives %q, %v", out, err)
	}
	f, err := source.Open("src/a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != "a\n" {
		t.Errorf("the source now holds %q, %v", got, err)
	}
	b.wantChanges()
}

// testBindFromStage: a finished stage is shown as it is, and stays so.
func testBindFromStage(t *testing.T, b *bench) {
	b.mustRun("mkdir /out; echo built > /out/file; rm /old/file; chmod 750 /out")
	b.changes(b.ws)
	finished := b.ws
	b.ws = b.open(run.Stage{Name: "user", Parent: finished})
	for _, c := range []struct {
		source   string
		readOnly bool
		script   string
		want     string
	}{
		{"out", true, "cat /m/file; stat -c %a /m; echo x 2>/dev/null > /m/new || echo refused", "built\n750\nrefused\n"},
		{"out", false, "cat /m/file; echo changed > /m/file; echo new > /m/new; cat /m/file /m/new", "built\nchanged\nnew\n"},
		{"out/file", false, "cat /m; echo changed > /m; cat /m", "built\nchanged\n"},
		{"old", true, "ls /m", "other\ntree\n"},
		{"out", true, "ls /m; cat /m/file", "file\nbuilt\n"},
	} {
		if b.options.WritableBinds && c.readOnly {
			c.script, _, _ = strings.Cut(c.script, "; echo x")
			c.want = strings.TrimSuffix(c.want, "refused\n")
		}
		spec := shell(c.script)
		spec.Mounts = []run.Mount{{Type: run.Bind, Target: "/m", Source: finished, SourcePath: c.source, ReadOnly: c.readOnly}}
		if out, err := b.run(spec); err != nil || out != c.want {
			t.Errorf("%s gives %q, %v; want %q", c.script, out, err, c.want)
		}
	}
	b.wantChanges()
}

// testNestedMounts: a mount lies in another one, in whatever order they are given.
func testNestedMounts(t *testing.T, b *bench) {
	cache := filepath.Join(b.dir, "nested")
	if err := os.Mkdir(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := shell("cat /outer/deep/secret; echo kept > /outer/cache/kept; ls /outer")
	spec.Mounts = []run.Mount{
		{Type: run.Secret, Target: "/outer/deep/secret", Data: []byte("s\n"), Mode: 0o400},
		{Type: run.Cache, Target: "/outer/cache", HostPath: cache},
		{Type: run.Tmpfs, Target: "/outer"},
	}
	if out, err := b.run(spec); err != nil || out != "s\ncache\ndeep\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if text, err := os.ReadFile(filepath.Join(cache, "kept")); err != nil || string(text) != "kept\n" {
		t.Errorf("the cache holds %q, %v", text, err)
	}
	b.wantChanges()
}

// testLinksInTheWay: links lead mounts to files of the image, never out of it.
func testLinksInTheWay(t *testing.T, b *bench) {
	b.mustRun(`mkdir -p /real; ln -s /real /link; ln -s ../../../../../../tmp/none/such /dangling
		ln -s /etc/elsewhere /etc/mtab`)
	b.changes(b.ws)
	spec := shell("cat /real/secret /tmp/none/such/a /etc/mtab")
	spec.Mounts = []run.Mount{
		{Type: run.Secret, Target: "/link/secret", Data: []byte("1\n"), Mode: 0o400},
		{Type: run.Secret, Target: "/dangling/a", Data: []byte("2\n"), Mode: 0o400},
		{Type: run.Secret, Target: "/etc/mtab", Data: []byte("3\n"), Mode: 0o400},
	}
	if out, err := b.run(spec); err != nil || out != "1\n2\n3\n" {
		t.Errorf("got %q, %v", out, err)
	}
	b.wantChanges()
}

func testNoNetwork(t *testing.T, b *bench) {
	if reason, lacks := b.ability.Lacks[run.NetworkNone]; lacks {
		t.Skip(reason)
	}
	spec := shell("ls /sys/class/net | sort | tr '\\n' ' '; ping -c1 -W1 127.0.0.1 >/dev/null && echo loopback")
	spec.Network = run.NetNone
	if out, err := b.run(spec); err != nil || out != "lo loopback\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func testBackground(t *testing.T, b *bench) {
	start := time.Now()
	b.mustRun("(sleep 300; touch /late) & setsid sleep 300 & nohup sleep 300 >/dev/null 2>&1 & echo started")
	if took := time.Since(start); took > time.Minute {
		t.Errorf("the command took %v: it waited for what it left behind", took)
	}
	b.wantChanges()
}

func testTimeout(t *testing.T, b *bench) {
	spec := shell("sleep 300 & sleep 300")
	spec.Timeout = 300 * time.Millisecond
	if _, err := b.run(spec); !errors.Is(err, run.ErrTimeout) {
		t.Errorf("error %v, want the timeout's", err)
	}
	b.wantOutput("echo alive", "alive\n")
}

func testCancel(t *testing.T, b *bench) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	started := &signalWriter{seen: func() { cancel(why) }}
	spec := shell("echo started; sleep 300")
	spec.Stdout = started
	if err := b.ws.Run(ctx, spec); !errors.Is(err, why) {
		t.Errorf("error %v, want the context's cause", err)
	}
}

// signalWriter calls seen at the first write.
type signalWriter struct{ seen func() }

func (w *signalWriter) Write(p []byte) (int, error) {
	w.seen()
	return len(p), nil
}

func testUmaskAndInput(t *testing.T, b *bench) {
	b.wantOutput("umask; cat", "0022\n")
	// The fourth is the directory that ls reads. A shell would have more.
	spec := shell("")
	spec.Args = []string{"/bin/ls", "/proc/self/fd"}
	if out, err := b.run(spec); err != nil || out != "0\n1\n2\n3\n" {
		t.Errorf("open files %q, %v", out, err)
	}
}
