package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdExits runs a program that must end with an exit code:
//
//	exits CODE PROGRAM ARG...
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdInterrupt sends a signal to a program as soon as a process with MARKER
// among its arguments runs. The program must end with an exit code, and the
// process be gone:
//
//	interrupt SIGNAL CODE MARKER PROGRAM ARG...
func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: interrupt SIGNAL CODE MARKER PROGRAM ARG...")
	}
	signal := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[args[0]]
	if signal == 0 {
		ts.Fatalf("unknown signal %s", args[0])
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	marker := args[2]
	var out bytes.Buffer
	cmd := exec.Command("env", append([]string{
		"-i", "PATH=" + ts.Getenv("PATH"), "KANIKO_DIR=" + ts.Getenv("KANIKO_DIR"), "HOME=" + ts.Getenv("HOME"), "TMPDIR=" + ts.Getenv("TMPDIR"),
	}, args[3:]...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), &out, &out
	// env goes on as the program, so the signal reaches it. The process group
	// is its own: what the signal does not reach must be ended by the program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ts.Check(cmd.Start())
	deadline := time.Now().Add(30 * time.Second)
	for !processWith(marker, cmd.Process.Pid) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			_ = cmd.Wait()
			ts.Fatalf("no process with %s started:\n%s", marker, out.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Check(cmd.Process.Signal(signal))
	started := time.Now()
	_ = cmd.Wait()
	ts.Logf("%s", out.String())
	ts.Check(os.WriteFile(ts.MkAbs("interrupted.out"), out.Bytes(), 0o644))
	if took := time.Since(started); took > 10*time.Second {
		ts.Fatalf("took %s to end", took)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	if processWith(marker, 0) {
		ts.Fatalf("the process with %s lives on", marker)
	}
}

// processWith looks for a process with an argument, other than the one that
// was started with the marker among its own.
func processWith(marker string, but int) bool {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if pid == but || pid == os.Getpid() {
			continue
		}
		// A process may end while we look.
		line, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for arg := range bytes.SplitSeq(line, []byte{0}) {
			if string(arg) == marker {
				return true
			}
		}
	}
	return false
}

// cmdMakeTar writes a tar archive, with names as they are given, and \n for a line end:
//
//	mktar FILE file:NAME=TEXT|link:NAME=TARGET|hard:NAME=TARGET|dir:NAME...
func cmdMakeTar(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: mktar FILE ENTRY...")
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, arg := range args[1:] {
		kind, rest, _ := strings.Cut(arg, ":")
		name, value, _ := strings.Cut(strings.ReplaceAll(rest, `\n`, "\n"), "=")
		h := &tar.Header{Name: name, Mode: 0o644}
		switch kind {
		case "file":
			h.Typeflag, h.Size = tar.TypeReg, int64(len(value))
		case "link":
			h.Typeflag, h.Linkname = tar.TypeSymlink, value
		case "hard":
			h.Typeflag, h.Linkname = tar.TypeLink, value
		case "dir":
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		default:
			ts.Fatalf("unknown entry %s", arg)
		}
		ts.Check(w.WriteHeader(h))
		if kind == "file" {
			_, err := io.WriteString(w, value)
			ts.Check(err)
		}
	}
	ts.Check(w.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out.Bytes(), 0o644))
}

// cmdClean checks that no build has left anything: a working directory, a
// half-written file, a mount.
func cmdClean(ts *testscript.TestScript, neg bool, args []string) {
	for _, left := range leftovers(ts.Getenv("WORK"), ts.Getenv("KANIKO_DIR")) {
		ts.Fatalf("left behind: %s", left)
	}
}

// leftovers lists what builds have left below a directory and their working
// directory.
func leftovers(root, work string) []string {
	left := append(leftBuilds(work), leftMounts(root)...)
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.HasPrefix(d.Name(), ".cooper-") || strings.HasPrefix(d.Name(), ".fetch-")) {
			left = append(left, path)
		}
		return nil
	})
	return left
}

// leftBuilds are directories of builds in their working directory.
func leftBuilds(work string) []string {
	builds, _ := filepath.Glob(filepath.Join(work, "build-*"))
	return builds
}

// leftMounts are mounts at or from places below a directory.
func leftMounts(root string) []string {
	var left []string
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, root) {
			left = append(left, "mount "+line)
		}
	}
	return left
}

// cmdForUsers gives the script's directory to an ordinary user, with the
// program "as-user" to become one.
func cmdForUsers(ts *testscript.TestScript, neg bool, args []string) {
	bin := filepath.Join(ts.Getenv("WORK"), ".bin")
	ts.Check(os.MkdirAll(bin, 0o755))
	self, err := os.Executable()
	ts.Check(err)
	program, err := os.ReadFile(self)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(bin, "executor"), program, 0o755))
	script := "#!/bin/sh\nexec setpriv --reuid=1000 --regid=1000 --clear-groups \"$@\"\n"
	ts.Check(os.WriteFile(filepath.Join(bin, "as-user"), []byte(script), 0o755))
	ts.Setenv("PATH", bin+":"+ts.Getenv("PATH"))
	ts.Check(filepath.WalkDir(ts.Getenv("WORK"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, 1000, 1000)
	}))
}

// cmdAgent listens on a socket and greets whoever connects:
//
//	agent SOCKET
func cmdAgent(ts *testscript.TestScript, neg bool, args []string) {
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "hello from the agent")
			c.Close()
		}
	}()
	ts.Defer(func() { l.Close(); <-done })
}

// cmdReplace replaces text in a file: replace FILE OLD NEW
func cmdReplace(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	text := strings.ReplaceAll(ts.ReadFile(args[0]), args[1], args[2])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}
