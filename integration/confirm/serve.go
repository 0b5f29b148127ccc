package confirm

import (
	"errors"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// scene is what one build of a case finds: files, servers, sockets.
type scene struct {
	// dir holds context, the directory, and what belongs to the build beside it.
	dir, context string
	// address is that of the HTTP server, "" without one.
	address string
	closers []func() error
}

// setScene writes the case's files below dir and starts its servers.
func (c *Case) setScene(dir string) (s *scene, err error) {
	s = &scene{dir: dir, context: filepath.Join(dir, "context")}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := os.Mkdir(s.context, 0o755); err != nil {
		return s, err
	}
	served := filepath.Join(dir, "http")
	if c.Serve {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return s, err
		}
		s.address = l.Addr().String()
		server := &http.Server{Handler: files(served)}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(l)
		}()
		s.closers = append(s.closers, func() error {
			err := server.Close()
			<-done
			return err
		})
	}
	for _, id := range c.SSH {
		l, err := net.Listen("unix", s.agent(id))
		if err != nil {
			return s, err
		}
		if err := os.Chmod(s.agent(id), 0o666); err != nil {
			return s, err
		}
		s.closers = append(s.closers, l.Close)
	}
	for id, value := range c.Secrets {
		if err := os.WriteFile(s.secret(id), []byte(value), 0o644); err != nil {
			return s, err
		}
	}
	if err := c.WriteContext(s.context, s.address); err != nil {
		return s, err
	}
	if c.Serve {
		return s, os.Rename(filepath.Join(s.context, "http"), served)
	}
	return s, nil
}

func (s *scene) agent(id string) string  { return filepath.Join(s.dir, "agent-"+id) }
func (s *scene) secret(id string) string { return filepath.Join(s.dir, "secret-"+id) }

func (s *scene) close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// files serves a directory, and the git repositories in it to git.
func files(root string) http.Handler {
	plain := http.FileServer(http.Dir(root))
	git, err := exec.LookPath("git")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err != nil || !strings.Contains(r.URL.Path, ".git/") {
			plain.ServeHTTP(w, r)
			return
		}
		(&cgi.Handler{
			Path: git, Args: []string{"http-backend"},
			Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1"},
		}).ServeHTTP(w, r)
	})
}
