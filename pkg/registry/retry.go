package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	leastRetries = 3
	firstDelay   = 500 * time.Millisecond
	longestDelay = 30 * time.Second
	// longestWait is how long a Retry-After is obeyed; a registry that asks
	// for more is reported as failed.
	longestWait = 2 * time.Minute
)

// errStalled is why a transfer was given up when no byte moved for too long.
var errStalled = errors.New("no data for too long")

// backoff counts the failures of one operation.
type backoff struct {
	left  int
	delay time.Duration
}

func (c *Client) backoff(push bool) backoff {
	n := c.opt.PullRetries
	if push {
		n = c.opt.PushRetries
	}
	switch {
	case n < 0:
		n = 0
	case n < leastRetries:
		n = leastRetries
	}
	d := c.opt.RetryDelay
	if d <= 0 {
		d = firstDelay
	}
	return backoff{left: n, delay: d}
}

// pause waits before the next attempt after err. It returns err itself when
// there shall be none: because err is final, patience has run out, or ctx has
// ended.
func (b *backoff) pause(ctx context.Context, err error) error {
	if b.left <= 0 || contextError(ctx) != nil || !transient(err) {
		return err
	}
	wait := b.delay + rand.N(b.delay/2+1)
	var e *Error
	if errors.As(err, &e) && e.retryAfter > 0 {
		if e.retryAfter > longestWait {
			return fmt.Errorf("%w (it asks to wait %s)", err, e.retryAfter.Round(time.Second))
		}
		// Everybody is told the same moment, so come a little later.
		wait = e.retryAfter + rand.N(b.delay/2+1)
	}
	b.left--
	b.delay = min(2*b.delay, longestDelay)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return err
	case <-t.C:
		return nil
	}
}

// retry runs f until it succeeds, fails for good or has been repeated often
// enough.
func (c *Client) retry(ctx context.Context, push bool, f func() error) error {
	b := c.backoff(push)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if err := b.pause(ctx, err); err != nil {
			return err
		}
	}
}

// transient reports whether trying again may help.
func transient(err error) bool {
	var e *Error
	if errors.As(err, &e) && (e.Status != 0 || e.Kind == Corrupt) {
		return e.transient
	}
	var local localError
	return !errors.As(err, &local) && passing(err)
}

// passing reports whether an error of the network is of the kind that goes
// away: cut connections and timeouts do, refused certificates do not.
func passing(err error) bool {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		alert    tls.AlertError
		dns      *net.DNSError
		timeout  net.Error
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &invalid),
		errors.As(err, &verify), errors.As(err, &record), errors.As(err, &alert):
		return false
	case errors.As(err, &dns):
		return dns.IsTemporary || dns.IsTimeout
	case errors.Is(err, errStalled), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNABORTED),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPIPE),
		errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, net.ErrClosed):
		return true
	case errors.As(err, &timeout) && timeout.Timeout():
		return true
	}
	// net/http keeps these errors of HTTP/1 and HTTP/2 to itself.
	s := err.Error()
	for _, known := range []string{
		"http2: server sent GOAWAY", "http2: client connection lost", "stream error:",
		"server closed idle connection", "connection reset", "transport connection broken",
	} {
		if strings.Contains(s, known) {
			return true
		}
	}
	return false
}

// retryAfter reads the header of RFC 9110 §10.2.3; 0 when there is none.
func retryAfter(header string, now time.Time) time.Duration {
	if header == "" {
		return 0
	}
	if n, err := strconv.Atoi(strings.TrimSpace(header)); err == nil {
		return max(0, min(time.Duration(n), 1e6)) * time.Second
	}
	if t, err := http.ParseTime(header); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}
