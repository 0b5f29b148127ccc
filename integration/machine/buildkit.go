package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// BuildKit is a running buildkitd.
type BuildKit struct {
	// Address is what buildctl --addr takes.
	Address string
	// PID is the process id of buildkitd.
	PID int
	// Started is a time before all that it makes.
	Started time.Time

	buildctl string
	dir      string
	process  *process
	// fresh is held by builds that send their context anew.
	fresh sync.Mutex
}

// BuildKit starts buildkitd with the registry as its mirror of Docker Hub.
// It needs root.
func (m *Machine) BuildKit(ctx context.Context) (*BuildKit, error) {
	return m.buildkit.get(func() (*BuildKit, error) { return m.startBuildKit(ctx, "buildkit") })
}

// FreshBuildKit starts one more buildkitd, with nothing cached. Its Close ends
// it before the Machine's does.
func (m *Machine) FreshBuildKit(ctx context.Context) (*BuildKit, error) {
	dir, err := m.Sub("buildkit")
	if err != nil {
		return nil, err
	}
	return m.startBuildKit(ctx, filepath.Base(dir))
}

func (m *Machine) startBuildKit(ctx context.Context, name string) (*BuildKit, error) {
	if os.Getuid() != 0 {
		return nil, &Missing{"BuildKit needs root here"}
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, &Missing{"runc is not installed; integration/setup.sh does that"}
	}
	daemon, err := m.tool("buildkitd")
	if err != nil {
		return nil, err
	}
	client, err := m.tool("buildctl")
	if err != nil {
		return nil, err
	}
	reg, err := m.Registry(ctx)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(m.Dir, name+".toml")
	text := fmt.Sprintf(`insecure-entitlements = ["network.host", "security.insecure"]
[registry."docker.io"]
  mirrors = [%[1]q]
[registry.%[1]q]
  http = true
`, reg.Host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	dir := filepath.Join(m.Dir, name)
	b := &BuildKit{Address: "unix://" + dir + ".sock", Started: time.Now(), buildctl: client, dir: dir}
	ready := func(ctx context.Context) error {
		return exec.CommandContext(ctx, client, "--addr", b.Address, "debug", "workers").Run()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b.process, err = m.launch(ctx, ready, daemon, "--oci-worker-net", "host", "--config", config,
		"--root", dir, "--addr", b.Address)
	if err != nil {
		return nil, err
	}
	b.PID = b.process.cmd.Process.Pid
	return b, nil
}

// Close ends buildkitd and removes what it has kept.
func (b *BuildKit) Close() error {
	return errors.Join(b.process.stop(), unmountBelow(b.dir), os.RemoveAll(b.dir))
}

// Request is a build for BuildKit.
type Request struct {
	// Context and Dockerfile are a directory and a file; Dockerfile may be
	// outside of Context.
	Context, Dockerfile string
	Target              string
	// BuildArgs are "NAME=VALUE".
	BuildArgs []string
	// Secrets and SSH are as buildctl's --secret and --ssh take them.
	Secrets, SSH []string
	// Output is buildctl's --output, such as "type=docker,dest=F".
	Output string
	// UseCache permits BuildKit to take steps from earlier builds.
	UseCache bool
}

// Build runs buildctl. The output is that of the build, also with an error.
func (b *BuildKit) Build(ctx context.Context, r Request) (output string, err error) {
	args := []string{"--addr", b.Address, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + r.Context, "--local", "dockerfile=" + filepath.Dir(r.Dockerfile),
		"--opt", "filename=" + filepath.Base(r.Dockerfile),
		"--opt", "force-network-mode=host", "--allow", "network.host", "--output", r.Output}
	if !r.UseCache {
		args = append(args, "--no-cache")
		// What another build has sent of a context of the same name would be
		// updated, and a directory's time lost where its files differ.
		b.fresh.Lock()
		defer b.fresh.Unlock()
		prune := exec.CommandContext(ctx, b.buildctl, "--addr", b.Address, "prune", "--filter", "type==source.local")
		if out, err := prune.CombinedOutput(); err != nil {
			return string(out), fmt.Errorf("buildctl prune: %w", err)
		}
	}
	if r.Target != "" {
		args = append(args, "--opt", "target="+r.Target)
	}
	for _, a := range r.BuildArgs {
		args = append(args, "--opt", "build-arg:"+a)
	}
	for _, s := range r.Secrets {
		args = append(args, "--secret", s)
	}
	for _, s := range r.SSH {
		args = append(args, "--ssh", s)
	}
	cmd := exec.CommandContext(ctx, b.buildctl, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("buildctl build: %w: %s", err, lastLine(string(out)))
	}
	return string(out), nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
