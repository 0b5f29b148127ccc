package machine

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Registry is a registry on loopback that speaks plain HTTP. What it holds
// under library/ is what Docker Hub would: builders take it as a mirror.
type Registry struct {
	// Host is "127.0.0.1:PORT".
	Host string

	machine *Machine
	mu      sync.Mutex
	pushed  map[string]v1.Image
}

// Registry starts the registry; the small base images (see [Small]) are in it.
func (m *Machine) Registry(ctx context.Context) (*Registry, error) {
	return m.registry.get(func() (*Registry, error) {
		r, err := m.startRegistry(ctx)
		if err != nil {
			return nil, err
		}
		return r, r.Need(ctx, Small()...)
	})
}

func (m *Machine) startRegistry(ctx context.Context) (*Registry, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	r := &Registry{Host: fmt.Sprintf("127.0.0.1:%d", port), machine: m, pushed: map[string]v1.Image{}}
	config := filepath.Join(m.Dir, "registry.yml")
	text := fmt.Sprintf(`version: 0.1
log: {level: error}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http: {addr: %q}
`, filepath.Join(m.Dir, "registry"), r.Host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	ready := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Host+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.launch(ctx, ready, "docker-registry", "serve", config); err != nil {
		return nil, err
	}
	return r, nil
}

// Need pushes base images by their names, unless they are there already.
func (r *Registry) Need(ctx context.Context, names ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		if r.pushed[n] != nil {
			continue
		}
		img, err := r.machine.base(n)
		if err != nil {
			return err
		}
		if err := r.push(ctx, "library/"+n+":latest", img); err != nil {
			return err
		}
		r.pushed[n] = img
	}
	return nil
}

// Base is an image that was asked for with Need, nil for others.
func (r *Registry) Base(name string) v1.Image {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pushed[name]
}

func (r *Registry) push(ctx context.Context, repository string, img v1.Image) error {
	ref, err := name.ParseReference(r.Host+"/"+repository, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}

// Layers names the layers of the base images pushed so far, as "NAME#NUMBER" by
// diff id. A layer of several images has the name of the first by the alphabet.
func (r *Registry) Layers() (map[string]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]string{}
	for _, name := range sorted(r.pushed) {
		file, err := r.pushed[name].ConfigFile()
		if err != nil {
			return nil, err
		}
		for i, id := range file.RootFS.DiffIDs {
			if _, ok := out[id.String()]; !ok {
				out[id.String()] = fmt.Sprintf("%s#%d", name, i)
			}
		}
	}
	return out, nil
}
