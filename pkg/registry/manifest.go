package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// manifestLimit and configLimit keep a hostile registry from filling the
// memory. The specification makes registries take 4 MiB manifests.
const (
	manifestLimit = 16 << 20
	configLimit   = 64 << 20
)

// manifest is a manifest or an index as a registry gave it; one of image and
// index is set.
type manifest struct {
	desc  v1.Descriptor
	raw   []byte
	image *v1.Manifest
	index *v1.IndexManifest
}

var acceptManifests = strings.Join([]string{
	string(types.OCIImageIndex), string(types.DockerManifestList),
	string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
}, ", ")

// manifest reads and verifies one, by tag or digest.
func (s source) manifest(ctx context.Context, reference string) (*manifest, error) {
	in := call{
		op: "get manifest", method: http.MethodGet,
		path:   "/v2/" + s.repo.RepositoryStr() + "/manifests/" + reference,
		header: http.Header{"Accept": {acceptManifests}},
		access: s.access(), reference: reference, ok: []int{http.StatusOK},
	}
	var m *manifest
	err := s.endpoint.c.retry(ctx, false, func() error {
		resp, err := s.endpoint.send(ctx, in)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(io.LimitReader(resp.Body, manifestLimit+1))
		if err != nil {
			return s.endpoint.explain(ctx, in, "", err)
		}
		m, err = parseManifest(raw, resp.Header.Get("Content-Type"), reference)
		if err != nil {
			return s.endpoint.explain(ctx, in, "", err)
		}
		return nil
	})
	return m, err
}

func parseManifest(raw []byte, contentType, reference string) (*manifest, error) {
	corrupt := func(format string, args ...any) error {
		return &Error{Kind: Corrupt, Err: fmt.Errorf(format, args...)}
	}
	if len(raw) > manifestLimit {
		return nil, corrupt("it is larger than %d bytes", manifestLimit)
	}
	m := &manifest{raw: raw}
	sum := sha256.Sum256(raw)
	m.desc.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
	m.desc.Size = int64(len(raw))
	if strings.Contains(reference, ":") {
		want, err := v1.NewHash(reference)
		if err != nil {
			return nil, corrupt("digest %q: %w", reference, err)
		}
		h, err := v1.Hasher(want.Algorithm)
		if err != nil {
			return nil, corrupt("digest %q: %w", reference, err)
		}
		h.Write(raw)
		if got := hex.EncodeToString(h.Sum(nil)); got != want.Hex {
			return nil, corrupt("the manifest has digest %s:%s", want.Algorithm, got)
		}
		m.desc.Digest = want
	}
	var head struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, corrupt("not a manifest: %w", err)
	}
	if head.Manifests != nil && head.Config != nil {
		return nil, corrupt("neither an index nor an image: it has both manifests and a config")
	}
	// What the text says of itself is covered by the digest; the header is not.
	mt := head.MediaType
	if mt == "" {
		ct, _, _ := strings.Cut(contentType, ";")
		mt = types.MediaType(strings.TrimSpace(ct))
		switch {
		case head.Manifests != nil && !mt.IsIndex():
			mt = types.OCIImageIndex
		case head.Config != nil && !mt.IsImage():
			mt = types.OCIManifestSchema1
		}
	}
	m.desc.MediaType = mt
	switch {
	case mt.IsSchema1() || head.SchemaVersion == 1:
		return nil, corrupt("it is in Docker's schema 1, which is not supported; push the image again with a current tool")
	case mt.IsIndex():
		idx, err := v1.ParseIndexManifest(bytes.NewReader(raw))
		if err != nil {
			return nil, corrupt("not an index: %w", err)
		}
		m.index = idx
	case mt.IsImage():
		img, err := v1.ParseManifest(bytes.NewReader(raw))
		if err != nil {
			return nil, corrupt("not a manifest: %w", err)
		}
		m.image = img
	default:
		return nil, corrupt("media type %q is not that of an image", printable(string(mt)))
	}
	return m, nil
}
