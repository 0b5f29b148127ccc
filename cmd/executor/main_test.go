package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cooper-build/cooper/pkg/run"
)

func TestMain(m *testing.M) {
	run.Init()
	testscript.Main(m, map[string]func(){"executor": main})
}

var update = flag.Bool("update", false, "rewrite the expected output in the scripts")

// TestScripts runs whole builds through the command line. See commands_test.go
// for the commands that the scripts have beside the usual ones.
func TestScripts(t *testing.T) {
	root, err := os.MkdirTemp("", "executor-scripts-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	// Ordinary users build in it, too.
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		WorkdirRoot:         root,
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setupScript,
		Condition:           condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     cmdExits,
			"interrupt": cmdInterrupt,
			"registry":  cmdRegistry,
			"base":      cmdBase,
			"inspect":   cmdInspect,
			"mktar":     cmdMakeTar,
			"clean":     cmdClean,
			"for-users": cmdForUsers,
			"agent":     cmdAgent,
			"replace":   cmdReplace,
		},
	})
}

// setupScript gives a script $BUSYBOX, a program that FROM scratch can run, and
// a place for the executor's own files.
func setupScript(env *testscript.Env) error {
	work := env.Getenv("WORK")
	env.Setenv("KANIKO_DIR", filepath.Join(work, ".kaniko"))
	env.Setenv("BUSYBOX", busybox)
	env.Setenv("REGISTRY", "")
	env.Values[backendKey{}] = newBackend()
	return nil
}

const busybox = "/bin/busybox"

// condition knows what a machine may lack.
func condition(name string) (bool, error) {
	switch name {
	case "busybox":
		return staticBusybox(), nil
	case "root":
		return os.Geteuid() == 0, nil
	case "run":
		return canRun() && staticBusybox(), nil
	case "mount":
		return exec.Command("unshare", "-m", "true").Run() == nil, nil
	}
	return false, nil
}

// staticBusybox reports whether busybox works in an empty image.
func staticBusybox() bool {
	out, err := exec.Command("ldd", busybox).CombinedOutput()
	return err != nil && strings.Contains(string(out), "not a dynamic executable")
}

// canRun reports whether RUN works here by namespaces.
func canRun() bool {
	if exec.Command("unshare", "-m", "true").Run() == nil {
		return true
	}
	return exec.Command("unshare", "-Urm", "true").Run() == nil
}
