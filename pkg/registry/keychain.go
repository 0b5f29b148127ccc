package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

const (
	anonymousSource = "none"
	// hubKey is how Docker files the credentials of its own registry.
	hubKey = "https://index.docker.io/v1/"
)

// credential is what is known about the user at one registry.
type credential struct {
	authn.AuthConfig
	// source says where it was found, for messages.
	source string
}

func (c credential) anonymous() bool {
	return c.AuthConfig == authn.AuthConfig{}
}

// credentials finds the credential for a repository.
type credentials interface {
	find(ctx context.Context, repo name.Repository) (credential, error)
}

// keychain adapts a caller's own.
type keychain struct{ authn.Keychain }

func (k keychain) find(ctx context.Context, repo name.Repository) (credential, error) {
	a, err := authn.Resolve(ctx, k.Keychain, repo)
	if err != nil {
		return credential{}, err
	}
	cfg, err := authn.Authorization(ctx, a)
	if err != nil {
		return credential{}, err
	}
	c := credential{AuthConfig: *cfg, source: "the keychain"}
	if c.anonymous() {
		c.source = anonymousSource
	}
	return c, nil
}

// dockerConfig is the part of a Docker config.json that is about credentials.
type dockerConfig struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredHelpers map[string]string     `json:"credHelpers"`
	CredsStore  string                `json:"credsStore"`

	source string
}

type dockerAuth struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// docker answers from configurations that were read once, the more specific
// first. Answers of helpers are kept: the helper may be gone later.
type docker struct {
	configs []dockerConfig
	env     map[string]authn.AuthConfig
	run     func(ctx context.Context, helper, server string) (authn.AuthConfig, error)

	mu    sync.Mutex
	asked map[string]authn.AuthConfig
}

// loadDocker reads the configurations that environ, a look-up of variables,
// points to. A file that is missing is no error, one that is broken is.
func loadDocker(environ func(string) string) (*docker, error) {
	d := &docker{
		env:   map[string]authn.AuthConfig{},
		run:   runHelper,
		asked: map[string]authn.AuthConfig{},
	}
	if v := environ("DOCKER_AUTH_CONFIG"); v != "" {
		c, err := parseDockerConfig([]byte(v), "DOCKER_AUTH_CONFIG")
		if err != nil {
			return nil, err
		}
		d.configs = append(d.configs, c)
	}
	for _, path := range configPaths(environ) {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && environ("DOCKER_CONFIG") == "" {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read registry credentials: %w", err)
		}
		c, err := parseDockerConfig(data, path)
		if err != nil {
			return nil, err
		}
		d.configs = append(d.configs, c)
		break
	}
	for _, v := range [][3]string{
		{"CI_REGISTRY", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"},
		{"CI_DEPENDENCY_PROXY_SERVER", "CI_DEPENDENCY_PROXY_USER", "CI_DEPENDENCY_PROXY_PASSWORD"},
	} {
		host, user, pass := hostOf(environ(v[0])), environ(v[1]), environ(v[2])
		if host != "" && user != "" && pass != "" {
			d.env[host] = authn.AuthConfig{Username: user, Password: pass}
		}
	}
	return d, nil
}

// configPaths lists where a configuration may be; the first that exists counts.
func configPaths(environ func(string) string) []string {
	var paths []string
	home := environ("HOME")
	if dir := environ("DOCKER_CONFIG"); dir != "" {
		paths = append(paths, filepath.Join(dir, "config.json"))
	} else if home != "" {
		paths = append(paths, filepath.Join(home, ".docker", "config.json"))
	}
	if f := environ("REGISTRY_AUTH_FILE"); f != "" {
		paths = append(paths, f)
	}
	if dir := environ("XDG_RUNTIME_DIR"); dir != "" {
		paths = append(paths, filepath.Join(dir, "containers", "auth.json"))
	}
	if dir := environ("XDG_CONFIG_HOME"); dir != "" {
		paths = append(paths, filepath.Join(dir, "containers", "auth.json"))
	} else if home != "" {
		paths = append(paths, filepath.Join(home, ".config", "containers", "auth.json"))
	}
	return paths
}

// parseDockerConfig decodes all "auth" fields. Its errors do not repeat the
// text, which is full of secrets.
func parseDockerConfig(data []byte, source string) (dockerConfig, error) {
	var c dockerConfig
	if len(strings.TrimSpace(string(data))) == 0 {
		return dockerConfig{source: source}, nil
	}
	if err := json.Unmarshal(data, &c); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return c, fmt.Errorf("registry credentials in %s: not JSON (byte %d)", source, syntax.Offset)
		}
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return c, fmt.Errorf("registry credentials in %s: field %q has the wrong type", source, wrong.Field)
		}
		return c, fmt.Errorf("registry credentials in %s: not JSON", source)
	}
	c.source = source
	auths := make(map[string]dockerAuth, len(c.Auths))
	for server, a := range c.Auths {
		if a.Auth != "" {
			raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(a.Auth), "="))
			user, pass, ok := strings.Cut(string(raw), ":")
			if err != nil || !ok {
				return c, fmt.Errorf(`registry credentials in %s: "auth" of %s is not base64 of "user:password"`, source, server)
			}
			a.Username, a.Password = user, strings.TrimRight(pass, "\x00")
		}
		auths[server] = a
	}
	c.Auths = auths
	return c, nil
}

