package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cooper-build/cooper/integration/machine"
)

// task is one build. scratch is an empty directory for the builder's own files;
// output is the tar to write.
type task struct {
	context, scratch, output string
	log                      io.Writer
}

// sample is what one build took.
type sample struct {
	wall time.Duration
	// peak is the most memory that the builder held, in bytes; 0 is unknown.
	peak int64
	size int64
}

// builder builds from nothing. A *machine.Missing says that it can't here.
type builder struct {
	name, about string
	build       func(context.Context, *machine.Machine, task) (sample, error)
	version     func(context.Context) string
}

func (b builder) String() string { return b.name }

const reference = "buildkit"

var builders = []builder{
	{reference, "BuildKit: a fresh daemon for each build, whose start is not counted", buildkit, buildkitVersion},
	{"namespace", "Cooper as root, RUN in namespaces over overlayfs", namespace, cooperVersion},
	{"inplace", "Cooper in an unprivileged container, RUN in place", inplace, cooperVersion},
	{"buildah", "buildah bud --layers --isolation chroot", buildah, buildahVersion},
}

// timed runs a command and watches its memory.
func timed(t task, cmd *exec.Cmd) (sample, error) {
	cmd.Stdout, cmd.Stderr = t.log, t.log
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return sample{}, err
	}
	peak := watch(cmd.Process.Pid)
	err := cmd.Wait()
	return sample{wall: time.Since(start), peak: peak()}, err
}

func buildkit(ctx context.Context, m *machine.Machine, t task) (_ sample, err error) {
	b, err := m.FreshBuildKit(ctx)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	start := time.Now()
	peak := watch(b.PID)
	out, err := b.Build(ctx, machine.Request{
		Context: t.context, Dockerfile: filepath.Join(t.context, "Dockerfile"),
		Output: "type=docker,name=bench.test/image,dest=" + t.output, UseCache: true,
	})
	s := sample{wall: time.Since(start), peak: peak()}
	_, _ = io.WriteString(t.log, out)
	return s, err
}

// arguments are the executor's, with paths as it sees them.
func arguments(reg *machine.Registry, context, output string) []string {
	return []string{
		"--context", context, "--dockerfile", context + "/Dockerfile", "--no-push",
		"--tar-path", output, "--destination", "bench.test/image",
		"--registry-mirror", reg.Host, "--insecure-registry", reg.Host, "--skip-default-registry-fallback",
		"--log-format", "text",
	}
}

func namespace(ctx context.Context, m *machine.Machine, t task) (sample, error) {
	if os.Getuid() != 0 {
		return sample{}, &machine.Missing{What: "the measurements are made as root"}
	}
	executor, err := m.Executor(ctx)
	if err != nil {
		return sample{}, err
	}
	reg, err := m.Registry(ctx)
	if err != nil {
		return sample{}, err
	}
	args := append(arguments(reg, t.context, t.output), "--isolation", "namespace", "--kaniko-dir", filepath.Join(t.scratch, "work"))
	return timed(t, exec.CommandContext(ctx, executor, args...))
}

// inplace measures docker exec in a container that waits, as a CI runner's
// does: making the container is not counted.
func inplace(ctx context.Context, m *machine.Machine, t task) (_ sample, err error) {
	e, err := m.Engine(ctx)
	if err != nil {
		return sample{}, err
	}
	reg, err := m.Registry(ctx)
	if err != nil {
		return sample{}, err
	}
	image, err := m.CooperImage(ctx)
	if err != nil {
		return sample{}, err
	}
	id, err := e.Docker(ctx, nil, "run", "--detach", "--network=host", "--entrypoint", "/busybox/sleep",
		"-v", t.context+":/workspace", "-v", filepath.Dir(t.output)+":/out", image, "3600")
	if err != nil {
		return sample{}, err
	}
	id = strings.TrimSpace(id)
	defer func() {
		_, rerr := e.Docker(context.WithoutCancel(ctx), nil, "rm", "--force", "--volumes", id)
		err = errors.Join(err, rerr)
	}()
	args := []string{"--config", e.Config, "--host", e.Host, "exec", id, "/kaniko/executor"}
	args = append(args, arguments(reg, "/workspace", "/out/"+filepath.Base(t.output))...)
	cmd := exec.CommandContext(ctx, "docker", append(args, "--isolation", "inplace")...)
	cmd.Stdout, cmd.Stderr = t.log, t.log
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return sample{}, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	pid := 0
	for pid == 0 && err == nil {
		select {
		case err = <-done:
			return sample{wall: time.Since(start)}, err
		case <-time.After(20 * time.Millisecond):
			pid, err = inContainer(id, "/kaniko/executor")
		}
	}
	peak := watch(pid)
	err = errors.Join(err, <-done)
	return sample{wall: time.Since(start), peak: peak()}, err
}

// inContainer finds the process of a container that was started as program; 0
// is none.
func inContainer(id, program string) (int, error) {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline"))
		if err != nil || !strings.HasPrefix(string(line), program+"\x00--context") {
			continue
		}
		group, err := os.ReadFile(filepath.Join("/proc", p.Name(), "cgroup"))
		if err == nil && strings.Contains(string(group), id) {
			return pid, nil
		}
	}
	return 0, nil
}

func buildah(ctx context.Context, m *machine.Machine, t task) (_ sample, err error) {
	program, err := exec.LookPath("buildah")
	if err != nil {
		return sample{}, &machine.Missing{What: "buildah is not installed; integration/setup.sh does that"}
	}
	reg, err := m.Registry(ctx)
	if err != nil {
		return sample{}, err
	}
	registries := filepath.Join(t.scratch, "registries.conf")
	text := fmt.Sprintf(`unqualified-search-registries = ["docker.io"]
short-name-mode = "disabled"
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = %q
insecure = true
`, reg.Host)
	if err := os.WriteFile(registries, []byte(text), 0o600); err != nil {
		return sample{}, err
	}
	policy := filepath.Join(t.scratch, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		return sample{}, err
	}
	storage := []string{"--root", filepath.Join(t.scratch, "storage"), "--runroot", filepath.Join(t.scratch, "run"), "--storage-driver", "overlay"}
	args := append(storage, "bud", "--layers", "--disable-compression=false", "--isolation", "chroot", "--network", "host",
		"--signature-policy", policy, "--tag", "oci-archive:"+t.output, t.context)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF="+registries, "TMPDIR="+t.scratch)
	defer func() {
		// Its overlay stays mounted otherwise.
		_ = exec.CommandContext(context.WithoutCancel(ctx), program, append(storage, "rm", "--all")...).Run()
		_ = exec.CommandContext(context.WithoutCancel(ctx), "umount", filepath.Join(t.scratch, "storage", "overlay")).Run()
	}()
	return timed(t, cmd)
}

func cooperVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, os.Getenv("COOPER_EXECUTOR"), "version").Output()
	if err != nil {
		return "unknown"
	}
	return firstLine(out)
}

func buildahVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "buildah", "--version").Output()
	if err != nil {
		return "unknown"
	}
	return firstLine(out)
}

// buildkitVersion is what setup.sh has built buildkitd from.
func buildkitVersion(context.Context) string {
	text, err := os.ReadFile(filepath.Join(machine.Repository(), "integration", "tools", "buildkit", "go.mod"))
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if _, v, ok := strings.Cut(strings.TrimSpace(line), "github.com/moby/buildkit "); ok {
			return "BuildKit " + v
		}
	}
	return "unknown"
}

func firstLine(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
