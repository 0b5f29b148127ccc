package rootfs

import (
	"fmt"
	"io"
	"syscall"

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
