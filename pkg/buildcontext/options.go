package buildcontext

import (
	"io"
	"net/http"
	"time"
)

// Options say where a context and its Dockerfile are. The zero value is the
// current directory with the file Dockerfile in it.
type Options struct {
	// Path is a directory, "dir://directory", "tar://file", "tar://stdin", or the
	// http(s) URL of a tar archive or of a lone Dockerfile; "" is the current
	// directory. Archives may be compressed with gzip, bzip2, xz or zstd.
	Path string
	// SubPath is a directory inside that takes the context's place, "" for none.
	SubPath string
	// Dockerfile is a path, looked up in the current directory and then in the
	// context, or an http(s) URL; "" is "Dockerfile", "-" reads Stdin.
	Dockerfile string
	// Named makes it one of the further contexts that a build can have: it has
	// no Dockerfile, and only the .dockerignore in its root counts.
	Named bool
	// Stdin is read for Dockerfile "-" and Path "tar://stdin"; nil is empty.
	Stdin io.Reader
	// TempDir is a directory for what is unpacked or fetched, "" for the
	// system's. Close removes what Open put there.
	TempDir string
	// RootTime is the modification time that the context's root shows, which a
	// directory that the whole context is copied to takes on. BuildKit shows
	// the time at which it received the context. Zero is the directory's own.
	RootTime time.Time
	// HTTP fetches URLs; nil is a client with the usual defaults.
	HTTP *http.Client
}
