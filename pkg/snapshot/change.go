package snapshot

import (
	"io"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// Kind tells what happened to a path.
type Kind uint8

const (
	// Write: the file is new or differs from what was there before. It takes
	// the place of anything of another kind at that path; a directory keeps
	// its children when a directory was there before.
	Write Kind = iota
	// Parent: a directory that did not change and is named only because
	// something below it did. Only its modification time may have changed.
	Parent
	// Remove: the file, or the whole directory, is gone. Only Entry.Path is set.
	Remove
)

// Change is one difference between two states of a tree.
//
// A list of changes is ordered as BuildKit orders a layer: a directory before
// what it holds, names of one directory in byte order. Only unchanged names of
// a file follow at once on its first changed name, wherever they are. Each
// ancestor of a changed path (the root excepted) is in the list once, before
// it, as Write or Parent. Nothing below a removed path is listed. Names of one
// file (equal Entry.Link) are all listed with the same kind and metadata; a
// layer stores the file with the first.
type Change struct {
	Kind  Kind
	Entry rootfs.Entry
	// Open gives the bytes of a regular file, nil for all else. It may be
	// called several times, also at the same time; the caller closes what it
	// returns. It fails when the bytes are no longer Entry.Size long.
	Open func() (io.ReadCloser, error)
}
