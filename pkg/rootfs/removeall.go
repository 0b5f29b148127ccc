package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// RemoveAll is os.RemoveAll for whole trees: it removes several directories at
// the same time, since a file system takes longest over files one by one. The
// path is one of the host's and is not guarded: what lies below it must be out
// of reach for others, though links in it are removed and never followed. It
// tries to remove the rest after an error, and returns the first one. A path
// that does not exist is no error.
func RemoveAll(path string) error {
	parent, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	r := remover{slots: make(chan struct{}, min(runtime.GOMAXPROCS(0), 8))}
	r.entry(int(parent.Fd()), filepath.Base(path), path, false)
	return r.err
}

type remover struct {
	// slots bounds the directories that goroutines of their own work on. One
	// that finds none is removed by the goroutine that has found it.
	slots chan struct{}

	mu  sync.Mutex
	err error
}

func (r *remover) failed(op, path string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = pathError(op, path, err)
	}
}

// entry removes a file or directory of an open directory and reports whether it
// has. path is for errors.
func (r *remover) entry(dirfd int, base, path string, isFile bool) bool {
	err := ignoringEINTR(func() error { return unix.Unlinkat(dirfd, base, 0) })
	// Linux says EISDIR for a directory, POSIX EPERM.
	if !isFile && (err == unix.EISDIR || err == unix.EPERM) {
		err = r.dir(dirfd, base, path)
	}
	if err == nil || err == unix.ENOENT {
		return true
	}
	r.failed("remove", path, err)
	return false
}

func (r *remover) dir(dirfd int, base, path string) error {
	for again := 0; ; again++ {
		emptied := r.children(dirfd, base, path)
		err := ignoringEINTR(func() error { return unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR) })
		if err == unix.ENOTDIR {
			return unix.EPERM // a file that may not be removed
		}
		// Some file systems skip entries when others are removed meanwhile.
		if err != unix.ENOTEMPTY || !emptied || again == 8 {
			return err
		}
	}
}

// children removes what it finds in a directory and reports whether it could.
func (r *remover) children(dirfd int, base, path string) bool {
	fd, err := retryFD(func() (int, error) {
		return unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err == unix.ENOTDIR || err == unix.ELOOP || err == unix.ENOENT {
		return true // removing it tells more
	}
	if err != nil {
		r.failed("open", path, err)
		return false
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	var left atomic.Bool
	var group sync.WaitGroup
	remove := func(e fs.DirEntry) {
		if !r.entry(fd, e.Name(), path+"/"+e.Name(), !e.IsDir()) {
			left.Store(true)
		}
	}
	for {
		// In parts, so that memory does not grow with the directory.
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			if !e.IsDir() {
				remove(e)
				continue
			}
			select {
			case r.slots <- struct{}{}:
				group.Go(func() {
					defer func() { <-r.slots }()
					remove(e)
				})
			default:
				remove(e)
			}
		}
		if err != nil {
			group.Wait()
			if err != io.EOF {
				r.failed("read", path, err)
				return false
			}
			return !left.Load()
		}
	}
}
