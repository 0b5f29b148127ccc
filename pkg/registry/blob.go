package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blob is content in a registry, known by its descriptor.
type blob struct {
	sources []source
	desc    v1.Descriptor
}

// open starts to read at the first source that gives the blob.
func (b blob) open(ctx context.Context) (io.ReadCloser, error) {
	h, err := v1.Hasher(b.desc.Digest.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", b.desc.Digest, err)
	}
	r := &blobReader{blob: b, ctx: ctx, hash: h}
	var errs []error
	for r.at = range b.sources {
		r.wait = b.sources[r.at].endpoint.c.backoff(false)
		err := r.connect()
		if err == nil {
			return r, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// blobReader reads a blob through interruptions and verifies it.
type blobReader struct {
	blob
	ctx  context.Context
	at   int
	wait backoff
	body io.ReadCloser
	hash hash.Hash
	done int64
	err  error
}

func (r *blobReader) call() call {
	s := r.sources[r.at]
	return call{
		op: "get blob", method: http.MethodGet,
		path:   "/v2/" + s.repo.RepositoryStr() + "/blobs/" + r.desc.Digest.String(),
		access: s.access(), reference: r.desc.Digest.String(),
		ok: []int{http.StatusOK},
	}
}

// connect asks for what is still missing, as often as patience allows.
func (r *blobReader) connect() error {
	for {
		err := r.connectOnce()
		if err == nil {
			return nil
		}
		if err := r.wait.pause(r.ctx, err); err != nil {
			return err
		}
	}
}

func (r *blobReader) connectOnce() error {
	in := r.call()
	if r.done > 0 {
		in.header = http.Header{"Range": {"bytes=" + strconv.FormatInt(r.done, 10) + "-"}}
		in.ok = append(in.ok, http.StatusPartialContent)
	}
	e := r.sources[r.at].endpoint
	resp, err := e.send(r.ctx, in)
	if err != nil {
		return err
	}
	length := r.desc.Size
	skip := r.done
	if resp.StatusCode == http.StatusPartialContent {
		from, ok := rangeStart(resp.Header.Get("Content-Range"))
		if !ok || from > r.done {
			resp.Body.Close()
			return e.explain(r.ctx, in, "", fmt.Errorf("asked for bytes from %d, got %q", r.done, resp.Header.Get("Content-Range")))
		}
		skip = r.done - from
		length -= from
	}
	if resp.ContentLength >= 0 && resp.ContentLength != length {
		resp.Body.Close()
		return e.explain(r.ctx, in, "", &Error{Kind: Corrupt, Err: fmt.Errorf("it offers %d bytes, not %d", resp.ContentLength, length)})
	}
	// A registry that knows no ranges sends everything again.
	if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
		resp.Body.Close()
		return e.explain(r.ctx, in, "", cut(err))
	}
	r.body = resp.Body
	return nil
}

// rangeStart reads "bytes 5-9/10".
func rangeStart(s string) (int64, bool) {
	s, ok := strings.CutPrefix(s, "bytes ")
	first, _, found := strings.Cut(s, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, ok && found && err == nil && n >= 0
}

// cut turns the end of a body that should have gone on into an error.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *blobReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := r.read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		if err == io.EOF {
			r.err = r.check()
			return 0, r.err
		}
		r.body.Close()
		err = r.sources[r.at].endpoint.explain(r.ctx, r.call(), "", err)
		if r.err = r.wait.pause(r.ctx, err); r.err == nil {
			r.err = r.connect()
		}
		if r.err != nil {
			return 0, r.err
		}
	}
}

// read returns io.EOF only when the size has been reached.
func (r *blobReader) read(p []byte) (int, error) {
	left := r.desc.Size - r.done
	if left == 0 {
		return 0, io.EOF
	}
	n, err := r.body.Read(p[:min(int64(len(p)), left)])
	if n > 0 {
		r.hash.Write(p[:n])
		r.done += int64(n)
		// Patience is for standing still.
		r.wait = r.sources[r.at].endpoint.c.backoff(false)
	}
	return n, cut(err)
}

// check compares the digest, and that nothing follows.
func (r *blobReader) check() error {
	wrong := func(err error) error {
		return r.sources[r.at].endpoint.explain(r.ctx, r.call(), "", &Error{Kind: Corrupt, Err: err})
	}
	if n, _ := io.ReadFull(r.body, make([]byte, 1)); n > 0 {
		return wrong(fmt.Errorf("it is longer than %d bytes", r.desc.Size))
	}
	if got := hex.EncodeToString(r.hash.Sum(nil)); got != r.desc.Digest.Hex {
		return wrong(fmt.Errorf("the bytes have digest %s:%s", r.desc.Digest.Algorithm, got))
	}
	return io.EOF
}

func (r *blobReader) Close() error {
	if r.err == nil {
		r.err = errors.New("read of a closed blob")
	}
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}

// verifyBytes compares data with a SHA-256 digest.
func verifyBytes(data []byte, h v1.Hash) error {
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); h.Algorithm != "sha256" || got != h.Hex {
		return fmt.Errorf("the bytes have digest sha256:%s, not %s", got, h)
	}
	return nil
}
