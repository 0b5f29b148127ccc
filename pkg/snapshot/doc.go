// Package snapshot tells what changed in a tree, as BuildKit would tell it.
//
// A difference is a list of [Change] values in the order of a layer. It comes
// from one of three places:
//
//   - [Overlay] reads the upper directory of an overlay mount. Everything in it
//     is a change or leads to one, so the cost is that of the changes.
//   - [Take] records a directory in a [Baseline]; [Baseline.Diff] walks it once
//     more and compares the two records. It serves trees without overlayfs.
//   - [Diff] compares two trees of any kind file by file.
//
// All three hand what they find to one emitter, which adds the unchanged
// directories that lead to a change, brings the names of one file together and
// leaves out what no layer can hold. And all three decide by one rule whether
// a file is the same as before (see same.go), the rule by which BuildKit's two
// differs decide: where that rule overlooks something, so does this package,
// because a layer with one more file in it would be another layer.
//
// Nothing is said about the root directory itself, whose metadata layers
// don't carry.
package snapshot
