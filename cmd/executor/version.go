package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// printVersion shows the version that the Go toolchain stamped into the binary.
func printVersion(w io.Writer) {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	fmt.Fprintf(w, "executor %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
}
