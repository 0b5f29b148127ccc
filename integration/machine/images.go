package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const systemPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// base makes a base image by its name.
func (m *Machine) base(name string) (v1.Image, error) {
	switch name {
	case "debian":
		return m.debian()
	case "node":
		return m.node()
	case "golang":
		return m.golang()
	}
	if make, ok := crafted[name]; ok {
		img, err := make()
		if err != nil {
			return nil, fmt.Errorf("base image %s: %w", name, err)
		}
		return img, nil
	}
	return nil, fmt.Errorf("there is no base image %q", name)
}

func (m *Machine) cachedLayer(name string) (v1.Layer, error) {
	path := filepath.Join(m.Cache, "layers", name)
	if _, err := os.Stat(path); err != nil {
		return nil, &Missing{fmt.Sprintf("%s does not exist; integration/setup.sh makes it", path)}
	}
	return tarball.LayerFromFile(path, tarball.WithMediaType(types.OCILayer))
}

func (m *Machine) debian() (v1.Image, error) {
	l, err := m.cachedLayer("debian.tar.gz")
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Env: []string{systemPath}, Cmd: []string{"bash"}}, "ADD rootfs", l)
}

func (m *Machine) node() (v1.Image, error) {
	system, err := m.cachedLayer("debian.tar.gz")
	if err != nil {
		return nil, err
	}
	node, err := m.cachedLayer("node.tar.gz")
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Env: []string{systemPath, "NPM_CONFIG_UPDATE_NOTIFIER=false"}, Cmd: []string{"node"}}, "ADD node", system, node)
}

// golang is what Cooper's Dockerfile builds on; its modules are in the image.
func (m *Machine) golang() (v1.Image, error) {
	system, err := m.cachedLayer("debian.tar.gz")
	if err != nil {
		return nil, err
	}
	toolchain, err := m.cachedLayer("golang.tar.gz")
	if err != nil {
		return nil, err
	}
	env := []string{"PATH=/usr/local/go/bin:" + strings.TrimPrefix(systemPath, "PATH="), "GOPATH=/go", "GOPROXY=off", "GOTOOLCHAIN=local"}
	return assemble(v1.Config{Env: env, Cmd: []string{"bash"}}, "ADD go", system, toolchain)
}

// busyboxFiles is a small system: the static busybox, a link per applet, and
// users for what looks at /etc/passwd.
func busyboxFiles() (*files, error) {
	const path = "/bin/busybox"
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, &Missing{path + " does not exist; integration/setup.sh installs it"}
	}
	out, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("ask busybox for its applets: %w", err)
	}
	f := &files{}
	f.dir("bin", 0o755).file("bin/busybox", 0o755, string(program))
	for _, applet := range strings.Fields(string(out)) {
		if applet != "busybox" {
			f.link("bin/"+applet, "busybox")
		}
	}
	f.dir("etc", 0o755)
	f.file("etc/group", 0o644, "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\napp:x:1000:\nextra:x:2000:app\nmore:x:2001:other,app\nnogroup:x:65534:\n")
	f.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\napp:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")
	f.file("etc/shadow", 0o640, "root:*:19700:0:99999:7:::\n")
	f.dir("home", 0o755).dir("home/app", 0o755, 1000, 1000)
	f.dir("root", 0o700).dir("tmp", 0o1777)
	f.dir("usr", 0o755).dir("usr/bin", 0o755).dir("var", 0o755).dir("var/www", 0o755, 33, 33)
	return f, nil
}

func busybox() (v1.Image, error) {
	l, err := busyboxLayer(types.OCILayer)
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Env: []string{systemPath}, Cmd: []string{"sh"}}, "ADD busybox", l)
}

func busyboxLayer(media types.MediaType) (v1.Layer, error) {
	f, err := busyboxFiles()
	if err != nil {
		return nil, err
	}
	return f.layer(media)
}

// assemble makes an OCI image for linux/amd64 whose layers have one history
// entry each.
func assemble(config v1.Config, createdBy string, layers ...v1.Layer) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	var adds []mutate.Addendum
	for i, l := range layers {
		adds = append(adds, mutate.Addendum{Layer: l, History: v1.History{
			CreatedBy: fmt.Sprintf("%s %d", createdBy, i), Comment: "crafted", Created: v1.Time{Time: epoch},
		}})
	}
	return configure(img, adds, config)
}

// configure appends layers and sets the configuration.
func configure(img v1.Image, adds []mutate.Addendum, config v1.Config) (v1.Image, error) {
	img, err := mutate.Append(img, adds...)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config, file.Created = "linux", "amd64", config, v1.Time{Time: epoch}
	return mutate.ConfigFile(img, file)
}

// cooper is the executor's own image with a shell.
func cooper(executor string) (v1.Image, error) {
	program, err := os.ReadFile(executor)
	if err != nil {
		return nil, err
	}
	certificates, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		return nil, &Missing{"no certificates: " + err.Error()}
	}
	box, err := busyboxFiles()
	if err != nil {
		return nil, err
	}
	f := &files{}
	f.dir("kaniko", 0o777).file("kaniko/executor", 0o755, string(program))
	f.dir("kaniko/.docker", 0o755).dir("kaniko/ssl", 0o755).dir("kaniko/ssl/certs", 0o755)
	f.file("kaniko/ssl/certs/ca-certificates.crt", 0o644, string(certificates))
	f.dir("etc", 0o755).file("etc/nsswitch.conf", 0o644, "hosts: files dns\n")
	f.dir("workspace", 0o755)
	f.dir("busybox", 0o755)
	for i, h := range box.headers {
		if rest, ok := strings.CutPrefix(h.Name, "bin/"); ok && rest != "" {
			h := *h
			h.Name = "busybox/" + rest
			f.add(h, string(box.bodies[i]))
		}
	}
	f.dir("bin", 0o755).link("bin/sh", "/busybox/sh")
	l, err := f.layer(types.DockerLayer)
	if err != nil {
		return nil, err
	}
	img, err := assemble(v1.Config{
		Env: []string{"PATH=/usr/local/bin:/kaniko:/busybox", "HOME=/root", "USER=root",
			"SSL_CERT_DIR=/kaniko/ssl/certs", "DOCKER_CONFIG=/kaniko/.docker/"},
		WorkingDir: "/workspace",
		Entrypoint: []string{"/kaniko/executor"},
	}, "COPY executor", l)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigMediaType(mutate.MediaType(img, types.DockerManifestSchema2), types.DockerConfigJSON), nil
}
