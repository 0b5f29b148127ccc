package rootfs

import "io/fs"

// Walk calls fn for root and all that lies below it in the order of a layer: a
// directory before what it holds, the names of a directory in byte order, a
// directory's contents before its next sibling. Symbolic links are not
// followed; root is a clean name of r.
//
// When fn returns fs.SkipDir for a directory its contents are left out; for
// another file the rest of that file's directory is. fs.SkipAll ends the walk
// without an error, any other error ends it with that error.
func Walk(r Reader, root string, fn func(Entry) error) error {
	e, err := r.Lstat(root)
	if err != nil {
		return err
	}
	err = walk(r, e, fn)
	if err == fs.SkipDir || err == fs.SkipAll {
		return nil
	}
	return err
}

func walk(r Reader, e Entry, fn func(Entry) error) error {
	if err := fn(e); err != nil {
		if err == fs.SkipDir && e.Kind == Directory {
			return nil
		}
		return err
	}
	if e.Kind != Directory {
		return nil
	}
	entries, err := r.ReadDir(e.Path)
	if err != nil {
		return err
	}
	for _, c := range entries {
		if err := walk(r, c, fn); err != nil {
			if err == fs.SkipDir {
				return nil
			}
			return err
		}
	}
	return nil
}
