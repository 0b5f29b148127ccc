package integration

import (
	"os"
	"os/exec"
	"testing"

	"github.com/cooper-build/cooper/integration/machine"
)

// TestInPlaceInContainers runs the container tests of package inplace, which
// need an engine, with the one of this machine.
func TestInPlaceInContainers(t *testing.T) {
	engine := must[*machine.Engine](t)(lab.Engine(t.Context()))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout", "15m", "-run", "TestContainer", "./pkg/run/inplace")
	cmd.Dir = machine.Repository()
	cmd.Env = append(os.Environ(), "COOPER_TEST_DOCKER="+engine.Host)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
