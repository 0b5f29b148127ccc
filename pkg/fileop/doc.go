// Package fileop computes what COPY, ADD and WORKDIR change in a tree.
//
// [Copy], [Add] and [Workdir] are computations: they look at a destination and
// at sources through [rootfs.Reader] and return a list of [snapshot.Change],
// the same list that BuildKit's overlay differ would find after it had done the
// copying. Nothing is written to the destination, so it may be an index over
// packed layers as well as an unpacked directory, and the bytes of files are
// read when the changes are used, not before. The exceptions are archives and
// URLs of ADD, which are unpacked or fetched into files of a directory that the
// caller gives.
//
// How the parts move: a request becomes a list of actions, one for each source,
// carried out in their order on a view, which is the destination with the
// changes made so far laid over it. The view does what a kernel would: a new
// file touches its directory's modification time, a new directory in a setgid
// directory inherits the group. At the end the view is compared with the
// destination along the paths that were touched.
//
// # Times
//
// What a copy writes has the modification time of its source. Three kinds of
// files have no source: directories made on the way to the destination,
// heredocs, and existing directories whose list of names changed. BuildKit
// gives them the time of the build; here they have the request's Time, so that
// the result depends on the arguments alone.
package fileop
