package rootfs

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openFile is a bare descriptor, or an *os.File where that can copy without
// passing the bytes through the process.
type openFile struct {
	fd   int
	file *os.File
}

func (f *openFile) close() error {
	if f.file != nil {
		return f.file.Close()
	}
	return unix.Close(f.fd)
}

const (
	copyBuffer = 256 << 10
	minHole    = 64 << 10
)

var errLength = fmt.Errorf("content is not as long as announced: %w", io.ErrUnexpectedEOF)

func (r *Root) fill(f *openFile, size int64, content io.Reader) error {
	if content == nil {
		if size != 0 {
			return errLength
		}
		return nil
	}
	if src, ok := content.(*os.File); ok && size > minHole {
		f.file = os.NewFile(uintptr(f.fd), "")
		n, err := f.file.ReadFrom(io.LimitReader(src, size))
		if err == nil && n != size {
			err = errLength
		}
		if err != nil {
			return err
		}
		return atEOF(content)
	}
	if r.buf == nil {
		r.buf = make([]byte, copyBuffer)
	}
	var done int64
	hole := false
	for done < size {
		buf := r.buf[:min(size-done, copyBuffer)]
		n, err := io.ReadFull(content, buf)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return errLength
		}
		if err != nil {
			return err
		}
		if n >= minHole && isZero(buf) {
			if _, err := unix.Seek(f.fd, int64(n), io.SeekCurrent); err != nil {
				return err
			}
			hole = true
		} else if err := writeAll(f.fd, buf); err != nil {
			return err
		}
		done += int64(n)
	}
	if hole {
		if err := unix.Ftruncate(f.fd, size); err != nil {
			return err
		}
	}
	return atEOF(content)
}

// atEOF fails when there is more: the layer and its header disagree. Readers
// that check a digest at their end get to do so.
func atEOF(content io.Reader) error {
	var one [1]byte
	for {
		n, err := content.Read(one[:])
		if n > 0 {
			return errLength
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func isZero(b []byte) bool {
	return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
