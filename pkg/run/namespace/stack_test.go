package namespace_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/namespace"
	"github.com/cooper-build/cooper/pkg/run/runtest"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// TestManyLayers: a stack of more directories than mount(2) has room for, and
// layers that occur more than once, as empty ones often do.
func TestManyLayers(t *testing.T) {
	nothing := static.NewLayer(make([]byte, 1024), types.DockerUncompressedLayer)
	base := runtest.Busybox(t)
	i := isolation(t, namespace.Options{})
	ws := open(t, i, run.Stage{Name: "many", Layers: []v1.Layer{nothing, base, nothing, base, nothing}})
	for n := range 200 {
		e := rootfs.Entry{Path: fmt.Sprintf("file-%03d", n), Kind: rootfs.Regular, Mode: 0o644}
		if err := ws.Put(t.Context(), []snapshot.Change{{Entry: e}}); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	spec := shell("ls -d /file-* | wc -l; rm /file-100")
	spec.Stdout, spec.Stderr = &out, &out
	if err := ws.Run(t.Context(), spec); err != nil || out.String() != "200\n" {
		t.Fatalf("%v: %s", err, &out)
	}
	if got := list(t, ws); got != "- file-100" {
		t.Errorf("changes %q", got)
	}
}

func list(t *testing.T, ws run.Workspace) string {
	t.Helper()
	var names []string
	for c, err := range ws.Changes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		switch c.Kind {
		case snapshot.Remove:
			names = append(names, "- "+c.Entry.Path)
		case snapshot.Write:
			names = append(names, "+ "+c.Entry.Path)
		}
	}
	return strings.Join(names, " ")
}

// TestChangesStay: what was told can be read when more has been run.
func TestChangesStay(t *testing.T) {
	i := isolation(t, namespace.Options{})
	ws := open(t, i, run.Stage{Name: "stay", Layers: []v1.Layer{runtest.Busybox(t)}})
	for _, script := range []string{"echo one > /a", "echo two > /b"} {
		if err := ws.Run(t.Context(), shell(script)); err != nil {
			t.Fatal(err)
		}
	}
	changes := ws.Changes(t.Context())
	if err := ws.Run(t.Context(), shell("rm /a /b; echo three > /c")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for c, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, c.Entry.Size)
		if _, err := f.Read(text); err != nil {
			t.Error(err)
		}
		f.Close()
		got = append(got, c.Entry.Path+"="+string(text))
	}
	if want := "a=one\n b=two\n"; strings.Join(got, " ") != want {
		t.Errorf("changes %q, want %q", got, want)
	}
}

// TestNothingIsLeft: a builder that is killed takes its commands along, and has
// mounted nothing that could stay.
func TestNothingIsLeft(t *testing.T) {
	if os.Getenv(modeVariable) != "" {
		t.Skip("killed once is enough")
	}
	isolation(t, namespace.Options{}) // or skip
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestHelperSleep$", "-test.v")
	cmd.Env = append(os.Environ(), "COOPER_NAMESPACE_SLEEP="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A name that no other process of the machine has tells the command.
	marker := filepath.Base(dir) + filepath.Base(filepath.Dir(dir))
	var seen bytes.Buffer
	for !strings.Contains(seen.String(), "sleeping") {
		b := make([]byte, 512)
		n, err := out.Read(b)
		seen.Write(b[:n])
		if err != nil {
			t.Fatalf("%v: %s", err, &seen)
		}
	}
	if len(withArgument(t, marker)) == 0 {
		t.Fatal("the command is not among the processes")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for end := time.Now().Add(5 * time.Second); len(withArgument(t, marker)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("processes %v are still there", withArgument(t, marker))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("something is mounted below %s:\n%s", dir, mounts)
	}
}

// withArgument lists the processes that have text among their arguments.
func withArgument(t *testing.T, text string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(text)) {
			found = append(found, f)
		}
	}
	return found
}

// TestHelperSleep is the builder that TestNothingIsLeft kills.
func TestHelperSleep(t *testing.T) {
	dir := os.Getenv("COOPER_NAMESPACE_SLEEP")
	if dir == "" {
		t.Skip("only a helper")
	}
	i := isolation(t, namespace.Options{Dir: dir})
	ws := open(t, i, run.Stage{Name: "sleep", Layers: []v1.Layer{runtest.Busybox(t)}})
	marker := filepath.Base(dir) + filepath.Base(filepath.Dir(dir))
	spec := shell("setsid sleep 300 & echo sleeping; sh -c 'sleep 300; :' " + marker)
	spec.Stdout = os.Stdout
	t.Error(ws.Run(context.Background(), spec))
}

