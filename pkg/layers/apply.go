package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// ErrInvalid is wrapped by errors about layers that no tree can be made of.
var ErrInvalid = errors.New("invalid layer")

// sink is a tree that a layer is applied to. All names are clean; those that
// place returned have no symbolic link among their parents.
type sink interface {
	// place resolves the parents of name inside the tree and makes the missing
	// ones.
	place(name string) (string, error)
	put(e rootfs.Entry, content io.Reader) error
	// link makes e.Path a name of the file old and gives that e's metadata.
	// old is as the layer has it.
	link(old string, e rootfs.Entry) error
	// whiteout and opaque hide what lower layers have at name, or below it, and
	// nothing that this layer brought, wherever in the layer that stands.
	whiteout(name string) error
	opaque(name string) error
	// finish is called after the last entry.
	finish() error
}

// apply reads a tar to its end and applies its entries to s in order. each, if
// not nil, sees every header first.
func apply(ctx context.Context, r io.Reader, s sink, skip func(name string) bool, each func(*tar.Header)) error {
	r = &ctxReader{ctx: ctx, r: r}
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading layer: %w", err)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue // comments of git, mostly; none that layers define
		}
		if each != nil {
			each(hdr)
		}
		if err := applyOne(s, hdr, tr, skip); err != nil {
			return fmt.Errorf("applying layer: %q: %w", hdr.Name, err)
		}
	}
	if err := s.finish(); err != nil {
		return fmt.Errorf("applying layer: %w", err)
	}
	// What checks a digest does so at the end of the file, not of the tar.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("reading layer: %w", err)
	}
	return nil
}

func applyOne(s sink, hdr *tar.Header, content io.Reader, skip func(string) bool) error {
	name := cleanName(hdr.Name)
	if name == "." {
		return nil // the root's metadata is not a layer's to change
	}
	base := path.Base(name)
	hidden, isWhiteout := strings.CutPrefix(base, whiteoutPrefix)
	isOpaque := base == opaqueMarker
	if isWhiteout && !isOpaque && (hidden == "" || hidden == "." || hidden == "..") {
		return fmt.Errorf("%w: not a name to white out", ErrInvalid)
	}
	about := name // what is written or removed
	switch {
	case isOpaque:
		about = path.Dir(name)
	case isWhiteout:
		about = path.Join(path.Dir(name), hidden)
	}
	if skip != nil && skip(about) {
		return nil
	}
	placed, err := s.place(name)
	if isWhiteout && errors.Is(err, syscall.ENOTDIR) {
		return nil // nothing is there to be hidden
	}
	if err != nil {
		return err
	}
	if skip != nil && placed != name {
		about = path.Join(path.Dir(placed), path.Base(about))
		if isOpaque {
			about = path.Dir(placed)
		}
		if skip(about) {
			return nil
		}
	}
	switch {
	case isOpaque:
		return s.opaque(path.Dir(placed))
	case isWhiteout:
		return s.whiteout(path.Join(path.Dir(placed), hidden))
	}
	e, err := entry(hdr, placed)
	if err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeLink {
		old := cleanName(hdr.Linkname)
		if old == "." {
			return fmt.Errorf("%w: hard link to the root", ErrInvalid)
		}
		return s.link(old, e)
	}
	if e.Kind == rootfs.Regular {
		return s.put(e, content)
	}
	return s.put(e, nil)
}

// entry translates a header. For a hard link Kind and Size mean nothing.
func entry(hdr *tar.Header, name string) (rootfs.Entry, error) {
	e := rootfs.Entry{
		Path:    name,
		Mode:    uint32(hdr.Mode) & rootfs.ModeMask,
		UID:     hdr.Uid,
		GID:     hdr.Gid,
		ModTime: boundTime(hdr.ModTime),
	}
	if !validID(hdr.Uid) || !validID(hdr.Gid) {
		return e, fmt.Errorf("%w: owner %d:%d", ErrInvalid, hdr.Uid, hdr.Gid)
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		e.Kind, e.Size = rootfs.Regular, hdr.Size
	case tar.TypeLink:
	case tar.TypeDir:
		e.Kind = rootfs.Directory
	case tar.TypeSymlink:
		e.Kind, e.Target, e.Mode = rootfs.Symlink, hdr.Linkname, 0o777
		if e.Target == "" {
			return e, fmt.Errorf("%w: empty symbolic link", ErrInvalid)
		}
	case tar.TypeFifo:
		e.Kind = rootfs.Fifo
	case tar.TypeChar, tar.TypeBlock:
		e.Kind = rootfs.CharDevice
		if hdr.Typeflag == tar.TypeBlock {
			e.Kind = rootfs.BlockDevice
		}
		if hdr.Devmajor < 0 || hdr.Devmajor > math.MaxUint32 || hdr.Devminor < 0 || hdr.Devminor > math.MaxUint32 {
			return e, fmt.Errorf("%w: device %d:%d", ErrInvalid, hdr.Devmajor, hdr.Devminor)
		}
		e.Major, e.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
	default:
		return e, fmt.Errorf("%w: unknown type %q", ErrInvalid, hdr.Typeflag)
	}
	for k, v := range hdr.PAXRecords {
		if attr, ok := strings.CutPrefix(k, paxXattr); ok && attr != "" {
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[attr] = v
		}
	}
	return e, nil
}

// validID excludes -1, which chown(2) takes for "leave it as it is".
func validID(id int) bool { return id >= 0 && id < math.MaxUint32 }

// boundTime puts times that a file system may not hold at 1970, as containerd
// does: before that, and after what 64 bits of nanoseconds reach.
func boundTime(t time.Time) time.Time {
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, math.MaxInt64)) {
		return time.Unix(0, 0)
	}
	return t
}

func cleanName(name string) string {
	if name = path.Clean("/" + name)[1:]; name == "" {
		return "."
	}
	return name
}

// ctxReader ends with ctx's cause.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// names is a set of what a layer brought, directories above included.
type names map[string]struct{}

func (n names) add(name string) {
	for name != "." {
		if _, ok := n[name]; ok {
			return
		}
		n[name] = struct{}{}
		name = path.Dir(name)
	}
}

func (n names) has(name string) bool {
	_, ok := n[name]
	return ok
}
