package inplace

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// mountPoints are directories that every command finds. An image without them
// gets them from its first command, as mount points, when BuildKit builds it.
// Here they are the container's own mounts, so they are made in the shadow.
var mountPoints = [...]string{"dev", "proc", "sys"}

// makeMountPoints makes those that the image lacks and notes them as changes.
func (w *workspace) makeMountPoints() error {
	for _, name := range mountPoints {
		if !w.site.masks.Covers(name) {
			continue
		}
		_, err := w.view.shadow.Lstat(name)
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		e := rootfs.Entry{Path: name, Kind: rootfs.Directory, Mode: 0o755, ModTime: time.Now()}
		if err := w.site.aside(e, nil); err != nil {
			return err
		}
		w.made = append(w.made, snapshot.Change{Kind: snapshot.Write, Entry: e})
	}
	return nil
}

// merge adds changes at the top of the tree to a list in the order of a layer.
func merge(list, top []snapshot.Change) []snapshot.Change {
	for _, c := range top {
		at := slices.IndexFunc(list, func(o snapshot.Change) bool {
			first, _, _ := strings.Cut(o.Entry.Path, "/")
			return first > c.Entry.Path
		})
		if at < 0 {
			at = len(list)
		}
		list = slices.Insert(list, at, c)
	}
	return list
}
