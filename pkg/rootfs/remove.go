package rootfs

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Remove takes away a file, or a directory with all it holds. Symbolic links
// are removed, never followed. It is no error when there is nothing.
func (r *Root) Remove(name string) error {
	d, base, err := r.parent(name)
	if isMissing(err) || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return pathError("remove", name, err)
	}
	if base == "." {
		return pathError("remove", name, syscall.EBUSY)
	}
	return pathError("remove", name, r.removeAt(d.fd, base))
}

// RemoveChildren empties a directory but for the files that keep reports, given
// by their canonical names; nil keeps none. A directory goes when nothing in it
// was kept and it is not kept itself. It is no error when there is no such
// directory.
func (r *Root) RemoveChildren(name string, keep func(name string) bool) error {
	d, base, err := r.parent(name)
	if isMissing(err) || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return pathError("remove", name, err)
	}
	canonical := joinName(d.name, base)
	if base == "." {
		canonical = "."
	}
	_, err = emptyDir(d.fd, base, canonical, keep)
	r.forget()
	if err == unix.ENOTDIR || err == unix.ELOOP {
		err = nil // a symbolic link or another file
	}
	return pathError("remove", name, err)
}

// removeAt removes base from an open directory.
func (r *Root) removeAt(dirfd int, base string) error {
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		// Kept directories may lie below. dirfd is one of them: it stays open
		// until the caller is done with it.
		defer r.forgetBut(dirfd)
		return removeTree(dirfd, base)
	case unix.S_IFLNK:
		defer r.forgetBut(dirfd)
	}
	return ignoringENOENT(unix.Unlinkat(dirfd, base, 0))
}

// forgetBut is forget for a caller that still uses one of the descriptors.
func (r *Root) forgetBut(dirfd int) {
	for name, d := range r.dirs {
		if d.fd != dirfd {
			unix.Close(d.fd)
			delete(r.dirs, name)
		}
	}
}

func removeTree(dirfd int, base string) error {
	err := unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR)
	if err != unix.ENOTEMPTY && err != unix.EEXIST && err != unix.EACCES {
		return ignoringENOENT(err)
	}
	if _, err := emptyDir(dirfd, base, "", nil); err != nil {
		return err
	}
	return ignoringENOENT(unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR))
}

// emptyDir removes what the directory base of dirfd holds; name is its
// canonical name, of use only to keep. kept tells whether something stayed.
func emptyDir(dirfd int, base, name string, keep func(string) bool) (kept bool, err error) {
	fd, err := retryFD(func() (int, error) {
		return unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err == unix.EACCES && unix.Fchmodat(dirfd, base, 0o700, 0) == nil {
		fd, err = unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	names, err := readNames(fd)
	if err != nil {
		return false, err
	}
	for _, c := range names {
		full := joinName(name, c)
		if keep == nil {
			err := unix.Unlinkat(fd, c, 0)
			if err == unix.EACCES {
				// Our own directory without write permission.
				if unix.Fchmod(fd, 0o700) == nil {
					err = unix.Unlinkat(fd, c, 0)
				}
			}
			if err == unix.EISDIR || err == unix.EPERM {
				err = removeTree(fd, c)
			}
			if ignoringENOENT(err) != nil {
				return false, fmt.Errorf("%s: %w", c, err)
			}
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(fd, c, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if err == unix.ENOENT {
				continue
			}
			return false, err
		}
		stays := keep(full)
		flags := 0
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			below, err := emptyDir(fd, c, full, keep)
			if err != nil {
				return false, err
			}
			stays = stays || below
			flags = unix.AT_REMOVEDIR
		}
		if stays {
			kept = true
			continue
		}
		if err := ignoringENOENT(unix.Unlinkat(fd, c, flags)); err != nil {
			return false, fmt.Errorf("%s: %w", full, err)
		}
	}
	return kept, nil
}

func ignoringENOENT(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}
