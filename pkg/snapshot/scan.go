package snapshot

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// scanner walks a directory for a Baseline. Each goroutine descends by itself,
// depth first, and hands a subdirectory to a new one while there are fewer than
// there are processors.
type scanner struct {
	path      string
	opts      ScanOptions
	mount     mountTest
	overrides *rootfs.Dir // nil without ScanOptions.Overrides

	group *errgroup.Group
	ctx   context.Context
	free  chan struct{} // one token for each further goroutine

	files     atomic.Int64
	fractions atomic.Bool // a ctime with a fraction of a second was seen
	noStatx   atomic.Bool
}

// scan fills b. Where old has a file that wasn't touched since, what stat does
// not say is taken from there.
func (b *Baseline) scan(ctx context.Context, old *dirRecord) error {
	s, fd, err := newScanner(b.path, b.opts)
	if err != nil {
		return err
	}
	defer s.close()
	defer unix.Close(fd)
	s.group, s.ctx = errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) - 1 {
		s.free <- struct{}{}
	}
	s.group.Go(func() error {
		var err error
		b.root, err = s.dir(fd, ".", old)
		return err
	})
	if err := s.group.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return s.awaitTick(ctx)
}

// newScanner opens the directory that is to be walked.
func newScanner(path string, opts ScanOptions) (s *scanner, fd int, err error) {
	// Without it each file with a capability would look like one that vanished.
	if err := unix.Access("/proc/self/fd", unix.X_OK); err != nil {
		return nil, -1, fmt.Errorf("reading extended attributes needs /proc: %w", err)
	}
	s = &scanner{path: path, opts: opts, free: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if opts.Overrides {
		if s.overrides, err = rootfs.OpenDir(path, rootfs.DirOptions{Overrides: true}); err != nil {
			return nil, -1, err
		}
	}
	fd, err = openDirAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		s.close()
		return nil, -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Statx_t
	if err = s.stat(fd, "", &st); err == nil {
		real, rerr := filepath.EvalSymlinks(path)
		if rerr != nil {
			real = path
		}
		s.mount = newMountTest(&st, real)
		return s, fd, nil
	}
	unix.Close(fd)
	s.close()
	return nil, -1, &fs.PathError{Op: "stat", Path: path, Err: err}
}

func (s *scanner) close() {
	if s.overrides != nil {
		s.overrides.Close()
	}
}

// dir records an open directory.
func (s *scanner) dir(fd int, name string, old *dirRecord) (*dirRecord, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	names, err := readNames(fd)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	b := newDirBuilder(len(names))
	for _, base := range names {
		if s.opts.Exclude != nil && s.opts.Exclude(join(name, base)) {
			continue
		}
		r, extra, err := s.file(fd, name, base, old)
		if err == unix.ENOENT {
			continue // something that goes on without us; it is gone
		}
		if err != nil {
			return nil, &fs.PathError{Op: "stat", Path: join(name, base), Err: err}
		}
		b.add(r, base, extra)
	}
	d := b.done()
	s.files.Add(int64(len(d.recs)))
	for i := range d.recs {
		if r := &d.recs[i]; !r.isDir() || r.flags&recHidden != 0 {
			continue
		}
		base := d.name(i)
		full := join(name, base)
		into := &d.subs[d.recs[i].size]
		var before *dirRecord
		if old != nil {
			if j, ok := old.find(base); ok {
				before = old.sub(j)
			}
		}
		sub, err := openDirAt(fd, base, unix.O_NOFOLLOW)
		if err == unix.ENOENT {
			*into = &dirRecord{}
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: full, Err: err}
		}
		visit := func() error {
			defer unix.Close(sub)
			var err error
			*into, err = s.dir(sub, full, before)
			return err
		}
		select {
		case <-s.free:
			s.group.Go(func() error {
				defer func() { s.free <- struct{}{} }()
				return visit()
			})
		default:
			if err := visit(); err != nil {
				return nil, err
			}
		}
	}
	return d, nil
}

// file records one file of an open directory. Its full name is not made unless
// it is needed, which is seldom.
func (s *scanner) file(fd int, dir, base string, old *dirRecord) (r record, extra string, err error) {
	var st unix.Statx_t
	if err := s.stat(fd, base, &st); err != nil {
		return r, "", err
	}
	r = record{
		ino: st.Ino, ctime: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec), sec: st.Mtime.Sec, nsec: st.Mtime.Nsec,
		uid: st.Uid, gid: st.Gid, nlink: st.Nlink, mode: st.Mode,
	}
	if dev := unix.Mkdev(st.Dev_major, st.Dev_minor); dev != s.mount.dev {
		r.ino ^= dev * 0x9e3779b97f4a7c15
	}
	if st.Ctime.Nsec != 0 && !s.fractions.Load() {
		s.fractions.Store(true)
	}
	if s.mount.foreign(&st, dir, base) {
		r.flags |= recHidden
		return r, "", nil
	}
	switch r.mode & unix.S_IFMT {
	case unix.S_IFREG:
		r.size = int64(st.Size)
	case unix.S_IFCHR, unix.S_IFBLK:
		r.size = int64(unix.Mkdev(st.Rdev_major, st.Rdev_minor))
	}
	if s.overrides != nil {
		return s.overridden(r, join(dir, base))
	}
	if t := r.mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFLNK {
		return r, "", nil
	}
	if old != nil {
		if i, ok := old.find(base); ok && r.untouched(&old.recs[i]) {
			return r, old.extra(i), nil
		}
	}
	if r.mode&unix.S_IFMT == unix.S_IFLNK {
		extra, err = readlinkAt(fd, base, int(st.Size))
	} else {
		extra, err = capability(fd, base)
	}
	return r, extra, err
}

// overridden gives r what the file would be if the process had been allowed to
// make it so.
func (s *scanner) overridden(r record, full string) (record, string, error) {
	e, err := s.overrides.Lstat(full)
	if err != nil {
		if isAbsent(err) {
			err = unix.ENOENT
		}
		return r, "", err
	}
	r.mode = uint16(typeOf(e.Kind) | e.Mode)
	r.uid, r.gid = uint32(e.UID), uint32(e.GID)
	switch e.Kind {
	case rootfs.Regular:
		r.size = e.Size
		return r, e.Xattrs[rootfs.XattrCapability], nil
	case rootfs.CharDevice, rootfs.BlockDevice:
		r.size = int64(unix.Mkdev(e.Major, e.Minor))
	default:
		r.size = 0
	}
	return r, e.Target, nil
}

func typeOf(k rootfs.Kind) uint32 {
	switch k {
	case rootfs.Directory:
		return unix.S_IFDIR
	case rootfs.Symlink:
		return unix.S_IFLNK
	case rootfs.Fifo:
		return unix.S_IFIFO
	case rootfs.CharDevice:
		return unix.S_IFCHR
	case rootfs.BlockDevice:
		return unix.S_IFBLK
	case rootfs.Socket:
		return unix.S_IFSOCK
	}
	return unix.S_IFREG
}
