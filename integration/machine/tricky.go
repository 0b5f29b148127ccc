package machine

import (
	"archive/tar"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// tricky has a directory /data with what makes it hard to tell how a RUN has
// changed a tree or where a COPY goes: links of both sorts, in and out of it,
// names around "/", an opaque directory, special files and an empty layer.
func tricky() (v1.Image, error) {
	first := (&files{}).dir("data", 0o755).
		file("data/keep", 0o644, "keep\n").file("data/gone", 0o644, "gone\n").file("data/empty", 0o644, "").
		dir("data/opaque", 0o755).file("data/opaque/old", 0o644, "old\n").
		dir("data/hard", 0o755).file("data/hard/a", 0o644, "linked\n").hardlink("data/hard/b", "data/hard/a").hardlink("data/hard/c", "data/hard/a").
		link("data/link", "keep").link("data/dirlink", "hard").link("data/dangling", "/nowhere/target").link("data/out", "../../../../outside").link("abs", "/data").
		add(tar.Header{Typeflag: tar.TypeFifo, Name: "data/fifo", Mode: 0o644}, "").
		add(tar.Header{Typeflag: tar.TypeChar, Name: "data/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, "").
		file("data/suid", 0o4755, "x\n").file("data/owned", 0o640, "x\n", 1000, 33).dir("data/sticky", 0o1777).
		dir("data/tree", 0o755).dir("data/tree/sub", 0o755).file("data/tree/sub/f", 0o644, "f\n").file("data/tree/g", 0o644, "g\n").
		dir("data/tree-x", 0o755).file("data/tree-x/h", 0o644, "h\n")
	second := (&files{}).dir("data", 0o755).gone("data/gone").dir("data/opaque", 0o755).
		add(tar.Header{Typeflag: tar.TypeReg, Name: "data/opaque/.wh..wh..opq", ModTime: time.Unix(0, 0)}, "").
		file("data/opaque/new", 0o644, "new\n")
	return variation(v1.Config{Env: []string{systemPath}, Cmd: []string{"sh"}}, first, second, &files{})
}
