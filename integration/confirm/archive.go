package confirm

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// archive gives random access to the members of an uncompressed tar.
type archive struct {
	file    *os.File
	members map[string]*io.SectionReader
}

func openArchive(path string) (*archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	a := &archive{file: f, members: map[string]*io.SectionReader{}}
	// archive/tar reads nothing ahead of the member it stands at.
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), f.Close())
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		a.members[strings.TrimPrefix(h.Name, "./")] = io.NewSectionReader(f, at, h.Size)
	}
}

func (a *archive) close() error { return a.file.Close() }

func (a *archive) open(name string) (*io.SectionReader, error) {
	m := a.members[name]
	if m == nil {
		return nil, fmt.Errorf("%s has no member %s", a.file.Name(), name)
	}
	return io.NewSectionReader(m, 0, m.Size()), nil
}

func (a *archive) json(name string, v any) error {
	m, err := a.open(name)
	if err != nil {
		return err
	}
	if err := json.NewDecoder(m).Decode(v); err != nil {
		return fmt.Errorf("read %s of %s: %w", name, a.file.Name(), err)
	}
	return nil
}

// descriptor is what points at a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

func (d descriptor) member() string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

// manifest is an image's, or an index on the way to it.
type manifest struct {
	MediaType   string            `json:"mediaType"`
	Config      descriptor        `json:"config"`
	Layers      []descriptor      `json:"layers"`
	Manifests   []descriptor      `json:"manifests"`
	Annotations map[string]string `json:"annotations"`
}

// manifest finds the archive's only image.
func (a *archive) manifest() (*manifest, error) {
	m := &manifest{}
	if err := a.json("index.json", m); err != nil {
		return nil, err
	}
	for len(m.Manifests) > 0 {
		next := m.Manifests[0]
		if len(m.Manifests) > 1 {
			return nil, fmt.Errorf("%s holds %d images", a.file.Name(), len(m.Manifests))
		}
		m = &manifest{}
		if err := a.json(next.member(), m); err != nil {
			return nil, err
		}
		if m.MediaType == "" {
			m.MediaType = next.MediaType
		}
	}
	return m, nil
}
