// Package layers turns changes into layers and layers into trees.
//
// Outwards: [Write] makes the tar of a list of changes in the form that
// BuildKit gives its layers, byte for byte, so that diff IDs agree; [Create]
// sends that tar through a hash, a compressor, a second hash and into a file in
// one pass, and the result is a v1.Layer.
//
// Inwards: [Unpack] applies a layer to a directory, either plainly or as one of
// the lower directories of overlayfs; [Load] applies it to an index in memory
// and leaves the bytes where they are. Both run the same loop over the tar
// (apply.go), so both agree on whiteouts, links, missing parents and odd names.
// [Decompress] tells compressions apart by their first bytes, and [Verify]
// checks digest and size of what passes through it.
//
// No function holds a layer in memory.
package layers
