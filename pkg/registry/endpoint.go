package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

const (
	// probeHeadStart is how long HTTPS may take before plain HTTP, where that
	// is allowed at all, is tried beside it.
	probeHeadStart = 500 * time.Millisecond
	answerTimeout  = 60 * time.Second
)

// endpointKey tells endpoints apart. Pull and push side share one where the
// rules are the same.
type endpointKey struct {
	host     string
	tls      tlsKey
	insecure bool
}

// endpoint is one registry host under one set of rules.
type endpoint struct {
	c        *Client
	key      endpointKey
	host     string
	insecure bool
	http     *http.Transport

	probed *once[probe]

	mu     sync.Mutex
	tokens []token
	// turn is held while a token is fetched: many requests that need the same
	// one shall not all ask for it.
	turn chan struct{}
}

// probe is what the first request to a registry told.
type probe struct {
	scheme    string
	challenge challenge
}

func (c *Client) endpoint(s side, reg name.Registry) *endpoint {
	host := reg.RegistryStr()
	key := endpointKey{host, c.policy.tlsKey(s, host), c.policy.allowsHTTP(s, reg)}
	t := c.transport(key.tls)
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.endpoints[key]
	if e == nil {
		e = &endpoint{
			c: c, key: key, host: host, insecure: key.insecure, http: t,
			probed: newOnce[probe](), turn: make(chan struct{}, 1),
		}
		c.endpoints[key] = e
	}
	return e
}

// probe finds scheme and authentication with a request for /v2/. The answer is
// kept, a failure is not.
func (e *endpoint) probe(ctx context.Context) (probe, error) {
	return e.probed.do(ctx, func() (probe, error) {
		if !e.insecure {
			return e.probeScheme(ctx, "https")
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		type result struct {
			probe
			err error
		}
		secure, plain := make(chan result, 1), make(chan result, 1)
		go func() { p, err := e.probeScheme(ctx, "https"); secure <- result{p, err} }()
		var first result
		headStart := time.NewTimer(probeHeadStart)
		defer headStart.Stop()
		select {
		case first = <-secure:
			if first.err == nil {
				return first.probe, nil
			}
			secure <- first
		case <-headStart.C:
		}
		go func() { p, err := e.probeScheme(ctx, "http"); plain <- result{p, err} }()
		// Both are joined before returning; the loser is cancelled.
		var s, p result
		select {
		case s = <-secure:
			if s.err == nil {
				cancel()
				<-plain
				return s.probe, nil
			}
			p = <-plain
		case p = <-plain:
			if p.err == nil {
				cancel()
				if s = <-secure; s.err == nil {
					return s.probe, nil
				}
				return p.probe, nil
			}
			s = <-secure
		}
		if s.err == nil {
			return s.probe, nil
		}
		if p.err == nil {
			return p.probe, nil
		}
		// An answer tells more than the lack of one, and that the server does
		// not speak TLS tells nothing.
		var answered *Error
		if errors.As(p.err, &answered) && answered.Status != 0 || errors.Is(s.err, http.ErrSchemeMismatch) {
			return probe{}, p.err
		}
		return probe{}, s.err
	})
}

func (e *endpoint) probeScheme(ctx context.Context, scheme string) (probe, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errStalled)
	defer cancel()
	fail := func(err error) (probe, error) {
		return probe{}, e.failure(ctx, "connect to", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+e.host+"/v2/", nil)
	if err != nil {
		return fail(err)
	}
	req.Header.Set("User-Agent", e.c.userAgent())
	client := http.Client{Transport: e.http, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := client.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		ch, ok := parseChallenges(resp.Header.Values("WWW-Authenticate"))
		if !ok {
			return fail(errors.New("it wants authentication, but by no scheme that is known here"))
		}
		return probe{scheme, ch}, nil
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500,
		resp.StatusCode == http.StatusBadRequest && scheme == "http":
		// The last is what a TLS server says to plain HTTP.
		err := answerError(resp)
		err.Op, err.Registry = "connect to", e.host
		return probe{}, err
	}
	// Some registries have nothing under /v2/ itself.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, errorBody))
	return probe{scheme: scheme}, nil
}

// failure makes an *Error of an error that came instead of an answer.
func (e *endpoint) failure(ctx context.Context, op string, err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	if cause := contextError(ctx); cause != nil && !errors.Is(cause, errStalled) {
		return fmt.Errorf("%s %s: %w", op, e.host, cause)
	} else if cause != nil {
		err = cause
	}
	return &Error{Op: op, Registry: e.host, Kind: Unreachable, Err: redacted(err)}
}

func (c *Client) userAgent() string {
	if c.opt.UserAgent == "" {
		return "cooper"
	}
	return c.opt.UserAgent
}
