package snapshot

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// record is what stat said of one file. Its name, and after it a link's target
// or a file's capability, are in the directory's text.
type record struct {
	ino     uint64 // mixed with the device where that is not the root's
	ctime   int64  // nanoseconds
	sec     int64
	size    int64 // a device's number; a directory's place among dirRecord.subs
	nsec    uint32
	uid     uint32
	gid     uint32
	nlink   uint32
	text    uint32
	mode    uint16 // with the type, as in stat(2)
	nameLen uint8
	flags   uint8
}

const (
	// recHidden: something is mounted here.
	recHidden uint8 = 1 << iota
	// recExtra: text goes on behind the name.
	recExtra
)

// dirRecord is a directory: its files sorted by name, and the directories
// among them.
type dirRecord struct {
	recs []record
	subs []*dirRecord
	text string
}

func (d *dirRecord) name(i int) string {
	r := &d.recs[i]
	return d.text[r.text : r.text+uint32(r.nameLen)]
}

// extra is a symbolic link's target or a file's capability.
func (d *dirRecord) extra(i int) string {
	if d.recs[i].flags&recExtra == 0 {
		return ""
	}
	start, end := d.recs[i].text+uint32(d.recs[i].nameLen), uint32(len(d.text))
	if i+1 < len(d.recs) {
		end = d.recs[i+1].text
	}
	return d.text[start:end]
}

// sub is what a directory holds, nil for everything else.
func (d *dirRecord) sub(i int) *dirRecord {
	if r := &d.recs[i]; r.isDir() && r.flags&recHidden == 0 {
		return d.subs[r.size]
	}
	return nil
}

// find returns the place of a name, or where it would be.
func (d *dirRecord) find(name string) (int, bool) {
	lo, hi := 0, len(d.recs)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if d.name(mid) < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(d.recs) && d.name(lo) == name
}

func (r *record) isDir() bool { return r.mode&unix.S_IFMT == unix.S_IFDIR }

func (r *record) isDevice() bool {
	t := r.mode & unix.S_IFMT
	return t == unix.S_IFCHR || t == unix.S_IFBLK
}

func (r *record) kind() rootfs.Kind {
	switch r.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return rootfs.Directory
	case unix.S_IFLNK:
		return rootfs.Symlink
	case unix.S_IFIFO:
		return rootfs.Fifo
	case unix.S_IFCHR:
		return rootfs.CharDevice
	case unix.S_IFBLK:
		return rootfs.BlockDevice
	case unix.S_IFSOCK:
		return rootfs.Socket
	}
	return rootfs.Regular
}

// untouched: the kernel gives a new ctime with each change, of the file or of
// its metadata, so none has happened.
func (r *record) untouched(o *record) bool {
	return r.ino == o.ino && r.ctime == o.ctime && r.mode == o.mode && r.sec == o.sec && r.nsec == o.nsec &&
		(r.size == o.size || r.isDir()) && r.uid == o.uid && r.gid == o.gid && r.nlink == o.nlink
}

func (d *dirRecord) facts(i int) facts {
	r := &d.recs[i]
	f := facts{
		kind: r.kind(), mode: uint32(r.mode) & rootfs.ModeMask, uid: int(r.uid), gid: int(r.gid),
		sec: r.sec, nsec: int64(r.nsec),
	}
	switch {
	case f.kind == rootfs.Regular:
		f.size, f.capability = r.size, d.extra(i)
	case f.kind == rootfs.Symlink:
		f.target = d.extra(i)
	case r.isDevice():
		f.rdev = r.size
	}
	return f
}

func (d *dirRecord) entry(i int, name string) rootfs.Entry {
	r := &d.recs[i]
	e := rootfs.Entry{
		Path: name, Kind: r.kind(), Mode: uint32(r.mode) & rootfs.ModeMask, UID: int(r.uid), GID: int(r.gid),
		ModTime: time.Unix(r.sec, int64(r.nsec)),
	}
	switch {
	case e.Kind == rootfs.Regular:
		e.Size = r.size
		if c := d.extra(i); c != "" {
			e.Xattrs = map[string]string{rootfs.XattrCapability: c}
		}
	case e.Kind == rootfs.Symlink:
		e.Target = d.extra(i)
	case r.isDevice():
		e.Major, e.Minor = unix.Major(uint64(r.size)), unix.Minor(uint64(r.size))
	}
	if r.nlink > 1 && e.Kind != rootfs.Directory {
		if e.Link = r.ino; e.Link == 0 {
			e.Link = 1
		}
	}
	return e
}

// dirBuilder collects a directory's files, in order of their names.
type dirBuilder struct {
	d    dirRecord
	text strings.Builder
}

func newDirBuilder(n int) *dirBuilder {
	return &dirBuilder{d: dirRecord{recs: make([]record, 0, n)}}
}

func (b *dirBuilder) add(r record, name, extra string) {
	r.text, r.nameLen = uint32(b.text.Len()), uint8(len(name))
	r.flags &^= recExtra
	if extra != "" {
		r.flags |= recExtra
	}
	b.text.WriteString(name)
	b.text.WriteString(extra)
	if r.isDir() && r.flags&recHidden == 0 {
		r.size = int64(len(b.d.subs))
		b.d.subs = append(b.d.subs, nil)
	}
	b.d.recs = append(b.d.recs, r)
}

func (b *dirBuilder) done() *dirRecord {
	d := b.d                                // by value: the builder is not to live on
	d.text = strings.Clone(b.text.String()) // a Builder's may be twice as long
	d.subs = slices.Clip(d.subs)
	return &d
}
