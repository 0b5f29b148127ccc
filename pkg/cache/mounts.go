// Package cache keeps what builds reuse. [Mounts] are the directories of RUN
// --mount=type=cache: one per id, kept under a root directory that may outlast
// the build, and handed out as the mount's sharing mode asks.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Mounts hands out cache mount directories below one root. It is safe for
// concurrent use, also by several processes that share the root: locks are
// flock(2) locks on files beside the directories.
type Mounts struct {
	root string
}

// NewMounts uses root, which is made when the first mount is asked for.
func NewMounts(root string) *Mounts { return &Mounts{root: root} }

// Sharing is how several commands may use one cache at the same time.
type Sharing string

// The sharing modes of the Dockerfile reference.
const (
	// Shared gives every command the same directory.
	Shared Sharing = "shared"
	// Locked makes a command wait until no other one uses the directory.
	Locked Sharing = "locked"
	// Private gives a command a further directory when the first is in use.
	Private Sharing = "private"
)

// lockPoll is how often a busy lock is tried again. flock(2) can't wait for a
// context, so waiting is polling.
const lockPoll = 50 * time.Millisecond

// Acquire returns the directory for id, made by create when it does not exist:
// create fills an empty directory and sets its owner and mode; the directory
// appears under its final name only when create succeeded. The caller calls
// release when its command has ended.
func (m *Mounts) Acquire(ctx context.Context, id string, sharing Sharing, create func(dir string) error) (dir string, release func(), err error) {
	sum := sha256.Sum256([]byte(id))
	base := filepath.Join(m.root, hex.EncodeToString(sum[:16]))
	if err := os.MkdirAll(m.root, 0o755); err != nil {
		return "", nil, fmt.Errorf("cache mount %q: %w", id, err)
	}
	how := unix.LOCK_SH
	if sharing == Locked || sharing == Private {
		how = unix.LOCK_EX
	}
	for n := 0; ; n++ {
		dir := base
		if n > 0 {
			dir = base + "." + strconv.Itoa(n)
		}
		lock, err := lockFile(ctx, dir+".lock", how, sharing != Private)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("cache mount %q: %w", id, err)
		}
		if err := m.ensure(ctx, dir, create); err != nil {
			lock.Close()
			return "", nil, fmt.Errorf("cache mount %q: %w", id, err)
		}
		return dir, func() { lock.Close() }, nil
	}
}

// ensure makes dir under a lock of its own, because a shared lock on the mount
// does not keep two commands from filling it at once.
func (m *Mounts) ensure(ctx context.Context, dir string, create func(string) error) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	making, err := lockFile(ctx, dir+".making", unix.LOCK_EX, true)
	if err != nil {
		return err
	}
	defer making.Close()
	if _, err := os.Lstat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	if err := create(tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return os.Rename(tmp, dir)
}

// lockFile locks the file at path; closing it releases the lock. With wait
// false a lock that somebody else holds gives EWOULDBLOCK.
func lockFile(ctx context.Context, path string, how int, wait bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK) && wait:
			select {
			case <-ctx.Done():
				f.Close()
				return nil, context.Cause(ctx)
			case <-time.After(lockPoll):
			}
		default:
			f.Close()
			return nil, err
		}
	}
}
