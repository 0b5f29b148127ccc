package snapshot

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Update brings the record of some files up to date, so that what was done to
// them is no change for a later Diff. Names are clean and relative to the
// directory; each may be new, changed, or gone. A directory that was recorded
// before keeps the records of what it holds, one that is new is recorded with
// all it holds. As with Take, nothing may change meanwhile, and a tick of the
// clock is waited out. Update must not run at the same time as other methods.
func (b *Baseline) Update(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if err := b.update(ctx, names); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("recording %s: %w", b.path, err)
	}
	return nil
}

func (b *Baseline) update(ctx context.Context, names []string) error {
	s, root, err := newScanner(b.path, b.opts)
	if err != nil {
		return err
	}
	defer s.close()
	defer unix.Close(root)
	s.ctx = ctx
	u := updater{scanner: s, base: b, root: root, shared: map[uint64]struct{}{}, fresh: map[string]struct{}{}}

	if err := u.all(names); err != nil {
		return err
	}
	// Making or removing one name of a file changes what stat says of the others.
	if len(u.shared) > 0 {
		var others []string
		b.root.each(".", func(r *record, name string) {
			// A record with one name may be of before it got more.
			if _, ok := u.shared[r.ino]; ok {
				others = append(others, name)
			}
		})
		if err := u.all(others); err != nil {
			return err
		}
	}
	return s.awaitTick(ctx)
}

// each calls fn for all files but directories.
func (d *dirRecord) each(dir string, fn func(r *record, name string)) {
	for i := range d.recs {
		r := &d.recs[i]
		if sub := d.sub(i); sub != nil {
			sub.each(join(dir, d.name(i)), fn)
		} else if !r.isDir() {
			fn(r, join(dir, d.name(i)))
		}
	}
}

type updater struct {
	*scanner
	base   *Baseline
	root   int
	shared map[uint64]struct{} // inodes with several names that were met
	fresh  map[string]struct{} // directories that were just recorded with all they hold
}

// all works directory by directory, parents first, since each directory's
// record is made anew.
func (u *updater) all(names []string) error {
	byDir := map[string][]string{}
	for _, name := range names {
		if name = path.Clean(name); name == "." {
			continue
		}
		if name == ".." || strings.HasPrefix(name, "../") || strings.HasPrefix(name, "/") {
			return fmt.Errorf("%q is no name below the directory", name)
		}
		// The nearest directory with a record; what lies between is new.
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			d, i, ok := u.base.lookup(dir)
			if !ok || d.sub(i) == nil {
				name = dir
			}
		}
		dir := path.Dir(name)
		byDir[dir] = append(byDir[dir], path.Base(name))
	}
	dirs := slices.SortedFunc(maps.Keys(byDir), func(a, b string) int {
		return cmp.Or(cmp.Compare(depth(a), depth(b)), strings.Compare(a, b))
	})
	for _, dir := range dirs {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		if u.isFresh(dir) {
			continue
		}
		bases := byDir[dir]
		slices.Sort(bases)
		if err := u.dir(dir, slices.Compact(bases)); err != nil {
			return err
		}
	}
	return nil
}

func depth(dir string) int {
	if dir == "." {
		return 0
	}
	return strings.Count(dir, "/") + 1
}

func (u *updater) isFresh(dir string) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := u.fresh[dir]; ok {
			return true
		}
	}
	return false
}

// dir records some files of a directory anew.
func (u *updater) dir(name string, bases []string) error {
	rec := u.base.root
	if name != "." {
		parent, i, ok := u.base.lookup(name)
		if !ok {
			return nil // gone with a directory above it
		}
		if rec = parent.sub(i); rec == nil {
			return nil
		}
	}
	fd, err := u.open(name)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd)

	b := newDirBuilder(len(rec.recs) + len(bases))
	keep := func(i int) {
		b.add(rec.recs[i], rec.name(i), rec.extra(i))
		if sub := rec.sub(i); sub != nil {
			b.d.subs[len(b.d.subs)-1] = sub
		}
	}
	i := 0
	for _, base := range bases {
		for i < len(rec.recs) && rec.name(i) < base {
			keep(i)
			i++
		}
		var before *dirRecord
		if i < len(rec.recs) && rec.name(i) == base {
			before = rec.sub(i)
			if r := &rec.recs[i]; r.nlink > 1 && !r.isDir() {
				u.shared[r.ino] = struct{}{}
			}
			i++
		}
		if err := u.file(b, fd, name, base, before); err != nil {
			return err
		}
	}
	for ; i < len(rec.recs); i++ {
		keep(i)
	}
	*rec = *b.done()
	return nil
}

// file adds what dir/base is now to b; before is the directory that it was.
func (u *updater) file(b *dirBuilder, fd int, dir, base string, before *dirRecord) error {
	full := join(dir, base)
	if u.opts.Exclude != nil && u.excluded(full) {
		return nil
	}
	r, extra, err := u.scanner.file(fd, dir, base, nil)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stat %s: %w", full, err)
	}
	u.files.Add(1)
	b.add(r, base, extra)
	if !r.isDir() {
		if r.nlink > 1 {
			u.shared[r.ino] = struct{}{}
		}
		return nil
	}
	if r.flags&recHidden != 0 {
		return nil
	}
	into := &b.d.subs[len(b.d.subs)-1]
	if before != nil {
		*into = before
		return nil
	}
	sub, err := openDirAt(fd, base, unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("open %s: %w", full, err)
	}
	defer unix.Close(sub)
	*into, err = u.scanner.dir(sub, full, nil)
	if err == nil {
		u.fresh[full] = struct{}{}
		(*into).each(full, func(r *record, _ string) {
			if r.nlink > 1 {
				u.shared[r.ino] = struct{}{}
			}
		})
	}
	return err
}

// excluded asks for all directories above as well.
func (u *updater) excluded(full string) bool {
	for i, c := range full {
		if c == '/' && u.opts.Exclude(full[:i]) {
			return true
		}
	}
	return u.opts.Exclude(full)
}

// open opens a recorded directory, whose name has no symbolic links in it.
func (u *updater) open(name string) (int, error) {
	cur, err := openDirAt(u.root, ".", 0)
	if err != nil || name == "." {
		return cur, err
	}
	for c := range strings.SplitSeq(name, "/") {
		next, err := openDirAt(cur, c, unix.O_NOFOLLOW)
		unix.Close(cur)
		if err != nil {
			return -1, err
		}
		cur = next
	}
	return cur, nil
}
