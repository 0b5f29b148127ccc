package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The marks of a directory that hides those of the same name in lower layers.
const (
	OpaqueTrusted = "trusted.overlay.opaque" // overlayfs mounted by root
	OpaqueUser    = "user.overlay.opaque"    // overlayfs mounted with userxattr
)

// Union is a Reader over a stack of directories as overlayfs merges them: a
// file hides what lower directories have at its name, directories merge, a
// character device 0:0 is a whiteout, and a directory with a mark of opaqueness
// hides what lower ones hold. Redirects and files without data ("metacopy")
// are not understood; mounts have to be made with these features off.
//
// The directories must not change while a Union is open over them: it
// remembers which of them hold what.
type Union struct {
	dirs []*Dir // lowest first
	mu   sync.Mutex
	seen map[string][]int // a directory's name → those that make it up, highest first
}

var _ Reader = (*Union)(nil)

// OpenUnion opens directories of the host, the lowest first, as the layers of
// an image are listed. opts holds for each of them. The caller closes it.
func OpenUnion(paths []string, opts DirOptions) (*Union, error) {
	u := &Union{seen: map[string][]int{}}
	if len(paths) == 0 {
		return nil, errors.New("a union needs at least one directory")
	}
	for _, p := range paths {
		d, err := OpenDir(p, opts)
		if err != nil {
			u.Close()
			return nil, err
		}
		u.dirs = append(u.dirs, d)
	}
	return u, nil
}

// Close releases the directories.
func (u *Union) Close() error {
	var errs []error
	for _, d := range u.dirs {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// parts returns the directories that make up a merged one, highest first.
// What is missing or no directory gives fs.ErrNotExist or syscall.ENOTDIR.
func (u *Union) parts(name string) ([]int, error) {
	u.mu.Lock()
	p, ok := u.seen[name]
	u.mu.Unlock()
	if ok {
		return p, nil
	}
	var above []int
	if name == "." {
		for i := len(u.dirs) - 1; i >= 0; i-- {
			above = append(above, i)
		}
	} else {
		parent, _ := splitName(name)
		var err error
		if above, err = u.parts(parent); err != nil {
			return nil, err
		}
	}
	for _, i := range above {
		e, err := u.dirs[i].Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if e.Kind != Directory {
			if len(p) == 0 && !isWhiteout(e) {
				return nil, syscall.ENOTDIR
			}
			break
		}
		p = append(p, i)
		opaque, err := u.dirs[i].opaque(name)
		if err != nil {
			return nil, err
		}
		if opaque {
			break
		}
	}
	if len(p) == 0 {
		return nil, fs.ErrNotExist
	}
	u.mu.Lock()
	u.seen[name] = p
	u.mu.Unlock()
	return p, nil
}

func isWhiteout(e Entry) bool {
	return e.Kind == CharDevice && e.Major == 0 && e.Minor == 0
}

// find returns the entry at name and the directory that it is in.
func (u *Union) find(name string) (Entry, *Dir, error) {
	if !validName(name) {
		return Entry{}, nil, fs.ErrInvalid
	}
	parent, _ := splitName(name)
	above, err := u.parts(parent)
	if err == syscall.ENOTDIR {
		err = fs.ErrNotExist // see Reader: nothing lies below what is no directory
	}
	if err != nil {
		return Entry{}, nil, err
	}
	for _, i := range above {
		e, err := u.dirs[i].Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Entry{}, nil, err
		}
		if isWhiteout(e) {
			break
		}
		return u.mark(e, i), u.dirs[i], nil
	}
	return Entry{}, nil, fs.ErrNotExist
}

// mark finishes an entry of directory i: links are told apart by directory,
// whose files may have equal inode numbers, and the marks of overlayfs are no
// part of the tree.
func (u *Union) mark(e Entry, i int) Entry {
	if e.Link != 0 && u.dirs[i].dev != u.dirs[0].dev {
		e.Link ^= u.dirs[i].dev * 0x9e3779b97f4a7c15
	}
	for k := range e.Xattrs {
		if strings.HasPrefix(k, "trusted.overlay.") || strings.HasPrefix(k, "user.overlay.") {
			kept := map[string]string{}
			for k, v := range e.Xattrs {
				if !strings.HasPrefix(k, "trusted.overlay.") && !strings.HasPrefix(k, "user.overlay.") {
					kept[k] = v
				}
			}
			if e.Xattrs = kept; len(kept) == 0 {
				e.Xattrs = nil
			}
			break
		}
	}
	return e
}

// Lstat implements Reader.
func (u *Union) Lstat(name string) (Entry, error) {
	e, _, err := u.find(name)
	return e, pathError("lstat", name, err)
}

// ReadDir implements Reader.
func (u *Union) ReadDir(name string) ([]Entry, error) {
	if !validName(name) {
		return nil, pathError("readdir", name, fs.ErrInvalid)
	}
	parts, err := u.parts(name)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	var all []Entry
	taken := map[string]bool{}
	for n, i := range parts {
		entries, err := u.dirs[i].ReadDir(name)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if taken[e.Path] {
				continue
			}
			if n < len(parts)-1 {
				taken[e.Path] = true
			}
			if !isWhiteout(e) {
				all = append(all, u.mark(e, i))
			}
		}
	}
	if len(parts) > 1 {
		slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	}
	return all, nil
}

// Open implements Reader.
func (u *Union) Open(name string) (io.ReadCloser, error) {
	e, d, err := u.find(name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	if e.Kind == Directory {
		return nil, pathError("open", name, syscall.EISDIR)
	}
	return d.Open(name)
}

// opaque reports whether a directory hides those below it in a union.
func (d *Dir) opaque(name string) (bool, error) {
	fd, err := d.root.strict(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false, pathError("open", name, err)
	}
	defer unix.Close(fd)
	for _, attr := range []string{OpaqueTrusted, OpaqueUser} {
		v, ok, err := getXattr(func(buf []byte) (int, error) { return unix.Fgetxattr(fd, attr, buf) })
		if err != nil && err != unix.EPERM {
			return false, pathError("getxattr", name, err)
		}
		if ok && v == "y" {
			return true, nil
		}
	}
	return false, nil
}