// TestInsecure: more rights only where they were allowed.
func TestInsecure(t *testing.T) {
	for _, allow := range []bool{false, true} {
		i := isolation(t, namespace.Options{AllowInsecure: allow})
		ws := open(t, i, run.Stage{Name: "insecure", Layers: []v1.Layer{runtest.Busybox(t)}})
		var out bytes.Buffer
		// A bounding set with CAP_SYS_ADMIN (21), and a mount to use it.
		spec := shell("mount -t tmpfs none /tmp && touch /tmp/x && echo mounted")
		spec.Stdout, spec.Stderr = &out, &out
		if err := ws.Run(t.Context(), spec); err == nil {
			t.Errorf("an ordinary command could mount: %s", &out)
		}
		spec.Insecure = true
		err := ws.Run(t.Context(), spec)
		if allow && (err != nil || !strings.HasSuffix(out.String(), "mounted\n")) {
			t.Errorf("an insecure command can't mount: %v: %s", err, &out)
		}
		if !allow && (err == nil || exitCode(err) >= 0) {
			t.Errorf("error %v, want one that says that it is not allowed", err)
		}
	}
}

// TestAgent: a command finds a socket that is its own.
func TestAgent(t *testing.T) {
	i := isolation(t, namespace.Options{})
	ws := open(t, i, run.Stage{Name: "agent", Layers: []v1.Layer{runtest.Busybox(t)}})
	socket := filepath.Join(t.TempDir(), "agent")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var out bytes.Buffer
	spec := shell("stat -c '%a %u %F' /agent")
	if examOptions(t).SingleID {
		t.Skip("one id only")
	}
	spec.User = run.Identity{UID: 1000, GID: 1000}
	spec.Mounts = []run.Mount{{Type: run.SSH, Target: "/agent", HostPath: socket, Mode: 0o600, UID: 1000, GID: 1000}}
	spec.Stdout, spec.Stderr = &out, &out
	if err := ws.Run(t.Context(), spec); err != nil || out.String() != "600 1000 socket\n" {
		t.Errorf("%v: %q", err, &out)
	}
	if got := list(t, ws); got != "" {
		t.Errorf("changes %q", got)
	}
}

// TestLookupAsUser: a program that the user may not execute is passed over.
func TestLookupAsUser(t *testing.T) {
	if examOptions(t).SingleID {
		t.Skip("one id only")
	}
	i := isolation(t, namespace.Options{})
	ws := open(t, i, run.Stage{Name: "lookup", Layers: []v1.Layer{runtest.Busybox(t)}})
	if err := ws.Run(t.Context(), shell("mkdir -m 700 /closed; printf '#!/bin/sh\\nexit 9\\n' > /closed/true; chmod 700 /closed/true; mkdir -m 700 /start")); err != nil {
		t.Fatal(err)
	}
	spec := run.Spec{Args: []string{"true"}, Env: []string{"PATH=/closed:/bin"}, Dir: "/start", User: run.Identity{UID: 1000, GID: 1000}}
	if err := ws.Run(t.Context(), spec); err != nil {
		t.Error(err)
	}
	spec.User, spec.Dir = run.Identity{}, "/new/dir"
	if err := ws.Run(t.Context(), spec); exitCode(err) != 9 {
		t.Errorf("root gets %v, want the program that root may execute", err)
	}
	spec = shell("stat -c %u:%g /home/new /home/new/dir")
	spec.Dir, spec.User = "/home/new/dir", run.Identity{UID: 7, GID: 8}
	var out bytes.Buffer
	spec.Stdout = &out
	if err := ws.Run(t.Context(), spec); err != nil || out.String() != "7:8\n7:8\n" {
		t.Errorf("%v: %q", err, &out)
	}
}

// TestDestructiveCommands: what commands do to their tree and their processes
// stays there.
func TestDestructiveCommands(t *testing.T) {
	for _, plain := range []bool{false, true} {
		i := isolation(t, namespace.Options{Plain: plain})
		ws := open(t, i, run.Stage{Name: "destroyed", Layers: []v1.Layer{runtest.Busybox(t)}})
		var out bytes.Buffer
		spec := shell("for s in HUP INT TERM USR1 QUIT ABRT KILL; do kill -$s 1; done; sleep 0.2; echo alive")
		spec.Stdout, spec.Stderr = &out, &out
		if err := ws.Run(t.Context(), spec); err != nil || out.String() != "alive\n" {
			t.Errorf("%v: %q", err, &out)
		}
		if err := ws.Run(t.Context(), shell("kill -9 -1; echo not reached")); exitCode(err) == -1 {
			t.Errorf("killing everything gives %v", err)
		}
		if err := ws.Run(t.Context(), shell("rm -rf /* 2>/dev/null; :")); err != nil {
			t.Error(err)
		}
		if got := list(t, ws); !strings.Contains(got, "- bin") || !strings.Contains(got, "- old") {
			t.Errorf("changes %q", got)
		}
	}
}
