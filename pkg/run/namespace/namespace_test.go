package namespace_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/child"
	"github.com/cooper-build/cooper/pkg/run/namespace"
	"github.com/cooper-build/cooper/pkg/run/runtest"
)

// modeVariable makes the test binary something else than a test: a program that
// enters a user namespace, as a builder does.
const modeVariable = "COOPER_NAMESPACE_TEST"

func TestMain(m *testing.M) {
	run.Init()
	mode := os.Getenv(modeVariable)
	if mode != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		code, entered, err := namespace.Enter(ctx)
		stop()
		switch {
		case entered:
			os.Exit(code)
		case err != nil:
			fmt.Println("no namespace:", err)
			os.Exit(3)
		}
	}
	switch mode {
	case "signals":
		os.Exit(countSignals())
	case "exit":
		os.Exit(42)
	case "again":
		// A second time must be refused: otherwise a program that can't mount
		// in its namespace would start itself for ever.
		if _, err := child.Enter(context.Background()); err == nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// countSignals waits for a signal and a little longer, and returns the number of
// those that came.
func countSignals() int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	fmt.Println("ready", os.Getpid())
	n := 0
	for end := time.After(20 * time.Second); ; {
		select {
		case <-signals:
			n++
			end = time.After(time.Second)
		case <-end:
			return n
		}
	}
}

// examOptions say what the process that takes the exam can't do.
func examOptions(t *testing.T) runtest.Options {
	t.Helper()
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	var inside, outside, count int
	if _, err := fmt.Sscan(string(text), &inside, &outside, &count); err != nil {
		t.Fatal(err)
	}
	var second int
	_, err = fmt.Sscanf(string(text), "%d %d %d\n%d", &inside, &outside, &count, &second)
	name, linkErr := os.Readlink("/proc/self/ns/user")
	if linkErr != nil {
		t.Fatal(linkErr)
	}
	inNamespace := name != "user:[4026531837]"
	return runtest.Options{SingleID: inNamespace && count == 1 && err != nil, NoDevices: inNamespace}
}

func TestOverlay(t *testing.T) {
	layers := t.TempDir()
	runtest.Exam(t, func(_ *testing.T, dir string) run.Isolation {
		return namespace.New(namespace.Options{Dir: dir, Layers: layers})
	}, examOptions(t))
}

func TestPlain(t *testing.T) {
	runtest.Exam(t, func(_ *testing.T, dir string) run.Isolation {
		return namespace.New(namespace.Options{Dir: dir, Plain: true})
	}, examOptions(t))
}

// isolation is one that works here, with its files in a directory of the test.
func isolation(t *testing.T, o namespace.Options) *namespace.Isolation {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	i := namespace.New(o)
	ability, err := i.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !ability.OK {
		t.Skipf("isolation namespace does not work here: %s", ability.Reason)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

func open(t *testing.T, i *namespace.Isolation, stage run.Stage) run.Workspace {
	t.Helper()
	ws, err := i.Open(t.Context(), stage)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ws.Close(); err != nil {
			t.Error(err)
		}
	})
	return ws
}

func shell(script string) run.Spec {
	return run.Spec{Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}}
}

func exitCode(err error) int {
	var exit *run.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	}
	return -1
}
