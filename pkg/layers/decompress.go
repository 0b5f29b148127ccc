package layers

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/ulikunitz/xz"
)

// The compressions that Decompress knows beside those that layers can have.
const (
	Bzip2 Algorithm = "bzip2"
	XZ    Algorithm = "xz"
)

// SniffLen is the number of bytes that Sniff looks at.
const SniffLen = 6

// Sniff tells a compression by the first bytes of a file; None where it is
// none that Decompress knows.
func Sniff(start []byte) Algorithm {
	for _, m := range []struct {
		magic string
		a     Algorithm
	}{
		{"\x1f\x8b\x08", Gzip},
		{"\x28\xb5\x2f\xfd", Zstd},
		{"BZh", Bzip2},
		{"\xfd7zXZ\x00", XZ},
	} {
		if bytes.HasPrefix(start, []byte(m.magic)) {
			return m.a
		}
	}
	return None
}

// Decompress returns the uncompressed bytes of r: gzip, zstd, bzip2 or xz by
// its first bytes, and r's own bytes otherwise. gzip and zstd are decompressed
// ahead of the reader. Closing ends that and leaves r open; after io.EOF r was
// read to its end.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 128<<10)
	start, err := br.Peek(SniffLen)
	if err != nil && err != io.EOF {
		return nil, err
	}
	a := Sniff(start)
	var rc io.ReadCloser
	switch a {
	case Gzip:
		rc, err = pgzip.NewReaderN(br, 512<<10, 4)
	case Zstd:
		var zr *zstd.Decoder
		if zr, err = zstd.NewReader(br, zstd.WithDecoderMaxWindow(1<<30)); err == nil {
			rc = zr.IOReadCloser()
		}
	case XZ:
		var xr *xz.Reader
		if xr, err = xz.NewReader(br); err == nil {
			rc = io.NopCloser(xr)
		}
	case Bzip2:
		rc = io.NopCloser(bzip2.NewReader(br))
	default:
		return io.NopCloser(br), nil
	}
	if err != nil {
		return nil, fmt.Errorf("decompressing %s: %w", a, err)
	}
	return &decompressor{rc: rc, source: br, algorithm: a}, nil
}

type decompressor struct {
	rc        io.ReadCloser
	source    io.Reader
	algorithm Algorithm
}

func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.rc.Read(p)
	switch err {
	case nil:
	case io.EOF:
		// A format may end before the file does; a digest of the file counts
		// the rest in.
		if _, derr := io.Copy(io.Discard, d.source); derr != nil {
			return n, derr
		}
	default:
		err = fmt.Errorf("decompressing %s: %w", d.algorithm, err)
	}
	return n, err
}

func (d *decompressor) Close() error { return d.rc.Close() }
