package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Missing says that this computer lacks something, in words for a person.
type Missing struct{ What string }

func (m *Missing) Error() string { return m.What }

// starter starts processes from one thread that lives as long as the Machine:
// a process's parent death signal comes when the thread that made it ends.
type starter struct {
	requests chan func()
	done     chan struct{}
}

func newStarter() *starter {
	s := &starter{requests: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread()
		for f := range s.requests {
			f()
		}
	}()
	return s
}

func (s *starter) start(cmd *exec.Cmd) error {
	result := make(chan error)
	s.requests <- func() { result <- cmd.Start() }
	return <-result
}

func (s *starter) close() {
	close(s.requests)
	<-s.done
}

// process is a running daemon.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *tail
	// ended is closed when the process has; err is valid then.
	ended chan struct{}
	err   error
}

// launch starts a daemon and waits until ready says nil, it ends, or 60 s pass.
func (m *Machine) launch(ctx context.Context, ready func(context.Context) error, name string, args ...string) (*process, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, &Missing{fmt.Sprintf("%s is not installed; integration/setup.sh does that", name)}
	}
	p := &process{name: name, cmd: exec.Command(path, args...), out: &tail{}, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.Dir = m.Dir
	p.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := m.starter.start(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			m.processes = append(m.processes, p)
			return p, nil
		}
		select {
		case <-p.ended:
			return nil, fmt.Errorf("%s ended at once: %v\n%s", name, p.err, p.out)
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s does not answer: %w\n%s", name, err, p.out), p.stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop asks the process to end, and after 20 s makes it.
func (p *process) stop() error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(20 * time.Second):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.ended
	return nil
}

// tail keeps the last 16 KiB of what a daemon prints.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if extra := len(t.buf) - 16<<10; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}

// FreePort returns a loopback TCP port on which nothing listened a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
