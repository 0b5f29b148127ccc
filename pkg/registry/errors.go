package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Kind classifies a failure by what a user would do about it.
type Kind int

// The kinds of failure.
const (
	// Failed is any answer that fits no other kind.
	Failed Kind = iota
	// Denied: the registry wants other credentials, or none will do.
	Denied
	// NotFound: no such repository, tag, manifest or blob.
	NotFound
	// Unreachable: no answer, or 5xx answers until patience ran out.
	Unreachable
	// Limited: the registry counts requests and has had enough of ours.
	Limited
	// Corrupt: the bytes are not those that the digest promises.
	Corrupt
	// Immutable: the tag exists and the registry does not let it move.
	Immutable
)

var kindText = [...]string{
	Failed:      "unexpected answer",
	Denied:      "the registry refuses access",
	NotFound:    "not found",
	Unreachable: "the registry cannot be reached",
	Limited:     "too many requests",
	Corrupt:     "the registry sent wrong bytes",
	Immutable:   "the tag is immutable",
}

// String is the kind in words.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindText) {
		return "kind " + strconv.Itoa(int(k))
	}
	return kindText[k]
}

// Error is a failed registry operation. It never holds a secret: credentials
// are named by their origin and URLs lose their queries.
type Error struct {
	// Op is what was being done, such as "get manifest" or "upload blob".
	Op string
	// Registry is the host that was asked, after mirrors and maps.
	Registry string
	// Repository is the repository's path; Reference the tag or digest.
	// Either may be "".
	Repository, Reference string
	Kind                  Kind
	// Status is the HTTP status, 0 when there was no answer.
	Status int
	// Code and Message are the registry's own words, if it gave any.
	Code, Message string
	// Credentials says where those that were used come from; "none" when the
	// request was anonymous; "" when it did not come to that.
	Credentials string
	// Err is the cause when it is not an HTTP status.
	Err error

	transient  bool
	retryAfter time.Duration
}

// Error tells the whole story in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	b.WriteByte(' ')
	b.WriteString(e.Registry)
	if e.Repository != "" {
		b.WriteString("/" + e.Repository)
	}
	switch {
	case strings.Contains(e.Reference, ":"):
		b.WriteString("@" + e.Reference)
	case e.Reference != "":
		b.WriteString(":" + e.Reference)
	}
	b.WriteString(": " + e.Kind.String())
	if e.Status != 0 {
		fmt.Fprintf(&b, " (%d %s)", e.Status, http.StatusText(e.Status))
	}
	var said []string
	for _, s := range []string{e.Code, e.Message} {
		if s != "" {
			said = append(said, s)
		}
	}
	if len(said) > 0 {
		b.WriteString(": " + strings.Join(said, ": "))
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Kind == Denied && e.Credentials != "" {
		if e.Credentials == anonymousSource {
			b.WriteString("; no credentials were found for " + e.Registry)
		} else {
			b.WriteString("; credentials from " + e.Credentials)
		}
	}
	return b.String()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// IsKind reports whether err holds an *Error of kind k.
func IsKind(err error, k Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == k
}

// errorBody limits what is read of an error answer.
const errorBody = 64 << 10

// answerError makes an *Error of an answer with an unwanted status. It reads
// but does not close the body.
func answerError(resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, retryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		// Token servers answer in the form of RFC 6749.
		Details     string `json:"details"`
		Description string `json:"error_description"`
	}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, errorBody))
	isJSON := json.Unmarshal(raw, &body) == nil
	switch {
	case isJSON && len(body.Errors) > 0:
		e.Code, e.Message = body.Errors[0].Code, printable(body.Errors[0].Message)
	case isJSON:
		e.Message = printable(body.Description + body.Details)
	case !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html"):
		e.Message = printable(string(raw))
	}
	switch s := resp.StatusCode; {
	case s == http.StatusTooManyRequests || e.Code == "TOOMANYREQUESTS":
		e.Kind, e.transient = Limited, true
	case immutable(e.Message) || e.Code == "TAG_IMMUTABLE":
		e.Kind = Immutable
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		e.Kind = Denied
	case s == http.StatusNotFound:
		e.Kind = NotFound
		// An upload session can be lost between two servers of one registry.
		e.transient = e.Code == "BLOB_UPLOAD_UNKNOWN"
	case s == http.StatusRequestTimeout, s == 499:
		e.Kind, e.transient = Unreachable, true
	case s == http.StatusNotImplemented:
	case s >= 500:
		e.Kind, e.transient = Unreachable, true
	default:
		e.transient = e.Code == "BLOB_UPLOAD_INVALID" || e.Code == "BLOB_UPLOAD_UNKNOWN"
	}
	return e
}

// immutable recognises the words of registries that have no code for it:
// Google's, Amazon's, Harbor's.
func immutable(message string) bool {
	for _, s := range []string{
		"The repository has enabled tag immutability",
		"cannot be overwritten because the repository is immutable",
		"cannot be overwritten because the tag is immutable",
		"configured as immutable",
	} {
		if strings.Contains(message, s) {
			return true
		}
	}
	return false
}

// printable makes one short line of what a stranger sent.
func printable(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return strings.TrimSpace(s)
}

// redacted drops the query from the URL in an error of net/http: a signed
// storage URL is as good as a password.
func redacted(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	where := u.URL
	if p, perr := url.Parse(u.URL); perr == nil {
		p.RawQuery, p.Fragment, p.User = "", "", nil
		where = p.String()
	} else {
		where = "(unparsable URL)"
	}
	return &url.Error{Op: u.Op, URL: where, Err: u.Err}
}

// contextError is ctx's error if that is why something failed.
func contextError(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}
