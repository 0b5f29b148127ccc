package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"strings"
	"syscall"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// Diff tells what has to be done to lower to make it upper. It walks both trees
// side by side and reads files where their metadata leaves doubt, as BuildKit
// does where it has no overlayfs.
//
// Lower is read while the sequence is consumed, upper also by the changes'
// Open. The sequence ends with the first error; it can be started anew.
func Diff(ctx context.Context, lower, upper rootfs.Reader) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		d := differ{ctx: ctx, lower: lower, upper: upper}
		d.out = newEmitter(upper.Lstat, upper.Open, func(c Change) bool { return yield(c, nil) })
		if err := d.dir(".", true); err != nil && err != errStopped {
			yield(Change{}, err)
		}
	}
}

// differ walks two trees side by side.
type differ struct {
	ctx          context.Context
	lower, upper rootfs.Reader
	out          *emitter
}

// dir reports what differs below a directory of upper. below says whether
// lower may have a directory there.
func (d *differ) dir(name string, below bool) error {
	if err := d.ctx.Err(); err != nil {
		return context.Cause(d.ctx)
	}
	var before []rootfs.Entry
	if below {
		var err error
		if before, err = d.lower.ReadDir(name); err != nil && !isAbsent(err) {
			return err
		}
	}
	after, err := d.upper.ReadDir(name)
	if err != nil {
		return err
	}
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = +1
		case len(after) == 0:
			order = -1
		default:
			order = strings.Compare(path.Base(before[0].Path), path.Base(after[0].Path))
		}
		if order < 0 {
			if err := d.out.removed(before[0].Path); err != nil {
				return err
			}
			before = before[1:]
			continue
		}
		e := after[0]
		after = after[1:]
		same, merges := false, false
		if order == 0 {
			merges = before[0].Kind == rootfs.Directory
			if same, err = sameFile(d.lower, before[0], d.upper, e); err != nil {
				return err
			}
			before = before[1:]
		}
		if same {
			err = d.out.unchanged(e)
		} else {
			err = d.out.written(e)
		}
		if err == nil && e.Kind == rootfs.Directory {
			err = d.dir(e.Path, merges)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isAbsent holds for errors that say that a tree has no such file, be it
// because one of the parents is no directory.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
