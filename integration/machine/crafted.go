package machine

import (
	"archive/tar"
	"encoding/binary"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// crafted are the base images that are made of busybox and a few files.
var crafted = map[string]func() (v1.Image, error){
	"busybox":     busybox,
	"configured":  configured,
	"dockertypes": dockertypes,
	"layered":     layered,
	"nohistory":   nohistory,
	"nopasswd":    nopasswd,
	"odd":         odd,
	"tricky":      tricky,
	"bare":        bare,
	"onbuild":     onbuild,
	"triggers":    triggers,
	"volumes":     volumes,
}

// Small is the names of the base images that are quickly made: busybox and
// variations of it.
func Small() []string { return sorted(crafted) }

// variation is busybox with a configuration and further layers.
func variation(config v1.Config, more ...*files) (v1.Image, error) {
	l, err := busyboxLayer(types.OCILayer)
	if err != nil {
		return nil, err
	}
	layers := []v1.Layer{l}
	for _, f := range more {
		l, err := f.layer(types.OCILayer)
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	return assemble(config, "layer", layers...)
}

// configured has every field of a configuration.
func configured() (v1.Image, error) {
	return variation(v1.Config{
		User:         "app",
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		Env:          []string{systemPath, "BASE=1", "EMPTY=", "SPACE=a b"},
		Entrypoint:   []string{"/bin/echo", "entry"},
		Cmd:          []string{"from", "base"},
		Volumes:      map[string]struct{}{"/data": {}},
		WorkingDir:   "/home/app",
		Labels:       map[string]string{"origin": "base", "overwritten": "no"},
		StopSignal:   "SIGQUIT",
		Healthcheck:  &v1.HealthConfig{Test: []string{"CMD-SHELL", "true"}, Interval: 30 * time.Second, Retries: 2},
		Shell:        []string{"/bin/sh", "-ec"},
	})
}

// dockertypes has Docker's media types, empty history entries, and an author.
func dockertypes() (v1.Image, error) {
	l, err := busyboxLayer(types.DockerLayer)
	if err != nil {
		return nil, err
	}
	at := v1.Time{Time: epoch}
	img, err := configure(empty.Image, []mutate.Addendum{
		{Layer: l, History: v1.History{CreatedBy: "/bin/sh -c #(nop) ADD file:0123 in / ", Created: at}},
		{History: v1.History{CreatedBy: "/bin/sh -c #(nop)  CMD [\"sh\"]", Author: "somebody", EmptyLayer: true, Created: at}},
	}, v1.Config{Env: []string{systemPath}, Cmd: []string{"sh"}})
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Author, file.DockerVersion, file.Container = "somebody", "20.10", "0123"
	return mutate.ConfigFile(img, file)
}

// triggers has ONBUILD instructions.
func triggers() (v1.Image, error) {
	return variation(v1.Config{
		Env: []string{systemPath},
		OnBuild: []string{
			"ENV FROM_TRIGGER=1",
			"COPY trigger.txt /trigger/",
			"RUN echo \"$FROM_TRIGGER\" > /trigger/ran",
			"ARG TRIGGER_ARG=default",
		},
	})
}

// volumes declares one that also holds files.
func volumes() (v1.Image, error) {
	return variation(v1.Config{Env: []string{systemPath}, Volumes: map[string]struct{}{"/data": {}, "/var/lib/x": {}}},
		(&files{}).dir("data", 0o750, 33, 33).file("data/kept", 0o640, "kept\n", 33, 33))
}

// nopasswd has neither users nor a PATH.
func nopasswd() (v1.Image, error) {
	return variation(v1.Config{}, (&files{}).gone("etc/passwd").gone("etc/group"))
}

// nohistory has layers but no history, and a link where /etc/passwd should be.
func nohistory() (v1.Image, error) {
	img, err := variation(v1.Config{Env: []string{systemPath}},
		(&files{}).dir("etc", 0o755).dir("etc/real", 0o755).
			file("etc/real/passwd", 0o644, "root:x:0:0::/root:/bin/sh\nlinked:x:4242:4343::/home/linked:/bin/sh\n").
			link("etc/passwd", "/etc/real/passwd"))
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.History = nil
	return mutate.ConfigFile(img, file)
}

// layered changes in later layers what earlier ones have: whiteouts, an opaque
// directory, type changes, and a layer without parents.
func layered() (v1.Image, error) {
	first := (&files{}).
		dir("stack", 0o755).file("stack/stays", 0o644, "1\n").file("stack/goes", 0o644, "1\n").file("stack/changes", 0o600, "1\n").
		dir("stack/tree", 0o755).file("stack/tree/a", 0o644, "a\n").dir("stack/tree/sub", 0o755).file("stack/tree/sub/b", 0o644, "b\n").
		dir("stack/opaque", 0o755).file("stack/opaque/old", 0o644, "old\n").
		file("stack/becomes-dir", 0o644, "file\n").dir("stack/becomes-file", 0o755).file("stack/becomes-file/x", 0o644, "x\n").
		link("stack/becomes-real", "stays")
	second := (&files{}).
		dir("stack", 0o755).gone("stack/goes").file("stack/changes", 0o640, "2\n", 33, 33).gone("stack/tree").
		dir("stack/opaque", 0o700).add(tar.Header{Typeflag: tar.TypeReg, Name: "stack/opaque/.wh..wh..opq", ModTime: time.Unix(0, 0)}, "").
		file("stack/opaque/new", 0o644, "new\n").
		dir("stack/becomes-dir", 0o755).file("stack/becomes-dir/y", 0o644, "y\n").
		file("stack/becomes-file", 0o644, "file\n").
		file("stack/becomes-real", 0o644, "real\n")
	third := (&files{}).file("without/parents/file", 0o644, "x\n")
	return variation(v1.Config{Env: []string{systemPath}}, first, second, third)
}

// odd has the file types and names that are seldom met.
func odd() (v1.Image, error) {
	f := (&files{}).
		dir("odd", 0o755).
		file("odd/first", 0o644, "linked\n").hardlink("odd/second", "odd/first").hardlink("odd/third", "odd/first").
		add(tar.Header{Typeflag: tar.TypeFifo, Name: "odd/fifo", Mode: 0o620}, "").
		add(tar.Header{Typeflag: tar.TypeChar, Name: "odd/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, "").
		file("odd/setuid", 0o4755, "x\n").file("odd/setgid", 0o2755, "x\n", 0, 33).dir("odd/sticky", 0o3777, 33, 33).
		link("odd/dangling", "nowhere").link("odd/absolute", "/odd/first").link("odd/dir", "sticky").link("odd/loop", "loop").
		file("odd/"+strings.Repeat("long", 40), 0o644, "long\n").
		file("odd/ümläut", 0o644, "utf-8\n").file("odd/bad\xff", 0o644, "not utf-8\n").file("odd/new\nline", 0o644, "x\n").
		file("odd/big-owner", 0o644, "x\n", 3000000, 3000001).
		add(tar.Header{Typeflag: tar.TypeReg, Name: "odd/old", Mode: 0o644, ModTime: time.Unix(1, 0)}, "x\n").
		add(tar.Header{Typeflag: tar.TypeReg, Name: "odd/future", Mode: 0o644, ModTime: time.Unix(4102444800, 0)}, "x\n").
		add(tar.Header{Typeflag: tar.TypeReg, Name: "odd/capable", Mode: 0o755,
			PAXRecords: netBindService()}, "x\n")
	return variation(v1.Config{Env: []string{systemPath}}, f)
}

// bare has neither a configuration nor a history.
func bare() (v1.Image, error) {
	img, err := variation(v1.Config{})
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.History = nil
	return mutate.ConfigFile(img, file)
}

// onbuild has triggers that use a variable and the whole context.
func onbuild() (v1.Image, error) {
	return variation(v1.Config{
		Env:     []string{systemPath},
		OnBuild: []string{"ARG WHO=world", "RUN echo hello $WHO > /triggered", "COPY . /ctx/", "LABEL trig=1"},
	})
}

// netBindService is the record of a file that may bind low ports.
func netBindService() map[string]string {
	capability := make([]byte, 20)
	binary.LittleEndian.PutUint32(capability, 0x02000001) // version 2, effective
	binary.LittleEndian.PutUint32(capability[4:], 1<<10)
	return map[string]string{"SCHILY.xattr.security.capability": string(capability)}
}
