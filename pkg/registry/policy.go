package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

// side tells the two sets of rules apart: pulls of base images have their own
// flags, pushes and the cache share the others.
type side int

const (
	pull side = iota
	push
)

// policy answers how a host may be talked to.
type policy struct {
	insecure, skip         [2]bool
	insecureHosts, skipFor map[string]bool
	system                 *x509.CertPool
	pools                  map[string]*x509.CertPool
	certs                  map[string]tls.Certificate
}

func newPolicy(o Options) (policy, error) {
	p := policy{
		insecureHosts: map[string]bool{},
		skipFor:       map[string]bool{},
		pools:         map[string]*x509.CertPool{},
		certs:         map[string]tls.Certificate{},
	}
	p.insecure = [2]bool{pull: o.InsecurePull, push: o.Insecure}
	p.skip = [2]bool{pull: o.SkipTLSVerify || o.SkipTLSVerifyPull, push: o.SkipTLSVerify}
	for _, h := range o.InsecureRegistries {
		p.insecureHosts[canonicalHost(h)] = true
	}
	for _, h := range o.SkipTLSVerifyRegistries {
		p.skipFor[canonicalHost(h)] = true
	}
	// Loading the system's roots now, not at the first connection, keeps them
	// when the build replaces the root directory.
	system, err := x509.SystemCertPool()
	if err != nil {
		system = x509.NewCertPool()
	}
	p.system = system
	for h, file := range o.Certificates {
		pem, err := os.ReadFile(file)
		if err != nil {
			return p, fmt.Errorf("certificate for registry %s: %w", h, err)
		}
		pool := system.Clone()
		if !pool.AppendCertsFromPEM(pem) {
			return p, fmt.Errorf("certificate for registry %s: no PEM certificate in %s", h, file)
		}
		p.pools[canonicalHost(h)] = pool
	}
	for h, pair := range o.ClientCerts {
		cert, key, ok := strings.Cut(pair, ",")
		if !ok || cert == "" || key == "" {
			return p, fmt.Errorf("client certificate for registry %s: want certificate,key, not %q", h, pair)
		}
		c, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return p, fmt.Errorf("client certificate for registry %s: %w", h, err)
		}
		p.certs[canonicalHost(h)] = c
	}
	return p, nil
}

// allowsHTTP reports whether plain HTTP may be tried.
func (p *policy) allowsHTTP(s side, reg name.Registry) bool {
	h := reg.RegistryStr()
	if p.insecure[s] || p.insecureHosts[h] || reg.Scheme() == "http" {
		return true
	}
	host := h
	if bare, _, err := net.SplitHostPort(h); err == nil {
		host = bare
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// tlsKey names a TLS setting. host is "" unless the registry has certificates
// of its own, so that all others share a transport.
type tlsKey struct {
	host string
	skip bool
}

func (p *policy) tlsKey(s side, host string) tlsKey {
	k := tlsKey{skip: p.skip[s] || p.skipFor[host]}
	if _, ok := p.pools[host]; ok {
		k.host = host
	}
	if _, ok := p.certs[host]; ok {
		k.host = host
	}
	return k
}

// transport finds or makes the one transport for a TLS setting.
func (c *Client) transport(k tlsKey) *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.transports[k]; t != nil {
		return t
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.policy.system, InsecureSkipVerify: k.skip}
	if pool := c.policy.pools[k.host]; pool != nil {
		cfg.RootCAs = pool
	}
	if cert, ok := c.policy.certs[k.host]; ok {
		cfg.Certificates = []tls.Certificate{cert}
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       cfg,
		TLSHandshakeTimeout:   20 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		// Layers are compressed already, and their digests are of the bytes
		// as they are.
		DisableCompression: true,
	}
	c.transports[k] = t
	return t
}

// target is where a map or mirror sends a pull.
type target struct {
	registry name.Registry
	prefix   string
}

func (t target) apply(repo name.Repository) (name.Repository, error) {
	full := t.registry.RegistryStr() + "/" + path.Join(t.prefix, repo.RepositoryStr())
	r, err := name.NewRepository(full)
	if err != nil {
		return r, fmt.Errorf("map %s to %s: %w", repo, t.registry, err)
	}
	r.Registry = t.registry
	return r, nil
}

func parseMap(o Options) (map[string][]target, error) {
	m := map[string][]target{}
	add := func(from, to string) error {
		t, err := parseTarget(to)
		if err != nil {
			return fmt.Errorf("map registry %s: %w", from, err)
		}
		from = canonicalHost(from)
		m[from] = append(m[from], t)
		return nil
	}
	for from, targets := range o.Map {
		for _, to := range targets {
			if err := add(from, to); err != nil {
				return nil, err
			}
		}
	}
	for _, to := range o.Mirrors {
		if err := add(name.DefaultRegistry, to); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// parseTarget reads host[/prefix]. A scheme in front is taken for what it
// plainly means.
func parseTarget(s string) (target, error) {
	rest, plain := strings.CutPrefix(s, "http://")
	rest = strings.TrimPrefix(rest, "https://")
	host, prefix, _ := strings.Cut(strings.Trim(rest, "/"), "/")
	var opts []name.Option
	if plain {
		opts = append(opts, name.Insecure)
	}
	if host == "" {
		return target{}, fmt.Errorf("target %q has no host", s)
	}
	reg, err := name.NewRegistry(canonicalHost(host), opts...)
	if err != nil {
		return target{}, fmt.Errorf("target %q: %w", s, err)
	}
	return target{reg, prefix}, nil
}

// canonicalHost is a registry's host as it is in parsed names.
func canonicalHost(s string) string {
	return hostOf(s)
}
