package image

import (
	"errors"
	"fmt"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/sys/signal"
)

// Pair is a key with its value.
type Pair struct{ Key, Value string }

// Arg is one variable of an ARG. Value is nil when it has none.
type Arg struct {
	Key   string
	Value *string
}

func (p Pair) String() string { return p.Key + "=" + p.Value }

// The methods below are the instructions. Each takes its arguments expanded and
// returns the index of its entry in the history.

// Env sets variables. A variable that exists keeps its place.
func (d *Draft) Env(vars []Pair) int {
	text := "ENV"
	for _, v := range vars {
		text += " " + v.String()
		d.Image.Config.Env = Setenv(d.Image.Config.Env, v.Key, v.Value)
	}
	return d.commit(text, false)
}

// Label sets labels.
func (d *Draft) Label(labels []Pair) int {
	text := "LABEL"
	for _, l := range labels {
		text += " " + l.String()
	}
	d.SetLabels(labels)
	return d.commit(text, false)
}

// SetLabels sets labels that no instruction asked for, without history.
func (d *Draft) SetLabels(labels []Pair) {
	if d.Image.Config.Labels == nil {
		d.Image.Config.Labels = make(map[string]string, len(labels))
	}
	for _, l := range labels {
		d.Image.Config.Labels[l.Key] = l.Value
	}
}

// Arg only leaves a trace in the history.
func (d *Draft) Arg(args []Arg) int {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = a.Key
		if a.Value != nil {
			words[i] += "=" + *a.Value
		}
	}
	return d.commit("ARG "+strings.Join(words, " "), false)
}

// Cmd sets the default command. It is the final array: Shell has been put in
// front of the shell form.
func (d *Draft) Cmd(args []string) int {
	d.cmdSet = true
	d.Image.Config.Cmd = args
	// Docker sets this for every CMD of a Linux image too, so parity needs it.
	d.Image.Config.ArgsEscaped = true //nolint:staticcheck // deprecated, and still written by BuildKit
	return d.commit(fmt.Sprintf("CMD %q", args), false)
}

// Entrypoint sets the entrypoint, which is the final array or nil. It clears a
// CMD that was not set through this draft: the base's one would hardly fit.
func (d *Draft) Entrypoint(args []string) int {
	d.Image.Config.Entrypoint = args
	if !d.cmdSet {
		d.Image.Config.Cmd = nil
	}
	return d.commit(fmt.Sprintf("ENTRYPOINT %q", args), false)
}

// Shell sets what the shell forms run in.
func (d *Draft) Shell(shell []string) int {
	d.Image.Config.Shell = shell
	return d.commit(fmt.Sprintf("SHELL %v", shell), false)
}

// WithShell makes the final array of a shell form.
func (d *Draft) WithShell(args []string) []string {
	shell := []string{"/bin/sh", "-c"}
	if d.Image.OS == "windows" {
		shell = []string{"cmd", "/S", "/C"}
	}
	if len(d.Image.Config.Shell) > 0 {
		shell = append([]string(nil), d.Image.Config.Shell...)
	}
	return append(shell, strings.Join(args, " "))
}

// User sets the user.
func (d *Draft) User(user string) int {
	d.Image.Config.User = user
	return d.commit("USER "+user, false)
}

// Workdir sets the working directory to an absolute path. It makes a layer
// unless that is the root.
func (d *Draft) Workdir(dir string) int {
	d.Image.Config.WorkingDir = dir
	return d.commit("WORKDIR "+dir, dir != "/")
}

// Volume adds mount points. The tree is left alone.
func (d *Draft) Volume(paths []string) (int, error) {
	if d.Image.Config.Volumes == nil {
		d.Image.Config.Volumes = map[string]struct{}{}
	}
	for _, p := range paths {
		if p == "" {
			return 0, errors.New("VOLUME specified can not be an empty string")
		}
		d.Image.Config.Volumes[p] = struct{}{}
	}
	return d.commit(fmt.Sprintf("VOLUME %v", paths), false), nil
}

// Expose adds ports, each in a form that ParsePorts understands.
func (d *Draft) Expose(specs []string) (int, error) {
	var all []string
	for _, spec := range specs {
		p, err := ParsePorts(spec)
		if err != nil {
			return 0, err
		}
		all = append(all, p.Ports...)
	}
	if d.Image.Config.ExposedPorts == nil {
		d.Image.Config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range all {
		d.Image.Config.ExposedPorts[p] = struct{}{}
	}
	return d.commit(fmt.Sprintf("EXPOSE %v", all), false), nil
}

// StopSignal sets the signal that ends the container: a name or a number.
func (d *Draft) StopSignal(name string) (int, error) {
	if _, err := signal.ParseSignal(name); err != nil {
		return 0, err
	}
	d.Image.Config.StopSignal = name
	return d.commit("STOPSIGNAL "+name, false), nil
}

// Healthcheck sets the health check; the draft keeps a copy.
func (d *Draft) Healthcheck(h dockerspec.HealthcheckConfig) int {
	d.Image.Config.Healthcheck = &h
	return d.commit(fmt.Sprintf("HEALTHCHECK %+v", h), false)
}

// Maintainer sets the author.
func (d *Draft) Maintainer(name string) int {
	d.Image.Author = name
	return d.commit("MAINTAINER "+name, false)
}

// OnBuild adds a trigger. It leaves no trace in the history.
func (d *Draft) OnBuild(expression string) {
	d.Image.Config.OnBuild = append(d.Image.Config.OnBuild, expression)
}

// Run notes a command with the ARGs that were in scope, in the order of their
// first declaration.
func (d *Draft) Run(args []string, scope []Pair) int {
	var words []string
	if len(scope) > 0 {
		words = append(words, fmt.Sprintf("|%d", len(scope)))
		for _, a := range scope {
			words = append(words, a.String())
		}
	}
	return d.commit("RUN "+strings.Join(append(words, args...), " ")+" # buildkit", true)
}

// Transfer is what the history tells about a COPY or ADD.
type Transfer struct {
	Add, Parents bool
	// Chown and Chmod are expanded, "" when absent.
	Chown, Chmod string
	// Paths are the sources and Files the names of heredocs; Dest is as
	// written, after expansion.
	Paths, Files []string
	Dest         string
}

// Copy notes a COPY or ADD.
func (d *Draft) Copy(t Transfer) int {
	words := []string{"COPY"}
	if t.Add {
		words[0] = "ADD"
	}
	if t.Parents {
		words = append(words, "--parents")
	}
	if t.Chown != "" {
		words = append(words, "--chown="+t.Chown)
	}
	if t.Chmod != "" {
		words = append(words, "--chmod="+t.Chmod)
	}
	words = append(words, t.Paths...)
	for _, f := range t.Files {
		words = append(words, "<<"+f)
	}
	words = append(words, t.Dest, "# buildkit")
	return d.commit(strings.Join(words, " "), true)
}

// Getenv looks up key in env, a list of "key=value". The last one counts.
func Getenv(env []string, key string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if k, v, _ := strings.Cut(env[i], "="); k == key {
			return v, true
		}
	}
	return "", false
}

// Setenv sets key in env: in place where it is there already, else at the end.
// It may change env.
func Setenv(env []string, key, value string) []string {
	for i, e := range env {
		if k, _, _ := strings.Cut(e, "="); k == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}
