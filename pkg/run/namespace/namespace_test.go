package namespace_test

import (
	"os"
	"testing"

	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/namespace"
	"github.com/cooper-build/cooper/pkg/run/runtest"
)

func TestMain(m *testing.M) {
	run.Init()
	os.Exit(m.Run())
}

func TestOverlay(t *testing.T) {
	layers := t.TempDir()
	runtest.Exam(t, func(_ *testing.T, dir string) run.Isolation {
		return namespace.New(namespace.Options{Dir: dir, Layers: layers})
	}, runtest.Options{})
}

func TestPlain(t *testing.T) {
	runtest.Exam(t, func(_ *testing.T, dir string) run.Isolation {
		return namespace.New(namespace.Options{Dir: dir, Plain: true})
	}, runtest.Options{})
}
