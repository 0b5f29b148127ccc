package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// stallTimeout ends a transfer in which no byte has moved for so long.
// commitTimeout is the patience with a registry that has all bytes of an upload
// and puts them in place.
const (
	stallTimeout  = 60 * time.Second
	commitTimeout = 15 * time.Minute
)

// call is one request to a registry, in a form that can be sent again.
type call struct {
	op     string
	method string
	// path is below the registry's root; url is used instead if set.
	path   string
	url    string
	query  url.Values
	header http.Header
	// body makes the request's body anew for each attempt; nil means none.
	body func() (io.ReadCloser, error)
	size int64
	// access lists what the request needs; the first is the repository that
	// it is about.
	access []access
	// reference is the tag or digest that it is about, for errors.
	reference string
	ok        []int
}

// send makes one attempt at a call: it probes the registry if that was not
// done, adds authorization, and sends again with a new token if the one it had
// was refused. The answer has one of the statuses in ok, its body must be
// closed, and a transfer that stalls fails with errStalled. It ends with ctx.
func (e *endpoint) send(ctx context.Context, in call) (*http.Response, error) {
	p, err := e.probe(ctx)
	if err != nil {
		return nil, e.explain(ctx, in, "", err)
	}
	for refused := false; ; refused = true {
		header, source, err := e.authorization(ctx, p, in.access)
		if err != nil {
			return nil, e.explain(ctx, in, source, err)
		}
		resp, err := e.roundTrip(ctx, p, header, in)
		if err != nil {
			return nil, e.explain(ctx, in, source, err)
		}
		if slices.Contains(in.ok, resp.StatusCode) {
			return resp, nil
		}
		if resp.StatusCode == http.StatusUnauthorized && !refused && p.challenge.scheme == "bearer" {
			resp.Body.Close()
			e.forget(header)
			continue
		}
		failed := answerError(resp)
		resp.Body.Close()
		return nil, e.explain(ctx, in, source, failed)
	}
}

// explain completes an error with what was being done.
func (e *endpoint) explain(ctx context.Context, in call, source string, err error) error {
	var known *Error
	var local localError
	if errors.As(err, &local) {
		return localError{fmt.Errorf("%s %s: %w", in.op, e.host, local.error)}
	}
	if !errors.As(err, &known) {
		err = e.failure(ctx, in.op, err)
		if !errors.As(err, &known) {
			return err
		}
	}
	if known.Registry != "" && known.Registry != e.host {
		// It tells of another registry, which the bytes come from.
		return err
	}
	if known.Op == "" {
		known.Op = in.op
	}
	known.Registry = e.host
	if known.Repository == "" && len(in.access) > 0 {
		known.Repository = in.access[0].repository
	}
	if known.Reference == "" {
		known.Reference = in.reference
	}
	if known.Credentials == "" {
		known.Credentials = source
	}
	return err
}

// roundTrip sends a request once and follows redirects. Cancelling is tied to
// the answer's body: closing it ends the request.
func (e *endpoint) roundTrip(ctx context.Context, p probe, authorization string, in call) (*http.Response, error) {
	u := in.url
	if u == "" {
		full := url.URL{Scheme: p.scheme, Host: e.host, Path: in.path, RawQuery: in.query.Encode()}
		u = full.String()
	}
	ctx, cancel := e.c.scope(ctx)
	w := newWatch(ctx, cancel, answerTimeout)
	req, err := http.NewRequestWithContext(w.ctx, in.method, u, nil)
	if err != nil {
		w.stop()
		return nil, err
	}
	for k, v := range in.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", e.c.userAgent())
	if in.body != nil {
		get := func() (io.ReadCloser, error) {
			b, err := in.body()
			if err != nil {
				return nil, localError{err}
			}
			return &watchedUpload{b, w}, nil
		}
		if req.Body, err = get(); err != nil {
			w.stop()
			return nil, err
		}
		req.GetBody, req.ContentLength = get, in.size
		if in.size == 0 {
			req.Body.Close()
			req.Body = http.NoBody
			w.push(commitTimeout)
		}
	}
	client := http.Client{
		Transport:     &authorized{e, p, authorization},
		CheckRedirect: e.checkRedirect,
	}
	resp, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(w.ctx); cause != nil {
			err = cause
		}
		w.stop()
		return nil, err
	}
	w.push(stallTimeout)
	resp.Body = &watchedDownload{resp.Body, w}
	return resp, nil
}

// authorized adds the authorization to requests for the registry itself and
// takes it from all others, which is where redirects lead.
type authorized struct {
	e      *endpoint
	p      probe
	header string
}

func (a *authorized) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Del("Authorization")
	if req.URL.Host == a.e.host {
		// A registry behind a proxy that ends TLS often calls itself http.
		req.URL.Scheme = a.p.scheme
		if a.header != "" {
			req.Header.Set("Authorization", a.header)
		}
	}
	return a.e.http.RoundTrip(req)
}

// checkRedirect refuses what only a hostile or broken registry would do: send
// bodies from HTTPS to plain HTTP, or anybody to a metadata service.
func (e *endpoint) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("more than 10 redirects")
	}
	host := req.URL.Hostname()
	if linkLocal(host) && host != via[0].URL.Hostname() {
		return fmt.Errorf("redirect to link-local address %s", host)
	}
	if req.URL.Scheme != "https" && req.URL.Host != e.host && !e.insecure &&
		req.Method != http.MethodGet && req.Method != http.MethodHead {
		return fmt.Errorf("redirect of an upload to %s without TLS", req.URL.Host)
	}
	return nil
}

func linkLocal(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && (ip.IsLinkLocalUnicast() || ip.Equal(net.ParseIP("fd00:ec2::254")))
}

// watch cancels a request when nothing has happened for too long.
type watch struct {
	ctx    context.Context
	fail   context.CancelCauseFunc
	cancel context.CancelFunc
	timer  *time.Timer
}

func newWatch(ctx context.Context, release context.CancelFunc, d time.Duration) *watch {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{ctx: ctx, fail: cancel}
	w.timer = time.AfterFunc(d, func() { cancel(errStalled) })
	w.cancel = func() { cancel(context.Canceled); release() }
	return w
}

// push restarts the timer with d.
func (w *watch) push(d time.Duration) { w.timer.Reset(d) }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel()
}

// watchedUpload is a request's body: every read is a sign of life, and after
// the last one the registry may take its time.
type watchedUpload struct {
	io.ReadCloser
	w *watch
}

func (u *watchedUpload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	switch err {
	case nil:
		u.w.push(stallTimeout)
	case io.EOF:
		u.w.push(commitTimeout)
	default:
		// net/http would report a broken connection.
		u.w.fail(localError{err})
	}
	return n, err
}

// localError is a failure to read what shall be sent: nothing to blame the
// registry for, and nothing that sending again would mend.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// watchedDownload is an answer's body.
type watchedDownload struct {
	io.ReadCloser
	w *watch
}

func (d *watchedDownload) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		if cause := context.Cause(d.w.ctx); cause != nil {
			err = cause
		}
	}
	d.w.push(stallTimeout)
	return n, err
}

func (d *watchedDownload) Close() error {
	err := d.ReadCloser.Close()
	d.w.stop()
	return err
}
