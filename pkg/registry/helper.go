package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// helperTimeout bounds a helper that waits for a keyboard or a metadata
// service which is not there.
const helperTimeout = 30 * time.Second

// runHelper asks docker-credential-<helper> for server's credential, by the
// protocol of docker-credential-helpers. The zero AuthConfig means that it
// has none.
func runHelper(ctx context.Context, helper, server string) (authn.AuthConfig, error) {
	prog := "docker-credential-" + helper
	if helper != filepath.Base(helper) {
		return authn.AuthConfig{}, fmt.Errorf("credential helper %q is not a plain name", helper)
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, prog, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(out.String())
		if strings.Contains(said, "credentials not found") {
			return authn.AuthConfig{}, nil
		}
		if cerr := ctx.Err(); cerr != nil {
			err = cerr
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && said != "" {
			// A helper that fails reports on its standard output.
			return authn.AuthConfig{}, fmt.Errorf("run %s: %w: %s", prog, err, printable(said))
		}
		return authn.AuthConfig{}, fmt.Errorf("run %s: %w", prog, err)
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(out.Bytes(), &answer) != nil {
		return authn.AuthConfig{}, fmt.Errorf("run %s: its answer is not JSON", prog)
	}
	if answer.Username == "<token>" {
		return authn.AuthConfig{IdentityToken: answer.Secret}, nil
	}
	return authn.AuthConfig{Username: answer.Username, Password: answer.Secret}, nil
}

// cloudHelper names the helper of the cloud that host belongs to, if it is on
// the PATH.
func cloudHelper(host string) string {
	helper := ""
	switch {
	case strings.Contains(host, ".dkr.ecr.") && strings.Contains(host, ".amazonaws.com"), host == "public.ecr.aws":
		helper = "ecr-login"
	case host == "gcr.io", strings.HasSuffix(host, ".gcr.io"), strings.HasSuffix(host, "-docker.pkg.dev"):
		helper = "gcr"
	case strings.HasSuffix(host, ".azurecr.io"):
		helper = "acr-env"
	}
	if helper == "" {
		return ""
	}
	if _, err := exec.LookPath("docker-credential-" + helper); err != nil {
		return ""
	}
	return helper
}
