package registry

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PlatformError says that an index has nothing for a platform.
type PlatformError struct {
	// Want is the platform that was asked for.
	Want string
	// Available are the platforms in the index, in its order.
	Available []string
}

// Error lists what there is.
func (e *PlatformError) Error() string {
	var real []string
	for _, p := range e.Available {
		// Attestations are filed under this one.
		if !strings.HasPrefix(p, "unknown/") && !slices.Contains(real, p) {
			real = append(real, p)
		}
	}
	if len(real) == 0 {
		return fmt.Sprintf("no image for platform %s: the index lists no platform", e.Want)
	}
	return fmt.Sprintf("no image for platform %s; there are %s", e.Want, strings.Join(real, ", "))
}

// matcher accepts and orders platforms for the one that is wanted.
type matcher struct {
	platforms.MatchComparer
	want ocispec.Platform
}

func newMatcher(p ocispec.Platform) matcher {
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	p = platforms.Normalize(p)
	return matcher{platforms.Only(p), p}
}

func (m matcher) String() string { return platforms.FormatAll(m.want) }

// choose returns the position in ds of the entry for the platform: of those
// that say so the best, the first of equals; -1 when there is none.
func (m matcher) choose(ds []v1.Descriptor) int {
	best := -1
	for i, d := range ds {
		if d.Platform == nil || !m.Match(spec(*d.Platform)) {
			continue
		}
		if best < 0 || m.Less(spec(*d.Platform), spec(*ds[best].Platform)) {
			best = i
		}
	}
	return best
}

func spec(p v1.Platform) ocispec.Platform {
	return ocispec.Platform{
		Architecture: p.Architecture, OS: p.OS, Variant: p.Variant,
		OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
	}
}
