package rootfs

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// entryOf translates what stat says. Links, targets and attributes are added
// by who knows the directory.
func entryOf(name string, st *unix.Stat_t) Entry {
	e := Entry{
		Path:    name,
		Mode:    st.Mode & ModeMask,
		UID:     int(st.Uid),
		GID:     int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Kind = Directory
	case unix.S_IFLNK:
		e.Kind = Symlink
	case unix.S_IFIFO:
		e.Kind = Fifo
	case unix.S_IFSOCK:
		e.Kind = Socket
	case unix.S_IFCHR:
		e.Kind = CharDevice
	case unix.S_IFBLK:
		e.Kind = BlockDevice
	default:
		e.Kind = Regular
		e.Size = st.Size
	}
	if e.Kind == CharDevice || e.Kind == BlockDevice {
		e.Major, e.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	}
	return e
}

// fileType is the inverse of entryOf for Kind.
func fileType(k Kind) uint32 {
	switch k {
	case Directory:
		return unix.S_IFDIR
	case Symlink:
		return unix.S_IFLNK
	case Fifo:
		return unix.S_IFIFO
	case Socket:
		return unix.S_IFSOCK
	case CharDevice:
		return unix.S_IFCHR
	case BlockDevice:
		return unix.S_IFBLK
	}
	return unix.S_IFREG
}

// getXattr returns one extended attribute, "" with ok false when the file or
// the file system has none.
func getXattr(get func(buf []byte) (int, error)) (value string, ok bool, err error) {
	var small [256]byte
	buf := small[:]
	for {
		n, err := get(buf)
		switch err {
		case nil:
			return string(buf[:n]), true, nil
		case unix.EINTR:
		case unix.ERANGE:
			n, err := get(nil)
			if err != nil && err != unix.EINTR {
				return "", false, err
			}
			buf = make([]byte, n+64)
		case unix.ENODATA, unix.ENOTSUP, unix.ENOENT:
			return "", false, nil
		default:
			return "", false, err
		}
	}
}

func listXattrs(path string) ([]string, error) {
	list, ok, err := getXattr(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if err != nil || !ok || list == "" {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(list, "\x00"), "\x00"), nil
}
