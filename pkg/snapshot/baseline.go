package snapshot

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// ScanOptions say how a directory is recorded. The zero value records all files
// of the file system that the directory is mounted with.
type ScanOptions struct {
	// Exclude leaves out files, and directories with all they hold, by name:
	// they are neither looked at nor reported. It is called concurrently.
	Exclude func(name string) bool
	// Overrides believes rootfs.OverrideXattr, as a rootfs.Root notes it.
	Overrides bool
	// SameContent tells whether a regular file's bytes, which now reads, are
	// those that it had when the Baseline was taken. It is asked about files
	// that were touched while their size and time stayed the same, and whose
	// time has no fraction of a second, as those from layers: they may be just
	// as they were (a chown to the same owner), or rewritten and given their
	// time back. Nil counts all of them as changed: nothing is lost then, but
	// a layer may hold files that BuildKit would have left out.
	SameContent func(ctx context.Context, name string, now func() (io.ReadCloser, error)) (bool, error)
}

// Baseline is the record of a directory at one moment. It takes 56 bytes for
// each file, and the lengths of the file's name, link target and capability.
//
// Places where something else is mounted are recorded as such, and neither they
// nor what lies below are ever reported.
type Baseline struct {
	path string
	opts ScanOptions
	root *dirRecord
}

// lookup finds the record of a name that is not the root's.
func (b *Baseline) lookup(name string) (*dirRecord, int, bool) {
	d := b.root
	for {
		c, rest, more := strings.Cut(name, "/")
		i, ok := d.find(c)
		if !ok || !more {
			return d, i, ok
		}
		if d = d.sub(i); d == nil {
			return nil, 0, false
		}
		name = rest
	}
}

// Take records the directory at path; symbolic links in path are followed.
//
// Nothing may change in the directory while it is recorded. Take returns when
// the tick of the clock in which it looked is over, some milliseconds later: a
// file changed afterwards has another time than the one recorded.
func Take(ctx context.Context, path string, opts ScanOptions) (*Baseline, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("recording %s: %w", path, err)
	}
	b := &Baseline{path: abs, opts: opts}
	if err := b.scan(ctx, nil); err != nil {
		return nil, fmt.Errorf("recording %s: %w", path, err)
	}
	return b, nil
}

func join(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}
