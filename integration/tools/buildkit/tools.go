//go:build tools

// Package buildkit pins the BuildKit whose images the tests compare with.
package buildkit

import (
	_ "github.com/moby/buildkit/cmd/buildctl"
	_ "github.com/moby/buildkit/cmd/buildkitd"
)
