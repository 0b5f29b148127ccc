package keeper

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// Records of the tar that standard ones have no place for.
const (
	xattrRecord  = "SCHILY.xattr."
	socketRecord = "COOPER.socket"
)

// TempFile makes a file without a name in dir. The caller closes it.
func TempFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(unnamed)"), nil
	}
	// A file system without O_TMPFILE.
	f, err := os.CreateTemp(dir, "own-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Save writes all files below the directory root to file, but for the masked
// ones: names, bytes, types, modes, owners, times of modification, hard links,
// extended attributes. each, if not nil, sees every file.
func Save(ctx context.Context, root string, masks Masks, file *os.File, each func(rootfs.Entry)) error {
	d, err := rootfs.OpenDir(root, rootfs.DirOptions{AllXattrs: true, Skip: masks.Covers})
	if err != nil {
		return err
	}
	defer d.Close()
	buf := bufio.NewWriterSize(file, 1<<20)
	s := saver{dir: d, tar: tar.NewWriter(buf), links: map[uint64]string{}}
	err = rootfs.Walk(d, ".", func(e rootfs.Entry) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if each != nil {
			each(e)
		}
		return s.entry(e)
	})
	if err == nil {
		err = errors.Join(s.tar.Close(), buf.Flush())
	}
	if err != nil {
		return fmt.Errorf("putting files away: %w", err)
	}
	return nil
}

type saver struct {
	dir   *rootfs.Dir
	tar   *tar.Writer
	links map[uint64]string
}

func (s *saver) entry(e rootfs.Entry) error {
	h := &tar.Header{
		Name: e.Path, Mode: int64(e.Mode), Uid: e.UID, Gid: e.GID, ModTime: e.ModTime,
		Format: tar.FormatPAX, PAXRecords: map[string]string{},
	}
	for name, value := range e.Xattrs {
		h.PAXRecords[xattrRecord+name] = value
	}
	if e.Link != 0 {
		if first, ok := s.links[e.Link]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return s.tar.WriteHeader(h)
		}
		s.links[e.Link] = e.Path
	}
	var content io.ReadCloser
	switch e.Kind {
	case rootfs.Regular:
		var err error
		content, err = s.dir.Open(e.Path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody's temporary file
		}
		if err != nil {
			return err
		}
		defer content.Close()
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	case rootfs.Directory:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case rootfs.Symlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
	case rootfs.Fifo:
		h.Typeflag = tar.TypeFifo
	case rootfs.Socket:
		h.Typeflag, h.PAXRecords[socketRecord] = tar.TypeFifo, "1"
	case rootfs.CharDevice, rootfs.BlockDevice:
		h.Typeflag = tar.TypeChar
		if e.Kind == rootfs.BlockDevice {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(e.Major), int64(e.Minor)
	}
	if err := s.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	if content == nil {
		return nil
	}
	return s.bytes(e, content)
}

// bytes copies as many bytes as the header says. A file that somebody is
// writing to, such as a log, may have become longer or shorter.
func (s *saver) bytes(e rootfs.Entry, content io.Reader) error {
	n, err := io.Copy(s.tar, io.LimitReader(content, e.Size))
	if err == nil && n < e.Size {
		_, err = io.CopyN(s.tar, zeros{}, e.Size-n)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Restore brings back what Save wrote, in place of whatever has the names now.
// It goes on after an error, so that as much as possible comes back, and may
// be repeated. Each call reads file from its start, without moving its offset.
func Restore(root string, masks Masks, file *os.File) error {
	r, err := rootfs.OpenRoot(root, rootfs.RootOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	in := tar.NewReader(bufio.NewReaderSize(io.NewSectionReader(file, 0, 1<<62), 1<<20))
	var dirs []rootfs.Entry
	var failed errorList
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			failed.add(fmt.Errorf("reading the files that were put away: %w", err))
			break
		}
		e := entryOf(h)
		if masks.Covers(e.Path) {
			continue // mounted since
		}
		if h.Typeflag == tar.TypeLink {
			failed.add(r.Link(h.Linkname, e.Path))
			continue
		}
		if e.Kind == rootfs.Directory {
			dirs = append(dirs, e)
		}
		failed.add(r.Write(e, in))
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		failed.add(r.Chtimes(dirs[i].Path, dirs[i].ModTime))
	}
	if err := failed.join(); err != nil {
		return fmt.Errorf("bringing files back: %w", err)
	}
	return nil
}

func entryOf(h *tar.Header) rootfs.Entry {
	e := rootfs.Entry{
		Path: strings.TrimSuffix(h.Name, "/"), Mode: uint32(h.Mode) & rootfs.ModeMask,
		UID: h.Uid, GID: h.Gid, ModTime: h.ModTime, Target: h.Linkname,
		Major: uint32(h.Devmajor), Minor: uint32(h.Devminor),
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, xattrRecord); ok {
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[name] = v
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		e.Kind, e.Size = rootfs.Regular, h.Size
	case tar.TypeDir:
		e.Kind = rootfs.Directory
	case tar.TypeSymlink:
		e.Kind = rootfs.Symlink
	case tar.TypeFifo:
		e.Kind = rootfs.Fifo
		if h.PAXRecords[socketRecord] != "" {
			e.Kind = rootfs.Socket
		}
	case tar.TypeChar:
		e.Kind = rootfs.CharDevice
	case tar.TypeBlock:
		e.Kind = rootfs.BlockDevice
	}
	return e
}

// errorList keeps the first few errors of many.
type errorList struct {
	errs []error
	more int
}

func (l *errorList) add(err error) {
	switch {
	case err == nil:
	case len(l.errs) < 5:
		l.errs = append(l.errs, err)
	default:
		l.more++
	}
}

func (l *errorList) join() error {
	if l.more > 0 {
		l.errs = append(l.errs, fmt.Errorf("and %d more", l.more))
	}
	return errors.Join(l.errs...)
}
