package machine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Engine is a running dockerd of its own, without networks: containers run
// with --network=host.
type Engine struct {
	// Host is what docker --host takes.
	Host string
	// Config is an empty directory for docker --config.
	Config string
}

// Engine starts dockerd. It needs root.
func (m *Machine) Engine(ctx context.Context) (*Engine, error) {
	return m.engine.get(func() (*Engine, error) {
		if os.Getuid() != 0 {
			return nil, &Missing{"a Docker engine needs root here"}
		}
		dir := filepath.Join(m.Dir, "docker")
		e := &Engine{Host: "unix://" + filepath.Join(dir, "sock"), Config: filepath.Join(dir, "config")}
		if err := os.MkdirAll(e.Config, 0o755); err != nil {
			return nil, err
		}
		ready := func(ctx context.Context) error {
			_, err := e.Docker(ctx, nil, "version")
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		// The empty configuration file stands in for one that /etc/docker may hold.
		empty := filepath.Join(dir, "daemon.json")
		if err := os.WriteFile(empty, []byte("{}"), 0o600); err != nil {
			return nil, err
		}
		_, err := m.launch(ctx, ready, "dockerd", "--config-file", empty, "--host", e.Host,
			"--iptables=false", "--ip6tables=false", "--bridge=none",
			"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
			"--pidfile", filepath.Join(dir, "pid"))
		return e, err
	})
}

// Docker runs the docker command and returns its standard output; an error
// holds its standard error.
func (e *Engine) Docker(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", append([]string{"--config", e.Config, "--host", e.Host}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("docker %s: %w: %s", args[0], err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// Load gives the engine an image under a name.
func (e *Engine) Load(ctx context.Context, as string, img v1.Image) error {
	tag, err := name.NewTag(as)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(tarball.Write(tag, img, w)) }()
	defer r.Close()
	_, err = e.Docker(ctx, r, "load")
	return err
}

// CooperImage is the name of Cooper's own image with a shell, as its Dockerfile
// makes the target debug, in the engine.
func (m *Machine) CooperImage(ctx context.Context) (string, error) {
	return m.own.get(func() (string, error) {
		e, err := m.Engine(ctx)
		if err != nil {
			return "", err
		}
		executor, err := m.Executor(ctx)
		if err != nil {
			return "", err
		}
		img, err := cooper(executor)
		if err != nil {
			return "", err
		}
		const as = "cooper-build.test/executor:debug"
		return as, e.Load(ctx, as, img)
	})
}
