package plan

import (
	"slices"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/cooper-build/cooper/pkg/dockerfile"
)

// connect finds out what the instructions of all stages read, also of those
// that are not needed: a mistake there is a mistake.
func (p *Plan) connect() error {
	for _, s := range p.all {
		r := s.resolver
		for i := range r.commands {
			c := &r.commands[i]
			var err error
			if c.sources, err = p.sourcesOf(c.ins, c.loc); err != nil {
				return p.fail(s, *c, err)
			}
		}
	}
	return p.checkCircles()
}

// checkCircles refuses stages that copy from each other.
func (p *Plan) checkCircles() error {
	visited, path := map[*Stage]bool{}, map[*Stage]bool{}
	var visit func(s *Stage) *dockerfile.Diagnostic
	visit = func(s *Stage) *dockerfile.Diagnostic {
		if visited[s] {
			return nil
		}
		visited[s], path[s] = true, true
		for _, c := range s.resolver.commands {
			for _, src := range c.sources {
				if src.Stage == nil {
					continue
				}
				if path[src.Stage] {
					word := ""
					if c, ok := c.ins.(*instructions.CopyCommand); ok {
						word = c.From
					}
					return p.file.At(c.loc, word, "circular dependency detected on stage: %s", src.Stage.label())
				}
				if d := visit(src.Stage); d != nil {
					return d
				}
			}
		}
		delete(path, s)
		return nil
	}
	for _, s := range p.all {
		if d := visit(s); d != nil {
			return d
		}
	}
	return nil
}

// Needs are the stages that s continues or reads from, each once, in file order.
func (s *Stage) Needs() []*Stage {
	var needs []*Stage
	add := func(src Source) {
		if src.Stage != nil && !slices.Contains(needs, src.Stage) {
			needs = append(needs, src.Stage)
		}
	}
	add(s.Base)
	for _, c := range s.resolver.commands {
		for _, src := range c.sources {
			add(src)
		}
	}
	slices.SortFunc(needs, func(a, b *Stage) int { return a.Index - b.Index })
	return needs
}

// order collects the stages that the target needs. As a stage can only need
// earlier ones, the order of the file is an order to build in.
func (p *Plan) order() error {
	needed := map[*Stage]bool{}
	var visit func(s *Stage) error
	visit = func(s *Stage) error {
		if needed[s] {
			return nil
		}
		needed[s] = true
		if err := p.addParentTriggers(s); err != nil {
			return err
		}
		if err := p.checkEarlier(s); err != nil {
			return err
		}
		for _, n := range s.Needs() {
			if err := visit(n); err != nil {
				return err
			}
		}
		return nil
	}
	if err := visit(p.Target); err != nil {
		return err
	}
	var stages []*Stage
	for _, s := range p.all {
		if needed[s] {
			stages = append(stages, s)
		}
	}
	p.Stages = stages
	return nil
}

// checkEarlier refuses to read from a stage that comes later in the file.
func (p *Plan) checkEarlier(s *Stage) error {
	for _, c := range s.resolver.commands {
		for i, src := range c.sources {
			if src.Stage == nil || src.Stage.Index < s.Index {
				continue
			}
			loc := c.loc
			if loc == nil {
				loc = s.Location
			}
			return p.tooLate(s, c.ins, i, loc)
		}
	}
	return nil
}

func (p *Plan) tooLate(s *Stage, ins instructions.Command, i int, loc []parser.Range) *dockerfile.Diagnostic {
	switch c := ins.(type) {
	case *instructions.CopyCommand:
		return p.file.At(loc, c.From, "cannot copy from stage %q, it needs to be defined before current stage %q", c.From, s.label())
	case *instructions.RunCommand:
		from := instructions.GetMounts(c)[i].From
		return p.file.At(loc, from, "cannot mount from stage %q, stage needs to be defined before current command", from)
	}
	return p.file.At(loc, "", "stage %q reads from a later stage", s.label())
}
