package rootfs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Write makes the file that e describes, with its final owner, mode, extended
// attributes and modification time. What is there already is replaced, with
// all it holds, but a directory written over a directory: that one keeps its
// files and takes e's metadata. The parent must exist (see MkdirParents). For
// the root itself only metadata is written.
//
// content gives exactly e.Size bytes of a regular file; nil stands for an empty
// one. Long runs of zeros become holes. e.Link is ignored (see Link).
//
// Attributes that only the kernel or its administrator may set ("trusted.",
// and "security." other than capabilities where refused), attributes that mark
// files for overlayfs or for a Root, and those that the file system or the
// file's kind can't hold are left out. A device that may not be made becomes
// an empty file with OverrideXattr.
func (r *Root) Write(e Entry, content io.Reader) error {
	d, base, err := r.parent(e.Path)
	if err != nil {
		return pathError("write", e.Path, err)
	}
	if base == "." && e.Kind != Directory {
		return pathError("write", e.Path, syscall.EISDIR)
	}
	switch e.Kind {
	case Regular:
		err = r.writeRegular(d, base, e, content)
	case Directory:
		err = r.writeDir(d, base, e)
	case Symlink:
		err = r.replacing(d, base, func() error { return unix.Symlinkat(e.Target, d.fd, base) })
		if err == nil {
			err = r.setByName(d.fd, base, e, e.Kind)
		}
	case Fifo, Socket, CharDevice, BlockDevice:
		err = r.writeNode(d, base, e)
	default:
		err = fmt.Errorf("unknown kind of file %d", e.Kind)
	}
	return pathError("write", e.Path, err)
}

// replacing runs make, and once more after taking away what stood in its place.
func (r *Root) replacing(d *openDir, base string, make func() error) error {
	for try := 0; ; try++ {
		err := ignoringEINTR(make)
		if err != unix.EEXIST || try > 0 {
			return err
		}
		if err := r.removeAt(d.fd, base); err != nil {
			return err
		}
	}
}

func (r *Root) writeRegular(d *openDir, base string, e Entry, content io.Reader) error {
	fd := -1
	err := r.replacing(d, base, func() (err error) {
		fd, err = unix.Openat(d.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	f := openFile{fd: fd}
	err = r.fill(&f, e.Size, content)
	if err == nil {
		err = r.setByFD(f.fd, e, Regular)
	}
	if cerr := f.close(); err == nil {
		err = cerr
	}
	return err
}

// openFile is a bare descriptor, or an *os.File where that can copy without
// passing the bytes through the process.
type openFile struct {
	fd   int
	file *os.File
}

func (f *openFile) close() error {
	if f.file != nil {
		return f.file.Close()
	}
	return unix.Close(f.fd)
}

const (
	copyBuffer = 256 << 10
	minHole    = 64 << 10
)

var errLength = fmt.Errorf("content is not as long as announced: %w", io.ErrUnexpectedEOF)

func (r *Root) fill(f *openFile, size int64, content io.Reader) error {
	if content == nil {
		if size != 0 {
			return errLength
		}
		return nil
	}
	if src, ok := content.(*os.File); ok && size > minHole {
		f.file = os.NewFile(uintptr(f.fd), "")
		n, err := f.file.ReadFrom(io.LimitReader(src, size))
		if err == nil && n != size {
			err = errLength
		}
		if err != nil {
			return err
		}
		return atEOF(content)
	}
	if r.buf == nil {
		r.buf = make([]byte, copyBuffer)
	}
	var done int64
	hole := false
	for done < size {
		buf := r.buf[:min(size-done, copyBuffer)]
		n, err := io.ReadFull(content, buf)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return errLength
		}
		if err != nil {
			return err
		}
		if n >= minHole && isZero(buf) {
			if _, err := unix.Seek(f.fd, int64(n), io.SeekCurrent); err != nil {
				return err
			}
			hole = true
		} else if err := writeAll(f.fd, buf); err != nil {
			return err
		}
		done += int64(n)
	}
	if hole {
		if err := unix.Ftruncate(f.fd, size); err != nil {
			return err
		}
	}
	return atEOF(content)
}

// atEOF fails when there is more: the layer and its header disagree. Readers
// that check a digest at their end get to do so.
func atEOF(content io.Reader) error {
	var one [1]byte
	for {
		n, err := content.Read(one[:])
		if n > 0 {
			return errLength
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func isZero(b []byte) bool {
	return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (r *Root) writeDir(d *openDir, base string, e Entry) error {
	open := func() (int, error) {
		return retryFD(func() (int, error) {
			return unix.Openat(d.fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		})
	}
	fd := -1
	if base != "." {
		err := ignoringEINTR(func() error { return unix.Mkdirat(d.fd, base, 0o700) })
		if err != nil && err != unix.EEXIST {
			return err
		}
	}
	fd, err := open()
	switch err {
	case unix.ENOTDIR, unix.ELOOP: // something else has the name
		if err := r.replacing(d, base, func() error { return unix.Mkdirat(d.fd, base, 0o700) }); err != nil {
			return err
		}
		fd, err = open()
	case unix.EACCES: // our own directory, closed to us
		if err := unix.Fchmodat(d.fd, base, 0o700, 0); err != nil {
			return err
		}
		fd, err = open()
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return r.setByFD(fd, e, Directory)
}

func (r *Root) writeNode(d *openDir, base string, e Entry) error {
	dev := 0
	if e.Kind == CharDevice || e.Kind == BlockDevice {
		dev = int(unix.Mkdev(e.Major, e.Minor))
	}
	err := r.replacing(d, base, func() error {
		return unix.Mknodat(d.fd, base, fileType(e.Kind)|0o600, dev)
	})
	if err == unix.EPERM && (e.Kind == CharDevice || e.Kind == BlockDevice) {
		fd := -1
		err := r.replacing(d, base, func() (err error) {
			fd, err = unix.Openat(d.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
			return err
		})
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return r.setByFD(fd, e, Regular)
	}
	if err != nil {
		return err
	}
	return r.setByName(d.fd, base, e, e.Kind)
}

// Whiteout makes the mark by which overlayfs hides what lower directories have
// at name, in the place of what is there. Unlike other devices it has no
// substitute.
func (r *Root) Whiteout(name string) error {
	d, base, err := r.parent(name)
	if err == nil && base == "." {
		err = syscall.EISDIR
	}
	if err == nil {
		err = r.replacing(d, base, func() error { return unix.Mknodat(d.fd, base, unix.S_IFCHR, 0) })
	}
	return pathError("whiteout", name, err)
}

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
