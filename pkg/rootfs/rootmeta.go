package rootfs

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// The order matters: a change of owner clears setuid bits and capabilities, so
// mode and attributes come after it, and the time comes last.

// setByFD gives an open regular file or directory its metadata. real is the
// kind that the file has, which is not e.Kind for a placeholder.
func (r *Root) setByFD(fd int, e Entry, real Kind) error {
	if r.opts.Owners == OwnExact {
		if err := unix.Fchown(fd, e.UID, e.GID); err != nil {
			return ownerError(e, err)
		}
	}
	set := func(attr, value string) error {
		err := unix.Fsetxattr(fd, attr, []byte(value), 0)
		if err == unix.EACCES && unix.Fchmod(fd, 0o700) == nil {
			// A directory that was there, closed to its own owner.
			err = unix.Fsetxattr(fd, attr, []byte(value), 0)
		}
		return err
	}
	del := func(attr string) { _ = unix.Fremovexattr(fd, attr) }
	if err := r.setXattrs(e, real, set, del); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, e.Mode&ModeMask); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return setTimeFD(fd, e.ModTime)
}

// setByName does the same for a file that is not open, below an open directory.
func (r *Root) setByName(dirfd int, base string, e Entry, real Kind) error {
	if r.opts.Owners == OwnExact {
		if err := unix.Fchownat(dirfd, base, e.UID, e.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return ownerError(e, err)
		}
	}
	p := procPath(dirfd, base)
	set := func(attr, value string) error { return unix.Lsetxattr(p, attr, []byte(value), 0) }
	del := func(attr string) { _ = unix.Lremovexattr(p, attr) }
	if err := r.setXattrs(e, real, set, del); err != nil {
		return err
	}
	if real != Symlink {
		if err := chmodAt(dirfd, base, e.Mode&ModeMask); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	return setTime(dirfd, base, e.ModTime)
}

// chmodAt changes the mode of the file itself. fchmodat(2) would follow a
// symbolic link that somebody put in the file's place, so the file is pinned
// first; the path through /proc leads to what is pinned.
func chmodAt(dirfd int, base string, mode uint32) error {
	fd, err := retryFD(func() (int, error) { return unix.Openat(dirfd, base, pathOnly, 0) })
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return unix.Chmod("/proc/self/fd/"+itoa(fd), mode)
}

func ownerError(e Entry, err error) error {
	if err == unix.EINVAL {
		return fmt.Errorf("chown to %d:%d: %w (the id is not mapped in this user namespace; it needs more subordinate ids in /etc/subuid and /etc/subgid)", e.UID, e.GID, err)
	}
	return fmt.Errorf("chown to %d:%d: %w", e.UID, e.GID, err)
}

func (r *Root) setXattrs(e Entry, real Kind, set func(attr, value string) error, del func(attr string)) error {
	if real == Directory || real == Regular {
		o := Override{UID: e.UID, GID: e.GID, Mode: e.Mode & ModeMask, Kind: e.Kind, Major: e.Major, Minor: e.Minor}
		foreign := r.opts.Owners == OwnRecorded && (e.UID != r.uid || e.GID != r.gid)
		switch {
		case foreign || e.Kind != real:
			if err := set(OverrideXattr, o.String()); err != nil {
				return fmt.Errorf("noting owner and type in %s: %w", OverrideXattr, err)
			}
		case r.opts.Owners == OwnRecorded:
			del(OverrideXattr) // of a directory that is written over
		}
	}
	for attr, value := range e.Xattrs {
		if !carried(attr) {
			continue
		}
		err := set(attr, value)
		switch {
		case err == nil || err == unix.ENOTSUP:
		case err == unix.EPERM && attr == XattrCapability:
			if real != Regular {
				continue // means nothing there
			}
			if err := set(capabilityXattr, value); err != nil {
				return fmt.Errorf("noting file capabilities in %s: %w", capabilityXattr, err)
			}
		case err == unix.EPERM && (strings.HasPrefix(attr, "security.") || real != Regular && real != Directory):
		default:
			return fmt.Errorf("setting extended attribute %s: %w", attr, err)
		}
	}
	return nil
}

// carried tells attributes of a file from marks that a file system or a Root
// put there and that mean nothing in another tree, or something wrong.
func carried(attr string) bool {
	switch {
	case strings.HasPrefix(attr, "trusted."), strings.HasPrefix(attr, "user.overlay."),
		strings.HasPrefix(attr, "user.cooper."):
		return false
	}
	return true
}
