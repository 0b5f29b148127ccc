package dockerfile

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Warning is something that BuildKit's linter frowns at.
type Warning struct {
	// Rule is the rule's name, such as "StageNameCasing"; URL explains it.
	Rule, URL string
	// Description says in general what the rule is about, Message what is
	// wrong here.
	Description, Message string
	// Line and EndLine count from 1; both are 0 where the place is not known.
	Line, EndLine int
}

// Linter gives a linter that follows the file's check options and calls sink
// for each warning, from the goroutine that runs the rule. Its Error method
// tells whether the file asked for warnings to be errors and there were any.
func (f *File) Linter(sink func(Warning)) *linter.Linter {
	cfg := linter.Config{}
	if f.check != nil {
		cfg = *f.check
	}
	cfg.Warn = func(rule, description, url, message string, loc []parser.Range) {
		start, end := span(loc)
		sink(Warning{Rule: rule, URL: url, Description: description, Message: message, Line: start, EndLine: end})
	}
	return linter.New(&cfg)
}

// WarningsAreErrors tells whether the check options say "error=true".
func (f *File) WarningsAreErrors() bool { return f.check != nil && f.check.ReturnAsError }

// checkStageNames reports names that mean something else and names given twice;
// of the latter the last one counts.
func checkStageNames(stages []instructions.Stage, lint *linter.Linter) {
	seen := map[string]bool{}
	for _, s := range stages {
		if s.Name == "" {
			continue
		}
		if s.Name == "context" || s.Name == "scratch" {
			lint.Run(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(s.Name))
		}
		if seen[s.Name] {
			lint.Run(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(s.Name))
		}
		seen[s.Name] = true
	}
}

// checkCasing reports keywords that are written unlike the file's majority.
func checkCasing(stages []instructions.Stage, lint *linter.Linter) {
	type keyword struct {
		text string
		loc  []parser.Range
	}
	var words []keyword
	for _, s := range stages {
		words = append(words, keyword{s.OrigCmd, s.Location})
		for _, c := range s.Commands {
			words = append(words, keyword{c.Name(), c.Location()})
		}
	}
	lower, upper := 0, 0
	for _, w := range words {
		switch w.text {
		case strings.ToLower(w.text):
			lower++
		case strings.ToUpper(w.text):
			upper++
		}
	}
	want, convert := "uppercase", strings.ToUpper
	if lower > upper {
		want, convert = "lowercase", strings.ToLower
	}
	words = slices.DeleteFunc(words, func(w keyword) bool { return convert(w.text) == w.text })
	for _, w := range words {
		lint.Run(&linter.RuleConsistentInstructionCasing, w.loc, linter.RuleConsistentInstructionCasing.Format(w.text, want))
	}
}
