package snapshot

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// OverlayOptions say how to read an upper directory. The zero value suits a
// mount that was made by root without userxattr.
type OverlayOptions struct {
	// UserXattr: the mount was made with userxattr, so that overlayfs keeps its
	// marks in "user.overlay." and not in "trusted.overlay.".
	UserXattr bool
	// Overrides believes rootfs.OverrideXattr: set it where a rootfs.Root has
	// written into the lower directories and files may have been copied up.
	Overrides bool
}

// Overlay tells what an overlay mount changed: upper is the path of the mount's
// upper directory, lower the merged tree beneath it. The mount must have been
// made with redirect_dir and metacopy off; a file that shows otherwise is an
// error. It need not be mounted any more, but must not be written to while the
// sequence is consumed or the changes' Open is used.
//
// As with BuildKit, a whiteout is a Remove where lower has the file and nothing
// where it has not, and a directory that hides what was there before is
// compared with that file by file. Also as with BuildKit, a file that was only
// copied up is no change, even when it has got a further name: a link to a
// file of a lower layer arrives in the list alone, as a file of its own.
//
// The sequence ends with the first error; it can be started anew.
func Overlay(ctx context.Context, lower rootfs.Reader, upper string, opts OverlayOptions) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if err := overlay(ctx, lower, upper, opts, yield); err != nil && err != errStopped {
			yield(Change{}, fmt.Errorf("reading changes: %w", err))
		}
	}
}

func overlay(ctx context.Context, lower rootfs.Reader, upper string, opts OverlayOptions, yield func(Change, error) bool) error {
	dir, err := rootfs.OpenDir(upper, rootfs.DirOptions{AllXattrs: true, Overrides: opts.Overrides})
	if err != nil {
		return err
	}
	defer dir.Close()
	view := upperView{dir: dir, prefix: "trusted.overlay."}
	if opts.UserXattr {
		view.prefix = "user.overlay."
	}
	open := reopen(dir.HostPath())
	d := differ{ctx: ctx, lower: lower, upper: view}
	d.out = newEmitter(view.Lstat, open, func(c Change) bool { return yield(c, nil) })
	o := overlayWalk{differ: &d, view: view}
	return o.dir(".", true)
}

// reopen gives the files of a directory for as long as it exists. It holds no
// descriptor, because nobody says when the last change has been read.
func reopen(root string) func(name string) (io.ReadCloser, error) {
	return func(name string) (io.ReadCloser, error) {
		d, err := rootfs.OpenDir(root, rootfs.DirOptions{})
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return d.Open(name)
	}
}

type overlayWalk struct {
	*differ
	view upperView
}

// dir reports the changes in a directory of the upper one. below says whether
// lower has a directory there too; without one no file in it existed before.
func (o *overlayWalk) dir(name string, below bool) error {
	if err := o.ctx.Err(); err != nil {
		return context.Cause(o.ctx)
	}
	entries, err := o.view.dir.ReadDir(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := o.entry(e, below); err != nil {
			return err
		}
	}
	return nil
}

func (o *overlayWalk) entry(raw rootfs.Entry, below bool) error {
	var before rootfs.Entry
	existed := false
	if below {
		var err error
		before, err = o.lower.Lstat(raw.Path)
		if existed = err == nil; !existed && !isAbsent(err) {
			return err
		}
	}
	if isWhiteout(raw) {
		if !existed {
			return nil
		}
		return o.out.removed(raw.Path)
	}
	e, err := o.view.clean(raw)
	if err != nil {
		return err
	}
	same := false
	if existed {
		if same, err = sameFile(o.lower, before, o.view, e); err != nil {
			return err
		}
	}
	if !same {
		if err := o.out.written(e); err != nil {
			return err
		}
	}
	if e.Kind != rootfs.Directory {
		return nil
	}
	merges := existed && before.Kind == rootfs.Directory
	if existed && isOpaque(raw) {
		// What was hidden is not marked one by one: find it by comparing.
		return o.differ.dir(e.Path, merges)
	}
	return o.dir(e.Path, merges)
}

// isWhiteout: a device 0:0 that a command makes itself is taken for one too,
// by overlayfs as well.
func isWhiteout(e rootfs.Entry) bool {
	return e.Kind == rootfs.CharDevice && e.Major == 0 && e.Minor == 0
}

func isOpaque(e rootfs.Entry) bool {
	return e.Xattrs[rootfs.OpaqueTrusted] == "y" || e.Xattrs[rootfs.OpaqueUser] == "y"
}

// upperView is an upper directory without the marks that overlayfs leaves in it.
type upperView struct {
	dir    *rootfs.Dir
	prefix string
}

var _ rootfs.Reader = upperView{}

// clean takes overlayfs' marks, and all else that layers don't carry, from a
// file. It fails for files that can't be understood without the mount.
func (v upperView) clean(e rootfs.Entry) (rootfs.Entry, error) {
	for attr := range e.Xattrs {
		mark, ok := strings.CutPrefix(attr, v.prefix)
		if !ok {
			continue
		}
		switch mark {
		case "redirect":
			return e, fmt.Errorf("%s was renamed by an overlay mount with redirect_dir on, which can't be read", e.Path)
		case "metacopy":
			return e, fmt.Errorf("%s has no bytes, being from an overlay mount with metacopy on, which can't be read", e.Path)
		}
	}
	capability, ok := e.Xattrs[rootfs.XattrCapability]
	e.Xattrs = nil
	if ok {
		e.Xattrs = map[string]string{rootfs.XattrCapability: capability}
	}
	return e, nil
}

// Lstat implements rootfs.Reader.
func (v upperView) Lstat(name string) (rootfs.Entry, error) {
	e, err := v.dir.Lstat(name)
	if err != nil {
		return e, err
	}
	return v.clean(e)
}

// ReadDir implements rootfs.Reader.
func (v upperView) ReadDir(name string) ([]rootfs.Entry, error) {
	all, err := v.dir.ReadDir(name)
	if err != nil {
		return nil, err
	}
	kept := all[:0]
	for _, e := range all {
		if isWhiteout(e) {
			continue
		}
		if e, err = v.clean(e); err != nil {
			return nil, err
		}
		kept = append(kept, e)
	}
	return kept, nil
}

// Open implements rootfs.Reader.
func (v upperView) Open(name string) (io.ReadCloser, error) { return v.dir.Open(name) }
