// Package dockerfile reads Dockerfiles.
//
// [Parse] hands the text to BuildKit's parser, instruction reader and linter,
// so that what is accepted here is what BuildKit accepts, and gives back a
// [File]: the source lines, the stages with their instructions, and the
// warnings. Every mistake comes back as a [*Diagnostic], which knows its place
// in the file and can draw it with the line and a caret. Packages that find
// mistakes later (a stage that does not exist, a source that is missing) make
// their diagnostics with [File.Diagnose], so that all of them look the same.
package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Options change how a file is read. The zero value reads it as it stands.
type Options struct {
	// Check replaces the file's own "# check=" directive when it is not empty;
	// the grammar is the same ("skip=Rule,…;error=true"). BuildKit takes it
	// from the build argument BUILDKIT_DOCKERFILE_CHECK.
	Check string
}

// File is a Dockerfile that was read without a mistake. It is not changed after
// Parse and may be used by several goroutines.
type File struct {
	// Name is what diagnostics call the file.
	Name string
	// Lines are the source lines without their line ends; Lines[0] is line 1.
	Lines []string
	// Escape is the escape character: '\\', or '`' by the escape directive.
	Escape rune
	// MetaArgs are the ARG instructions before the first FROM.
	MetaArgs []instructions.ArgCommand
	// Stages are the stages in file order, at least one. BuildKit's
	// instructions are expanded in place, so whoever wants to expand takes the
	// copy that Instructions makes.
	Stages []instructions.Stage
	// Warnings are those found while reading, in the order of the file.
	Warnings []Warning

	src   []byte
	check *linter.Config
}

// Parse reads a Dockerfile. All errors are *Diagnostic. The "# syntax="
// directive is not followed: this package is the only syntax there is.
func Parse(name string, src []byte, o Options) (*File, error) {
	f := &File{Name: name, Lines: splitLines(src), src: bytes.Clone(src)}
	if len(src) == 0 {
		return nil, f.diagnostic(nil, "the Dockerfile cannot be empty")
	}
	check := o.Check
	if check == "" {
		check, _, _, _ = parser.ParseDirective("check", src)
	}
	var err error
	if f.check, err = linter.ParseLintOptions(check); err != nil {
		return nil, f.diagnostic(nil, "failed to parse check options: "+err.Error())
	}

	lint := f.Linter(func(w Warning) { f.Warnings = append(f.Warnings, w) })
	ast, err := parser.Parse(bytes.NewReader(src))
	if err != nil {
		return nil, f.Diagnose(nil, err)
	}
	f.Escape = ast.EscapeToken
	for _, w := range ast.Warnings {
		if w.URL == linter.RuleNoEmptyContinuation.URL && w.Location != nil {
			lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	if f.Stages, f.MetaArgs, err = instructions.Parse(ast.AST, lint); err != nil {
		return nil, f.Diagnose(nil, err)
	}
	if len(f.Stages) == 0 {
		return nil, f.diagnostic(nil, "dockerfile contains no stages to build")
	}
	checkStageNames(f.Stages, lint)
	checkCasing(f.Stages, lint)
	return f, nil
}

// Instructions reads the file again and gives stages and global ARGs that
// belong to the caller, who may expand them in place.
func (f *File) Instructions() ([]instructions.Stage, []instructions.ArgCommand, error) {
	ast, err := parser.Parse(bytes.NewReader(f.src))
	if err != nil {
		return nil, nil, f.Diagnose(nil, err)
	}
	stages, args, err := instructions.Parse(ast.AST, silent())
	if err != nil {
		return nil, nil, f.Diagnose(nil, err)
	}
	return stages, args, nil
}

// ParseTrigger reads the one instruction of an ONBUILD trigger. Its location
// is loc, which may be nil.
func ParseTrigger(text string, loc []parser.Range) (instructions.Command, error) {
	ast, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, bare(err)
	}
	if len(ast.AST.Children) != 1 {
		return nil, errors.New("onbuild trigger should be a single expression")
	}
	node := ast.AST.Children[0]
	node.StartLine, node.EndLine = span(loc)
	ins, err := instructions.ParseInstructionWithLinter(node, silent())
	if err != nil {
		return nil, bare(err)
	}
	cmd, ok := ins.(instructions.Command)
	if !ok {
		return nil, fmt.Errorf("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(node.Value))
	}
	return cmd, nil
}

// silent is a linter that reports nothing. BuildKit does not take none at all:
// a "# check=" comment above an instruction would then crash it.
func silent() *linter.Linter { return linter.New(&linter.Config{}) }

func splitLines(src []byte) []string {
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	lines := strings.Split(string(src), "\n")
	if n := len(lines); n > 1 && lines[n-1] == "" {
		lines = lines[:n-1]
	}
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(l, "\r")
	}
	return lines
}
