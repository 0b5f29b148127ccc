//go:build linux

package inplace_test

import (
	"os"
	"testing"

	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/inplace"
	"github.com/cooper-build/cooper/pkg/run/runtest"
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
	}, runtest.Options{})
}
