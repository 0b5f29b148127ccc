package fileop

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// extraction unpacks one archive below a directory of a view. It does what
// BuildKit does with an archive in a chroot of that directory: names, links'
// targets and symbolic links on the way mean files below it.
type extraction struct {
	view  *view
	root  string
	owner *owner
	// dirs get their modification times at the end.
	dirs []*tar.Header
}

// newExtraction makes the destination, which for an archive is a directory
// however it is written.
func (o *operation) newExtraction() (*extraction, error) {
	root, _, err := rootfs.ResolveMissing(o.view, o.req.Dest)
	if err != nil {
		return nil, err
	}
	if err := o.view.mkdirAll(root, 0o755, o.owner); err != nil {
		return nil, err
	}
	n, err := o.view.look(root)
	if err != nil {
		return nil, err
	}
	// BuildKit changes its root to the directory by way of another one that it
	// makes inside and removes, whatever the archive holds.
	o.view.touch(n)
	return &extraction{view: o.view, root: root, owner: o.owner}, nil
}

// below makes a name of the chroot one of the view.
func (x *extraction) below(name string) string {
	switch {
	case name == ".":
		return x.root
	case x.root == ".":
		return name
	}
	return x.root + "/" + name
}

// chroot is the view as the archive sees it.
type chroot struct{ *extraction }

func (c chroot) Lstat(name string) (rootfs.Entry, error) {
	e, err := c.view.Lstat(c.below(name))
	e.Path = name
	return e, err
}

func (c chroot) ReadDir(name string) ([]rootfs.Entry, error) {
	entries, err := c.view.ReadDir(c.below(name))
	for i := range entries {
		_, base := splitName(entries[i].Path)
		entries[i].Path = joinName(name, base)
	}
	return entries, err
}

func (c chroot) Open(name string) (io.ReadCloser, error) { return c.view.Open(c.below(name)) }

// member unpacks one member. open gives, for a size, the function that reads
// that much of it.
func (x *extraction) member(hdr *tar.Header, open func(int64) func() (io.ReadCloser, error)) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	clean := path.Clean(hdr.Name)
	if clean == "." {
		return nil // the destination stays as it is
	}
	name := cleanName(clean)
	if name == "." {
		// "/" and ".." are the destination by another name and do change it.
		if hdr.Typeflag != tar.TypeDir {
			return &fs.PathError{Op: "remove", Path: "/", Err: syscall.EBUSY}
		}
		n, err := x.view.look(x.root)
		if err != nil {
			return err
		}
		x.dirs = append(x.dirs, hdr)
		n.changed = true
		x.metadata(n.ino, hdr)
		return nil
	}
	dir, base := splitName(name)
	dir, err := x.parent(dir)
	if err != nil {
		return err
	}
	return x.create(hdr, joinName(dir, base), open)
}

