package inplace

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// view is a site as a Reader: the shadow in masked places, root elsewhere,
// without the directories that are there for the masked places alone.
type view struct {
	site         *site
	main, shadow *rootfs.Dir
}

var _ rootfs.Reader = (*view)(nil)

func (v *view) Close() error { return errors.Join(v.main.Close(), v.shadow.Close()) }

// absent reports whether a directory is there for masked places alone. A command
// may have put something into it, which makes it the image's.
func (v *view) absent(name string) bool {
	if !v.site.masks.Above(name) || v.site.inImage[name] {
		return false
	}
	entries, err := v.main.ReadDir(name)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if !v.absent(e.Path) {
			return false
		}
	}
	return true
}

// Lstat implements rootfs.Reader.
func (v *view) Lstat(name string) (rootfs.Entry, error) {
	if v.site.masks.Covers(name) {
		return v.shadow.Lstat(name)
	}
	e, err := v.main.Lstat(name)
	if err == nil && e.IsDir() && v.absent(name) {
		return rootfs.Entry{}, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	return e, err
}

// ReadDir implements rootfs.Reader.
func (v *view) ReadDir(name string) ([]rootfs.Entry, error) {
	if v.site.masks.Covers(name) {
		return v.shadow.ReadDir(name)
	}
	entries, err := v.main.ReadDir(name)
	if err != nil || !v.site.masks.Above(name) {
		return entries, err
	}
	if v.absent(name) {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	entries = slices.DeleteFunc(entries, func(e rootfs.Entry) bool { return e.IsDir() && v.absent(e.Path) })
	masked, err := v.shadow.ReadDir(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range masked {
		if v.site.masks.Covers(e.Path) {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b rootfs.Entry) int { return strings.Compare(a.Path, b.Path) })
	return entries, nil
}

// Open implements rootfs.Reader.
func (v *view) Open(name string) (io.ReadCloser, error) {
	if v.site.masks.Covers(name) {
		return v.shadow.Open(name)
	}
	return v.main.Open(name)
}
