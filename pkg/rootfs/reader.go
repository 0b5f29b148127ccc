package rootfs

import "io"

// Reader gives read access to a tree: an unpacked directory, an index over
// packed layers, a stack of overlay directories, a build context.
//
// Names are relative to the tree's root, slash-separated and clean; "." is the
// root. Lookups never leave the tree and never follow a symbolic link, not
// even among the parents of a name: a name whose parent is a symbolic link
// does not exist. [Resolve] turns a path as users write it into such a name.
//
// A missing file gives an error for which errors.Is(err, fs.ErrNotExist) holds.
// Errors are *fs.PathError with the name as given. Readers are safe for
// concurrent use.
type Reader interface {
	// Lstat describes one file.
	Lstat(name string) (Entry, error)
	// ReadDir lists a directory, sorted by name in byte order. The entries'
	// Path is the full name below the tree's root.
	ReadDir(name string) ([]Entry, error)
	// Open opens a regular file. The caller closes it.
	Open(name string) (io.ReadCloser, error)
}
