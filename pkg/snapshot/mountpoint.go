package snapshot

import (
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountTest recognises files of another mount than the root's.
type mountTest struct {
	dev uint64
	// id is the root's mount, 0 where the kernel doesn't tell (before 5.8).
	id uint64
	// points are the names below the root at which something is mounted; nil
	// unless id is 0. With neither, directories of another device count.
	points map[string]bool
}

// newMountTest takes what statx said of the root directory, and its path
// without symbolic links.
func newMountTest(st *unix.Statx_t, path string) mountTest {
	m := mountTest{dev: unix.Mkdev(st.Dev_major, st.Dev_minor)}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		m.id = st.Mnt_id
		return m
	}
	prefix := strings.TrimSuffix(path, "/") + "/"
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return m // no /proc, no list: devices have to do
	}
	m.points = map[string]bool{}
	for _, info := range infos {
		if name, ok := strings.CutPrefix(info.Mountpoint, prefix); ok {
			m.points[name] = true
		}
	}
	return m
}

// foreign reports whether something else is mounted at dir/base. Device numbers
// are the last resort: the files of one overlay mount may have several.
func (m *mountTest) foreign(st *unix.Statx_t, dir, base string) bool {
	switch {
	case m.id != 0:
		return st.Mnt_id != m.id
	case m.points != nil:
		return m.points[join(dir, base)]
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR && unix.Mkdev(st.Dev_major, st.Dev_minor) != m.dev
}
