// Package image builds image configurations, manifests and images.
//
// A [Draft] is the configuration of a stage while its instructions are gone
// through: one method per instruction changes the configuration and writes the
// line of history that BuildKit would write. [Marshal] turns the finished
// configuration and the layers that came out of the build into the config blob,
// [Manifest] makes the manifest blob, and [Assemble] joins both with the layers
// to a v1.Image. Everything here is a function of its arguments: nothing is
// read, fetched or unpacked.
package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// DefaultPath is the PATH of an image that sets none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// historyComment is what BuildKit's Dockerfile frontend puts into each entry.
const historyComment = "buildkit.dockerfile.v0"

// Draft is a configuration under construction. It is not safe for concurrent use.
type Draft struct {
	// Image is the configuration so far. The draft owns it.
	Image dockerspec.DockerOCIImage
	// Created is put into each entry of the history; nil leaves the time to
	// Marshal. It is the build's SOURCE_DATE_EPOCH.
	Created *time.Time

	cmdSet bool
}

// NewDraft starts from a copy of base: an image's or a finished stage's
// configuration. The image's creation time and ONBUILD triggers are not carried
// over; PATH is added when base has none.
func NewDraft(base dockerspec.DockerOCIImage, created *time.Time) *Draft {
	d := &Draft{Image: Clone(base), Created: created}
	d.Image.Created = nil
	d.Image.Config.OnBuild = nil
	if _, ok := Getenv(d.Image.Config.Env, "PATH"); !ok && d.Image.OS != "windows" {
		d.Image.Config.Env = append(d.Image.Config.Env, "PATH="+DefaultPath)
	}
	return d
}

// Scratch is the configuration of the empty image for platform p.
func Scratch(p ocispec.Platform) dockerspec.DockerOCIImage {
	img := dockerspec.DockerOCIImage{}
	img.Platform = p
	img.OSFeatures = slices.Clone(p.OSFeatures)
	img.RootFS.Type = "layers"
	img.Config.WorkingDir = "/"
	if p.OS != "windows" {
		img.Config.Env = []string{"PATH=" + DefaultPath}
	}
	return img
}

// Decode reads the config blob of a base image. Keys that Docker's
// specification does not know are dropped.
func Decode(config []byte) (*dockerspec.DockerOCIImage, error) {
	if bytes.Equal(bytes.TrimSpace(config), []byte("null")) {
		return nil, fmt.Errorf("decode image config: it is null")
	}
	var img dockerspec.DockerOCIImage
	if err := json.Unmarshal(config, &img); err != nil {
		return nil, fmt.Errorf("decode image config: %w", err)
	}
	return &img, nil
}

// Clone copies img so deeply that neither copy sees changes of the other.
func Clone(img dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	c := &img.Config
	c.Env = slices.Clone(c.Env)
	c.Cmd = slices.Clone(c.Cmd)
	c.Entrypoint = slices.Clone(c.Entrypoint)
	c.OnBuild = slices.Clone(c.OnBuild)
	c.Shell = slices.Clone(c.Shell)
	c.ExposedPorts = maps.Clone(c.ExposedPorts)
	c.Volumes = maps.Clone(c.Volumes)
	c.Labels = maps.Clone(c.Labels)
	if c.Healthcheck != nil {
		h := *c.Healthcheck
		h.Test = slices.Clone(h.Test)
		c.Healthcheck = &h
	}
	img.OSFeatures = slices.Clone(img.OSFeatures)
	img.RootFS.DiffIDs = slices.Clone(img.RootFS.DiffIDs)
	img.History = slices.Clone(img.History)
	return img
}

// commit adds an entry to the history and gives its index.
func (d *Draft) commit(createdBy string, layer bool) int {
	d.Image.History = append(d.Image.History, ocispec.History{
		Created:    d.Created,
		CreatedBy:  createdBy,
		Comment:    historyComment,
		EmptyLayer: !layer,
	})
	return len(d.Image.History) - 1
}
