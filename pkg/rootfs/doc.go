// Package rootfs is the one door to the trees that images are made of.
//
// A tree is read through a [Reader]. Four of them live here: [Tree], an index
// in memory over layers that were never unpacked; [Dir], a directory of the
// host; [Union], a stack of directories merged as overlayfs merges them; and,
// with [Root.Dir], the readable side of a tree that is being written.
//
// A tree on disk is written through a [Root] and nothing else. Names given to
// it are resolved inside the tree, symbolic links included, so neither a
// hostile layer nor a hostile build context can name a byte outside.
//
// [Resolve], [Walk], [LookupUser] and [LookupOwner] are written against Reader
// and serve all trees alike.
//
// Where the process can't give a file its true owner, type or capabilities, as
// in a user namespace with one id, Root writes what is possible and notes the
// truth in an extended attribute ([OverrideXattr]) from which Dir and Union
// report it.
package rootfs
