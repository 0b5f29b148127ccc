package push

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// DockerTar is a file that docker load, podman load, skopeo's docker-archive and
// tools for OCI layouts all read: an OCI layout with Docker's manifest.json
// beside it, as BuildKit's docker exporter writes it.
type DockerTar struct {
	// Path is the file; missing directories above it are made.
	Path string
	// Names are the image's names; with none it is UnsetName.
	Names []string
}

// OCITar is a file with an OCI layout.
type OCITar struct {
	Path string
	// Names are the image's names; with none the index entry has no name.
	Names []string
}

var (
	_ Destination = (*DockerTar)(nil)
	_ Destination = (*OCITar)(nil)
)

// String is the path.
func (d *DockerTar) String() string { return d.Path }

// String is the path.
func (d *OCITar) String() string { return d.Path }

// Write streams the archive into a temporary file beside the path and renames
// it. The same image and names give the same bytes.
func (d *DockerTar) Write(ctx context.Context, img v1.Image) (Result, error) {
	names := d.Names
	if len(names) == 0 {
		names = []string{UnsetName}
	}
	tags, err := parseTags(names)
	if err != nil {
		return Result{}, fmt.Errorf("write %s: %w", d.Path, err)
	}
	return writeArchive(ctx, d.Path, img, tags, true)
}

// Write streams the archive into a temporary file beside the path and renames
// it. The same image and names give the same bytes.
func (d *OCITar) Write(ctx context.Context, img v1.Image) (Result, error) {
	tags, err := parseTags(d.Names)
	if err != nil {
		return Result{}, fmt.Errorf("write %s: %w", d.Path, err)
	}
	return writeArchive(ctx, d.Path, img, tags, false)
}

func writeArchive(ctx context.Context, file string, img v1.Image, tags []tag, docker bool) (Result, error) {
	p, err := partsOf(img)
	if err != nil {
		return Result{}, fmt.Errorf("write %s: %w", file, err)
	}
	err = writeFile(file, func(w io.Writer) error { return p.archive(ctx, w, tags, docker) })
	if err != nil {
		return Result{}, err
	}
	res := Result{Descriptor: p.desc}
	for _, t := range tags {
		res.Names = append(res.Names, t.given)
	}
	return res, nil
}

// entry is a member of an archive: a directory when open is nil.
type entry struct {
	name string
	part
}

// archive writes the members in the order of their names.
func (p *parts) archive(ctx context.Context, w io.Writer, tags []tag, docker bool) error {
	entries := []entry{{name: "blobs/"}}
	dirs := map[string]bool{}
	for _, b := range p.blobs {
		if dir := path.Dir(b.path()) + "/"; !dirs[dir] {
			dirs[dir] = true
			entries = append(entries, entry{name: dir})
		}
		entries = append(entries, entry{b.path(), b})
	}
	add := func(name string, content []byte) {
		h, n, _ := v1.SHA256(bytes.NewReader(content))
		entries = append(entries, entry{name, part{h, n, inMemory(content)}})
	}
	layout, err := layoutFile()
	if err != nil {
		return err
	}
	add("oci-layout", layout)
	index, err := json.Marshal(p.index(tags))
	if err != nil {
		return err
	}
	add("index.json", index)
	if docker {
		m, err := p.dockerManifest(tags)
		if err != nil {
			return err
		}
		add("manifest.json", m)
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	tw := tar.NewWriter(w)
	for _, e := range entries {
		// No times and no owners: they would only tell archives of the same
		// image apart.
		h := &tar.Header{Name: e.name, Mode: 0o444, Size: e.size, Typeflag: tar.TypeReg}
		if e.open == nil {
			h.Mode, h.Typeflag = 0o755, tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if e.open == nil {
			continue
		}
		if err := e.copy(ctx, tw); err != nil {
			return err
		}
	}
	return tw.Close()
}

// dockerManifest is the manifest.json that docker save writes.
func (p *parts) dockerManifest(tags []tag) ([]byte, error) {
	m := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobPath(p.config), RepoTags: []string{}, Layers: p.layers}
	if m.Layers == nil {
		m.Layers = []string{}
	}
	for _, t := range tags {
		if !slices.Contains(m.RepoTags, t.short) {
			m.RepoTags = append(m.RepoTags, t.short)
		}
	}
	return json.Marshal([]any{m})
}
