package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// Form is what becomes of a layer's whiteouts in a directory.
type Form uint8

const (
	// Plain removes what is whited out: the directory holds the layers below.
	Plain Form = iota
	// OverlayTrusted and OverlayUser make overlayfs's marks: the directory
	// holds this layer alone and is to be one of overlayfs's lower directories.
	// They differ in the attribute for opaque directories, the second is for
	// mounts with the option userxattr.
	OverlayTrusted
	OverlayUser
)

// ErrNeedsLower is wrapped by errors about layers that can't be unpacked into a
// directory of their own without UnpackOptions.Lower.
var ErrNeedsLower = errors.New("the layer can't be unpacked without those below it")

// UnpackOptions say how Unpack works. The zero value applies a whole layer on
// top of what is in the directory.
type UnpackOptions struct {
	Form Form
	// Skip leaves out entries, and whiteouts of entries, by their name in the
	// layer and by the name that it resolves to. It must hold for all that lies
	// below a name as well. A hard link to a file that was left out is an error.
	Skip func(name string) bool
	// Lower is, in an overlay form, the merged tree of the layers below. It is
	// needed where a layer brings files but not their directories: these lie
	// where the links in Lower say and take Lower's metadata; and where it names
	// files of Lower in hard links, or hides all that the root holds.
	Lower rootfs.Reader
	// Implied is called in an overlay form with the name of each directory that
	// the layer does not bring although something lies below it, and for what
	// else it takes from Lower. What was unpacked is then right only above the
	// layers of Lower, and wrong if that was nil; a layer that gives no such
	// call is right above any.
	Implied func(name string)
}

// Unpack applies a layer to a directory. r is the uncompressed tar and is read
// to its end. Names that are absolute or hold ".." or lead through symbolic
// links mean files below the root, whatever they are; what can't be one is an
// error that wraps ErrInvalid.
//
// Directories that the layer does not describe but where it changes something
// keep their modification time; missing parents are made 0755, owned by root
// and dated 1970. After an error the directory is in no particular state.
func Unpack(ctx context.Context, r io.Reader, root *rootfs.Root, opts UnpackOptions) error {
	d, err := root.Dir(rootfs.DirOptions{})
	if err != nil {
		return err
	}
	defer d.Close()
	u := unpacker{root: root, dir: d, times: map[string]time.Time{}}
	if opts.Form == Plain {
		return apply(ctx, r, &plain{unpacker: u, own: names{}}, opts.Skip, nil)
	}
	o := &overlay{unpacker: u, lower: opts.Lower, implied: opts.Implied, attr: rootfs.OpaqueTrusted}
	if opts.Form == OverlayUser {
		o.attr = rootfs.OpaqueUser
	}
	if o.implied == nil {
		o.implied = func(string) {}
	}
	return apply(ctx, r, o, opts.Skip, nil)
}

// unpacker is what both forms have in common.
type unpacker struct {
	root *rootfs.Root
	dir  *rootfs.Dir
	// times are those that directories shall have in the end: writing files
	// changes them meanwhile.
	times map[string]time.Time
}

func (u *unpacker) put(e rootfs.Entry, content io.Reader) error {
	if e.Kind == rootfs.Directory {
		u.times[e.Path] = e.ModTime
	} else {
		delete(u.times, e.Path)
	}
	return u.root.Write(e, content)
}

func (u *unpacker) link(old string, e rootfs.Entry) error {
	delete(u.times, e.Path)
	from, err := u.root.Canonical(old)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", old, err)
	}
	if err := u.root.Link(from, e.Path); err != nil {
		return err
	}
	return u.root.SetMeta(e)
}

// touch notes the time of a directory before it is changed.
func (u *unpacker) touch(dir string) error {
	if _, ok := u.times[dir]; ok {
		return nil
	}
	e, err := u.dir.Lstat(dir)
	if err != nil {
		return err
	}
	u.times[dir] = e.ModTime
	return nil
}

func (u *unpacker) restoreTimes() error {
	for name, t := range u.times {
		// The layer may have replaced it since, or a parent by a link to elsewhere.
		e, err := u.dir.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !e.IsDir() {
			continue
		}
		if err != nil {
			return err
		}
		if err := u.root.Chtimes(name, t); err != nil {
			return err
		}
	}
	return nil
}

// plain removes what is whited out.
type plain struct {
	unpacker
	own names // what this layer brought; a whiteout is for those below
}

func (p *plain) place(name string) (string, error) {
	placed, err := p.root.Canonical(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = p.root.MkdirParents(name, func(dir string) error {
			if err := p.touch(path.Dir(dir)); err != nil {
				return err
			}
			p.times[dir] = time.Unix(0, 0)
			p.own.add(dir)
			return nil
		})
		if err == nil {
			placed, err = p.root.Canonical(name)
		}
	}
	if err != nil {
		return "", err
	}
	return placed, p.touch(path.Dir(placed))
}

func (p *plain) put(e rootfs.Entry, content io.Reader) error {
	p.own.add(e.Path)
	return p.unpacker.put(e, content)
}

func (p *plain) link(old string, e rootfs.Entry) error {
	p.own.add(e.Path)
	return p.unpacker.link(old, e)
}

func (p *plain) whiteout(name string) error {
	if p.own.has(name) {
		return p.opaque(name)
	}
	delete(p.times, name)
	return p.root.Remove(name)
}

func (p *plain) opaque(name string) error { return p.root.RemoveChildren(name, p.own.has) }

func (p *plain) finish() error { return p.restoreTimes() }
