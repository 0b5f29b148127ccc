package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
)

// Client talks to registries. It may be used by any number of goroutines.
type Client struct {
	opt      Options
	creds    credentials
	policy   policy
	mapped   map[string][]target
	life     context.Context
	closeAll context.CancelFunc

	mu         sync.Mutex
	transports map[tlsKey]*http.Transport
	endpoints  map[endpointKey]*endpoint
	images     map[imageKey]*once[*Image]
	uploads    map[uploadKey]*once[struct{}]
	files      map[string]*once[struct{}]
}

// New checks options, reads the files they name and the Docker configuration,
// and returns a client. It does not touch the network.
func New(o Options) (*Client, error) {
	c := &Client{
		opt:        o,
		transports: map[tlsKey]*http.Transport{},
		endpoints:  map[endpointKey]*endpoint{},
		images:     map[imageKey]*once[*Image]{},
		uploads:    map[uploadKey]*once[struct{}]{},
		files:      map[string]*once[struct{}]{},
	}
	if o.Keychain != nil {
		c.creds = keychain{o.Keychain}
	} else {
		getenv := o.Getenv
		if getenv == nil {
			getenv = os.Getenv
		}
		d, err := loadDocker(getenv)
		if err != nil {
			return nil, err
		}
		c.creds = d
	}
	var err error
	if c.policy, err = newPolicy(o); err != nil {
		return nil, err
	}
	if c.mapped, err = parseMap(o); err != nil {
		return nil, err
	}
	c.life, c.closeAll = context.WithCancel(context.Background())
	return c, nil
}

// Close ends all transfers and closes all connections. Layers that the client
// handed out can no longer be read, except those that FetchLayer made.
func (c *Client) Close() error {
	c.closeAll()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
	return nil
}

// Preload finds the credentials for registries now, running credential helpers
// where they are configured, so that neither helper nor configuration is
// needed later. Registries are hosts or whole image references.
func (c *Client) Preload(ctx context.Context, registries []string) error {
	var errs []error
	for _, r := range registries {
		repo, err := preloadRepository(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		repos := []name.Repository{repo}
		for _, t := range c.mapped[repo.RegistryStr()] {
			mapped, err := t.apply(repo)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			repos = append(repos, mapped)
		}
		for _, repo := range repos {
			if _, err := c.creds.find(ctx, repo); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func preloadRepository(s string) (name.Repository, error) {
	if !strings.Contains(s, "/") && (strings.ContainsAny(s, ".:") || s == "localhost") {
		reg, err := name.NewRegistry(canonicalHost(s))
		if err != nil {
			return name.Repository{}, fmt.Errorf("registry %q: %w", s, err)
		}
		return reg.Repo("x"), nil
	}
	ref, err := name.ParseReference(s)
	if err != nil {
		return name.Repository{}, fmt.Errorf("image name %q: %w", s, err)
	}
	return ref.Context(), nil
}

func (c *Client) logf(format string, args ...any) {
	if c.opt.Log != nil {
		c.opt.Log(fmt.Sprintf(format, args...))
	}
}

// scope is a context that ends with ctx and with the client.
func (c *Client) scope(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.life, func() { cancel(errors.New("the registry client is closed")) })
	return ctx, func() { stop(); cancel(nil) }
}

// once is a value that is made by whoever asks first while the others wait; a
// failure is not kept, so the next one tries again.
type once[T any] struct {
	turn  chan struct{}
	done  bool
	value T
}

func newOnce[T any]() *once[T] {
	return &once[T]{turn: make(chan struct{}, 1)}
}

func (o *once[T]) do(ctx context.Context, f func() (T, error)) (T, error) {
	var zero T
	select {
	case o.turn <- struct{}{}:
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	}
	defer func() { <-o.turn }()
	if o.done {
		return o.value, nil
	}
	v, err := f()
	if err != nil {
		return zero, err
	}
	o.value, o.done = v, true
	return v, nil
}

// onceFor finds or makes the entry for key; mu guards m.
func onceFor[K comparable, T any](mu *sync.Mutex, m map[K]*once[T], key K) *once[T] {
	mu.Lock()
	defer mu.Unlock()
	o := m[key]
	if o == nil {
		o = newOnce[T]()
		m[key] = o
	}
	return o
}
