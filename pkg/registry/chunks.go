package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// chunkSize is what is sent at a time to registries behind a proxy that limits
// the size of requests. 100 MB is the usual limit.
const chunkSize = 64 << 20

// sendChunks is the specification's upload by PATCH.
func (u *upload) sendChunks(ctx context.Context, location string) error {
	rc, err := Open(ctx, u.layer)
	if err != nil {
		return err
	}
	defer rc.Close()
	chunk := u.chunk
	if chunk == 0 {
		chunk = chunkSize
	}
	for at := int64(0); at < u.size; {
		n := min(chunk, u.size-at)
		// A piece cannot be read twice from a stream: a fault starts the
		// whole upload again.
		sent := false
		in := call{
			op: "upload blob", method: http.MethodPatch, url: location,
			header: http.Header{
				"Content-Type":  {"application/octet-stream"},
				"Content-Range": {fmt.Sprintf("%d-%d", at, at+n-1)},
			},
			size: n, access: u.access(), reference: u.digest.String(),
			ok: []int{http.StatusAccepted, http.StatusNoContent, http.StatusCreated},
			body: func() (io.ReadCloser, error) {
				if sent {
					return nil, &Error{Op: "upload blob", Registry: u.e.host, Repository: u.repo.RepositoryStr(),
						Reference: u.digest.String(), Status: http.StatusUnauthorized, transient: true}
				}
				sent = true
				return io.NopCloser(&counted{io.LimitReader(rc, n), at, u.progress}), nil
			},
		}
		resp, err := u.e.send(ctx, in)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if location, err = u.location(resp); err != nil {
			return u.e.explain(ctx, in, "", &Error{Status: resp.StatusCode, Err: err})
		}
		at += n
	}
	in, err := u.commit(location)
	if err != nil {
		return err
	}
	resp, err := u.e.send(ctx, in)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// counted reports how much of a piece was read.
type counted struct {
	io.Reader
	at       int64
	progress *progressOnce
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.at += int64(n)
	c.progress.set(c.at, "", false)
	return n, err
}
