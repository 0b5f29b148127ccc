package rootfs

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// OwnerPolicy says how a Root gives files their owners.
type OwnerPolicy uint8

const (
	// OwnExact changes each file's owner to what the Entry says; where that is
	// not allowed the write fails.
	OwnExact OwnerPolicy = iota
	// OwnRecorded leaves all files to the process and notes a differing owner
	// in OverrideXattr. Symbolic links, fifos, sockets and devices can't carry
	// that attribute: their owner is lost.
	OwnRecorded
)

// RootOptions say how a Root writes.
type RootOptions struct {
	Owners OwnerPolicy
}

// Root is the guarded handle through which all writes to a tree on disk go.
//
// Names may be absolute, and may lead through symbolic links in the tree: all
// components but the last are resolved as if the process had changed its root
// to the directory, the last one is never followed. No call reads or changes
// anything outside of it, whatever the names and the links in the tree, also
// when another process exchanges files for links while it works.
//
// A Root is used by one goroutine at a time; several Roots may share a
// directory as long as they don't write the same files.
type Root struct {
	path string
	opts RootOptions
	root beneath
	dirs map[string]*openDir // by the parent's name as asked for
	age  uint64
	uid  int
	gid  int
	buf  []byte
}

// openDir is a directory kept open, since layers list its files one after the
// other.
type openDir struct {
	fd   int
	name string // without links
	used uint64
}

// maxOpenDirs bounds the descriptors that a Root holds.
const maxOpenDirs = 64

// OpenRoot opens a directory of the host for writing a tree into it; symbolic
// links in path are followed. The caller closes it.
func OpenRoot(path string, opts RootOptions) (*Root, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	r := &Root{path: abs, opts: opts, dirs: map[string]*openDir{}, uid: os.Geteuid(), gid: os.Getegid()}
	if err := r.root.init(abs); err != nil {
		return nil, err
	}
	return r, nil
}

// Close releases the directory.
func (r *Root) Close() error {
	r.forget()
	return pathError("close", r.path, unix.Close(r.root.fd))
}

// HostPath is the directory's absolute path on the host.
func (r *Root) HostPath() string { return r.path }

// Dir opens a Reader over the same directory. Overrides is set in opts, since a
// Root wrote it. The caller closes it; it may outlive r.
func (r *Root) Dir(opts DirOptions) (*Dir, error) {
	fd, err := unix.FcntlInt(uintptr(r.root.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, pathError("open", r.path, err)
	}
	opts.Overrides = true
	d := &Dir{path: r.path, opts: opts}
	d.root.fd = fd
	if err := d.stat(); err != nil {
		return nil, err
	}
	return d, nil
}

// Canonical returns name with all symbolic links among its parents resolved.
// The parents must exist; name itself need not.
func (r *Root) Canonical(name string) (string, error) {
	d, base, err := r.parent(name)
	if err != nil {
		return "", pathError("resolve", name, err)
	}
	if base == "." {
		return ".", nil
	}
	return joinName(d.name, base), nil
}

// parent opens the directory that holds name and returns name's last
// component, "." for the root itself. The directory stays open at least until
// one more was asked for.
func (r *Root) parent(name string) (*openDir, string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return nil, "", fs.ErrInvalid
	}
	name = strings.Trim(name, "/")
	dir, base := splitName(name)
	if base == "" || base == "." || base == ".." {
		// Not a name that something can be made under, but an existing directory.
		d, err := r.dir(name)
		if err != nil {
			return nil, "", err
		}
		if d.name == "." {
			return d, ".", nil
		}
		dir, base = splitName(d.name)
	}
	d, err := r.dir(dir)
	return d, base, err
}

func (r *Root) dir(name string) (*openDir, error) {
	r.age++
	if d, ok := r.dirs[name]; ok {
		d.used = r.age
		return d, nil
	}
	fd, canonical, err := r.root.dirInRoot(name)
	if err != nil {
		return nil, err
	}
	if len(r.dirs) >= maxOpenDirs {
		r.evict()
	}
	d := &openDir{fd: fd, name: canonical, used: r.age}
	r.dirs[name] = d
	return d, nil
}

// evict closes all but the last used half; no two share a value of used.
func (r *Root) evict() {
	cut := r.age - maxOpenDirs/2
	for name, d := range r.dirs {
		if d.used < cut {
			unix.Close(d.fd)
			delete(r.dirs, name)
		}
	}
}

// forget closes all kept directories. It is called whenever a directory or a
// symbolic link goes away: names may mean something else afterwards.
func (r *Root) forget() {
	for _, d := range r.dirs {
		unix.Close(d.fd)
	}
	clear(r.dirs)
}

// MkdirParents makes the directories that name lies in as far as they are
// missing, 0755 and owned by root, and calls making, if not nil, with the
// name of each just before. Symbolic links on the way are followed inside the tree; what lies at
// the end of a dangling one is made too. A parent that is something else gives
// syscall.ENOTDIR.
func (r *Root) MkdirParents(name string, making func(dir string) error) error {
	dir, _ := splitName(strings.Trim(name, "/"))
	if _, err := r.dir(dir); err == nil {
		return nil
	} else if !isMissing(err) {
		return pathError("mkdir", dir, err)
	}
	d, err := r.Dir(DirOptions{})
	if err != nil {
		return err
	}
	defer d.Close()
	target, _, err := ResolveMissing(d, dir)
	if err != nil {
		return err
	}
	for i := 0; i <= len(target); i++ {
		if i < len(target) && target[i] != '/' {
			continue
		}
		sub := target[:i]
		if _, err := d.Lstat(sub); err == nil {
			continue
		}
		if making != nil {
			if err := making(sub); err != nil {
				return err
			}
		}
		if err := r.Write(impliedDir(sub), nil); err != nil {
			return err
		}
	}
	return nil
}
