package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// DigestFiles are the small files that tell scripts which image was built. Each
// is a path or an https:// URL, which is sent an HTTP PUT; "" means none.
type DigestFiles struct {
	// Digest gets "sha256:…" without a newline.
	Digest string
	// ImageName gets a line "repository@sha256:…" per destination, ImageNameTag
	// a line "repository:tag@sha256:…". Repositories are written in full, with
	// index.docker.io for Docker Hub.
	ImageName, ImageNameTag string
	// BuilderOutput is a directory whose file "images" gets a line of JSON,
	// {"name":…,"digest":…}, per destination.
	BuilderOutput string
	// Client sends the PUTs; nil means http.DefaultClient.
	Client *http.Client
}

// putTimeout is the patience with the server behind an https:// digest file.
const putTimeout = 30 * time.Second

// Write writes all that are asked for, for an image with the given digest.
// destinations are the image's names with tags. Files are replaced as a whole.
func (d DigestFiles) Write(ctx context.Context, digest v1.Hash, destinations []string) error {
	var names, tagged, images bytes.Buffer
	for _, s := range destinations {
		t, err := name.NewTag(s)
		if err != nil {
			return fmt.Errorf("image name %q: %w", s, err)
		}
		fmt.Fprintf(&names, "%s@%s\n", t.Context().Name(), digest)
		fmt.Fprintf(&tagged, "%s:%s@%s\n", t.Context().Name(), t.TagStr(), digest)
		line, err := json.Marshal(struct {
			Name   string `json:"name"`
			Digest string `json:"digest"`
		}{t.String(), digest.String()})
		if err != nil {
			return fmt.Errorf("image name %q: %w", s, err)
		}
		images.Write(append(line, '\n'))
	}
	if (d.ImageName != "" || d.ImageNameTag != "") && len(destinations) == 0 {
		return errors.New("a file with image names and digests needs a destination")
	}
	errs := []error{
		d.put(ctx, d.Digest, []byte(digest.String())),
		d.put(ctx, d.ImageName, names.Bytes()),
		d.put(ctx, d.ImageNameTag, tagged.Bytes()),
	}
	if d.BuilderOutput != "" && len(destinations) > 0 {
		errs = append(errs, d.put(ctx, filepath.Join(d.BuilderOutput, "images"), images.Bytes()))
	}
	return errors.Join(errs...)
}

func (d DigestFiles) put(ctx context.Context, to string, content []byte) error {
	switch {
	case to == "":
		return nil
	case !strings.HasPrefix(to, "https://"):
		return writeFile(to, justWrite(content))
	}
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	// The query of such a URL is usually a signature.
	shown := "https://…"
	if u, err := url.Parse(to); err == nil {
		shown = "https://" + u.Host + u.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, to, bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("put %s: not a URL", shown)
	}
	req.Header.Set("Content-Type", "text/plain")
	client := d.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("put %s: %w", shown, err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("put %s: the server answers %s", shown, resp.Status)
	}
	return nil
}
