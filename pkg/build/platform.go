package build

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cooper-build/cooper/pkg/image"
)

// platformPair is what is built for, and what it is built on.
type platformPair struct{ target, build ocispec.Platform }

// parsePlatform parses "os/arch[/variant]"; "" is this machine's platform.
func parsePlatform(text string) (platformPair, error) {
	host := image.Host()
	if text == "" {
		return platformPair{host, host}, nil
	}
	p, err := image.ParsePlatform(text)
	if err != nil {
		return platformPair{}, err
	}
	if p.OS != "linux" {
		return platformPair{}, fmt.Errorf("platform %s: only linux images can be built", text)
	}
	return platformPair{p, host}, nil
}
