package confirm

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Picture is what can be seen of a build's result from outside, without what
// differs between two builds of the same builder.
type Picture struct {
	// Failed says that there is no image; all else is then empty.
	Failed          bool              `json:"failed,omitempty"`
	MediaType       string            `json:"media_type,omitempty"`
	ConfigMediaType string            `json:"config_media_type,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
	// Config is the configuration without history and diff ids; times are
	// "now" when they are within the build.
	Config  map[string]any   `json:"config,omitempty"`
	History []map[string]any `json:"history,omitempty"`
	Layers  []Layer          `json:"layers,omitempty"`
}

// Layer is one layer. That of a base image has nothing but Base.
type Layer struct {
	// Base is a base image's name and the layer's number in it, "busybox#0".
	Base        string            `json:"base,omitempty"`
	MediaType   string            `json:"media_type,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// DiffID is empty where an entry's time is "now".
	DiffID string `json:"diff_id,omitempty"`
	// Shape is the digest of the tar's bytes with times that are "now" set to 0.
	Shape string `json:"shape,omitempty"`
	// Entries have a line each: the quoted name, a blank, all else.
	Entries []string `json:"entries,omitempty"`
}

// Moment is the time within which an image was built.
type Moment struct{ Begin, End time.Time }

// Has reports whether t, which may be cut to a whole second, is within m. File
// systems take their times from a clock that runs some milliseconds late.
func (m Moment) Has(t time.Time) bool {
	return !t.Before(m.Begin.Add(-10*time.Millisecond).Truncate(time.Second)) && !t.After(m.End)
}

// ReadPicture reads an archive that holds an OCI layout. bases names the layers
// of base images by their diff ids. It fails if a digest in the archive does
// not match what it stands for.
func ReadPicture(path string, built Moment, bases map[string]string) (*Picture, error) {
	a, err := openArchive(path)
	if err != nil {
		return nil, err
	}
	defer a.close()
	m, err := a.manifest()
	if err != nil {
		return nil, err
	}
	p := &Picture{MediaType: m.MediaType, ConfigMediaType: m.Config.MediaType, Annotations: m.Annotations}
	if err := a.json(m.Config.member(), &p.Config); err != nil {
		return nil, err
	}
	var typed struct {
		History []map[string]any `json:"history"`
		RootFS  struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := a.json(m.Config.member(), &typed); err != nil {
		return nil, err
	}
	delete(p.Config, "history")
	delete(p.Config["rootfs"].(map[string]any), "diff_ids")
	p.History = typed.History
	for _, o := range append([]map[string]any{p.Config}, p.History...) {
		normaliseTime(o, built)
	}
	if len(typed.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("%s: %d layers but %d diff ids", path, len(m.Layers), len(typed.RootFS.DiffIDs))
	}
	for i, d := range m.Layers {
		diffID := typed.RootFS.DiffIDs[i]
		if base, ok := bases[diffID]; ok {
			p.Layers = append(p.Layers, Layer{Base: base})
			continue
		}
		l, err := a.layer(d, diffID, built)
		if err != nil {
			return nil, fmt.Errorf("%s: layer %d: %w", path, i, err)
		}
		p.Layers = append(p.Layers, l)
	}
	return p, nil
}

func normaliseTime(o map[string]any, built Moment) {
	s, ok := o["created"].(string)
	if !ok {
		return
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil && built.Has(t) {
		o["created"] = "now"
	}
}

func (a *archive) layer(d descriptor, diffID string, built Moment) (Layer, error) {
	blob, err := a.open(d.member())
	if err != nil {
		return Layer{}, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, blob); err != nil {
		return Layer{}, err
	}
	if got := digest(sum.Sum(nil)); got != d.Digest || blob.Size() != d.Size {
		return Layer{}, fmt.Errorf("the blob is %s with %d bytes, not %s with %d", got, blob.Size(), d.Digest, d.Size)
	}
	if _, err := blob.Seek(0, io.SeekStart); err != nil {
		return Layer{}, err
	}
	r, err := decompress(blob)
	if err != nil {
		return Layer{}, err
	}
	t, err := readTar(r, built)
	if err != nil {
		return Layer{}, err
	}
	if t.diffID != diffID {
		return Layer{}, fmt.Errorf("the layer's content is %s, not %s", t.diffID, diffID)
	}
	l := Layer{MediaType: d.MediaType, Annotations: d.Annotations, DiffID: diffID, Shape: t.shape, Entries: t.entries}
	if t.now {
		l.DiffID = ""
	}
	return l, nil
}

func decompress(r io.ReadSeeker) (io.Reader, error) {
	magic := make([]byte, 4)
	n, err := io.ReadFull(r, magic)
	if err != nil {
		return nil, err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic[:n], []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	case bytes.Equal(magic[:n], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstd.NewReader(r)
	}
	return r, nil
}

func digest(sum []byte) string { return "sha256:" + hex.EncodeToString(sum) }
