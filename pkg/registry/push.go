package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"golang.org/x/sync/errgroup"
)

const defaultJobs = 4

// PushOptions says how one push is done. The zero value is good.
type PushOptions struct {
	// IgnoreImmutableTag makes it a success when the registry does not let
	// the tag move. Without it, that is an error of kind Immutable, unless the
	// tag is the very image already.
	IgnoreImmutableTag bool
	// Progress is told about each blob. It may be called by several
	// goroutines at once. nil tells nobody.
	Progress func(BlobProgress)
}

// BlobProgress is how far one blob of a push is.
type BlobProgress struct {
	Digest v1.Hash
	// Done of Total bytes are sent. Done may fall when an attempt failed.
	Done, Total int64
	// Note says how a blob was saved from being sent: "exists" or "mounted
	// from <repository>"; else "".
	Note string
	// Finished is set in the last call for a blob.
	Finished bool
}

// Push uploads an image and names it ref, a tag or its digest; it returns the
// manifest's descriptor. Blobs that the repository has are not sent, those that
// another repository of the same registry has (see Layer.Repositories) are
// mounted, and what was sent to a repository once is not asked about again: a
// further tag costs one request. Layers that may not be distributed (of
// Windows) are skipped.
func (c *Client) Push(ctx context.Context, ref string, img v1.Image, o PushOptions) (v1.Descriptor, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("image name %q: %w", ref, err)
	}
	desc, err := partial.Descriptor(img)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("push %s: %w", r, err)
	}
	if d, ok := r.(name.Digest); ok && d.DigestStr() != desc.Digest.String() {
		return v1.Descriptor{}, fmt.Errorf("push %s: the image has digest %s", r, desc.Digest)
	}
	raw, err := img.RawManifest()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("push %s: %w", r, err)
	}
	t := c.pushTarget(r.Context())
	for again := false; ; again = true {
		if err := t.blobs(ctx, img, o.Progress); err != nil {
			return v1.Descriptor{}, err
		}
		err := t.putManifest(ctx, r, *desc, raw, o)
		if err == nil {
			return *desc, nil
		}
		var e *Error
		if !again && errors.As(err, &e) && (e.Code == "MANIFEST_BLOB_UNKNOWN" || e.Code == "BLOB_UNKNOWN") {
			// Something was collected after it was seen to be there.
			t.forget()
			continue
		}
		return v1.Descriptor{}, err
	}
}

// Upload sends one layer ahead of the image that it will be part of; a later
// Push to the same repository then finds it there. repo is a repository or a
// reference in it. progress may be nil.
func (c *Client) Upload(ctx context.Context, repo string, l v1.Layer, progress func(BlobProgress)) error {
	r, err := name.ParseReference(repo)
	if err != nil {
		return fmt.Errorf("image name %q: %w", repo, err)
	}
	return c.pushTarget(r.Context()).upload(ctx, l, progress)
}

// pushTarget is a repository that is being pushed to.
type pushTarget struct {
	c    *Client
	e    *endpoint
	repo name.Repository
}

func (c *Client) pushTarget(repo name.Repository) pushTarget {
	return pushTarget{c, c.endpoint(push, repo.Registry), repo}
}

func (t pushTarget) access() []access {
	return []access{{t.repo.RepositoryStr(), true}}
}

// blobs uploads the layers and the configuration, some at a time.
func (t pushTarget) blobs(ctx context.Context, img v1.Image, progress func(BlobProgress)) error {
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("push %s: %w", t.repo, err)
	}
	config, err := partial.ConfigLayer(img)
	if err != nil {
		return fmt.Errorf("push %s: %w", t.repo, err)
	}
	jobs := t.c.opt.Jobs
	if jobs <= 0 {
		jobs = defaultJobs
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for _, l := range append(layers, config) {
		g.Go(func() error { return t.upload(ctx, l, progress) })
	}
	return g.Wait()
}

// forget drops what is known about the repository's blobs.
func (t pushTarget) forget() {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	for k := range t.c.uploads {
		if k.repo == t.repo.Name() {
			delete(t.c.uploads, k)
		}
	}
}

func (t pushTarget) putManifest(ctx context.Context, r name.Reference, desc v1.Descriptor, raw []byte, o PushOptions) error {
	in := call{
		op: "put manifest", method: http.MethodPut,
		path:   "/v2/" + t.repo.RepositoryStr() + "/manifests/" + r.Identifier(),
		header: http.Header{"Content-Type": {string(desc.MediaType)}},
		body:   bytesBody(raw), size: int64(len(raw)),
		access: t.access(), reference: r.Identifier(),
		ok: []int{http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent},
	}
	err := t.c.retry(ctx, true, func() error {
		resp, err := t.e.send(ctx, in)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != desc.Digest.String() {
			return t.e.explain(ctx, in, "", &Error{Kind: Corrupt, Err: fmt.Errorf("it filed the manifest %s as %s", desc.Digest, printable(got))})
		}
		return nil
	})
	if !IsKind(err, Immutable) {
		return err
	}
	if o.IgnoreImmutableTag {
		t.c.logf("%v; ignored as asked", err)
		return nil
	}
	s := source{t.e, t.repo}
	if m, merr := s.manifest(ctx, r.Identifier()); merr == nil && m.desc.Digest == desc.Digest {
		return nil
	}
	return err
}

// CheckPush finds out whether ref's repository can be pushed to, by starting an
// upload and cancelling it. nil means yes.
func (c *Client) CheckPush(ctx context.Context, ref string) error {
	r, err := name.ParseReference(ref)
	if err != nil {
		return fmt.Errorf("image name %q: %w", ref, err)
	}
	t := c.pushTarget(r.Context())
	return c.retry(ctx, true, func() error {
		location, err := t.start(ctx, "check push to", url.Values{}, t.access())
		if err != nil {
			return err
		}
		t.cancel(ctx, location)
		return nil
	})
}

// progressOnce keeps the calls for one blob in order.
type progressOnce struct {
	mu    sync.Mutex
	f     func(BlobProgress)
	state BlobProgress
}

func (p *progressOnce) set(done int64, note string, finished bool) {
	if p.f == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Finished {
		return
	}
	p.state.Done, p.state.Note, p.state.Finished = done, note, finished
	p.f(p.state)
}
