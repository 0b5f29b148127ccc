package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

// tokenLife is how long a token lives whose server does not say, by the
// distribution token specification; tokenMargin is kept from every life.
const (
	tokenLife   = 60 * time.Second
	tokenMargin = 10 * time.Second
	tokenBody   = 1 << 20
)

// access is what a request needs: one repository, read or written.
type access struct {
	repository string
	write      bool
}

func (a access) String() string {
	if a.write {
		return "repository:" + a.repository + ":pull,push"
	}
	return "repository:" + a.repository + ":pull"
}

// token is a bearer token and what it was asked for.
type token struct {
	value   string
	source  string
	wanted  []access
	expires time.Time
}

func (t token) covers(wanted []access) bool {
	for _, w := range wanted {
		if !slices.Contains(t.wanted, w) && !slices.Contains(t.wanted, access{w.repository, true}) {
			return false
		}
	}
	return true
}

// authorization is the header value for a request, "" for none, and where its
// credentials come from.
func (e *endpoint) authorization(ctx context.Context, p probe, wanted []access) (header, source string, err error) {
	switch p.challenge.scheme {
	case "":
		return "", anonymousSource, nil
	case "basic":
		cred, err := e.credential(ctx, wanted)
		if err != nil {
			return "", "", err
		}
		return basic(cred), cred.source, nil
	}
	t, err := e.token(ctx, p, wanted)
	if err != nil {
		return "", "", err
	}
	return "Bearer " + t.value, t.source, nil
}

func (e *endpoint) credential(ctx context.Context, wanted []access) (credential, error) {
	repo := "x"
	if len(wanted) > 0 {
		repo = wanted[0].repository
	}
	reg, err := name.NewRegistry(e.host)
	if err != nil {
		return credential{}, err
	}
	return e.c.creds.find(ctx, reg.Repo(repo))
}

func basic(c credential) string {
	switch {
	case c.RegistryToken != "":
		return "Bearer " + c.RegistryToken
	case c.Username != "" || c.Password != "":
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(c.Username, c.Password)
		return r.Header.Get("Authorization")
	case c.Auth != "":
		return "Basic " + c.Auth
	}
	return ""
}

// token returns one that covers wanted, fetching it if there is none.
func (e *endpoint) token(ctx context.Context, p probe, wanted []access) (token, error) {
	if t, ok := e.kept(wanted); ok {
		return t, nil
	}
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return token{}, context.Cause(ctx)
	}
	defer func() { <-e.turn }()
	if t, ok := e.kept(wanted); ok {
		return t, nil
	}
	t, err := e.fetchToken(ctx, p, wanted)
	if err != nil {
		return token{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tokens = append(e.tokens, t)
	return t, nil
}

func (e *endpoint) kept(wanted []access) (token, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	e.tokens = slices.DeleteFunc(e.tokens, func(t token) bool { return now.After(t.expires) })
	for _, t := range e.tokens {
		if t.covers(wanted) {
			return t, true
		}
	}
	return token{}, false
}

// forget drops a token that the registry did not accept.
func (e *endpoint) forget(header string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tokens = slices.DeleteFunc(e.tokens, func(t token) bool { return "Bearer "+t.value == header })
}

// fetchToken asks the token server that the registry named.
func (e *endpoint) fetchToken(ctx context.Context, p probe, wanted []access) (token, error) {
	cred, err := e.credential(ctx, wanted)
	if err != nil {
		return token{}, err
	}
	if cred.RegistryToken != "" {
		return token{cred.RegistryToken, cred.source, wanted, time.Now().Add(time.Hour)}, nil
	}
	fail := func(err error) (token, error) {
		var answered *Error
		if errors.As(err, &answered) {
			answered.Op, answered.Registry, answered.Credentials = "get a token for", e.host, cred.source
			if len(wanted) > 0 {
				answered.Repository = wanted[0].repository
			}
			return token{}, answered
		}
		return token{}, e.failure(ctx, "get a token for", err)
	}
	realm, err := url.Parse(p.challenge.params["realm"])
	if err != nil || realm.Host == "" {
		return fail(errors.New("the registry names no valid token server"))
	}
	if realm.Scheme != "https" && (realm.Scheme != "http" || !e.insecure) {
		return fail(fmt.Errorf("the token server %s is not reached by HTTPS", realm.Host))
	}
	if linkLocal(realm.Hostname()) && realm.Host != e.host {
		return fail(fmt.Errorf("the token server %s has a link-local address", realm.Host))
	}
	var resp *http.Response
	if cred.IdentityToken != "" {
		resp, err = e.askOAuth(ctx, realm, p, cred, wanted)
		if err == nil && (resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed) {
			resp.Body.Close()
			resp, err = e.askToken(ctx, realm, p, cred, wanted)
		}
	} else {
		resp, err = e.askToken(ctx, realm, p, cred, wanted)
	}
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fail(answerError(resp))
	}
	var answer struct {
		Token       string  `json:"token"`
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, tokenBody))
	if err != nil {
		return fail(err)
	}
	if json.Unmarshal(body, &answer) != nil {
		return fail(errors.New("the token server's answer is not JSON"))
	}
	t := token{value: answer.Token, source: cred.source, wanted: wanted}
	if t.value == "" {
		t.value = answer.AccessToken
	}
	if t.value == "" {
		return fail(errors.New("the token server's answer has no token"))
	}
	life := tokenLife
	if answer.ExpiresIn > 0 {
		life = time.Duration(min(answer.ExpiresIn, 1e6) * float64(time.Second))
	}
	t.expires = time.Now().Add(life - min(tokenMargin, life/4))
	return t, nil
}

// askToken is the GET of the distribution token specification.
func (e *endpoint) askToken(ctx context.Context, realm *url.URL, p probe, cred credential, wanted []access) (*http.Response, error) {
	u := *realm
	q := u.Query()
	for _, w := range wanted {
		q.Add("scope", w.String())
	}
	if s := p.challenge.params["service"]; s != "" {
		q.Set("service", s)
	}
	if cred.Username != "" && cred.Password != "" {
		q.Set("account", cred.Username)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if h := basic(cred); h != "" {
		req.Header.Set("Authorization", h)
	}
	return e.doToken(req)
}

// askOAuth is the POST of the distribution OAuth2 specification.
func (e *endpoint) askOAuth(ctx context.Context, realm *url.URL, p probe, cred credential, wanted []access) (*http.Response, error) {
	scopes := make([]string, len(wanted))
	for i, w := range wanted {
		scopes[i] = w.String()
	}
	form := url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {cred.IdentityToken},
		"client_id":     {e.c.userAgent()},
		"scope":         {strings.Join(scopes, " ")},
	}
	if s := p.challenge.params["service"]; s != "" {
		form.Set("service", s)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return e.doToken(req)
}

// doToken sends a request to the token server. It is retried with the request
// that needs the token, not by itself.
func (e *endpoint) doToken(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", e.c.userAgent())
	client := http.Client{Transport: e.http, CheckRedirect: e.checkRedirect}
	return client.Do(req)
}