// find asks, in order: the configurations, the CI's variables, the cloud's own
// helper if it is installed.
func (d *docker) find(ctx context.Context, repo name.Repository) (credential, error) {
	host := repo.RegistryStr()
	for i := range d.configs {
		c, err := d.lookUp(ctx, &d.configs[i], host, repo.RepositoryStr())
		if err != nil || !c.anonymous() {
			return c, err
		}
	}
	if a, ok := d.env[host]; ok {
		return credential{a, "the CI's environment"}, nil
	}
	if h := cloudHelper(host); h != "" {
		// Nobody asked for this helper, so its failure is not the user's:
		// the image may be public.
		if a, err := d.ask(ctx, h, host); err == nil && a != (authn.AuthConfig{}) {
			return credential{a, "docker-credential-" + h}, nil
		}
	}
	return credential{source: anonymousSource}, nil
}

func (d *docker) lookUp(ctx context.Context, c *dockerConfig, host, repository string) (credential, error) {
	helper, server := "", host
	if host == name.DefaultRegistry {
		server = hubKey
	}
	for _, key := range serverKeys(host) {
		if h, ok := c.CredHelpers[key]; ok {
			helper, server = h, key
			break
		}
	}
	if helper == "" {
		helper = c.CredsStore
	}
	if helper != "" {
		a, err := d.ask(ctx, helper, server)
		if err != nil {
			return credential{}, fmt.Errorf("credentials for %s (%s): %w", host, c.source, err)
		}
		if a != (authn.AuthConfig{}) {
			return credential{a, fmt.Sprintf("docker-credential-%s (%s)", helper, c.source)}, nil
		}
	}
	a, ok := c.auth(host, repository)
	if !ok {
		return credential{source: anonymousSource}, nil
	}
	return credential{authn.AuthConfig{
		Username: a.Username, Password: a.Password,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}, c.source}, nil
}

// auth finds the entry for the longest path prefix of the repository, else for
// the host; entries may be URLs, as old versions of Docker wrote them.
func (c *dockerConfig) auth(host, repository string) (dockerAuth, bool) {
	for path := repository; path != "" && path != "."; path = filepath.Dir(path) {
		if a, ok := c.Auths[host+"/"+path]; ok {
			return a, true
		}
	}
	for _, key := range serverKeys(host) {
		if a, ok := c.Auths[key]; ok {
			return a, true
		}
	}
	for key, a := range c.Auths {
		if strings.Contains(key, "://") && hostOf(key) == host {
			return a, true
		}
	}
	return dockerAuth{}, false
}

// serverKeys are the names under which a host may be filed, best first.
func serverKeys(host string) []string {
	keys := []string{host}
	if host == name.DefaultRegistry {
		keys = []string{hubKey, host, "docker.io", "registry-1.docker.io"}
	}
	return append(keys, "https://"+host, "http://"+host, "https://"+host+"/", "https://"+host+"/v1/", "https://"+host+"/v2/")
}

// hostOf cuts the host out of a URL or of host/path; Docker Hub's names become one.
func hostOf(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(s), "https://"), "http://")
	s, _, _ = strings.Cut(s, "/")
	if s == "docker.io" || s == "registry-1.docker.io" {
		return name.DefaultRegistry
	}
	return s
}

// ask runs a helper once per server.
func (d *docker) ask(ctx context.Context, helper, server string) (authn.AuthConfig, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := helper + " " + server
	if a, ok := d.asked[key]; ok {
		return a, nil
	}
	a, err := d.run(ctx, helper, server)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	d.asked[key] = a
	return a, nil
}
