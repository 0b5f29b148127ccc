package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"time"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	paxXattr       = "SCHILY.xattr."
)

// Write writes changes to w as an uncompressed tar, in their order and in
// BuildKit's layer form: PAX headers where something does not fit the plain
// ones and nowhere else, times cut to whole seconds, no names of users and
// groups, security.capability as the only extended attribute, removals as
// ".wh." files, further names of a file as hard links to the one that was
// written first. Sockets and the root itself are left out.
//
// It fails when a file is not as long as its entry says.
func Write(ctx context.Context, w io.Writer, changes iter.Seq2[snapshot.Change, error]) error {
	lw := writer{tw: tar.NewWriter(w), links: map[uint64]string{}}
	for c, err := range changes {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if err := lw.change(ctx, c); err != nil {
			return fmt.Errorf("writing layer: %s: %w", c.Entry.Path, err)
		}
	}
	if err := lw.tw.Close(); err != nil {
		return fmt.Errorf("writing layer: %w", err)
	}
	return nil
}

type writer struct {
	tw    *tar.Writer
	links map[uint64]string // names under which files with several were written
	buf   []byte
}

func (w *writer) change(ctx context.Context, c snapshot.Change) error {
	if c.Entry.Path == "." {
		return nil
	}
	if c.Kind == snapshot.Remove {
		dir, base := path.Split(c.Entry.Path)
		return w.tw.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg,
			Name:     dir + whiteoutPrefix + base,
			ModTime:  time.Unix(0, 0),
		})
	}
	hdr, err := header(c.Entry)
	if hdr == nil || err != nil {
		return err
	}
	if c.Entry.Link != 0 && c.Entry.Kind != rootfs.Directory {
		if first, ok := w.links[c.Entry.Link]; ok {
			hdr.Typeflag = tar.TypeLink
			hdr.Linkname = first
			hdr.Size = 0
		} else {
			w.links[c.Entry.Link] = hdr.Name
		}
	}
	if err := w.tw.WriteHeader(hdr); err != nil {
		return err
	}
	if hdr.Typeflag != tar.TypeReg || hdr.Size == 0 {
		return nil
	}
	return w.content(ctx, c)
}

// header is nil for a file that layers don't carry.
func header(e rootfs.Entry) (*tar.Header, error) {
	hdr := &tar.Header{
		// Without it archive/tar would round times to the nearest second.
		Format:  tar.FormatPAX,
		Name:    e.Path,
		Mode:    int64(e.Mode & rootfs.ModeMask),
		Uid:     e.UID,
		Gid:     e.GID,
		ModTime: e.ModTime.Truncate(time.Second),
	}
	switch e.Kind {
	case rootfs.Regular:
		hdr.Typeflag = tar.TypeReg
		hdr.Size = e.Size
	case rootfs.Directory:
		hdr.Typeflag = tar.TypeDir
		hdr.Name += "/"
	case rootfs.Symlink:
		hdr.Typeflag = tar.TypeSymlink
		hdr.Linkname = e.Target
		hdr.Mode = 0o777 // what Linux reports for any
	case rootfs.Fifo:
		hdr.Typeflag = tar.TypeFifo
	case rootfs.CharDevice, rootfs.BlockDevice:
		hdr.Typeflag = tar.TypeChar
		if e.Kind == rootfs.BlockDevice {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(e.Major), int64(e.Minor)
	case rootfs.Socket:
		return nil, nil
	default:
		return nil, fmt.Errorf("unknown kind of file %d", e.Kind)
	}
	if v := e.Xattrs[rootfs.XattrCapability]; v != "" {
		hdr.PAXRecords = map[string]string{paxXattr + rootfs.XattrCapability: v}
	}
	return hdr, nil
}

var errLength = errors.New("file changed its length while it was read")

func (w *writer) content(ctx context.Context, c snapshot.Change) error {
	if c.Open == nil {
		return errors.New("change has no content")
	}
	rc, err := c.Open()
	if err != nil {
		return err
	}
	if w.buf == nil {
		w.buf = make([]byte, 256<<10)
	}
	n, err := copyAll(ctx, w.tw, rc, w.buf)
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && n != c.Entry.Size {
		err = errLength
	}
	if cerr := rc.Close(); err == nil {
		err = cerr
	}
	return err
}

// copyAll is io.CopyBuffer that stops when ctx ends and really uses buf.
func copyAll(ctx context.Context, w io.Writer, r io.Reader, buf []byte) (int64, error) {
	var n int64
	for {
		if err := context.Cause(ctx); err != nil {
			return n, err
		}
		nr, rerr := r.Read(buf)
		if nr > 0 {
			nw, err := w.Write(buf[:nr])
			n += int64(nw)
			if err != nil {
				return n, err
			}
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}
