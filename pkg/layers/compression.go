package layers

import (
	"fmt"
	"io"
	"runtime"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

// Algorithm is a way to compress layers.
type Algorithm string

// The algorithms that layers can have.
const (
	Gzip Algorithm = "gzip"
	Zstd Algorithm = "zstd"
	None Algorithm = "none"
)

// Compression says how a layer is stored. The zero value is gzip at its usual
// level under OCI's media type. What it produces depends on the input and these
// fields only, never on the number of processors.
type Compression struct {
	// Algorithm is Gzip when empty.
	Algorithm Algorithm
	// Level is 1 to 9 for gzip and 1 to 22 for zstd; 0 is the usual one.
	Level int
	// Docker gives the layer Docker's media types instead of OCI's. There is
	// none for zstd.
	Docker bool
}

// Check reports what can't be done.
func (c Compression) Check() error {
	top := 0
	switch c.Algorithm {
	case "", Gzip:
		top = 9
	case Zstd:
		top = 22
		if c.Docker {
			return fmt.Errorf("layers compressed with zstd need OCI media types")
		}
	case None:
	default:
		return fmt.Errorf("unknown compression %q; gzip, zstd and none are known", c.Algorithm)
	}
	if c.Level < 0 || c.Level > top {
		if top == 0 {
			return fmt.Errorf("a compression level means nothing without compression")
		}
		return fmt.Errorf("compression level %d is not between 1 and %d", c.Level, top)
	}
	return nil
}

func (c Compression) mediaType() types.MediaType {
	switch {
	case c.Algorithm == Zstd:
		return types.OCILayerZStd
	case c.Algorithm == None && c.Docker:
		return types.DockerUncompressedLayer
	case c.Algorithm == None:
		return types.OCIUncompressedLayer
	case c.Docker:
		return types.DockerLayer
	}
	return types.OCILayer
}

// gzipBlock is the unit that gzip's workers take. It decides about the bytes
// that come out: changing it changes the digest of every layer.
const gzipBlock = 1 << 20

// compressor returns what compresses into w; closing it ends the stream and
// leaves w open.
func (c Compression) compressor(w io.Writer) (io.WriteCloser, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	switch c.Algorithm {
	case None:
		return nopWriteCloser{w}, nil
	case Zstd:
		level := zstd.SpeedDefault
		if c.Level != 0 {
			level = zstd.EncoderLevelFromZstd(c.Level)
		}
		return zstd.NewWriter(w, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
	}
	level := pgzip.DefaultCompression
	if c.Level != 0 {
		level = c.Level
	}
	zw, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return nil, err
	}
	// One block more than workers, so that none waits for the tar.
	if err := zw.SetConcurrency(gzipBlock, min(runtime.GOMAXPROCS(0), 8)+1); err != nil {
		return nil, err
	}
	return zw, nil
}

type nopWriteCloser struct{ io.Writer }

func (nopWriteCloser) Close() error { return nil }
