package snapshot

import (
	"bytes"
	"fmt"
	"io"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// verdict is what metadata says about a file before and after.
type verdict uint8

const (
	different verdict = iota
	equal
	// doubtful: only the bytes can tell. It is said of regular files alone.
	doubtful
)

// facts are what decides whether two states of a file are the same.
type facts struct {
	kind       rootfs.Kind
	mode       uint32
	uid, gid   int
	size, rdev int64
	sec        int64
	nsec       int64
	target     string
	capability string
}

// judge applies BuildKit's rule. A directory's time does not count: it changes
// with what the directory holds. A time without fraction may have lost it in a
// layer, so it proves nothing and the contents are asked. A time with fraction
// is believed. Extended attributes other than capabilities do not count.
func judge(a, b facts) verdict {
	if a.kind != b.kind || a.mode != b.mode || a.uid != b.uid || a.gid != b.gid ||
		a.rdev != b.rdev || a.capability != b.capability {
		return different
	}
	if a.kind == rootfs.Directory {
		return equal
	}
	// A symbolic link's size is the length of its target.
	if a.size != b.size || len(a.target) != len(b.target) || a.sec != b.sec || a.nsec != b.nsec {
		return different
	}
	switch {
	case a.nsec != 0:
		return equal
	case a.target != b.target:
		return different
	case a.size == 0 || a.kind != rootfs.Regular:
		return equal
	}
	return doubtful
}

func entryFacts(e rootfs.Entry) facts {
	return facts{
		kind: e.Kind, mode: e.Mode & rootfs.ModeMask, uid: e.UID, gid: e.GID,
		size: e.Size, rdev: int64(e.Major)<<32 | int64(e.Minor),
		sec: e.ModTime.Unix(), nsec: int64(e.ModTime.Nanosecond()),
		target: e.Target, capability: e.Xattrs[rootfs.XattrCapability],
	}
}

// sameFile compares a file of one tree with that of the same name in another.
func sameFile(a rootfs.Reader, ea rootfs.Entry, b rootfs.Reader, eb rootfs.Entry) (bool, error) {
	switch judge(entryFacts(ea), entryFacts(eb)) {
	case different:
		return false, nil
	case equal:
		return true, nil
	}
	fa, err := a.Open(ea.Path)
	if err != nil {
		return false, fmt.Errorf("comparing %s with what it was: %w", eb.Path, err)
	}
	defer fa.Close()
	fb, err := b.Open(eb.Path)
	if err != nil {
		return false, fmt.Errorf("comparing %s with what it was: %w", eb.Path, err)
	}
	defer fb.Close()
	same, err := sameBytes(fa, fb)
	if err != nil {
		return false, fmt.Errorf("comparing %s with what it was: %w", eb.Path, err)
	}
	return same, nil
}

func sameBytes(a, b io.Reader) (bool, error) {
	const chunk = 64 << 10
	buf := make([]byte, 2*chunk)
	ba, bb := buf[:chunk], buf[chunk:]
	for {
		na, erra := io.ReadFull(a, ba)
		nb, errb := io.ReadFull(b, bb)
		enda := erra == io.EOF || erra == io.ErrUnexpectedEOF
		endb := errb == io.EOF || errb == io.ErrUnexpectedEOF
		switch {
		case erra != nil && !enda:
			return false, erra
		case errb != nil && !endb:
			return false, errb
		case !bytes.Equal(ba[:na], bb[:nb]):
			return false, nil
		case enda || endb:
			return enda == endb, nil
		}
	}
}
