package fileop

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"

	"github.com/moby/patternmatcher"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// copier copies one file or directory of a source.
type copier struct {
	ctx     context.Context
	op      *operation
	src     rootfs.Reader
	include *filter
	exclude *filter
	// links are the source's files with several names that were copied. Names
	// stay names of one file only where one source brings both.
	links map[uint64]*inode
	// pending are the directories above the current file, outermost first.
	// Those that no pattern names are made when something below them is.
	pending []pendingDir
	// matched tells that something below the source passed the filters.
	matched bool
}

type pendingDir struct {
	entry  rootfs.Entry
	target string
	made   bool
}

// filter is a list of patterns, nil for none.
type filter struct {
	*patternmatcher.PatternMatcher
	below []scope
}

// match is a filter's result for one file and what its children need of it.
type match struct {
	ok   bool
	info patternmatcher.MatchInfo
}

func (f *filter) match(rel string, parent match) (match, error) {
	if f == nil {
		return match{}, nil
	}
	ok, info, err := f.MatchesUsingParentResults(rel, parent.info)
	return match{ok, info}, err
}

func (c *copier) filters(include, exclude []string) error {
	var err error
	if c.include, err = newFilter("--parents", include); err != nil {
		return err
	}
	c.exclude, err = newFilter("--exclude", exclude)
	return err
}

func newFilter(flag string, patterns []string) (*filter, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("%s: invalid patterns %q: %w", flag, patterns, err)
	}
	f := &filter{PatternMatcher: pm}
	for _, p := range pm.Patterns() {
		if !p.Exclusion() {
			f.below = append(f.below, scopeOf(p.String()))
		}
	}
	return f, nil
}

// run copies the file name of the source, which the user called p, to the
// operation's destination.
func (c *copier) run(p, name string, a action) error {
	o, v := c.op, c.op.view
	dest := cleanPath(o.req.Dest)
	ensure := dest
	if dir, base := path.Split(dest); base != "" {
		ensure = dir
	}
	made, _, err := rootfs.ResolveMissing(v, ensure)
	if err != nil {
		return err
	}
	if err := v.mkdirAll(made, o.chmod.made(), o.owner); err != nil {
		return err
	}
	target, _, err := rootfs.ResolveMissing(v, dest)
	if err != nil {
		return err
	}
	source, err := c.src.Lstat(name)
	if err != nil {
		return err
	}
	if a.fresh && name == "." {
		source.ModTime = o.req.Time
	}
	there, err := v.look(target)
	if err != nil {
		return err
	}
	if there != nil && (source.IsDir() && !a.contents || !source.IsDir() && there.ino.IsDir()) {
		if base := path.Base(p); base != "/" {
			target = joinName(target, base)
		}
	}
	made, _ = splitName(target)
	if a.contents && source.IsDir() && there == nil {
		made = target
	}
	if err := v.mkdirAll(made, o.chmod.made(), o.owner); err != nil {
		return err
	}
	return c.copy(source, "", target, match{}, match{})
}

// copy copies a file of the source and all below it. rel is its path relative
// to where the copy began, "" there.
func (c *copier) copy(e rootfs.Entry, rel, target string, parentIn, parentEx match) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	wanted := true
	var in, ex match
	if rel != "" {
		var err error
		if in, err = c.include.match(rel, parentIn); err != nil {
			return fmt.Errorf("--parents: %w", err)
		}
		if ex, err = c.exclude.match(rel, parentEx); err != nil {
			return fmt.Errorf("--exclude: %w", err)
		}
		wanted = (c.include == nil || in.ok) && !ex.ok
		c.matched = c.matched || wanted
	}
	if wanted {
		if err := c.makePending(); err != nil {
			return err
		}
	}
	if e.IsDir() {
		if !wanted && c.nothingBelow(rel, ex) {
			return nil
		}
		return c.dir(e, rel, target, wanted, in, ex)
	}
	if !wanted {
		return nil
	}
	return c.file(e, target)
}

// nothingBelow tells that no filter can let anything through in a directory
// that it holds back.
func (c *copier) nothingBelow(rel string, ex match) bool {
	if ex.ok && !c.exclude.Exclusions() {
		return true
	}
	if c.include == nil || c.include.Exclusions() {
		return false
	}
	for _, s := range c.include.below {
		if s.reaches(rel) {
			return false
		}
	}
	return true
}

