package namespace_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cooper-build/cooper/pkg/run/namespace"
)

// person is an ordinary user who runs this test binary again.
type person struct {
	uid, gid int
	dir      string
	// single: without newuidmap, which no_new_privs makes useless.
	single bool
}

// ordinaryUser finds a user with a range in /etc/subuid, or makes one for the
// time of the test.
func ordinaryUser(t *testing.T) person {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	for _, program := range []string{"newuidmap", "newgidmap", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	u := userWithRange()
	if u == nil {
		const name = "cooper-exam"
		if out, err := exec.Command("useradd", "--no-create-home", name).CombinedOutput(); err != nil {
			t.Skipf("no user has a range in /etc/subuid, and none can be made: %v: %s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
				t.Errorf("userdel: %v: %s", err, out)
			}
		})
		if u = userWithRange(); u == nil {
			t.Skip("useradd does not give ranges in /etc/subuid here")
		}
	}
	p := person{}
	p.uid, _ = strconv.Atoi(u.Uid)
	p.gid, _ = strconv.Atoi(u.Gid)
	// t.TempDir lies in a directory that others may not enter.
	dir, err := os.MkdirTemp("", "namespace-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p.dir = dir
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "program"), program, 0o755),
		os.Mkdir(filepath.Join(dir, "tmp"), 0o700),
		os.Chown(filepath.Join(dir, "tmp"), p.uid, p.gid),
		os.Chmod(dir, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// root is what a container's root is: without CAP_SYS_ADMIN.
func (p person) root(t *testing.T) person {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(p.dir, "program"), filepath.Join(dir, "program")); err != nil {
		t.Fatal(err)
	}
	return person{dir: dir}
}

func userWithRange() *user.User {
	f, err := os.Open("/etc/subuid")
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, _, _ := strings.Cut(lines.Text(), ":")
		if u, err := user.Lookup(name); err == nil && u.Uid != "0" {
			return u
		}
	}
	return nil
}

// command runs the test binary as the user, in a mode of TestMain.
func (p person) command(t *testing.T, mode string, args ...string) *exec.Cmd {
	t.Helper()
	options := []string{"--reuid=" + strconv.Itoa(p.uid), "--regid=" + strconv.Itoa(p.gid), "--clear-groups"}
	if p.uid == 0 {
		options = append(options, "--bounding-set=-sys_admin")
	}
	if p.single {
		options = append(options, "--no-new-privs")
	}
	options = append(options, filepath.Join(p.dir, "program"))
	cmd := exec.CommandContext(t.Context(), "setpriv", append(options, args...)...)
	cmd.Dir = filepath.Join(p.dir, "tmp")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + cmd.Dir, modeVariable + "=" + mode}
	return cmd
}

// TestOrdinaryUser has an ordinary user take the exam.
func TestOrdinaryUser(t *testing.T) {
	p := ordinaryUser(t)
	for _, c := range []struct {
		name, want string
		single     bool
		root       bool
	}{
		{"range of ids", "from /etc/subuid", false, false},
		{"single id", "a single id", true, false},
		{"root without CAP_SYS_ADMIN", "ids of this container", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := p
			p.single = c.single
			if c.root {
				p = p.root(t)
			}
			// A plain tree is the harder one with a single id.
			tests := "TestOverlay|TestReason"
			if c.single {
				tests += "|TestPlain"
			}
			out, err := p.command(t, "exam", "-test.run=^("+tests+")$", "-test.v").CombinedOutput()
			switch {
			case bytes.Contains(out, []byte("no namespace:")):
				t.Skipf("%s", out)
			case err != nil:
				t.Fatalf("%v\n%s", err, out)
			case !bytes.Contains(out, []byte(c.want)):
				t.Errorf("the reason does not say %q:\n%s", c.want, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "SKIP") || strings.Contains(line, "reason:") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}

// TestReason shows what was found; TestOrdinaryUser reads it.
func TestReason(t *testing.T) {
	i := isolation(t, namespace.Options{})
	ability, err := i.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(ability.Reason, "\n") {
		t.Errorf("more than one line: %q", ability.Reason)
	}
	t.Log("reason:", ability.Reason)
}

func TestEnterExitCode(t *testing.T) {
	p := ordinaryUser(t)
	for mode, want := range map[string]int{"exit": 42, "again": 0} {
		cmd := p.command(t, mode)
		out, _ := cmd.CombinedOutput()
		if bytes.Contains(out, []byte("no namespace:")) {
			t.Skipf("%s", out)
		}
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: exit code %d, want %d: %s", mode, got, want, out)
		}
	}
}

// startSignals starts a program inside a namespace that counts signals, and
// returns the pid of the process inside.
func startSignals(t *testing.T) (*exec.Cmd, int) {
	t.Helper()
	cmd := ordinaryUser(t).command(t, "signals")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() { _, _ = io.Copy(io.Discard, out) }()
	number, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	pid, _ := strconv.Atoi(number)
	if !ok {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Skipf("%s%v", line, err)
	}
	return cmd, pid
}

// TestEnterInterrupt: an interrupt reaches the program once, though both the
// waiting process and its context learn of it.
func TestEnterInterrupt(t *testing.T) {
	cmd, _ := startSignals(t)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 1 {
		t.Errorf("%d signals came, want 1", got)
	}
}

// TestEnterKilled: the program does not outlive the process that waits for it.
func TestEnterKilled(t *testing.T) {
	cmd, pid := startSignals(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if state(pid) == "" || state(pid) == "Z" {
			return
		}
	}
	t.Errorf("process %d is still there", pid)
}

// state is a process's state letter, "" when there is none.
func state(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	letter, _, _ := strings.Cut(rest, " ")
	return letter
}
