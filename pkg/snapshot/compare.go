package snapshot

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// Diff walks the directory again and returns what changed since b was taken,
// together with the record of what is there now, from which a later Diff goes
// on. As with Take, nothing may change in the directory meanwhile. b stays as
// it is.
//
// The changes' Open reads the directory: it is for as long as the files stay
// unchanged.
func (b *Baseline) Diff(ctx context.Context) (changes []Change, next *Baseline, err error) {
	next = &Baseline{path: b.path, opts: b.opts}
	if err := next.scan(ctx, b.root); err != nil {
		return nil, nil, fmt.Errorf("looking for changes in %s: %w", b.path, err)
	}
	c := comparison{ctx: ctx, next: next, open: reopen(b.path)}
	c.out = newEmitter(next.stat, c.open, func(ch Change) bool {
		changes = append(changes, ch)
		return true
	})
	if err := c.dir(".", b.root, next.root); err != nil {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		return nil, nil, fmt.Errorf("looking for changes in %s: %w", b.path, err)
	}
	return changes, next, nil
}

// stat describes a recorded file, for the emitter.
func (b *Baseline) stat(name string) (rootfs.Entry, error) {
	d, i, ok := b.lookup(name)
	if !ok {
		return rootfs.Entry{}, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return d.entry(i, name), nil
}

// comparison goes through two records side by side.
type comparison struct {
	ctx  context.Context
	next *Baseline
	open func(name string) (io.ReadCloser, error)
	out  *emitter
}

// dir reports what differs in a directory; before is nil for a new one.
func (c *comparison) dir(name string, before, after *dirRecord) error {
	if before == nil {
		before = &dirRecord{}
	}
	for i, j := 0, 0; i < len(before.recs) || j < len(after.recs); {
		order := 0
		switch {
		case i == len(before.recs):
			order = +1
		case j == len(after.recs):
			order = -1
		default:
			order = strings.Compare(before.name(i), after.name(j))
		}
		var err error
		switch {
		case order < 0:
			if before.recs[i].flags&recHidden == 0 {
				err = c.out.removed(join(name, before.name(i)))
			}
			i++
		case order > 0:
			err = c.file(name, nil, 0, after, j)
			j++
		default:
			err = c.file(name, before, i, after, j)
			i, j = i+1, j+1
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file reports file j of after, which is file i of before unless that is nil.
func (c *comparison) file(dir string, before *dirRecord, i int, after *dirRecord, j int) error {
	r := &after.recs[j]
	if r.flags&recHidden != 0 || before != nil && before.recs[i].flags&recHidden != 0 {
		return nil // a mount came or went: no change of the tree
	}
	same := before != nil && before.recs[i].untouched(r)
	if same && !r.isDir() && r.nlink < 2 {
		return nil // nearly all files; their full names are never made
	}
	name := join(dir, after.name(j))
	if before != nil && !same {
		var err error
		if same, err = c.same(name, before.facts(i), after.facts(j)); err != nil {
			return err
		}
	}
	var err error
	switch {
	case !same:
		err = c.out.written(after.entry(j, name))
	case !r.isDir():
		err = c.out.unchanged(after.entry(j, name))
	}
	if err != nil || !r.isDir() {
		return err
	}
	var below *dirRecord
	if before != nil {
		below = before.sub(i)
	}
	return c.dir(name, below, after.sub(j))
}

func (c *comparison) same(name string, a, b facts) (bool, error) {
	switch judge(a, b) {
	case equal:
		return true, nil
	case different:
		return false, nil
	}
	ask := c.next.opts.SameContent
	if ask == nil {
		return false, nil
	}
	if err := c.ctx.Err(); err != nil {
		return false, err
	}
	same, err := ask(c.ctx, name, func() (io.ReadCloser, error) { return c.open(name) })
	if err != nil {
		return false, fmt.Errorf("comparing %s with what it was: %w", name, err)
	}
	return same, nil
}
