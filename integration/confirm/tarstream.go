package confirm

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tarText is a layer's tar as text.
type tarText struct {
	diffID, shape string
	entries       []string
	// now says that an entry's time is within the build.
	now bool
}

// readTar reads a tar to the end of its last block.
func readTar(r io.Reader, built Moment) (tarText, error) {
	sum, shape := sha256.New(), &shaper{sum: sha256.New(), built: built}
	all := io.TeeReader(r, io.MultiWriter(sum, shape))
	var t tarText
	for tr := tar.NewReader(all); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return t, fmt.Errorf("after %d entries: %w", len(t.entries), err)
		}
		content := sha256.New()
		n, err := io.Copy(content, tr)
		if err != nil {
			return t, fmt.Errorf("%s: %w", h.Name, err)
		}
		now := built.Has(h.ModTime)
		t.now = t.now || now
		t.entries = append(t.entries, describe(h, n, content.Sum(nil), now))
	}
	if _, err := io.Copy(io.Discard, all); err != nil {
		return t, err
	}
	t.diffID, t.shape = digest(sum.Sum(nil)), digest(shape.sum.Sum(nil))
	return t, nil
}

var typeNames = map[byte]string{
	tar.TypeReg: "file", tar.TypeLink: "hardlink", tar.TypeSymlink: "symlink", tar.TypeChar: "char",
	tar.TypeBlock: "block", tar.TypeDir: "dir", tar.TypeFifo: "fifo", tar.TypeXGlobalHeader: "global",
}

func describe(h *tar.Header, size int64, content []byte, now bool) string {
	var b strings.Builder
	kind := typeNames[h.Typeflag]
	if kind == "" {
		kind = fmt.Sprintf("type-%q", h.Typeflag)
	}
	fmt.Fprintf(&b, "%s %s %04o %d:%d", strconv.QuoteToASCII(h.Name), kind, h.Mode, h.Uid, h.Gid)
	if h.Uname != "" || h.Gname != "" {
		fmt.Fprintf(&b, " names=%s:%s", h.Uname, h.Gname)
	}
	if h.Typeflag == tar.TypeReg {
		fmt.Fprintf(&b, " size=%d", size)
		if size > 0 {
			fmt.Fprintf(&b, " content=%s", hex.EncodeToString(content[:8]))
		}
	}
	if h.Linkname != "" {
		fmt.Fprintf(&b, " to=%s", strconv.QuoteToASCII(h.Linkname))
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		fmt.Fprintf(&b, " device=%d,%d", h.Devmajor, h.Devminor)
	}
	for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		switch k {
		case "path", "linkpath", "size", "uid", "gid", "mtime":
			// Their values are in the header's fields; that there is a record
			// at all shows in the layer's bytes.
		default:
			fmt.Fprintf(&b, " %s=%x", k, h.PAXRecords[k])
		}
	}
	if now {
		b.WriteString(" now")
	} else {
		b.WriteString(" " + h.ModTime.UTC().Format(time.RFC3339Nano))
	}
	return b.String()
}

// shaper hashes a tar with the times that are within the build set to 0, and
// with them the header's checksum.
type shaper struct {
	sum   hash.Hash
	built Moment
	block []byte
	// body is how many blocks follow until the next header.
	body int64
}

const blockSize = 512

func (s *shaper) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		take := min(blockSize-len(s.block), len(p))
		s.block = append(s.block, p[:take]...)
		p = p[take:]
		if len(s.block) == blockSize {
			s.flush()
		}
	}
	return n, nil
}

func (s *shaper) flush() {
	if s.body > 0 {
		s.body--
	} else {
		s.header(s.block)
	}
	s.sum.Write(s.block)
	s.block = s.block[:0]
}

func (s *shaper) header(b []byte) {
	seconds := number(b[136:148])
	s.body = (number(b[124:136]) + blockSize - 1) / blockSize
	if s.built.Has(time.Unix(seconds, 0)) {
		clear(b[136:156])
	}
}

// number reads a numeric field: octal digits, or binary with the first bit set.
func number(field []byte) int64 {
	if field[0]&0x80 != 0 {
		var n int64
		for i, c := range field {
			if i == 0 {
				c &= 0x7f
			}
			n = n<<8 | int64(c)
		}
		return n
	}
	n, err := strconv.ParseInt(string(bytes.Trim(field, " \x00")), 8, 64)
	if err != nil {
		return 0
	}
	return n
}
