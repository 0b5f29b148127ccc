// Package keeper puts a container's own files away while an image's tree takes
// their place, and brings them back.
//
// [Save] writes the files, with all their metadata, as a tar into a file that
// has no name, [Clear] removes them, [Restore] brings them back. [Masks] are
// the places that all three leave alone: mounts, and paths the build needs.
//
// A [Keeper] is a second process with the same file open. It waits for the
// first one to end. Should that happen before the files are back, however it
// happened, the keeper brings them back.
package keeper
