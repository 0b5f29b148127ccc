package rootfs

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Link makes name a further name of the file old, never following a symbolic
// link in the last place of either. What was at name is replaced. Both names
// being the same file already is no error.
func (r *Root) Link(old, name string) error {
	from, oldBase, err := r.parent(old)
	if err != nil {
		return pathError("link", old, err)
	}
	var was, is unix.Stat_t
	if err := unix.Fstatat(from.fd, oldBase, &was, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError("link", old, err)
	}
	if was.Mode&unix.S_IFMT == unix.S_IFDIR {
		return pathError("link", old, syscall.EISDIR)
	}
	to, base, err := r.parent(name)
	if err != nil {
		return pathError("link", name, err)
	}
	if base == "." {
		return pathError("link", name, syscall.EISDIR)
	}
	if unix.Fstatat(to.fd, base, &is, unix.AT_SYMLINK_NOFOLLOW) == nil && is.Ino == was.Ino && is.Dev == was.Dev {
		return nil
	}
	for try := 0; ; try++ {
		// Looked up anew: removing what is in the way closes kept directories,
		// and may even have removed old.
		if from, oldBase, err = r.parent(old); err != nil {
			return pathError("link", old, err)
		}
		if to, base, err = r.parent(name); err != nil {
			return pathError("link", name, err)
		}
		err := ignoringEINTR(func() error { return unix.Linkat(from.fd, oldBase, to.fd, base, 0) })
		if err != unix.EEXIST || try > 0 {
			return pathError("link", name, err)
		}
		if err := r.removeAt(to.fd, base); err != nil {
			return pathError("link", name, err)
		}
	}
}

// SetMeta gives an existing file e's owner, mode, extended attributes and
// modification time. Symbolic links are not followed and have no mode. e.Kind
// is ignored.
func (r *Root) SetMeta(e Entry) error {
	d, base, err := r.parent(e.Path)
	if err != nil {
		return pathError("set metadata", e.Path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError("set metadata", e.Path, err)
	}
	real := entryOf(e.Path, &st)
	e.Kind, e.Major, e.Minor = real.Kind, real.Major, real.Minor
	if real.Kind == Regular {
		// A placeholder stays what it stands for.
		v, ok, err := getXattr(func(buf []byte) (int, error) {
			return unix.Lgetxattr(procPath(d.fd, base), OverrideXattr, buf)
		})
		if err != nil {
			return pathError("set metadata", e.Path, err)
		}
		if o, err := ParseOverride(v); ok && err == nil {
			e.Kind, e.Major, e.Minor = o.Kind, o.Major, o.Minor
		}
	}
	if real.Kind == Directory {
		return pathError("set metadata", e.Path, r.writeDir(d, base, e))
	}
	return pathError("set metadata", e.Path, r.setByName(d.fd, base, e, real.Kind))
}

// Chtimes sets a file's modification time and follows no symbolic link. It is
// what a directory needs after its files were written.
func (r *Root) Chtimes(name string, mtime time.Time) error {
	d, base, err := r.parent(name)
	if err != nil {
		return pathError("chtimes", name, err)
	}
	return pathError("chtimes", name, setTime(d.fd, base, mtime))
}

// SetXattr sets one extended attribute of an existing file or directory
// without following a symbolic link. Unlike Write it refuses none.
func (r *Root) SetXattr(name, attr, value string) error {
	d, base, err := r.parent(name)
	if err == nil {
		err = unix.Lsetxattr(procPath(d.fd, base), attr, []byte(value), 0)
	}
	if err != nil {
		return pathError("setxattr", name, fmt.Errorf("%s: %w", attr, err))
	}
	return nil
}

func setTime(dirfd int, base string, mtime time.Time) error {
	ts, err := timespecs(mtime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dirfd, base, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

// timespecs leaves the access time alone: nobody reads it and it is one less
// thing to differ.
func timespecs(mtime time.Time) ([2]unix.Timespec, error) {
	if mtime.IsZero() {
		mtime = time.Unix(0, 0)
	}
	ts, err := unix.TimeToTimespec(mtime)
	return [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}, err
}

// setTimeFD is futimens(3): utimensat with a descriptor and no path.
func setTimeFD(fd int, mtime time.Time) error {
	ts, err := timespecs(mtime)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
