package snapshot

import (
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// stat describes base in the open directory fd, or fd itself for "".
func (s *scanner) stat(fd int, base string, st *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if base == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	for !s.noStatx.Load() {
		err := unix.Statx(fd, base, flags, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, st)
		switch err {
		case unix.EINTR:
		case unix.ENOSYS, unix.EPERM: // a seccomp profile older than the call
			s.noStatx.Store(true)
		default:
			return err
		}
	}
	var old unix.Stat_t
	for {
		err := unix.Fstatat(fd, base, &old, flags)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	time := func(t unix.Timespec) unix.StatxTimestamp {
		sec, nsec := t.Unix()
		return unix.StatxTimestamp{Sec: sec, Nsec: uint32(nsec)}
	}
	dev, rdev := uint64(old.Dev), uint64(old.Rdev)
	*st = unix.Statx_t{
		Mask: unix.STATX_BASIC_STATS, Mode: uint16(old.Mode), Nlink: uint32(old.Nlink), Uid: old.Uid, Gid: old.Gid,
		Ino: old.Ino, Size: uint64(old.Size), Ctime: time(old.Ctim), Mtime: time(old.Mtim),
		Dev_major: unix.Major(dev), Dev_minor: unix.Minor(dev),
		Rdev_major: unix.Major(rdev), Rdev_minor: unix.Minor(rdev),
	}
	return nil
}

func openDirAt(fd int, base string, flags int) (int, error) {
	for {
		d, err := unix.Openat(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
		if err != unix.EINTR {
			return d, err
		}
	}
}

// readNames lists an open directory, sorted.
func readNames(fd int) ([]string, error) {
	var names []string
	// Most directories fit into what a goroutine can have on its stack.
	var small [8 << 10]byte
	buf := small[:]
	for {
		n, err := unix.ReadDirent(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n <= 0:
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
		if len(buf) == len(small) && n > len(small)/2 {
			buf = make([]byte, 128<<10)
		}
	}
}

func readlinkAt(fd int, base string, size int) (string, error) {
	buf := make([]byte, max(size, 1)+1)
	for {
		n, err := unix.Readlinkat(fd, base, buf)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return "", err
		case n < len(buf):
			return string(buf[:n]), nil
		default:
			buf = make([]byte, 2*len(buf))
		}
	}
}

// capability reads security.capability of a regular file, "" where it has
// none. There is no call for it that takes a directory's descriptor on kernels
// before 6.13, hence the detour.
func capability(fd int, base string) (string, error) {
	var small [64]byte
	buf := small[:]
	p := "/proc/self/fd/" + strconv.Itoa(fd) + "/" + base
	for {
		n, err := unix.Lgetxattr(p, "security.capability", buf)
		switch err {
		case nil:
			return string(buf[:n]), nil
		case unix.EINTR:
		case unix.ERANGE:
			buf = make([]byte, 64<<10)
		case unix.ENODATA, unix.ENOTSUP:
			return "", nil
		default:
			return "", err
		}
	}
}
