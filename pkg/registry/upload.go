package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

type uploadKey struct{ repo, digest string }

// repositories lists where a layer is known to be, whoever made it.
func repositories(l v1.Layer) []name.Repository {
	switch l := l.(type) {
	case interface{ Repositories() []name.Repository }:
		return l.Repositories()
	case *remote.MountableLayer:
		return []name.Repository{l.Reference.Context()}
	}
	return nil
}

// upload has a layer in the repository when it returns nil. Only one caller per
// blob does the work.
func (t pushTarget) upload(ctx context.Context, l v1.Layer, progress func(BlobProgress)) error {
	mt, err := l.MediaType()
	if err != nil {
		return fmt.Errorf("push to %s: %w", t.repo, err)
	}
	if !mt.IsDistributable() {
		return nil
	}
	digest, err := l.Digest()
	if err != nil {
		return fmt.Errorf("push to %s: %w", t.repo, err)
	}
	size, err := l.Size()
	if err != nil {
		return fmt.Errorf("push %s to %s: %w", digest, t.repo, err)
	}
	key := uploadKey{t.repo.Name(), digest.String()}
	u := upload{
		pushTarget: t, layer: l, digest: digest, size: size,
		progress: &progressOnce{f: progress, state: BlobProgress{Digest: digest, Total: size}},
	}
	_, err = onceFor(&t.c.mu, t.c.uploads, key).do(ctx, func() (struct{}, error) {
		return struct{}{}, u.run(ctx)
	})
	return err
}

// upload is one blob on its way into one repository.
type upload struct {
	pushTarget
	layer    v1.Layer
	digest   v1.Hash
	size     int64
	progress *progressOnce
	// chunked is set when the registry has refused the blob in one piece;
	// chunk is the size of the pieces, 0 for chunkSize.
	chunked bool
	chunk   int64
}

func (u *upload) run(ctx context.Context) error {
	there, err := u.exists(ctx)
	if err != nil {
		return err
	}
	if there {
		u.progress.set(u.size, "exists", true)
		return nil
	}
	from, location := u.mount(ctx)
	if from != "" {
		u.progress.set(u.size, "mounted from "+from, true)
		return nil
	}
	err = u.c.retry(ctx, true, func() error {
		if location == "" {
			l, err := u.start(ctx, "start upload to", url.Values{}, u.access())
			if err != nil {
				return err
			}
			location = l
		}
		at := location
		location = ""
		u.progress.set(0, "", false)
		err := u.send(ctx, at)
		if err != nil && ctx.Err() != nil {
			// The build was interrupted; the registry shall not keep pieces.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			u.cancel(ctx, at)
		}
		return err
	})
	if err != nil {
		return err
	}
	u.progress.set(u.size, "", true)
	return nil
}

func (u *upload) exists(ctx context.Context) (bool, error) {
	in := call{
		op: "look for blob", method: http.MethodHead,
		path:   "/v2/" + u.repo.RepositoryStr() + "/blobs/" + u.digest.String(),
		access: u.access(), reference: u.digest.String(),
		ok: []int{http.StatusOK},
	}
	err := u.c.retry(ctx, true, func() error {
		resp, err := u.e.send(ctx, in)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	if IsKind(err, NotFound) {
		return false, nil
	}
	return err == nil, err
}

// mount tries to link the blob from another repository of the registry: from is
// that one when it worked. Else location may be an upload that the registry has
// started instead. Mounting is only a saving, so its failures are not reported.
func (u *upload) mount(ctx context.Context) (from, location string) {
	for _, repo := range repositories(u.layer) {
		if repo.RegistryStr() != u.repo.RegistryStr() || repo.RepositoryStr() == u.repo.RepositoryStr() {
			continue
		}
		q := url.Values{"mount": {u.digest.String()}, "from": {repo.RepositoryStr()}}
		location, err := u.start(ctx, "mount blob in", q, append(u.access(), access{repository: repo.RepositoryStr()}))
		switch {
		case err != nil:
			continue
		case location == "":
			return repo.RepositoryStr(), ""
		}
		return "", location
	}
	return "", ""
}

// start opens an upload and returns where it goes on; "" when the registry had
// nothing left to ask for.
func (t pushTarget) start(ctx context.Context, op string, q url.Values, need []access) (string, error) {
	in := call{
		op: op, method: http.MethodPost,
		path: "/v2/" + t.repo.RepositoryStr() + "/blobs/uploads/", query: q,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		access: need, ok: []int{http.StatusAccepted},
	}
	if q.Has("mount") {
		in.ok = append(in.ok, http.StatusCreated)
	}
	resp, err := t.e.send(ctx, in)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		return "", nil
	}
	l, err := t.location(resp)
	if err != nil {
		return "", t.e.explain(ctx, in, "", &Error{Status: resp.StatusCode, Err: err})
	}
	return l, nil
}

// location is where an answer says to go on.
func (t pushTarget) location(resp *http.Response) (string, error) {
	l := resp.Header.Get("Location")
	if l == "" {
		return "", errors.New("the answer has no Location")
	}
	ref, err := url.Parse(l)
	if err != nil {
		return "", errors.New("the answer's Location is not a URL")
	}
	u := resp.Request.URL.ResolveReference(ref)
	if u.Host != t.e.host {
		if linkLocal(u.Hostname()) {
			return "", fmt.Errorf("the upload would go to link-local address %s", u.Hostname())
		}
		if u.Scheme != "https" && !t.e.insecure {
			return "", fmt.Errorf("the upload would go to %s without TLS", u.Host)
		}
	}
	return u.String(), nil
}

// cancel drops an upload. Registries forget them by themselves too, so a
// failure does not matter.
func (t pushTarget) cancel(ctx context.Context, location string) {
	resp, err := t.e.send(ctx, call{
		op: "cancel upload to", method: http.MethodDelete, url: location, access: t.access(),
		ok: []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted},
	})
	if err == nil {
		resp.Body.Close()
	}
}

// send brings the bytes to an upload that was started.
func (u *upload) send(ctx context.Context, location string) error {
	if u.chunked {
		return u.sendChunks(ctx, location)
	}
	err := u.sendAll(ctx, location)
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusRequestEntityTooLarge && u.size > chunkSize {
		u.chunked = true
		u.c.logf("%v; sending it in pieces", err)
		e.transient = true
	}
	return err
}

// sendAll is the specification's upload in one PUT.
func (u *upload) sendAll(ctx context.Context, location string) error {
	in, err := u.commit(location)
	if err != nil {
		return err
	}
	in.size = u.size
	in.body = func() (io.ReadCloser, error) {
		rc, err := Open(ctx, u.layer)
		if err != nil {
			return nil, err
		}
		v, err := newVerifier(rc, u.digest, u.size)
		if err != nil {
			rc.Close()
			return nil, err
		}
		v.progress = func(done, _ int64) { u.progress.set(done, "", false) }
		return v, nil
	}
	resp, err := u.e.send(ctx, in)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// commit is the PUT that ends an upload, without its body.
func (u *upload) commit(location string) (call, error) {
	to, err := url.Parse(location)
	if err != nil {
		return call{}, fmt.Errorf("upload %s to %s: bad location", u.digest, u.repo)
	}
	q := to.Query()
	q.Set("digest", u.digest.String())
	to.RawQuery = q.Encode()
	return call{
		op: "upload blob", method: http.MethodPut, url: to.String(),
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		access: u.access(), reference: u.digest.String(),
		ok: []int{http.StatusCreated, http.StatusNoContent, http.StatusOK},
	}, nil
}

func bytesBody(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}
