package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LayerInfo is what the configuration says about a layer.
type LayerInfo struct {
	// DiffID is the digest of the uncompressed tar.
	DiffID digest.Digest
	// Created is the time that the layer's entry in the history gets when it
	// has none; nil leaves it to the neighbours.
	Created *time.Time
	// Description becomes the entry's text where the history has no entry for
	// the layer, as with base images made by other tools.
	Description string
}

// MarshalOptions are the circumstances of Marshal. The zero value is a build
// without SOURCE_DATE_EPOCH.
type MarshalOptions struct {
	// Epoch, when not nil, is the latest time that may appear.
	Epoch *time.Time
	// Base is the configuration of the base image as it was decoded. Its
	// entries in the history keep their times under Epoch. May be nil.
	Base *dockerspec.DockerOCIImage
}

// Marshal writes the config blob of an image with the given layers, lowest
// first, byte for byte as BuildKit's exporter does: the history is brought in
// line with the layers, times that are missing are filled in, and the top-level
// keys come in alphabetical order. cfg is not changed; its RootFS is not used.
func Marshal(cfg dockerspec.DockerOCIImage, layers []LayerInfo, o MarshalOptions) ([]byte, error) {
	if cfg.OS == "" {
		return nil, errors.New("marshal image config: missing os")
	}
	if cfg.Architecture == "" {
		return nil, errors.New("marshal image config: missing architecture")
	}
	history := alignHistory(cfg.History, layers)
	if o.Epoch != nil {
		clampHistory(history, *o.Epoch, o.Base)
	}
	created := cfg.Created
	if created != nil && o.Epoch != nil && created.After(*o.Epoch) {
		created = o.Epoch
	}
	if created == nil {
		for _, h := range history {
			if h.Created != nil {
				created = h.Created
			}
		}
	}
	rootfs := ocispec.RootFS{Type: "layers"}
	for _, l := range layers {
		rootfs.DiffIDs = append(rootfs.DiffIDs, l.DiffID)
	}

	// BuildKit writes the configuration with the struct's own rules for empty
	// fields, and only then replaces single keys.
	first, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("marshal image config: %w", err)
	}
	keys := map[string]json.RawMessage{}
	if err := json.Unmarshal(first, &keys); err != nil {
		return nil, fmt.Errorf("marshal image config: %w", err)
	}
	for key, value := range map[string]any{"rootfs": rootfs, "history": history, "created": created} {
		if keys[key], err = json.Marshal(value); err != nil {
			return nil, fmt.Errorf("marshal image config: %s: %w", key, err)
		}
	}
	out, err := json.Marshal(keys)
	if err != nil {
		return nil, fmt.Errorf("marshal image config: %w", err)
	}
	return out, nil
}

// alignHistory gives a copy of history in which as many entries stand for
// layers as there are layers, and all times are filled in that can be known.
func alignHistory(history []ocispec.History, layers []LayerInfo) []ocispec.History {
	var out []ocispec.History
	counted := 0
	for _, h := range history {
		if !h.EmptyLayer && counted == len(layers) {
			h.EmptyLayer = true
		}
		if !h.EmptyLayer {
			if h.Created == nil {
				h.Created = layers[counted].Created
			}
			counted++
		}
		out = append(out, h)
	}
	for _, l := range layers[counted:] {
		out = append(out, ocispec.History{Created: l.Created, CreatedBy: l.Description, Comment: "buildkit.exporter.image.v0"})
	}

	// An entry without a time before the first new layer takes that layer's
	// time; a later one takes the time of the entry before it.
	var created *time.Time
	missing := false
	for _, h := range out {
		if h.Created == nil {
			missing = true
			continue
		}
		created = h.Created
		if missing {
			break
		}
	}
	missing = false
	for i := range out {
		if out[i].Created == nil {
			missing = true
			out[i].Created = created
		} else if missing {
			created = out[i].Created
		}
	}
	return out
}

// clampHistory lowers times after epoch, except in the entries that the image
// has in common with its base.
func clampHistory(history []ocispec.History, epoch time.Time, base *dockerspec.DockerOCIImage) {
	own := 0
	if base != nil {
		for own < len(history) && own < len(base.History) && reflect.DeepEqual(history[own], base.History[own]) {
			own++
		}
	}
	for i := own; i < len(history); i++ {
		if h := &history[i]; h.Created == nil || h.Created.After(epoch) {
			h.Created = &epoch
		}
	}
}
