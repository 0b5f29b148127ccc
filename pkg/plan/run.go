package plan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/cooper-build/cooper/pkg/image"
)

// pipes is where the scripts of heredocs are shown.
const pipes = "/dev/pipes"

func (r *stageResolver) run(ins *instructions.RunCommand, sources []Source, step *Step) error {
	if len(instructions.GetDevices(ins)) > 0 {
		return errors.New("RUN --device is not supported: devices of the host can't be given to a build")
	}
	args, files, summary, err := script(ins, r.draft.Image.OS)
	if err != nil {
		return err
	}
	if ins.PrependShell {
		args = r.draft.WithShell(args)
	}
	if len(args) == 0 {
		return errors.New("RUN needs a command: arguments are required")
	}
	mounts, err := r.mounts(ins, sources)
	if err != nil {
		return err
	}
	op := &Run{
		Args:     args,
		Env:      r.runEnv(mounts),
		Dir:      cleanPath(r.dir),
		User:     r.draft.Image.Config.User,
		Mounts:   mounts,
		Network:  instructions.GetNetwork(ins),
		Security: instructions.GetSecurity(ins),
		Files:    files,
	}
	step.Op = op
	step.Text = r.runText(fmt.Sprint(ins)+summary, mounts)
	step.History = r.draft.Run(args, r.scope())
	return nil
}

// script gives the arguments of a RUN before the shell is put in front. A
// heredoc that stands alone is the script itself, or a file where it starts
// with "#!"; otherwise the shell gets the text as it was written. summary is
// what a step's text says about the heredoc.
func script(ins *instructions.RunCommand, os string) (args []string, files []File, summary string, err error) {
	args = ins.CmdLine
	if len(ins.Files) == 0 {
		return args, nil, "", nil
	}
	if len(args) != 1 || !ins.PrependShell {
		return nil, nil, "", fmt.Errorf("parsing produced an invalid run command: %v", args)
	}
	if parser.MustParseHeredoc(args[0]) == nil {
		var b strings.Builder
		b.WriteString(args[0])
		for _, f := range ins.Files {
			b.WriteString("\n" + f.Data + f.Name)
		}
		return []string{b.String()}, nil, "", nil
	}
	doc := ins.Files[0]
	text := doc.Data
	if doc.Chomp {
		text = parser.ChompHeredocContent(text)
	}
	summary = " (" + firstLine(doc.Data) + ")"
	if os != "windows" && strings.HasPrefix(text, "#!") {
		file := File{Name: doc.Name, Data: []byte(text)}
		return []string{path.Join(pipes, doc.Name)}, []File{file}, summary, nil
	}
	return []string{text}, nil, summary, nil
}

func firstLine(text string) string {
	line, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	line = strings.TrimSuffix(line, "\r")
	if more {
		line += "..."
	}
	return line
}

// runEnv is the environment of a command.
func (r *stageResolver) runEnv(mounts []Mount) []string {
	vars := r.vars.clone()
	for _, m := range mounts {
		if m.Type != string(instructions.MountTypeSSH) {
			continue
		}
		if _, ok := vars.Get("SSH_AUTH_SOCK"); !ok {
			vars.set("SSH_AUTH_SOCK", m.Target)
		}
	}
	for _, kv := range r.plan.proxies() {
		k, v, _ := strings.Cut(kv, "=")
		vars.set(k, v)
	}
	if _, ok := vars.Get("PATH"); !ok && r.stage.Platform.OS != "windows" {
		vars.set("PATH", image.DefaultPath)
	}
	return vars.list()
}

// scope lists the ARGs for the history, each once, with the value that the
// command sees. One without a value is listed with an empty one.
func (r *stageResolver) scope() []image.Pair {
	var scope []image.Pair
	for _, a := range r.declared {
		p := image.Pair{Key: a.Key}
		if v, ok := r.vars.Get(a.Key); ok {
			p.Value = v
		} else if a.Value != nil {
			p.Value = *a.Value
		}
		if i := slices.IndexFunc(scope, func(q image.Pair) bool { return q.Key == a.Key }); i >= 0 {
			scope[i] = p
		} else {
			scope = append(scope, p)
		}
	}
	return scope
}

// runText expands the command for people to read. Variables that come from a
// secret are shown as stars, unknown ones are left to the shell.
func (r *stageResolver) runText(source string, mounts []Mount) string {
	lex := r.plan.lexer()
	lex.RawQuotes, lex.RawEscapes, lex.SkipUnsetEnv = true, true, true
	vars := r.vars.clone()
	for _, m := range mounts {
		if m.Env != "" {
			vars.set(m.Env, "****")
		}
	}
	return r.shown(lex, source, vars)
}
