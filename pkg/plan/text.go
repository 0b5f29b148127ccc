package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/cooper-build/cooper/pkg/image"
)

// WriteText prints the plan. The text depends on nothing but the plan, so two
// plans are the same exactly if their texts are. It returns w's error.
func (p *Plan) WriteText(w io.Writer) error {
	t := &text{}
	t.line(0, "platform %s", image.FormatPlatform(p.Platform))
	if p.SourceDateEpoch != nil {
		t.line(0, "epoch %d", p.SourceDateEpoch.Unix())
	}
	if p.Hostname != "" {
		t.line(0, "hostname %s", p.Hostname)
	}
	for _, ref := range p.Images() {
		use := "files"
		if ref.Base {
			use = "base"
		}
		t.line(0, "image %s %s %s", ref.Name, image.FormatPlatform(ref.Platform), use)
	}
	for _, s := range p.Stages {
		t.stage(s)
	}
	for _, warning := range p.Warnings {
		t.line(0, "warning line %d %s: %s", warning.Line, warning.Rule, warning.Message)
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

type text struct{ b strings.Builder }

func (t *text) line(depth int, format string, args ...any) {
	t.b.WriteString(strings.Repeat("  ", depth))
	fmt.Fprintf(&t.b, format, args...)
	t.b.WriteByte('\n')
}

// value prints a line unless the value is the zero one.
func value[T comparable](t *text, depth int, name string, v T) {
	var zero T
	if v == zero {
		return
	}
	switch v := any(v).(type) {
	case bool:
		t.line(depth, "%s", name)
	case string:
		t.line(depth, "%s %q", name, v)
	default:
		t.line(depth, "%s %v", name, v)
	}
}

func (t *text) stage(s *Stage) {
	t.line(0, "stage %d %s from %s on %s", s.Index, s.Label(), describe(s.Base), image.FormatPlatform(s.Platform))
	for _, n := range s.Needs() {
		t.line(1, "needs %s", n.Label())
	}
	if !s.resolver.done {
		t.line(1, "not resolved")
		return
	}
	for _, step := range s.Steps {
		t.line(1, "%d %s%s", step.Number, lines(step.Location), step.Text)
		t.op(step.Op)
		if step.History >= 0 {
			h := s.Config.History[step.History]
			kind := "layer"
			if h.EmptyLayer {
				kind = "empty"
			}
			t.line(2, "history %s %q", kind, h.CreatedBy)
		}
	}
	shown := s.Config
	shown.History = nil
	shown.RootFS.DiffIDs = nil
	config, err := json.Marshal(shown)
	if err != nil {
		// Only times before year 1 or after 9999 can't be written.
		t.line(1, "config %v", err)
		return
	}
	t.line(1, "config %s", config)
}

func lines(loc []parser.Range) string {
	if len(loc) == 0 {
		return ""
	}
	first, last := loc[0].Start.Line, loc[len(loc)-1].End.Line
	if first == last {
		return fmt.Sprintf("line %d: ", first)
	}
	return fmt.Sprintf("lines %d-%d: ", first, last)
}

func describe(s Source) string {
	switch {
	case s.Stage != nil:
		return "stage " + s.Stage.Label()
	case s.Image != "":
		return "image " + s.Image
	case s.Scratch:
		return scratch
	}
	return "context"
}

func (t *text) op(op Op) {
	switch op := op.(type) {
	case *Run:
		t.run(op)
	case *Copy:
		t.copy(op)
	case *Workdir:
		t.line(2, "mkdir %q user %q", op.Path, op.User)
	}
}

func (t *text) run(op *Run) {
	t.line(2, "run %q", op.Args)
	t.line(3, "env %q", op.Env)
	t.line(3, "dir %q", op.Dir)
	value(t, 3, "user", op.User)
	if op.Network != "default" {
		value(t, 3, "network", op.Network)
	}
	if op.Security != "sandbox" {
		value(t, 3, "security", op.Security)
	}
	t.files(op.Files)
	for _, m := range op.Mounts {
		t.line(3, "mount %s %q", m.Type, m.Target)
		if m.Type == "bind" || m.Type == "cache" {
			t.line(4, "from %s %q", describe(m.From), m.Source)
		}
		value(t, 4, "readonly", m.ReadOnly)
		value(t, 4, "sharing", m.Sharing)
		value(t, 4, "id", m.ID)
		value(t, 4, "env", m.Env)
		value(t, 4, "required", m.Required)
		value(t, 4, "size", m.Size)
		if m.Mode >= 0 {
			t.line(4, "mode %04o", m.Mode)
		}
		if m.UID >= 0 {
			t.line(4, "uid %d", m.UID)
		}
		if m.GID >= 0 {
			t.line(4, "gid %d", m.GID)
		}
	}
}

func (t *text) copy(op *Copy) {
	word := "copy"
	if op.Add {
		word = "add"
	}
	t.line(2, "%s %q to %q from %s", word, op.Paths, op.Dest, describe(op.From))
	t.files(op.Files)
	value(t, 3, "chown", op.Chown)
	value(t, 3, "chmod", op.Chmod)
	value(t, 3, "link", op.Link)
	value(t, 3, "parents", op.Parents)
	if len(op.Exclude) > 0 {
		t.line(3, "exclude %q", op.Exclude)
	}
	value(t, 3, "checksum", op.Checksum)
	if op.KeepGitDir != nil {
		t.line(3, "keep-git-dir %v", *op.KeepGitDir)
	}
	if op.Unpack != nil {
		t.line(3, "unpack %v", *op.Unpack)
	}
}

func (t *text) files(files []File) {
	for _, f := range files {
		t.line(3, "file %q %q", f.Name, f.Data)
	}
}