func (c *copier) dir(e rootfs.Entry, rel, target string, wanted bool, in, ex match) error {
	created := false
	if wanted {
		var err error
		if created, err = c.makeDir(e, rel == "", target); err != nil {
			return err
		}
	}
	c.pending = append(c.pending, pendingDir{entry: e, target: target, made: wanted})
	kids, err := c.src.ReadDir(e.Path)
	if err != nil {
		return err
	}
	for _, kid := range kids {
		_, base := splitName(kid.Path)
		if err := c.copy(kid, path.Join(rel, base), joinName(target, base), in, ex); err != nil {
			return err
		}
	}
	c.pending = c.pending[:len(c.pending)-1]
	if !wanted {
		return nil
	}
	// Metadata comes last: what was just put into the directory changed its
	// modification time.
	n, err := c.op.view.look(target)
	if err != nil {
		return err
	}
	n.changed = true
	if rel == "" && !created {
		n.ino.ModTime = e.ModTime
		return nil
	}
	c.metadata(n.ino, e)
	return nil
}

// makeDir makes sure that there is a directory at target. top tells that it is
// the destination itself, whose mode and owner are kept when it exists.
func (c *copier) makeDir(e rootfs.Entry, top bool, target string) (created bool, err error) {
	v := c.op.view
	n, err := v.look(target)
	if err != nil {
		return false, err
	}
	if n == nil {
		_, err := v.mkdir(target, e.Mode)
		return err == nil, err
	}
	if !n.ino.IsDir() {
		return false, &ConflictError{Path: "/" + target}
	}
	if !top {
		n.ino.Mode = e.Mode
		n.changed = true
	}
	return false, nil
}

// makePending makes the directories above a file that passed the filters. One
// that is there already gets the source's mode and nothing else.
func (c *copier) makePending() error {
	for i, d := range c.pending {
		if d.made {
			continue
		}
		created, err := c.makeDir(d.entry, false, d.target)
		if err != nil {
			return err
		}
		if created {
			n, err := c.op.view.look(d.target)
			if err != nil {
				return err
			}
			c.metadata(n.ino, d.entry)
		}
		c.pending[i].made = true
	}
	return nil
}

// file copies anything but a directory.
func (c *copier) file(e rootfs.Entry, target string) error {
	v := c.op.view
	n, err := v.look(target)
	if err != nil {
		return err
	}
	if n != nil {
		if n.ino.IsDir() {
			return &ConflictError{Path: "/" + target, Dir: true}
		}
		if err := v.remove(target); err != nil {
			return err
		}
	}
	ino := c.links[e.Link]
	if e.Link == 0 || e.Kind != rootfs.Regular || ino == nil {
		ino = &inode{Entry: rootfs.Entry{
			Kind: e.Kind, Size: e.Size, Target: e.Target, Major: e.Major, Minor: e.Minor,
		}}
		switch e.Kind {
		case rootfs.Regular:
			name := e.Path
			ino.open = func() (io.ReadCloser, error) { return c.src.Open(name) }
			if e.Link != 0 {
				c.links[e.Link] = ino
			}
		case rootfs.Socket:
			// BuildKit leaves an empty file in a socket's place.
			ino.Kind = rootfs.Regular
		}
		c.metadata(ino, e)
	}
	_, err = v.put(target, ino)
	return err
}

// metadata gives a copy its source's owner, mode, time and extended attributes.
// Attributes that a directory had before stay, as with setxattr.
func (c *copier) metadata(ino *inode, e rootfs.Entry) {
	ino.UID, ino.GID = e.UID, e.GID
	c.op.owner.apply(&ino.Entry)
	ino.Mode = 0o777
	if e.Kind != rootfs.Symlink {
		ino.Mode = c.op.chmod.file(e)
	}
	ino.ModTime = e.ModTime
	if len(e.Xattrs) == 0 {
		return
	}
	if len(ino.Xattrs) > 0 {
		merged := maps.Clone(ino.Xattrs)
		maps.Copy(merged, e.Xattrs)
		ino.Xattrs = merged
		return
	}
	ino.Xattrs = e.Xattrs
}
