package fileop

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
)

// fetchTries is how often a URL is asked for where the failure may pass.
const fetchTries = 4

// fetcher downloads files of ADD.
type fetcher struct {
	client *http.Client
	dir    string
	secret func(name string) ([]byte, bool)
	// want is the digest that the bytes must have, "" for any.
	want digest.Digest
}

// fetched is a file that was downloaded.
type fetched struct {
	name    string
	size    int64
	modTime time.Time
	open    func() (io.ReadCloser, error)
}

// temporary marks a failure after which another try makes sense.
type temporary struct{ error }

func (t temporary) Unwrap() error { return t.error }

func (f fetcher) fetch(ctx context.Context, address string) (*fetched, error) {
	name, err := urlFileName(address)
	if err != nil {
		return nil, err
	}
	wait := time.Second
	for try := 1; ; try++ {
		got, err := f.once(ctx, address)
		if err == nil {
			got.name = name
			return got, nil
		}
		var t temporary
		if try == fetchTries || ctx.Err() != nil || !errors.As(err, &t) {
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

func (f fetcher) once(ctx context.Context, address string) (_ *fetched, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, plainURLError(err)
	}
	req.Header.Set("User-Agent", "cooper")
	f.authorize(req)
	client := f.client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		// What a connection fails with is seldom final, what a certificate or
		// an address is refused for always is.
		err = plainURLError(err)
		var op *net.OpError
		if errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = temporary{err}
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		err := fmt.Errorf("invalid response status %d", resp.StatusCode)
		if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout {
			return nil, temporary{err}
		}
		return nil, err
	}
	return f.save(resp)
}

// save writes a response to a file.
func (f fetcher) save(resp *http.Response) (_ *fetched, err error) {
	file, err := os.CreateTemp(f.dir, "url-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := file.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	var sum hash.Hash = sha256.New()
	if f.want != "" {
		sum = f.want.Algorithm().Hash()
	}
	body := resp.Body
	size, err := io.Copy(io.MultiWriter(file, sum), readErrors{body})
	if err != nil {
		return nil, err
	}
	if f.want != "" {
		if got := digest.NewDigest(f.want.Algorithm(), sum); got != f.want {
			return nil, fmt.Errorf("digest mismatch: %s (expected: %s)", got, f.want)
		}
	}
	modTime := time.Unix(0, 0)
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		modTime = t
	}
	path := file.Name()
	return &fetched{size: size, modTime: modTime, open: func() (io.ReadCloser, error) { return os.Open(path) }}, nil
}

// readErrors tells a broken connection from a full disk.
type readErrors struct{ io.Reader }

func (r readErrors) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = temporary{err}
	}
	return n, err
}

// authorize adds the credentials that the build's secrets hold for the host.
func (f fetcher) authorize(req *http.Request) {
	if f.secret == nil {
		return
	}
	host := req.URL.Hostname()
	if v, ok := f.secret("HTTP_AUTH_HEADER_" + host); ok {
		req.Header.Set("Authorization", string(v))
	}
	if v, ok := f.secret("HTTP_AUTH_TOKEN_" + host); ok {
		req.Header.Set("Authorization", "Bearer "+string(v))
	}
}

// plainURLError drops the address that net/http puts into its errors: it may
// hold a password, and the caller names the source already.
func plainURLError(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// urlFileName is the last part of a URL's path, which names the file in a
// directory.
func urlFileName(address string) (string, error) {
	name := "__unnamed__"
	if u, err := url.Parse(address); err == nil {
		if base := path.Base(u.Path); base != "." && base != "/" {
			name = base
		}
	}
	// BuildKit stores a file of such a name under another one and then does
	// not find it.
	if strings.TrimSpace(name) != name || name == ".." || strings.IndexFunc(name, unicode.IsControl) >= 0 {
		return "", fmt.Errorf("the URL names a file %q, which is not a usable name", name)
	}
	return name, nil
}
