package layers

import (
	"context"
	"fmt"
	"io"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// Put applies changes to a directory without a tar in between. In an overlay
// form the directory holds these changes alone: parents are made with the
// metadata that the list gives them, removals become whiteouts. In the plain
// form parents are there already and get no more than their times.
//
// Directories get their modification times once everything is written.
func Put(ctx context.Context, root *rootfs.Root, changes []snapshot.Change, form Form) error {
	links := map[uint64]string{}
	for i := range changes {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := putOne(root, &changes[i], form, links); err != nil {
			return fmt.Errorf("writing %s: %w", changes[i].Entry.Path, err)
		}
	}
	for i := len(changes) - 1; i >= 0; i-- {
		c := &changes[i]
		if c.Kind == snapshot.Remove || !c.Entry.IsDir() {
			continue
		}
		if err := root.Chtimes(c.Entry.Path, c.Entry.ModTime); err != nil {
			return fmt.Errorf("time of %s: %w", c.Entry.Path, err)
		}
	}
	return nil
}

func putOne(root *rootfs.Root, c *snapshot.Change, form Form, links map[uint64]string) error {
	switch {
	case c.Kind == snapshot.Remove && form == Plain:
		return root.Remove(c.Entry.Path)
	case c.Kind == snapshot.Remove:
		return root.Whiteout(c.Entry.Path)
	case c.Kind == snapshot.Parent && form == Plain:
		return nil
	}
	if c.Entry.Link != 0 {
		if first, ok := links[c.Entry.Link]; ok {
			return root.Link(first, c.Entry.Path)
		}
		links[c.Entry.Link] = c.Entry.Path
	}
	if c.Entry.Kind != rootfs.Regular || c.Open == nil {
		return root.Write(c.Entry, nil)
	}
	content, err := c.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	return root.Write(c.Entry, io.Reader(content))
}
