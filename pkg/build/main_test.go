package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cooper-build/cooper/pkg/run"
)

// memoryVariable makes the test program build the directory that it names, and
// print how much memory that took.
const memoryVariable = "BUILD_TEST_MEMORY"

func TestMain(m *testing.M) {
	run.Init()
	if dir := os.Getenv(memoryVariable); dir != "" {
		os.Exit(buildMeasured(dir))
	}
	os.Exit(m.Run())
}

func buildMeasured(dir string) int {
	_, err := Build(context.Background(), Options{
		Context: dir, WorkDir: filepath.Join(dir, "work"), NoPush: true, TarPath: filepath.Join(dir, "out.tar"),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Print(line)
		}
	}
	return 0
}

const busybox = "/bin/busybox"

// needsRun skips a test where RUN does not work.
func needsRun(t *testing.T) {
	t.Helper()
	if exec.Command("unshare", "-m", "true").Run() != nil {
		t.Skip("needs CAP_SYS_ADMIN")
	}
	if out, err := exec.Command("ldd", busybox).CombinedOutput(); err == nil || !strings.Contains(string(out), "not a dynamic executable") {
		t.Skip("needs a static busybox in /bin")
	}
}

// newContext makes a build context with busybox and a Dockerfile.
func newContext(t *testing.T, dockerfile string) string {
	t.Helper()
	dir := t.TempDir()
	program, err := os.ReadFile(busybox)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "busybox"), program, 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644))
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
