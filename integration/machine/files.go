package machine

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of all files in made layers.
var epoch = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

// files are the members of a layer, in the order they were added.
type files struct {
	headers []*tar.Header
	bodies  [][]byte
}

func (f *files) add(h tar.Header, body string) *files {
	h.Size = int64(len(body))
	if h.ModTime.IsZero() {
		h.ModTime = epoch
	}
	if len(h.PAXRecords) > 0 {
		h.Format = tar.FormatPAX
	}
	f.headers = append(f.headers, &h)
	f.bodies = append(f.bodies, []byte(body))
	return f
}

func (f *files) dir(name string, mode int64, owner ...int) *files {
	uid, gid := ownerOf(owner)
	return f.add(tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimSuffix(name, "/") + "/", Mode: mode, Uid: uid, Gid: gid}, "")
}

func (f *files) file(name string, mode int64, body string, owner ...int) *files {
	uid, gid := ownerOf(owner)
	return f.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Uid: uid, Gid: gid}, body)
}

func (f *files) link(name, target string) *files {
	return f.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, "")
}

func (f *files) hardlink(name, to string) *files {
	return f.add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644}, "")
}

// gone adds a whiteout.
func (f *files) gone(name string) *files {
	dir, base := path.Split(name)
	return f.add(tar.Header{Typeflag: tar.TypeReg, Name: dir + ".wh." + base, ModTime: time.Unix(0, 0)}, "")
}

func ownerOf(owner []int) (uid, gid int) {
	if len(owner) == 2 {
		return owner[0], owner[1]
	}
	return 0, 0
}

// layer turns files into a layer of the media type.
func (f *files) layer(media types.MediaType) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i, h := range f.headers {
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.bodies[i]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	}, tarball.WithMediaType(media))
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
