// Package buildcontext opens what COPY and ADD read: a directory, a tar archive
// or an archive behind a URL, without what .dockerignore leaves out.
//
// A [Context] is a [rootfs.Reader] that shows files as they arrive at BuildKit
// when a client sends them: owned by root, with mode, modification time and
// user attributes of the original but without capabilities; names of one file
// stay names of one file; a socket is an empty file.
//
// How the parts move: [Open] brings the context to a directory if it is not one
// already, finds the Dockerfile, reads the ignore file that belongs to it and
// lays two readers over the directory. One hides what is ignored, the other
// changes how files look. Nothing is copied and nothing is listed ahead of
// need.
package buildcontext
