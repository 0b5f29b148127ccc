package plan

import (
	"fmt"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/cooper-build/cooper/pkg/dockerfile"
)

// trigger is the text of an ONBUILD, with its place unless it came with an image.
type trigger struct {
	text string
	loc  []parser.Range
}

func imageTriggers(texts []string) []trigger {
	triggers := make([]trigger, len(texts))
	for i, t := range texts {
		triggers[i].text = t
	}
	return triggers
}

// addParentTriggers puts the ONBUILDs of the stage that s continues in front of
// its own instructions, once.
func (p *Plan) addParentTriggers(s *Stage) error {
	if s.Base.Stage == nil || s.resolver.triggered {
		return nil
	}
	s.resolver.triggered = true
	var triggers []trigger
	for _, c := range s.Base.Stage.resolver.commands {
		if ins, ok := c.ins.(*instructions.OnbuildCommand); ok {
			triggers = append(triggers, trigger{ins.Expression, c.loc})
		}
	}
	return p.addTriggers(s, triggers)
}

// addTriggers parses triggers and puts them in front of the stage's instructions.
func (p *Plan) addTriggers(s *Stage, triggers []trigger) error {
	var commands []command
	for _, t := range triggers {
		at := t.loc
		if at == nil {
			at = s.Location
		}
		ins, err := dockerfile.ParseTrigger(t.text, s.Location)
		var sources []Source
		if err == nil {
			sources, err = p.sourcesOf(ins, at)
		}
		if err != nil {
			d := p.file.Diagnose(at, err)
			d.Detail = fmt.Sprintf("This comes from an ONBUILD trigger of %s: %s", s.BaseName, t.text)
			return d
		}
		commands = append(commands, command{ins: ins, loc: t.loc, trigger: true, sources: sources})
	}
	s.resolver.commands = append(commands, s.resolver.commands...)
	return nil
}
