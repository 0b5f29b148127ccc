package fileop

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// unpack unpacks a source into the destination if it is a tar archive, which
// is told by its bytes, not its name. It reports whether it was one.
func (a *adder) unpack(ctx context.Context, src rootfs.Reader, name string) (done bool, err error) {
	e, err := src.Lstat(name)
	if err != nil {
		return false, err
	}
	if e.Kind != rootfs.Regular || e.Size == 0 {
		return false, nil
	}
	file, err := src.Open(name)
	if err != nil {
		return false, err
	}
	defer file.Close()
	plain, err := decompress(&contextReader{ctx, file})
	if err != nil {
		return false, nil // magic bytes alone don't make an archive
	}
	defer plain.Close()
	spool := &spool{dir: a.req.TempDir, source: plain}
	// Whatever was spooled for a file that turns out to be none is removed.
	defer func() {
		if cerr := spool.close(!done || err != nil); err == nil {
			err = cerr
		}
	}()
	members := tar.NewReader(spool)
	first, err := members.Next()
	if err != nil {
		if spool.err != nil {
			return false, spool.err
		}
		return false, context.Cause(ctx)
	}
	x, err := a.newExtraction()
	if err != nil {
		return false, err
	}
	for hdr := first; ; {
		if err := x.member(hdr, spool.opener()); err != nil {
			return false, fmt.Errorf("unpack %s: %w", hdr.Name, err)
		}
		hdr, err = members.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, fmt.Errorf("unpack: %w", err)
		}
	}
	if err := x.finish(); err != nil {
		return false, fmt.Errorf("unpack: %w", err)
	}
	return true, nil
}

// decompress is layers.Decompress and knows zstd files that begin with a frame
// to be skipped, too.
func decompress(r io.Reader) (io.ReadCloser, error) {
	const magic, mask = 0x184D2A50, 0xFFFFFFF0
	br := bufio.NewReaderSize(r, 64<<10)
	start, err := br.Peek(8)
	if err == nil && binary.LittleEndian.Uint32(start)&mask == magic {
		zr, err := zstd.NewReader(br)
		if err != nil {
			return nil, err
		}
		return zr.IOReadCloser(), nil
	}
	return layers.Decompress(br)
}

// spool is a reader that keeps what it reads in a file, so that the parts of it
// can be read again at their offsets.
type spool struct {
	dir    string
	source io.Reader
	file   *os.File
	buf    *bufio.Writer
	offset int64
	// err is a failure to write, as against one to read.
	err error
}

func (s *spool) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.source.Read(p)
	if n > 0 {
		if werr := s.keep(p[:n]); werr != nil {
			s.err = werr
			return 0, werr
		}
		s.offset += int64(n)
	}
	return n, err
}

func (s *spool) keep(p []byte) error {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "archive-")
		if err != nil {
			return err
		}
		s.file, s.buf = f, bufio.NewWriterSize(f, 256<<10)
	}
	_, err := s.buf.Write(p)
	return err
}

// opener gives, for a size, a function that opens as many bytes from the
// current offset on. The bytes are there once the spool was closed.
func (s *spool) opener() func(size int64) func() (io.ReadCloser, error) {
	name, offset := s.file.Name(), s.offset
	return func(size int64) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) {
			f, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			return section{io.NewSectionReader(f, offset, size), f}, nil
		}
	}
}

type section struct {
	io.Reader
	io.Closer
}

func (s *spool) close(remove bool) error {
	if s.file == nil {
		return nil
	}
	var err error
	if !remove {
		err = s.buf.Flush()
	}
	err = errors.Join(err, s.file.Close())
	if remove || err != nil {
		err = errors.Join(err, os.Remove(s.file.Name()))
	}
	return err
}

// contextReader stops reading when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
