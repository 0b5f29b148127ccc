package run

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Forwarder is a socket that passes its connections on to another one. A
// command gets it instead of the user's SSH agent: it can have the owner and
// mode that the command needs, and what an agent asks of the process that
// connects holds for the builder.
type Forwarder struct {
	listener *net.UnixListener
	dir      *os.File
	to       string
	wait     sync.WaitGroup

	mu    sync.Mutex
	open  map[net.Conn]struct{}
	ended bool
}

// Forward listens at path, which must not exist, and connects to the socket to
// for each connection. The socket gets mode and owner. The caller closes it.
func Forward(path, to string, mode uint32, uid, gid int) (*Forwarder, error) {
	// The name of a socket has at most 107 bytes; a directory's descriptor makes
	// a short one of any.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("forwarding socket: %w", err)
	}
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("forwarding socket: %w", err)
	}
	f := &Forwarder{listener: listener, dir: dir, to: to, open: map[net.Conn]struct{}{}}
	if err := errors.Join(unix.Chmod(path, mode), os.Lchown(path, uid, gid)); err != nil {
		return nil, errors.Join(fmt.Errorf("forwarding socket: %w", err), f.Close())
	}
	f.wait.Go(f.accept)
	return f, nil
}

func (f *Forwarder) accept() {
	for {
		from, err := f.listener.AcceptUnix()
		if err != nil {
			return
		}
		f.wait.Go(func() { f.serve(from) })
	}
}

// serve passes one connection on. An agent that can't be reached is a
// connection that ends.
func (f *Forwarder) serve(from *net.UnixConn) {
	defer from.Close()
	to, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: f.to, Net: "unix"})
	if err != nil {
		return
	}
	defer to.Close()
	if !f.keep(from, to) {
		return
	}
	defer f.drop(from, to)
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(to, from)
		_ = to.CloseWrite()
	})
	_, _ = io.Copy(from, to)
	_ = from.CloseWrite()
	both.Wait()
}

// keep notes connections for Close; false says that it was called already.
func (f *Forwarder) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		f.open[c] = struct{}{}
	}
	return !f.ended
}

func (f *Forwarder) drop(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.open, c)
	}
}

// Close removes the socket and ends all connections.
func (f *Forwarder) Close() error {
	err := f.listener.Close()
	f.mu.Lock()
	f.ended = true
	for c := range f.open {
		c.Close()
	}
	f.mu.Unlock()
	f.wait.Wait()
	return errors.Join(err, f.dir.Close())
}