// parent follows the links in a member's directory and makes what is missing.
func (x *extraction) parent(dir string) (string, error) {
	resolved, err := rootfs.Resolve(chroot{x}, dir, true)
	if err == nil {
		e, err := (chroot{x}).Lstat(resolved)
		if err == nil && !e.IsDir() {
			err = &fs.PathError{Op: "open", Path: "/" + x.below(dir), Err: syscall.ENOTDIR}
		}
		return resolved, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	// Nothing is made behind a symbolic link that leads nowhere.
	up, base := splitName(dir)
	if up, err = x.parent(up); err != nil {
		return "", err
	}
	name := joinName(up, base)
	if _, lerr := (chroot{x}).Lstat(name); lerr == nil {
		return "", &fs.PathError{Op: "mkdir", Path: "/" + x.below(name), Err: fs.ErrNotExist}
	}
	n, err := x.view.mkdir(x.below(name), 0o755)
	if err != nil {
		return "", err
	}
	n.ino.UID, n.ino.GID = 0, 0 // whatever --chown says
	return name, nil
}

// create puts a member in its place, of which the directory exists.
func (x *extraction) create(hdr *tar.Header, name string, open func(int64) func() (io.ReadCloser, error)) error {
	target := x.below(name)
	there, err := x.view.look(target)
	if err != nil {
		return err
	}
	if there != nil && (!there.ino.IsDir() || hdr.Typeflag != tar.TypeDir) {
		if err := x.view.remove(target); err != nil {
			return err
		}
		there = nil
	}
	ino := &inode{Entry: rootfs.Entry{}}
	switch hdr.Typeflag {
	case tar.TypeDir:
		x.dirs = append(x.dirs, hdr)
		if there == nil {
			if there, err = x.view.mkdir(target, 0); err != nil {
				return err
			}
		}
		there.changed = true
		x.metadata(there.ino, hdr)
		return nil
	case tar.TypeLink:
		return x.link(hdr, target)
	case tar.TypeReg:
		ino.Kind, ino.Size = rootfs.Regular, hdr.Size
		ino.open = open(hdr.Size)
	case tar.TypeSymlink:
		ino.Kind, ino.Target = rootfs.Symlink, hdr.Linkname
	case tar.TypeFifo:
		ino.Kind = rootfs.Fifo
	case tar.TypeChar, tar.TypeBlock:
		ino.Kind = rootfs.CharDevice
		if hdr.Typeflag == tar.TypeBlock {
			ino.Kind = rootfs.BlockDevice
		}
		ino.Major, ino.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
	default:
		return fmt.Errorf("unhandled tar header type %d", hdr.Typeflag)
	}
	x.metadata(ino, hdr)
	_, err = x.view.put(target, ino)
	return err
}

// link makes a member one more name of a file, which may have been in the
// destination before.
func (x *extraction) link(hdr *tar.Header, target string) error {
	old, err := rootfs.Resolve(chroot{x}, hdr.Linkname, false)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", hdr.Linkname, err)
	}
	n, err := x.view.look(x.below(old))
	if err != nil {
		return err
	}
	if n.ino.IsDir() {
		return fmt.Errorf("hard link to %s: %w", hdr.Linkname, syscall.EPERM)
	}
	// An overlay copies the file up: other names that it has below stay apart.
	x.view.copyUp(n, x.below(old))
	if _, err := x.view.put(target, n.ino); err != nil {
		return err
	}
	if n.ino.Kind == rootfs.Symlink {
		n.ino.UID, n.ino.GID = hdr.Uid, hdr.Gid
		x.owner.apply(&n.ino.Entry)
		return nil
	}
	x.metadata(n.ino, hdr)
	return nil
}

// metadata gives a file what its header says. Giving a file to an owner takes
// its capabilities, and the header may give them back.
func (x *extraction) metadata(ino *inode, hdr *tar.Header) {
	ino.UID, ino.GID = hdr.Uid, hdr.Gid
	x.owner.apply(&ino.Entry)
	ino.Mode = 0o777
	if ino.Kind != rootfs.Symlink {
		ino.Mode = uint32(hdr.Mode) & rootfs.ModeMask
	}
	ino.ModTime = boundTime(hdr.ModTime)
	xattrs := maps.Clone(ino.Xattrs)
	if !ino.IsDir() {
		delete(xattrs, rootfs.XattrCapability)
	}
	for key, value := range hdr.PAXRecords {
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			if xattrs == nil {
				xattrs = map[string]string{}
			}
			xattrs[attr] = value
		}
	}
	if len(xattrs) == 0 {
		xattrs = nil
	}
	ino.Xattrs = xattrs
}

// finish sets the directories' times, which members below them changed.
func (x *extraction) finish() error {
	for _, hdr := range x.dirs {
		name, err := rootfs.Resolve(chroot{x}, cleanName(hdr.Name), true)
		if err != nil {
			return fmt.Errorf("set times of %s: %w", hdr.Name, err)
		}
		n, err := x.view.look(x.below(name))
		if err != nil {
			return err
		}
		n.ino.ModTime = boundTime(hdr.ModTime)
		n.changed = true
	}
	return nil
}

// boundTime replaces times before 1970 and after 2262 by the beginning of 1970.
func boundTime(t time.Time) time.Time {
	if epoch := time.Unix(0, 0); t.Before(epoch) || t.After(time.Unix(0, 1<<63-1)) {
		return epoch
	}
	return t
}
