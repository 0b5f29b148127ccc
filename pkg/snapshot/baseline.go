package snapshot

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// ScanOptions say how a directory is recorded. The zero value records all files
// of the file system that the directory is mounted with.
type ScanOptions struct {
	// Exclude leaves out files, and directories with all they hold, by name:
	// they are neither looked at nor reported. It is called concurrently.
	Exclude func(name string) bool
	// Overrides believes rootfs.OverrideXattr, as a rootfs.Root notes it.
	Overrides bool
	// SameContent tells whether a regular file's bytes, which now reads, are
	// those that it had when the Baseline was taken. It is asked about files
	// that were touched while their size and time stayed the same, and whose
	// time has no fraction of a second, as those from layers: they may be just
	// as they were (a chown to the same owner), or rewritten and given their
	// time back. Nil counts all of them as changed: nothing is lost then, but
	// a layer may hold files that BuildKit would have left out.
	SameContent func(ctx context.Context, name string, now func() (io.ReadCloser, error)) (bool, error)
}

// Baseline is the record of a directory at one moment. It takes 56 bytes for
// each file, and the lengths of the file's name, link target and capability.
//
// Places where something else is mounted are recorded as such, and neither they
// nor what lies below are ever reported.
type Baseline struct {
	path string
	opts ScanOptions
	root *dirRecord
}

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

// lookup finds the record of a name that is not the root's.
func (b *Baseline) lookup(name string) (*dirRecord, int, bool) {
	d := b.root
	for {
		c, rest, more := strings.Cut(name, "/")
		i, ok := d.find(c)
		if !ok || !more {
			return d, i, ok
		}
		if d = d.sub(i); d == nil {
			return nil, 0, false
		}
		name = rest
	}
}

// Take records the directory at path; symbolic links in path are followed.
//
// Nothing may change in the directory while it is recorded. Take returns when
// the tick of the clock in which it looked is over, some milliseconds later: a
// file changed afterwards has another time than the one recorded.
func Take(ctx context.Context, path string, opts ScanOptions) (*Baseline, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("recording %s: %w", path, err)
	}
	b := &Baseline{path: abs, opts: opts}
	if err := b.scan(ctx, nil); err != nil {
		return nil, fmt.Errorf("recording %s: %w", path, err)
	}
	return b, nil
}

func join(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}
