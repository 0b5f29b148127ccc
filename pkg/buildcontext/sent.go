package buildcontext

import (
	"io"
	"strings"
	"time"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// sent shows files as they arrive at BuildKit.
type sent struct {
	below rootfs.Reader
	// owners keeps them.
	owners   bool
	rootTime time.Time
}

// Lstat implements rootfs.Reader.
func (s *sent) Lstat(name string) (rootfs.Entry, error) {
	e, err := s.below.Lstat(name)
	if err != nil {
		return e, err
	}
	return s.entry(e), nil
}

// ReadDir implements rootfs.Reader.
func (s *sent) ReadDir(name string) ([]rootfs.Entry, error) {
	entries, err := s.below.ReadDir(name)
	for i := range entries {
		entries[i] = s.entry(entries[i])
	}
	return entries, err
}

// Open implements rootfs.Reader.
func (s *sent) Open(name string) (io.ReadCloser, error) {
	rc, err := s.below.Open(name)
	if err != nil {
		if e, lerr := s.below.Lstat(name); lerr == nil && e.Kind == rootfs.Socket {
			return io.NopCloser(strings.NewReader("")), nil
		}
	}
	return rc, err
}

func (s *sent) entry(e rootfs.Entry) rootfs.Entry {
	if e.Path == "." {
		e.Mode = 0o755
		if !s.rootTime.IsZero() {
			e.ModTime = s.rootTime
		}
	}
	if !s.owners {
		e.UID, e.GID = 0, 0
	}
	if e.Kind == rootfs.Socket {
		e.Kind, e.Size = rootfs.Regular, 0
	}
	if e.Kind != rootfs.Regular {
		e.Link = 0 // only regular files keep their names together
	}
	if len(e.Xattrs) > 0 {
		e.Xattrs = userXattrs(e.Xattrs)
	}
	return e
}

// userXattrs are the attributes that mean the same on another machine. A
// capability does not survive being given to root.
func userXattrs(all map[string]string) map[string]string {
	var kept map[string]string
	for name, value := range all {
		if strings.HasPrefix(name, "user.") {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[name] = value
		}
	}
	return kept
}
