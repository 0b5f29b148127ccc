package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

const (
	// maxStreams is how often a layer is decompressed anew for a file that lies
	// behind the reading position, before all of it goes to a temporary file.
	maxStreams = 3
	// Small files are read at once and kept for the next who asks.
	smallFile = 64 << 10
	keptBytes = 2 << 20
)

var errNotDir error = syscall.ENOTDIR

func impliedDir(name string) rootfs.Entry {
	return rootfs.Entry{Path: name, Kind: rootfs.Directory, Mode: 0o755, ModTime: time.Unix(0, 0)}
}

// Contents reads files out of one layer. Those that are asked for in the order
// of the layer are read while it is decompressed; when that is no longer so the
// layer is decompressed into an unlinked temporary file once. It is safe for
// concurrent use.
type Contents struct {
	layer v1.Layer
	dir   string

	mu      sync.Mutex
	stream  io.ReadCloser // decompressing, nil before the first file
	pos     int64         // what was read of it
	busy    bool          // a file is being read from it
	streams int
	spool   *os.File
	kept    map[int64][]byte // small files by offset
	keptLen int
	closed  bool
}

// NewContents returns the Contents of a layer for Index. It reads nothing yet.
// The caller closes it.
func NewContents(layer v1.Layer, opts LoadOptions) *Contents {
	return &Contents{layer: layer, dir: opts.TempDir, kept: map[int64][]byte{}}
}

// Close releases what is open. No file may be read any more.
func (c *Contents) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.kept = nil
	c.drop()
	if c.spool != nil {
		err := c.spool.Close()
		c.spool = nil
		return err
	}
	return nil
}

func (c *Contents) opener(offset, size int64, ordinal int, sparse bool) func() (io.ReadCloser, error) {
	if sparse {
		return func() (io.ReadCloser, error) { return c.openSparse(ordinal) }
	}
	return func() (io.ReadCloser, error) { return c.open(offset, size) }
}

func (c *Contents) open(offset, size int64) (io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, os.ErrClosed
	}
	if data, ok := c.kept[offset]; ok {
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	if c.spool == nil && (c.busy || c.stream == nil || c.pos > offset) {
		if err := c.rewind(); err != nil {
			return nil, fmt.Errorf("reading layer: %w", err)
		}
	}
	if c.spool != nil {
		return io.NopCloser(io.NewSectionReader(c.spool, offset, size)), nil
	}
	n, err := io.CopyN(io.Discard, c.stream, offset-c.pos)
	c.pos += n
	if err != nil {
		c.drop()
		return nil, fmt.Errorf("reading layer: %w", unexpectedEOF(err))
	}
	if size > smallFile {
		c.busy = true
		return &streamed{c: c, stream: c.stream, left: size}, nil
	}
	data := make([]byte, size)
	m, err := io.ReadFull(c.stream, data)
	c.pos += int64(m)
	if err != nil {
		c.drop()
		return nil, fmt.Errorf("reading layer: %w", unexpectedEOF(err))
	}
	if c.keptLen+len(data) > keptBytes {
		clear(c.kept)
		c.keptLen = 0
	}
	c.kept[offset] = data
	c.keptLen += len(data)
	return io.NopCloser(bytes.NewReader(data)), nil
}

// rewind starts at the layer's beginning again, or spools it when that was done
// often enough, or can't be because somebody is still reading.
func (c *Contents) rewind() error {
	if !c.busy && c.streams < maxStreams {
		c.drop()
		rc, err := c.layer.Uncompressed()
		if err != nil {
			return err
		}
		c.stream, c.pos = rc, 0
		c.streams++
		return nil
	}
	f, err := os.CreateTemp(c.dir, ".layer-*")
	if err != nil {
		return err
	}
	os.Remove(f.Name())
	rc, err := c.layer.Uncompressed()
	if err == nil {
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, rc, make([]byte, 256<<10))
		rc.Close() // read to its end: errors have been seen
	}
	if err != nil {
		f.Close()
		return err
	}
	c.spool = f
	if !c.busy {
		c.drop()
	}
	return nil
}

// drop ends the stream. That it was not read to its end is no error here.
func (c *Contents) drop() {
	if c.stream != nil {
		c.stream.Close()
		c.stream = nil
	}
}

// streamed is a file that is read while its layer is decompressed.
type streamed struct {
	c      *Contents
	stream io.Reader
	left   int64
	read   int64
	closed bool
}

func (s *streamed) Read(p []byte) (int, error) {
	if s.closed {
		return 0, os.ErrClosed
	}
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.stream.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	s.read += int64(n)
	if err == io.EOF && s.left == 0 {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("reading layer: %w", unexpectedEOF(err))
	}
	return n, err
}

func (s *streamed) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.busy = false
	s.c.pos += s.read
	if s.c.spool != nil || s.c.closed {
		s.c.drop()
	}
	return nil
}

func unexpectedEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// openSparse reads a file that only archive/tar can put together. They are rare
// enough to read the layer from its beginning each time.
func (c *Contents) openSparse(ordinal int) (io.ReadCloser, error) {
	rc, err := c.layer.Uncompressed()
	if err != nil {
		return nil, fmt.Errorf("reading layer: %w", err)
	}
	tr := tar.NewReader(&ctxReader{ctx: context.Background(), r: rc})
	for n := 0; n < ordinal; {
		hdr, err := tr.Next()
		if err != nil {
			rc.Close()
			return nil, fmt.Errorf("reading layer: %w", unexpectedEOF(err))
		}
		if hdr.Typeflag != tar.TypeXGlobalHeader {
			n++
		}
	}
	return &sparseFile{Reader: tr, stream: rc}, nil
}

type sparseFile struct {
	io.Reader
	stream io.Closer
}

func (s *sparseFile) Close() error {
	s.stream.Close() // its end was not reached, which is no error here
	return nil
}
