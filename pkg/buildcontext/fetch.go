package buildcontext

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"time"
)

// fetchTries is how often a URL is asked for where the failure may pass.
const fetchTries = 3

// url makes the context out of what a URL gives: an archive is unpacked,
// anything else is a lone Dockerfile.
func (o *opener) url(ctx context.Context, address string) error {
	body, err := o.get(ctx, address)
	if err != nil {
		return fmt.Errorf("context %s: %w", redact(address), err)
	}
	defer body.Close()
	br := bufio.NewReaderSize(body, 64<<10)
	start := &keepStart{r: br}
	err = o.tar(ctx, redact(address), start)
	if !errors.Is(err, errNoArchive) || start.over {
		return err
	}
	data, err := readLimited(redact(address), io.MultiReader(start.again(), br))
	if err != nil {
		return fmt.Errorf("context %s: %w", redact(address), err)
	}
	name := "Dockerfile"
	if u, err := url.Parse(address); err == nil {
		if base := path.Base(u.Path); base != "." && base != "/" {
			name = base
		}
	}
	if err := os.WriteFile(filepath.Join(o.c.host, name), data, 0o600); err != nil {
		return fmt.Errorf("context: %w", err)
	}
	if o.opts.Dockerfile == "" {
		o.c.file = dockerfile{name: name, data: data}
	}
	return nil
}

// maxStart is more than telling an archive from something else ever reads, be
// it compressed or not.
const maxStart = 4 << 20

// keepStart remembers the beginning of what was read, so that it can be read
// again when it turns out to be no archive.
type keepStart struct {
	r    io.Reader
	kept []byte
	over bool
}

func (k *keepStart) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if k.over = k.over || len(k.kept)+n > maxStart; k.over {
		k.kept = nil
	} else {
		k.kept = append(k.kept, p[:n]...)
	}
	return n, err
}

func (k *keepStart) again() io.Reader { return &oneHeader{k.kept} }

// fetchFile fetches a Dockerfile.
func (o *opener) fetchFile(ctx context.Context, address string) ([]byte, error) {
	body, err := o.get(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", redact(address), err)
	}
	defer body.Close()
	return readLimited(redact(address), body)
}

// get asks for a URL, again where another try may help.
func (o *opener) get(ctx context.Context, address string) (io.ReadCloser, error) {
	client := o.opts.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	wait := time.Second
	for try := 1; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, withoutURL(err)
		}
		req.Header.Set("User-Agent", "cooper")
		resp, err := client.Do(req)
		switch {
		case err != nil:
			err = withoutURL(err)
		case resp.StatusCode >= 200 && resp.StatusCode < 300:
			return resp.Body, nil
		default:
			resp.Body.Close()
			err = fmt.Errorf("the server answers %s", resp.Status)
			if resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests {
				return nil, err
			}
		}
		if try == fetchTries || ctx.Err() != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// withoutURL drops the address that net/http puts into its errors: it may hold
// a password.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// redact takes passwords out of a URL.
func redact(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	u.User = url.User("xxxxx")
	return u.String()
}
