package fileop

import (
	"fmt"
	"io/fs"
	"time"
)

// CopyRequest is a COPY, or what ADD has in common with it. Variables are
// expanded already.
type CopyRequest struct {
	// Paths are sources, relative to the source's root whether they start with
	// a slash or not. They are copied in this order, before Files.
	Paths []string
	// Files are sources whose bytes stand in the Dockerfile.
	Files []File
	// Dest is absolute. A slash at its end makes it a directory.
	Dest string
	// Chown is --chown's argument, "" for none. Names are looked up in the
	// destination; unknown ones count as 0.
	Chown string
	// Chmod is --chmod's argument, octal or symbolic, "" for none.
	Chmod string
	// Link copies into an empty tree: symbolic links of the destination are not
	// followed, and parents replace what is there. As in BuildKit it has no
	// effect beside Chmod.
	Link bool
	// Parents keeps the sources' paths (from "/./" on) below Dest.
	Parents bool
	// Exclude are patterns of files to leave out, relative to each source.
	Exclude []string
	// Time is the modification time of what has no source to take it from.
	Time time.Time
}

// File is a source whose bytes stand in the Dockerfile. It is copied with mode
// 0644.
type File struct {
	// Name is the file's name in a directory destination.
	Name string
	Data []byte
}

// NotFoundError says that a source does not exist. errors.Is(err,
// fs.ErrNotExist) holds.
type NotFoundError struct {
	// Source is the source as the request names it; Path is what was looked
	// for, absolute and clean, as BuildKit's messages show it.
	Source, Path string
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("%q: not found", e.Path) }

// Is makes the error an fs.ErrNotExist.
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// ConflictError says that the destination holds something that a copy does not
// replace: a file where a directory is copied to, or the other way round.
type ConflictError struct {
	// Path is the place in the destination, absolute.
	Path string
	// Dir tells that a directory is in the way, not a file.
	Dir bool
}

func (e *ConflictError) Error() string {
	if e.Dir {
		return fmt.Sprintf("cannot replace to directory %s with file", e.Path)
	}
	return "cannot copy to non-directory: " + e.Path
}
