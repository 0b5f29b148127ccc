package registry

import (
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Options says how registries are reached. The zero value is good for public
// registries and for those that the Docker configuration has credentials for.
//
// Registry names in lists and maps are hosts with an optional port, as they
// appear in image names; "docker.io" and "index.docker.io" are the same.
type Options struct {
	// Insecure allows plain HTTP for pushes and for the layer cache,
	// InsecurePull for pulls. HTTPS is still tried first.
	Insecure, InsecurePull bool
	// SkipTLSVerify accepts any server certificate, for pushes and pulls;
	// SkipTLSVerifyPull does for pulls alone.
	SkipTLSVerify, SkipTLSVerifyPull bool
	// InsecureRegistries may be reached with plain HTTP and
	// SkipTLSVerifyRegistries may show any certificate, for pushes and pulls.
	InsecureRegistries, SkipTLSVerifyRegistries []string
	// Certificates maps a registry to a PEM file of certificate authorities
	// that are trusted for it beside the system's.
	Certificates map[string]string
	// ClientCerts maps a registry to "certificate,key", two PEM files to
	// authenticate with.
	ClientCerts map[string]string

	// Map sends pulls elsewhere: for images of the registry that is the key,
	// the targets are asked in order. A target is host[/prefix]; the prefix
	// goes in front of the repository. Pushes and the cache are not affected.
	Map map[string][]string
	// Mirrors are further targets for Docker Hub, asked after those in Map.
	Mirrors []string
	// SkipDefaultFallback forbids asking the registry itself after its
	// targets have failed. It has no effect on registries without a target.
	SkipDefaultFallback bool

	// PullRetries and PushRetries count how often a request that failed for a
	// passing reason is repeated. Fewer than 3 mean 3; a negative number means
	// never.
	PullRetries, PushRetries int
	// RetryDelay is the pause before the first repetition, which doubles each
	// time up to 30 s; 0 means 500 ms.
	RetryDelay time.Duration

	// Keychain finds credentials. nil means, in this order: the
	// DOCKER_AUTH_CONFIG variable, config.json in $DOCKER_CONFIG or
	// ~/.docker (else Podman's auth.json), with its credential helpers, the
	// variables that GitLab CI sets, and the helpers docker-credential-
	// {ecr-login,gcr,acr-env} for their clouds where they are installed.
	Keychain authn.Keychain
	// Getenv looks up the variables that the default keychain reads; nil means
	// os.Getenv.
	Getenv func(string) string
	// UserAgent is sent with every request; "" means "cooper".
	UserAgent string
	// Jobs limits the blobs that one Push uploads at the same time; 0 means 4.
	Jobs int
	// Log receives one line about anything a user may want to know though it
	// is no failure, such as a mirror that did not answer. It may be called
	// from several goroutines at once. nil drops them.
	Log func(string)
}
