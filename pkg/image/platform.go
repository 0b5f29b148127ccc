package image

import (
	"fmt"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Host is the platform that this program runs on, with Linux as the system:
// images are built for Linux wherever the builder runs.
func Host() ocispec.Platform {
	p := platforms.DefaultSpec()
	p.OS, p.OSVersion, p.OSFeatures = "linux", "", nil
	return platforms.Normalize(p)
}

// ParsePlatform reads "os[/arch[/variant]]" and normalises it, so that
// "linux/aarch64" and "linux/arm64/v8" are both "linux/arm64".
func ParsePlatform(s string) (ocispec.Platform, error) {
	p, err := platforms.Parse(s)
	if err != nil {
		return ocispec.Platform{}, fmt.Errorf("parse platform %q: %w", s, err)
	}
	return platforms.Normalize(p), nil
}

// NormalizePlatform gives the one spelling of a platform that has several.
func NormalizePlatform(p ocispec.Platform) ocispec.Platform { return platforms.Normalize(p) }

// FormatPlatform writes a platform as ParsePlatform reads it, with the system's
// version and features where it has some.
func FormatPlatform(p ocispec.Platform) string { return platforms.FormatAll(p) }

// SelectPlatform finds the image for want among the platforms of an image
// index and gives its position, or -1. Exact matches win; otherwise the best
// one that want's processor can run ("linux/arm/v6" for "linux/arm/v7").
func SelectPlatform(want ocispec.Platform, have []ocispec.Platform) int {
	match := platforms.Only(platforms.Normalize(want))
	best := -1
	for i, p := range have {
		p = platforms.Normalize(p)
		if match.Match(p) && (best < 0 || match.Less(p, platforms.Normalize(have[best]))) {
			best = i
		}
	}
	return best
}
