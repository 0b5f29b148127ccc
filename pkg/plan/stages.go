package plan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"

	"github.com/cooper-build/cooper/pkg/dockerfile"
)

const scratch = "scratch"

// command is an instruction with what it reads.
type command struct {
	ins instructions.Command
	// loc is where a step of it is shown; nil for a trigger of a base image.
	loc     []parser.Range
	trigger bool
	// sources are what COPY --from names (one or none), or one for each mount
	// of a RUN.
	sources []Source
}

// addStages reads all FROMs.
func (p *Plan) addStages(stages []instructions.Stage) error {
	for i, st := range stages {
		s := &Stage{Index: i, Name: st.Name, Location: st.Location, Platform: p.Platform}
		s.resolver = &stageResolver{plan: p, stage: s, platformGiven: st.Platform != ""}
		for _, ins := range st.Commands {
			s.resolver.commands = append(s.resolver.commands, command{ins: ins, loc: ins.Location()})
		}
		if err := p.readFrom(s, st); err != nil {
			return err
		}
		p.all = append(p.all, s)
		if s.Name != "" {
			p.byName[s.Name] = s
		}
	}
	return nil
}

func (p *Plan) readFrom(s *Stage, st instructions.Stage) error {
	lex := p.lexer()
	lint := p.lint.WithMergedConfigFromComments(st.Comments)
	name, err := lex.ProcessWordWithMatches(st.BaseName, p.globals)
	p.lintFromArgs(lint, name.Unmatched, st.Location)
	if err != nil {
		return p.file.Diagnose(st.Location, err)
	}
	if name.Result == "" {
		d := p.file.At(st.Location, st.BaseName, "base name (%s) should not be blank", st.BaseName)
		d.Suggestion = p.suggestGlobal(name.Unmatched)
		return d
	}
	s.BaseName = name.Result

	if st.Platform != "" {
		if err := p.readPlatform(s, st); err != nil {
			return err
		}
	}
	// The name of an earlier stage hides an image of the same name; so does a
	// stage that is called scratch.
	if parent, ok := p.byName[s.BaseName]; ok {
		s.Base, s.Platform = Source{Stage: parent}, parent.Platform
		return nil
	}
	if s.BaseName == scratch {
		s.Base, s.Platform = Source{Scratch: true}, p.Platform
		return nil
	}
	ref, err := imageReference(s.BaseName)
	if err != nil {
		return p.badReference(st.Location, s.BaseName, "failed to parse stage name %q: %w", err)
	}
	s.Base = Source{Image: ref}
	return nil
}

func (p *Plan) readPlatform(s *Stage, st instructions.Stage) error {
	lint := p.lint.WithMergedConfigFromComments(st.Comments)
	m, err := p.lexer().ProcessWordWithMatches(st.Platform, p.globals)
	p.lintFromArgs(lint, m.Unmatched, st.Location)
	p.lintPlatform(lint, st, m)
	if err != nil {
		return p.file.Diagnose(st.Location, fmt.Errorf("failed to process arguments for platform %s: %w", m.Result, err))
	}
	if m.Result == "" {
		d := p.file.At(st.Location, st.Platform, "empty platform value from expression %s", st.Platform)
		d.Suggestion = p.suggestGlobal(m.Unmatched)
		return d
	}
	if s.Platform, err = platforms.Parse(m.Result); err != nil {
		d := p.file.At(st.Location, st.Platform, "failed to parse platform %s: %w", st.Platform, err)
		d.Suggestion = p.suggestGlobal(m.Unmatched)
		return d
	}
	return nil
}

// imageReference gives the full name of an image, with a tag or digest.
func imageReference(name string) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	return reference.TagNameOnly(ref).String(), nil
}

// badReference is a diagnostic for a name that is neither stage nor image.
func (p *Plan) badReference(loc []parser.Range, name, format string, err error) *dockerfile.Diagnostic {
	d := p.file.At(loc, name, format, name, err)
	if stage, ok := p.byName[strings.ToLower(name)]; ok {
		d.Suggestion = stage.Name
	} else {
		d.Suggestion, _ = suggest.Search(name, p.stageNames(), true)
	}
	return d
}

func (p *Plan) suggestGlobal(unmatched map[string]struct{}) string {
	for _, k := range sortedKeys(unmatched) {
		if s, ok := suggest.Search(k, sortedKeys(p.globalKeys), true); ok {
			return s
		}
	}
	return ""
}

// stageNames are the names of all stages, for suggestions.
func (p *Plan) stageNames() []string {
	var names []string
	for _, s := range p.all {
		names = append(names, s.label())
	}
	return names
}

func (p *Plan) setTarget(name string) error {
	if name == "" {
		p.Target = p.all[len(p.all)-1]
		return nil
	}
	if s, ok := p.byName[strings.ToLower(name)]; ok {
		p.Target = s
		return nil
	}
	if index, err := strconv.Atoi(name); err == nil && index >= 0 && index < len(p.all) {
		p.Target = p.all[index]
		return nil
	}
	d := p.file.At(nil, "", "target stage %q could not be found", name)
	d.Suggestion, _ = suggest.Search(name, p.stageNames(), true)
	return d
}

// sourcesOf finds what an instruction reads apart from the build context.
func (p *Plan) sourcesOf(ins instructions.Command, loc []parser.Range) ([]Source, error) {
	switch c := ins.(type) {
	case *instructions.CopyCommand:
		if c.From == "" {
			return nil, nil
		}
		res, err := p.lexer().ProcessWordWithMatches(c.From, shell.EnvsFromSlice(nil))
		if err != nil {
			return nil, err
		}
		if res.Result != c.From {
			return nil, errors.New("variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround")
		}
		if index, err := strconv.Atoi(c.From); err == nil {
			if index < 0 || index >= len(p.all) {
				return nil, fmt.Errorf("invalid stage index %d", index)
			}
			return []Source{{Stage: p.all[index]}}, nil
		}
		src, err := p.find(c.From, loc)
		return []Source{src}, err
	case *instructions.RunCommand:
		var sources []Source
		for _, m := range instructions.GetMounts(c) {
			// Without from, a cache mount starts empty; the other types don't
			// look at their source.
			from := m.From
			if from == "" {
				from = scratch
			}
			src, err := p.find(from, loc)
			if err != nil {
				return nil, err
			}
			sources = append(sources, src)
		}
		return sources, nil
	}
	return nil, nil
}

// find looks for a stage by name, else for an image.
func (p *Plan) find(name string, loc []parser.Range) (Source, error) {
	if s, ok := p.byName[strings.ToLower(name)]; ok {
		return Source{Stage: s}, nil
	}
	if name == scratch {
		return Source{Scratch: true}, nil
	}
	ref, err := imageReference(name)
	if err != nil {
		return Source{}, p.badReference(loc, name, "failed to parse stage name %q: %w", err)
	}
	return Source{Image: ref}, nil
}

func (s *Stage) label() string {
	if s.Name != "" {
		return s.Name
	}
	return "stage-" + strconv.Itoa(s.Index)
}

// Total is the number of the stage's steps, FROM among them; it is known once
// the stage is resolved.
func (s *Stage) Total() int { return len(s.Steps) + 1 }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
