package rootfs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// DirOptions say how a Dir reads. The zero value reads all files as they are
// on the disk, with security.capability as the only extended attribute.
type DirOptions struct {
	// AllXattrs reads every extended attribute that the process may see.
	AllXattrs bool
	// Overrides believes OverrideXattr. It is meant for trees that a Root
	// wrote: elsewhere anybody can set that attribute.
	Overrides bool
	// Skip leaves out files, and directories with all they hold, by name: they
	// don't exist for the reader. It is called concurrently. The root is never
	// skipped.
	Skip func(name string) bool
}

// Dir is a Reader over a directory of the host. It sees changes made to the
// directory at once.
//
// Names of one file carry the same Entry.Link, made from device and inode, as
// long as the file has more than one; the others may lie outside the tree.
type Dir struct {
	path string
	opts DirOptions
	root beneath
	dev  uint64
}

var _ Reader = (*Dir)(nil)

// OpenDir opens a directory of the host for reading; symbolic links in path
// are followed. The caller closes it when no other call is under way.
func OpenDir(path string, opts DirOptions) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	d := &Dir{path: abs, opts: opts}
	if err := d.root.init(abs); err != nil {
		return nil, err
	}
	if err := d.stat(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Dir) stat() error {
	var st unix.Stat_t
	if err := unix.Fstat(d.root.fd, &st); err != nil {
		unix.Close(d.root.fd)
		return &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	d.dev = uint64(st.Dev)
	// Without it capabilities would silently count as absent.
	if err := unix.Access("/proc/self/fd", unix.X_OK); err != nil {
		unix.Close(d.root.fd)
		return fmt.Errorf("reading extended attributes of %s needs /proc: %w", d.path, err)
	}
	return nil
}

// Close releases the directory. Files that were opened stay open.
func (d *Dir) Close() error {
	return pathError("close", d.path, unix.Close(d.root.fd))
}

// HostPath is the directory's absolute path on the host.
func (d *Dir) HostPath() string { return d.path }

// Plain reports whether the directory's files are on the disk just as Dir
// shows them: nothing is skipped or overridden.
func (d *Dir) Plain() bool { return d.opts.Skip == nil && !d.opts.Overrides }

// skipped looks at all parents too: below a skipped directory nothing exists.
func (d *Dir) skipped(name string) bool {
	if d.opts.Skip == nil || name == "." {
		return false
	}
	for i, c := range name {
		if c == '/' && d.opts.Skip(name[:i]) {
			return true
		}
	}
	return d.opts.Skip(name)
}

// Lstat implements Reader.
func (d *Dir) Lstat(name string) (Entry, error) {
	e, err := d.lstat(name)
	if err != nil {
		return Entry{}, pathError("lstat", name, err)
	}
	return e, nil
}

func (d *Dir) lstat(name string) (Entry, error) {
	if !validName(name) {
		return Entry{}, fs.ErrInvalid
	}
	if d.skipped(name) {
		return Entry{}, fs.ErrNotExist
	}
	parent, base := splitName(name)
	if parent == "." {
		return d.entryAt(d.root.fd, base, name)
	}
	fd, err := d.root.strict(parent, pathOnly|unix.O_DIRECTORY)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		err = unix.ENOENT
	}
	if err != nil {
		return Entry{}, err
	}
	defer unix.Close(fd)
	return d.entryAt(fd, base, name)
}

// entryAt describes base in the open directory dirfd; name is its full name.
func (d *Dir) entryAt(dirfd int, base, name string) (Entry, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Entry{}, err
		}
		break
	}
	e := entryOf(name, &st)
	if st.Nlink > 1 && e.Kind != Directory {
		e.Link = st.Ino
		if uint64(st.Dev) != d.dev {
			e.Link ^= uint64(st.Dev) * 0x9e3779b97f4a7c15
		}
		if e.Link == 0 {
			e.Link = 1
		}
	}
	if e.Kind == Symlink {
		target, err := readlinkAt(dirfd, base)
		if err != nil {
			return Entry{}, err
		}
		e.Target = target
	}
	return e, d.xattrs(dirfd, base, &e)
}

func (d *Dir) xattrs(dirfd int, base string, e *Entry) error {
	keep := func(name, value string) {
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[name] = value
	}
	real := e.Kind
	p := procPath(dirfd, base)
	read := func(attr string) (string, bool, error) {
		return getXattr(func(buf []byte) (int, error) { return unix.Lgetxattr(p, attr, buf) })
	}
	if d.opts.Overrides && (real == Regular || real == Directory) {
		v, ok, err := read(OverrideXattr)
		if err != nil {
			return err
		}
		if ok {
			o, err := ParseOverride(v)
			if err != nil {
				return err
			}
			o.apply(e)
		}
		if v, ok, err = read(capabilityXattr); err != nil {
			return err
		} else if ok {
			keep(XattrCapability, v)
		}
	}
	if !d.opts.AllXattrs {
		if real != Regular {
			return nil // the kernel knows capabilities of regular files only
		}
		v, ok, err := read(XattrCapability)
		if ok {
			keep(XattrCapability, v)
		}
		return err
	}
	names, err := listXattrs(p)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == OverrideXattr || name == capabilityXattr {
			continue
		}
		v, ok, err := read(name)
		if err == unix.EACCES || err == unix.EPERM {
			continue // not for us to see
		}
		if err != nil {
			return err
		}
		if ok {
			keep(name, v)
		}
	}
	return nil
}

// ReadDir implements Reader. Files that vanish while it reads are left out.
func (d *Dir) ReadDir(name string) ([]Entry, error) {
	entries, err := d.readDir(name)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	return entries, nil
}

func (d *Dir) readDir(name string) ([]Entry, error) {
	if !validName(name) {
		return nil, fs.ErrInvalid
	}
	if d.skipped(name) {
		return nil, fs.ErrNotExist
	}
	fd, err := d.root.strict(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.ELOOP {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	names, err := readNames(fd)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(names))
	for _, base := range names {
		full := joinName(name, base)
		if d.opts.Skip != nil && d.opts.Skip(full) {
			continue
		}
		e, err := d.entryAt(fd, base, full)
		if isMissing(err) {
			continue
		}
		if err != nil {
			return nil, pathError("lstat", full, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Open implements Reader. What it returns is an *os.File, whose name is the
// file's path on the host.
func (d *Dir) Open(name string) (io.ReadCloser, error) {
	if !validName(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if d.skipped(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	// O_NONBLOCK: opening a fifo by mistake must not hang.
	fd, err := d.root.strict(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
		case unix.S_IFDIR:
			err = syscall.EISDIR
		default:
			err = fs.ErrInvalid
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.path, name)), nil
}
