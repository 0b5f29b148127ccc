package inplace

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// copyTree copies what from names in r to the name to in root.
func copyTree(ctx context.Context, root *rootfs.Root, to string, r rootfs.Reader, from string) error {
	c := copier{root: root, links: map[uint64]string{}}
	err := rootfs.Walk(r, from, func(e rootfs.Entry) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		source := e.Path
		rest := source
		if from != "." {
			rest = strings.TrimPrefix(strings.TrimPrefix(source, from), "/")
		}
		e.Path = path.Join(to, rest)
		return c.put(e, r, source)
	})
	if err != nil {
		return err
	}
	return c.times()
}

// copier writes the files of a tree in the order of a walk.
type copier struct {
	root  *rootfs.Root
	links map[uint64]string
	dirs  []rootfs.Entry
}

// put writes e with the bytes that r has at source.
func (c *copier) put(e rootfs.Entry, r rootfs.Reader, source string) error {
	switch {
	case e.IsDir():
		c.dirs = append(c.dirs, e)
	case e.Link != 0 && c.links[e.Link] != "":
		return c.root.Link(c.links[e.Link], e.Path)
	case e.Link != 0:
		c.links[e.Link] = e.Path
	}
	if e.Kind != rootfs.Regular {
		return c.root.Write(e, nil)
	}
	content, err := r.Open(source)
	if err != nil {
		return err
	}
	defer content.Close()
	return c.root.Write(e, content)
}

// times gives directories their times, which writing into them has changed.
func (c *copier) times() error {
	for n := len(c.dirs) - 1; n >= 0; n-- {
		if err := c.root.Chtimes(c.dirs[n].Path, c.dirs[n].ModTime); err != nil {
			return err
		}
	}
	return nil
}

// copyFrom copies a finished stage.
func (s *site) copyFrom(ctx context.Context, r rootfs.Reader) error {
	main := copier{root: s.root, links: map[uint64]string{}}
	shadow := copier{root: s.shadow, links: map[uint64]string{}}
	err := rootfs.Walk(r, ".", func(e rootfs.Entry) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.masks.Above(e.Path) && !e.IsDir() {
			if err := s.block(e.Path); err != nil {
				return err
			}
		}
		switch {
		case s.masks.Covers(e.Path):
			if err := s.imply(e.Path); err != nil {
				return err
			}
			if err := s.shadow.MkdirParents(e.Path, nil); err != nil {
				return err
			}
			return shadow.put(e, r, e.Path)
		case s.masks.Above(e.Path):
			main.dirs = append(main.dirs, e)
			return s.describe(e)
		}
		return main.put(e, r, e.Path)
	})
	if err == nil {
		err = main.times()
	}
	if err == nil {
		err = shadow.times()
	}
	if err != nil {
		return fmt.Errorf("copying the stage it continues: %w", err)
	}
	return nil
}

// put applies the changes of a COPY, ADD or WORKDIR, and returns the names in
// root that it has changed.
func (s *site) put(ctx context.Context, changes []snapshot.Change) ([]string, error) {
	var main, shadow []snapshot.Change
	var names []string
	for i := range changes {
		c := &changes[i]
		name := c.Entry.Path
		switch {
		case s.masks.Covers(name):
			shadow = append(shadow, *c)
			if err := s.hide(c); err != nil {
				return nil, err
			}
			continue
		case !s.masks.Above(name):
			main = append(main, *c)
			if err := s.imply(name); err != nil {
				return nil, err
			}
		case c.Kind == snapshot.Remove:
			if err := s.vanish(name, nil); err != nil {
				return nil, err
			}
		case c.Kind == snapshot.Write && !c.Entry.IsDir():
			return nil, fmt.Errorf("/%s can't be replaced: something in it is in use in this container", name)
		}
		if c.Kind != snapshot.Parent {
			names = append(names, name)
		}
	}
	if err := layers.Put(ctx, s.shadow, shadow, layers.Plain); err != nil {
		return nil, err
	}
	if err := layers.Put(ctx, s.root, main, layers.Plain); err != nil {
		return nil, err
	}
	for i := range changes {
		c := &changes[i]
		if c.Kind == snapshot.Write && s.masks.Above(c.Entry.Path) {
			if err := s.describe(c.Entry); err != nil {
				return nil, err
			}
		}
	}
	return names, nil
}

// hide prepares the shadow for a change in a masked place.
func (s *site) hide(c *snapshot.Change) error {
	name := c.Entry.Path
	if c.Kind != snapshot.Write {
		return nil
	}
	if !c.Entry.IsDir() && s.hidden == "" && !system(s.masks.Covering(name)) {
		s.hidden = name
	}
	if err := s.imply(name); err != nil {
		return err
	}
	return s.shadow.MkdirParents(name, nil)
}
