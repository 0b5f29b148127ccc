package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// beneath opens files below one directory and nothing else. It uses openat2
// where the kernel and the seccomp profile have it, else it walks, holding
// each directory on the way open so that a rename can't lead it astray.
type beneath struct {
	fd       int
	portable atomic.Bool
}

const pathOnly = unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW

func (b *beneath) init(path string) error {
	fd, err := retryFD(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	b.fd = fd
	return nil
}

// strict opens a name of which no component is a symbolic link. A link among
// the parents gives ENOENT, as Reader asks for; the last component is opened
// as flags say (O_NOFOLLOW is implied).
func (b *beneath) strict(name string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if name == "." {
		return retryFD(func() (int, error) { return unix.Openat(b.fd, ".", flags, 0) })
	}
	if !strings.Contains(name, "/") {
		return retryFD(func() (int, error) { return unix.Openat(b.fd, name, flags, 0) })
	}
	if !b.portable.Load() {
		how := unix.OpenHow{
			Flags:   uint64(flags),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		}
		fd, err := retryFD(func() (int, error) { return unix.Openat2(b.fd, name, &how) })
		switch err {
		case unix.ENOSYS, unix.EPERM: // an old kernel, or a seccomp profile older than the call
			b.portable.Store(true)
		case unix.ELOOP, unix.ENOTDIR:
			return b.walkStrict(name, flags) // finds out which component it was
		default:
			return fd, err
		}
	}
	return b.walkStrict(name, flags)
}

func (b *beneath) walkStrict(name string, flags int) (int, error) {
	cur := b.fd
	defer func() {
		if cur != b.fd {
			unix.Close(cur)
		}
	}()
	for {
		c, rest, more := strings.Cut(name, "/")
		if !more {
			return retryFD(func() (int, error) { return unix.Openat(cur, c, flags, 0) })
		}
		next, err := retryFD(func() (int, error) { return unix.Openat(cur, c, pathOnly|unix.O_DIRECTORY, 0) })
		if err == unix.ENOTDIR || err == unix.ELOOP {
			err = unix.ENOENT
		}
		if err != nil {
			return -1, err
		}
		if cur != b.fd {
			unix.Close(cur)
		}
		cur, name = next, rest
	}
}

// dirInRoot opens a directory, following symbolic links inside the tree as if
// the process had changed its root there. canonical is its clean name without
// any link.
func (b *beneath) dirInRoot(name string) (fd int, canonical string, err error) {
	name = cleanSlashes(name)
	if validName(name) {
		fd, err := b.strict(name, pathOnly|unix.O_DIRECTORY)
		if err == nil {
			return fd, name, nil
		}
		if err == unix.ENOENT && !strings.Contains(name, "/") {
			return -1, "", err
		}
	}
	return b.walkInRoot(name)
}

func cleanSlashes(name string) string {
	name = strings.Trim(name, "/")
	if name == "" {
		return "."
	}
	return name
}

// walkInRoot keeps a stack of open directories: ".." returns to the one it
// came from, wherever that has been moved meanwhile.
func (b *beneath) walkInRoot(name string) (fd int, canonical string, err error) {
	var fds []int
	var names []string
	defer func() {
		for _, f := range fds {
			unix.Close(f)
		}
	}()
	pop := func(n int) {
		for len(fds) > n {
			unix.Close(fds[len(fds)-1])
			fds, names = fds[:len(fds)-1], names[:len(names)-1]
		}
	}
	rest := strings.Split(name, "/")
	links := 0
	for len(rest) > 0 {
		c := rest[0]
		rest = rest[1:]
		if c == "" || c == "." {
			continue
		}
		if c == ".." {
			pop(max(len(fds)-1, 0))
			continue
		}
		cur := b.fd
		if len(fds) > 0 {
			cur = fds[len(fds)-1]
		}
		next, err := retryFD(func() (int, error) { return unix.Openat(cur, c, pathOnly, 0) })
		if err != nil {
			return -1, "", err
		}
		var st unix.Stat_t
		if err := unix.Fstat(next, &st); err != nil {
			unix.Close(next)
			return -1, "", err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			fds, names = append(fds, next), append(names, c)
		case unix.S_IFLNK:
			target, err := readlinkAt(next, "")
			unix.Close(next)
			if err != nil {
				return -1, "", err
			}
			if links++; links > maxLinks {
				return -1, "", unix.ELOOP
			}
			if strings.HasPrefix(target, "/") {
				pop(0)
			}
			rest = append(strings.Split(target, "/"), rest...)
		default:
			unix.Close(next)
			return -1, "", unix.ENOTDIR
		}
	}
	if len(fds) == 0 {
		fd, err := retryFD(func() (int, error) { return unix.Openat(b.fd, ".", pathOnly|unix.O_DIRECTORY, 0) })
		return fd, ".", err
	}
	fd = fds[len(fds)-1]
	fds = fds[:len(fds)-1]
	return fd, strings.Join(names, "/"), nil
}

// retryFD repeats a call that signals interrupt, as the Go runtime's own
// preemption signals do on slow file systems.
func retryFD(call func() (int, error)) (int, error) {
	for again := 0; ; {
		fd, err := call()
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && again < 32: // openat2 met a rename on its way
			again++
		default:
			return fd, err
		}
	}
}

func readlinkAt(dirfd int, name string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

// readNames lists an open directory. fd is used up: it must have been opened
// for reading, not O_PATH, and is not closed.
func readNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// procPath names a file through its open parent directory. Only extended
// attributes need it: their calls know no directory descriptors.
func procPath(dirfd int, base string) string {
	const digits = "/proc/self/fd/"
	return digits + itoa(dirfd) + "/" + base
}

func itoa(n int) string {
	var buf [20]byte
	i := len(buf)
	for {
		i--
		buf[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(buf[i:])
		}
	}
}

func isMissing(err error) bool {
	return errors.Is(err, os.ErrNotExist)
}
