package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// workPrefix begins the name of every build's own directory.
const workPrefix = "build-"

// workdir is the directory of one build: blobs, trees, temporary files. A lock
// on a file inside tells that its build is alive, so that the leftovers of a
// build that was killed are removed by the next one.
type workdir struct {
	path string
	lock *os.File
}

// newWorkdir makes a directory below root and removes those of dead builds.
func newWorkdir(root string) (*workdir, error) {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("working directory: %w", err)
	}
	removeDead(root)
	path, err := os.MkdirTemp(root, workPrefix)
	if err != nil {
		return nil, fmt.Errorf("working directory: %w", err)
	}
	// The lock gets its name once it is held, so that no other build can take
	// it for a dead one's.
	lock, err := lockFile(filepath.Join(path, "lock.new"))
	if err == nil {
		err = os.Rename(lock.Name(), filepath.Join(path, "lock"))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("working directory: %w", err), os.RemoveAll(path))
	}
	return &workdir{path: path, lock: lock}, nil
}

// sub makes a directory inside.
func (w *workdir) sub(name string) (string, error) {
	path := filepath.Join(w.path, name)
	return path, os.MkdirAll(path, 0o755)
}

// close removes the directory and all in it.
func (w *workdir) close() error {
	return errors.Join(removeAll(w.path), w.lock.Close())
}

// lockFile takes the lock that says that a directory's build is alive.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// removeDead removes directories of builds that no longer run. A directory
// that was made a moment ago and is not locked yet has no lock file, and is
// left alone; so is whatever can't be removed, because it is not ours to judge.
func removeDead(root string) {
	names, err := os.ReadDir(root)
	if err != nil {
		return
	}
	for _, n := range names {
		if !n.IsDir() || !strings.HasPrefix(n.Name(), workPrefix) {
			continue
		}
		path := filepath.Join(root, n.Name())
		if _, err := os.Lstat(filepath.Join(path, "lock")); err != nil {
			continue
		}
		if lock, err := lockFile(filepath.Join(path, "lock")); err == nil {
			_ = removeAll(path)
			lock.Close()
		}
	}
}

// removeAll is rootfs.RemoveAll for trees with directories that even their owner
// may not write to, which an image may well hold.
func removeAll(path string) error {
	if err := rootfs.RemoveAll(path); err == nil || os.Geteuid() == 0 {
		return err
	}
	_ = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return rootfs.RemoveAll(path)
}

// defaultWorkRoot chooses where builds keep their files: the directory that the
// executor's image has for it, else the user's cache directory, which unlike
// /tmp is seldom in memory.
func defaultWorkRoot() (string, error) {
	if dir := os.Getenv("KANIKO_DIR"); dir != "" {
		return dir, nil
	}
	if unix.Access("/kaniko", unix.W_OK|unix.X_OK) == nil {
		return "/kaniko", nil
	}
	dir, err := os.UserCacheDir()
	if err == nil && os.MkdirAll(dir, 0o755) == nil && unix.Access(dir, unix.W_OK) == nil {
		return filepath.Join(dir, "cooper"), nil
	}
	dir = filepath.Join(os.TempDir(), fmt.Sprintf("cooper-%d", outerUID()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("no place for the build's files: %w (set TMPDIR or KANIKO_DIR to a directory that can be written to)", err)
	}
	return dir, nil
}

// outerUID is this user's id as the machine knows it: in a user namespace
// everybody is 0.
func outerUID() int {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return os.Getuid()
	}
	for line := range strings.Lines(string(text)) {
		var inside, outside, count int
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err == nil && inside <= os.Getuid() && os.Getuid() < inside+count {
			return outside + os.Getuid() - inside
		}
	}
	return os.Getuid()
}
