package plan

import (
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/cooper-build/cooper/pkg/image"
)

// The rules of BuildKit's linter that need more than the text of the file.

func (p *Plan) lintFromArgs(lint *linter.Linter, unmatched map[string]struct{}, loc []parser.Range) {
	for _, name := range sortedKeys(unmatched) {
		if _, ok := p.globalKeys[name]; ok {
			continue
		}
		match, _ := suggest.Search(name, sortedKeys(p.globalKeys), true)
		lint.Run(&linter.RuleUndefinedArgInFrom, loc, linter.RuleUndefinedArgInFrom.Format(name, match))
	}
}

// lintPlatform reports a --platform that says what goes without saying, or
// that ties the stage to one platform without telling so in its name.
func (p *Plan) lintPlatform(lint *linter.Linter, st instructions.Stage, m shell.ProcessWordResult) {
	if len(m.Matched) == 0 && len(m.Unmatched) == 0 {
		want, err := platforms.Parse(m.Result)
		if err == nil && !strings.Contains(st.Name, want.OS) && !strings.Contains(st.Name, want.Architecture) {
			lint.Run(&linter.RuleFromPlatformFlagConstDisallowed, st.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(m.Result))
		}
		return
	}
	if _, ok := m.Matched["TARGETPLATFORM"]; ok && len(m.Matched) == 1 && len(m.Unmatched) == 0 {
		if v, _ := p.globals.Get("TARGETPLATFORM"); v == m.Result {
			lint.Run(&linter.RuleRedundantTargetPlatform, st.Location, linter.RuleRedundantTargetPlatform.Format(st.Platform))
		}
	}
}

// lintDefaultBases reports bases that are no valid names without build arguments.
func (p *Plan) lintDefaultBases(stages []instructions.Stage, metaArgs []instructions.ArgCommand, target string) {
	lex, defaults := p.lexer(), p.platformArgs(target)
	for i := range metaArgs {
		if expandGlobals(defaults, lex, &metaArgs[i], nil) != nil {
			return // the build will fail with the same error
		}
	}
	for _, st := range stages {
		m, err := lex.ProcessWordWithMatches(st.BaseName, defaults)
		if err != nil {
			return
		}
		if _, err := reference.ParseNormalizedNamed(m.Result); err != nil {
			p.lint.Run(&linter.RuleInvalidDefaultArgInFrom, st.Location, linter.RuleInvalidDefaultArgInFrom.Format(st.BaseName))
		}
	}
}

// lintError makes warnings an error if the file wants that.
func (p *Plan) lintError() error {
	if !p.file.WarningsAreErrors() || len(p.file.Warnings)+len(p.Warnings) == 0 {
		return nil
	}
	var rules []string
	for _, w := range append(slices.Clone(p.file.Warnings), p.Warnings...) {
		rules = append(rules, w.Rule)
	}
	slices.Sort(rules)
	d := p.file.At(nil, "", "lint violation found for rules: %s", strings.Join(slices.Compact(rules), ", "))
	d.Detail = "The check options of the Dockerfile make warnings errors (error=true)."
	return d
}

func (r *stageResolver) lintBasePlatform(base dockerspec.DockerOCIImage) {
	want := r.stage.Platform
	if want.OS == base.OS && want.Architecture == base.Architecture {
		return
	}
	r.plan.lint.Run(&linter.RuleInvalidBaseImagePlatform, r.stage.Location, linter.RuleInvalidBaseImagePlatform.Format(
		r.stage.BaseName,
		image.FormatPlatform(image.NormalizePlatform(want)),
		image.FormatPlatform(image.NormalizePlatform(base.Platform))))
}

func (r *stageResolver) lintUndefined(c command, unmatched map[string]struct{}) {
	for _, name := range sortedKeys(unmatched) {
		declared := slices.ContainsFunc(r.declared, func(a image.Arg) bool { return a.Key == name })
		if declared || sbomArg(name) {
			continue
		}
		match, _ := suggest.Search(name, r.vars.Keys(), true)
		r.lint.Run(&linter.RuleUndefinedVar, c.ins.Location(), linter.RuleUndefinedVar.Format(name, match))
	}
}

// lintOnce reports an instruction that a later one of the same stage overrides.
func (r *stageResolver) lintOnce(ins instructions.Command) {
	keyword := strings.ToLower(ins.Name())
	if before, ok := r.once[keyword]; ok {
		r.lint.Run(&linter.RuleMultipleInstructionsDisallowed, before, linter.RuleMultipleInstructionsDisallowed.Format(ins.Name()))
	}
	r.once[keyword] = ins.Location()
}

func (r *stageResolver) lintPorts(ins *instructions.ExposeCommand, specs []string) {
	for _, spec := range specs {
		p, err := image.ParsePorts(spec)
		if err != nil {
			continue
		}
		if p.Proto != strings.ToLower(p.Proto) {
			r.lint.Run(&linter.RuleExposeProtoCasing, ins.Location(), linter.RuleExposeProtoCasing.Format(spec))
		}
		if p.Host {
			r.lint.Run(&linter.RuleExposeInvalidFormat, ins.Location(), linter.RuleExposeInvalidFormat.Format(spec))
		}
	}
}

var (
	secretName   = regexp.MustCompile(`(?i)(^|_)(apikey|auth|credentials?|key|password|pword|passwd|secret|token)(_|$)`)
	harmlessName = regexp.MustCompile(`(?i)(^|_)(public|file|version)(_|$)`)
)

func (r *stageResolver) lintSecret(ins instructions.Command, key string) {
	if !secretName.MatchString(key) || harmlessName.MatchString(key) {
		return
	}
	keyword := strings.ToUpper(ins.Name())
	r.lint.Run(&linter.RuleSecretsUsedInArgOrEnv, ins.Location(), linter.RuleSecretsUsedInArgOrEnv.Format(keyword, key))
}
