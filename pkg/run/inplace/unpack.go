package inplace

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// unpack applies a layer. Its tar is divided in two, one for root and one for
// the shadow, which are unpacked side by side; what it says of the special
// directories is done last.
func (s *site) unpack(ctx context.Context, l v1.Layer) (err error) {
	id, err := l.DiffID()
	if err != nil {
		return err
	}
	source, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer source.Close()
	mainRead, mainWrite := io.Pipe()
	shadowRead, shadowWrite := io.Pipe()
	d := &divider{site: s, own: map[string]struct{}{}}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := d.divide(source, mainWrite, shadowWrite)
		mainWrite.CloseWithError(err)
		shadowWrite.CloseWithError(err)
		return err
	})
	// Whiteouts must not reach a special directory either, whatever links they
	// came through.
	group.Go(func() error {
		err := layers.Unpack(gctx, mainRead, s.root, layers.UnpackOptions{Skip: s.special})
		mainRead.CloseWithError(err)
		return err
	})
	group.Go(func() error {
		err := layers.Unpack(gctx, shadowRead, s.shadow, layers.UnpackOptions{})
		shadowRead.CloseWithError(err)
		return err
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("unpacking layer %s: %w", id, err)
	}
	if err := d.finish(); err != nil {
		return fmt.Errorf("unpacking layer %s: %w", id, err)
	}
	return nil
}

// divider divides a layer.
type divider struct {
	site *site
	// own are the names that the layer has, directories above included: a
	// whiteout is not for them.
	own map[string]struct{}
	// removed and emptied are special directories that the layer whites out or
	// makes opaque, blocked ones those that it has something else for.
	removed, emptied, blocked []string
	described                 []rootfs.Entry
}

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
)

func (d *divider) divide(source io.Reader, mainPipe, shadowPipe io.Writer) error {
	in := tar.NewReader(source)
	mainBuf, shadowBuf := bufio.NewWriterSize(mainPipe, 256<<10), bufio.NewWriter(shadowPipe)
	main, shadow := tar.NewWriter(mainBuf), tar.NewWriter(shadowBuf)
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading layer: %w", err)
		}
		to := main
		switch d.entry(h) {
		case toShadow:
			to = shadow
		case toNone:
			continue
		}
		plainHeader(h)
		if err := to.WriteHeader(h); err != nil {
			return fmt.Errorf("layer: %q: %w", h.Name, err)
		}
		if _, err := io.Copy(to, in); err != nil {
			return fmt.Errorf("layer: %q: %w", h.Name, err)
		}
	}
	for _, close := range []func() error{main.Close, mainBuf.Flush, shadow.Close, shadowBuf.Flush} {
		if err := close(); err != nil {
			return err
		}
	}
	// What checks a digest does so at the end of the file, not of the tar.
	if _, err := io.Copy(io.Discard, source); err != nil {
		return fmt.Errorf("reading layer: %w", err)
	}
	return nil
}

type direction uint8

const (
	toMain direction = iota
	toShadow
	toNone
)

// entry decides where an entry goes.
func (d *divider) entry(h *tar.Header) direction {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return toNone
	}
	name := cleanName(h.Name)
	if name == "." {
		return toNone
	}
	base := path.Base(name)
	about := name
	hidden, whiteout := strings.CutPrefix(base, whiteoutPrefix)
	opaque := base == opaqueMarker
	switch {
	case opaque:
		about = path.Dir(name)
	case whiteout:
		about = path.Join(path.Dir(name), hidden)
	default:
		d.add(name)
	}
	masks := d.site.masks
	for _, b := range d.blocked {
		if about == b || strings.HasPrefix(about, b+"/") {
			return toShadow
		}
	}
	switch {
	case masks.Covers(about):
		return toShadow
	case !masks.Above(about):
		return toMain
	case opaque:
		d.emptied = append(d.emptied, about)
		return toNone
	case whiteout:
		d.removed = append(d.removed, about)
		return toNone
	case h.Typeflag == tar.TypeDir:
		d.described = append(d.described, directory(h, name))
		return toNone
	}
	d.blocked = append(d.blocked, name)
	return toShadow
}

func (d *divider) add(name string) {
	for name != "." {
		if _, ok := d.own[name]; ok {
			return
		}
		d.own[name] = struct{}{}
		name = path.Dir(name)
	}
}

func (d *divider) has(name string) bool {
	_, ok := d.own[name]
	return ok
}

// finish does what concerns the special directories.
func (d *divider) finish() error {
	s := d.site
	for _, name := range d.blocked {
		if err := s.block(name); err != nil {
			return err
		}
	}
	for _, name := range d.emptied {
		d.add(name) // the directory itself stays
		if err := s.vanish(name, d.own); err != nil {
			return err
		}
	}
	for _, name := range d.removed {
		if err := s.vanish(name, d.own); err != nil {
			return err
		}
	}
	for _, name := range s.masks.Directories() {
		if name != "." && d.has(name) {
			if err := s.implyDir(name); err != nil {
				return err
			}
		}
	}
	for _, e := range d.described {
		if s.masks.Covers(e.Path) {
			continue // blocked by a later entry
		}
		if err := s.describe(e); err != nil {
			return err
		}
	}
	return nil
}

// plainHeader leaves of a header what matters in a layer, in a form that can be
// written.
func plainHeader(h *tar.Header) {
	h.Format, h.Xattrs = tar.FormatPAX, nil //nolint:staticcheck // the records have them as well
	h.Uname, h.Gname = "", ""
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	if h.Typeflag == tar.TypeGNUSparse || h.Typeflag == tar.TypeCont {
		h.Typeflag = tar.TypeReg
	}
	for k := range h.PAXRecords {
		if !strings.HasPrefix(k, "SCHILY.xattr.") {
			delete(h.PAXRecords, k)
		}
	}
}

// directory translates the header of a directory.
func directory(h *tar.Header, name string) rootfs.Entry {
	e := rootfs.Entry{
		Path: name, Kind: rootfs.Directory, Mode: uint32(h.Mode) & rootfs.ModeMask,
		UID: h.Uid, GID: h.Gid, ModTime: h.ModTime,
	}
	if e.ModTime.Before(time.Unix(0, 0)) {
		e.ModTime = time.Unix(0, 0)
	}
	for k, v := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok && attr != "" {
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[attr] = v
		}
	}
	return e
}

func cleanName(name string) string {
	if name = path.Clean("/" + name)[1:]; name == "" {
		return "."
	}
	return name
}
