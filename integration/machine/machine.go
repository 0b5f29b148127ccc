package machine

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Machine holds the programs around a test. Its methods may be called from
// several goroutines; the first caller of each waits until it has started.
type Machine struct {
	// Dir is private to the Machine and removed by Close.
	Dir string
	// Cache is where integration/setup.sh has put things.
	Cache string

	starter *starter
	mu      sync.Mutex
	// processes are ended by Close in reverse order.
	processes []*process

	registry lazy[*Registry]
	buildkit lazy[*BuildKit]
	engine   lazy[*Engine]
	executor lazy[string]
	own      lazy[string]
}

// New returns a Machine that has started nothing yet.
func New() (*Machine, error) {
	dir, err := os.MkdirTemp("", "cooper-machine-")
	if err != nil {
		return nil, err
	}
	// Ordinary users take part in tests and come in through this directory.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	cache := os.Getenv("COOPER_TEST_CACHE")
	if cache == "" {
		home, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("find integration/setup.sh's directory: %w", err)
		}
		cache = filepath.Join(home, "cooper-test")
	}
	return &Machine{Dir: dir, Cache: cache, starter: newStarter()}, nil
}

// Close ends everything and removes the directory.
func (m *Machine) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, p := range slices.Backward(m.processes) {
		errs = append(errs, p.stop())
	}
	m.processes = nil
	m.starter.close()
	errs = append(errs, unmountBelow(m.Dir), os.RemoveAll(m.Dir))
	return errors.Join(errs...)
}

// Executor is the path of Cooper's executor: $COOPER_EXECUTOR, or built from
// this repository the first time.
func (m *Machine) Executor(ctx context.Context) (string, error) {
	return m.executor.get(func() (string, error) {
		if path := os.Getenv("COOPER_EXECUTOR"); path != "" {
			return path, nil
		}
		path := filepath.Join(m.Dir, "executor")
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./cmd/executor")
		cmd.Dir = Repository()
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build cmd/executor: %w\n%s", err, out)
		}
		return path, nil
	})
}

// Sub makes a fresh directory below Dir whose name begins with pattern.
func (m *Machine) Sub(pattern string) (string, error) {
	dir, err := os.MkdirTemp(m.Dir, pattern+"-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// Repository is the root of Cooper's source.
func Repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// tool is the path of a program that setup.sh has built.
func (m *Machine) tool(name string) (string, error) {
	path := filepath.Join(m.Cache, "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", &Missing{fmt.Sprintf("%s does not exist; integration/setup.sh makes it", path)}
	}
	return path, nil
}

// lazy is a value made once, error included.
type lazy[T any] struct {
	once  sync.Once
	value T
	err   error
}

func (l *lazy[T]) get(make func() (T, error)) (T, error) {
	l.once.Do(func() { l.value, l.err = make() })
	return l.value, l.err
}

// unmountBelow takes away mounts that a daemon has left below dir.
func unmountBelow(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	var points []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	slices.SortFunc(points, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var errs []error
	for _, p := range points {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}
