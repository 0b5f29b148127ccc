package plan

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/system"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/cooper-build/cooper/pkg/image"
)

// stageResolver goes through a stage's instructions.
type stageResolver struct {
	plan          *Plan
	stage         *Stage
	commands      []command
	platformGiven bool
	triggered     bool
	done          bool

	draft *image.Draft
	// vars are the variables in scope: ENV and ARG in one order, of which the
	// last setting counts.
	vars *env
	// declared are all ARGs so far, those of the stages this one continues
	// after its own, for the history of RUN.
	declared []image.Arg
	// dir is the working directory with forward slashes.
	dir        string
	workdirSet bool
	// blank is true for scratch as long as nothing was put into it.
	blank bool
	once  map[string][]parser.Range
	lint  *linter.Linter
}

// start sets the state before the first instruction.
func (r *stageResolver) start(base *dockerspec.DockerOCIImage) error {
	p, s := r.plan, r.stage
	r.vars, r.dir, r.once = newEnv(), "/", map[string][]parser.Range{}
	var from dockerspec.DockerOCIImage
	switch {
	case s.Base.Stage != nil:
		parent := s.Base.Stage.resolver
		if !parent.done {
			return fmt.Errorf("resolve stage %s: its base %s is not resolved", s.label(), s.Base.Stage.label())
		}
		from = s.Base.Stage.Config
		r.vars, r.dir, r.workdirSet = parent.vars.clone(), parent.dir, parent.workdirSet
		r.blank = parent.blank
		r.declared = append(r.declared, parent.declared...)
	case s.Base.Scratch:
		from, r.blank = image.Scratch(p.Platform), true
	default:
		if base == nil {
			return fmt.Errorf("resolve stage %s: the configuration of %s is missing", s.label(), s.Base.Image)
		}
		from = *base
		r.lintBasePlatform(from)
	}
	r.draft = image.NewDraft(from, p.SourceDateEpoch)
	for _, e := range r.draft.Image.Config.Env {
		k, v, _ := strings.Cut(e, "=")
		r.vars.set(k, v)
	}
	if dir := r.draft.Image.Config.WorkingDir; dir != "" {
		return r.changeDir(dir)
	}
	return nil
}

// changeDir makes dir, absolute or relative to the current one, the working
// directory of configuration and commands.
func (r *stageResolver) changeDir(dir string) error {
	dir, err := system.NormalizeWorkdir(r.draft.Image.Config.WorkingDir, dir, r.stage.Platform.OS)
	if err != nil {
		return fmt.Errorf("normalizing workdir: %w", err)
	}
	r.draft.Image.Config.WorkingDir = dir
	r.dir = system.ToSlash(dir, r.stage.Platform.OS)
	return nil
}

// dispatch executes one instruction on the configuration and adds its step.
func (r *stageResolver) dispatch(c command) error {
	r.lint = r.plan.lint.WithMergedConfigFromComments(c.ins.Comments())
	_, isArg := c.ins.(*instructions.ArgCommand)
	if e, ok := c.ins.(instructions.SupportsSingleWordExpansion); ok && !isArg {
		if err := e.Expand(r.expander(c, r.plan.lexer())); err != nil {
			return err
		}
	}
	if e, ok := c.ins.(instructions.SupportsSingleWordExpansionRaw); ok {
		// Contents of heredocs keep their quotes, and are escaped with a
		// backslash whatever the file's escape character is.
		lex := shell.NewLex('\\')
		lex.SkipProcessQuotes = true
		if err := e.ExpandRaw(r.expander(c, lex)); err != nil {
			return err
		}
	}
	step := Step{Number: len(r.stage.Steps) + 2, Location: c.loc, History: -1}
	if err := r.execute(c, &step); err != nil {
		return err
	}
	if step.Text == "" {
		step.Text = upperKeyword(fmt.Sprint(c.ins))
	}
	if c.trigger {
		step.Text = "ONBUILD " + step.Text
	}
	r.stage.Steps = append(r.stage.Steps, step)
	r.blank = r.blank && step.Op == nil
	return nil
}

// expander expands words with the variables in scope now.
func (r *stageResolver) expander(c command, lex *shell.Lex) instructions.SingleWordExpander {
	return func(word string) (string, error) {
		out, unmatched, err := lex.ProcessWord(word, r.vars)
		r.lintUndefined(c, unmatched)
		return out, err
	}
}

// execute is the table of instructions.
func (r *stageResolver) execute(c command, step *Step) (err error) {
	d := r.draft
	switch ins := c.ins.(type) {
	case *instructions.RunCommand:
		return r.run(ins, c.sources, step)
	case *instructions.CopyCommand:
		return r.copy(copyOf(ins, c.sources), step)
	case *instructions.AddCommand:
		return r.copy(addOf(ins), step)
	case *instructions.WorkdirCommand:
		return r.workdir(ins, step)
	case *instructions.ArgCommand:
		return r.arg(c, ins, step)
	case *instructions.EnvCommand:
		pairs := r.pairs(ins, ins.Env)
		for _, v := range pairs {
			r.lintSecret(ins, v.Key)
			r.vars.set(v.Key, v.Value)
		}
		step.History = d.Env(pairs)
	case *instructions.LabelCommand:
		step.History = d.Label(r.pairs(ins, ins.Labels))
	case *instructions.CmdCommand:
		r.lintOnce(ins)
		step.History = d.Cmd(r.commandLine(ins, ins.ShellDependantCmdLine))
	case *instructions.EntrypointCommand:
		r.lintOnce(ins)
		step.History = d.Entrypoint(r.commandLine(ins, ins.ShellDependantCmdLine))
	case *instructions.ExposeCommand:
		step.History, err = r.expose(ins)
	case *instructions.UserCommand:
		step.History = d.User(ins.User)
	case *instructions.VolumeCommand:
		step.History, err = d.Volume(ins.Volumes)
	case *instructions.StopSignalCommand:
		step.History, err = d.StopSignal(ins.Signal)
	case *instructions.ShellCommand:
		step.History = d.Shell(ins.Shell)
	case *instructions.HealthCheckCommand:
		r.lintOnce(ins)
		step.History = d.Healthcheck(*ins.Health)
	case *instructions.MaintainerCommand:
		step.History = d.Maintainer(ins.Maintainer)
	case *instructions.OnbuildCommand:
		d.OnBuild(ins.Expression)
	default:
		return fmt.Errorf("%s is not supported", strings.ToUpper(c.ins.Name()))
	}
	return err
}

func (r *stageResolver) pairs(ins instructions.Command, kvs instructions.KeyValuePairs) []image.Pair {
	pairs := make([]image.Pair, len(kvs))
	for i, kv := range kvs {
		if kv.NoDelim {
			r.lint.Run(&linter.RuleLegacyKeyValueFormat, ins.Location(), linter.RuleLegacyKeyValueFormat.Format(ins.Name()))
		}
		pairs[i] = image.Pair{Key: kv.Key, Value: kv.Value}
	}
	return pairs
}

// commandLine puts the shell in front of CMD's and ENTRYPOINT's shell form.
func (r *stageResolver) commandLine(ins instructions.Command, line instructions.ShellDependantCmdLine) []string {
	if !line.PrependShell {
		return line.CmdLine
	}
	if len(r.draft.Image.Config.Shell) == 0 {
		r.lint.Run(&linter.RuleJSONArgsRecommended, ins.Location(), linter.RuleJSONArgsRecommended.Format(ins.Name()))
	}
	return r.draft.WithShell(line.CmdLine)
}

func (r *stageResolver) workdir(ins *instructions.WorkdirCommand, step *Step) error {
	if !r.workdirSet && !system.IsAbs(ins.Path, r.stage.Platform.OS) {
		r.lint.Run(&linter.RuleWorkdirRelativePath, ins.Location(), linter.RuleWorkdirRelativePath.Format(ins.Path))
	}
	r.workdirSet = true
	if err := r.changeDir(ins.Path); err != nil {
		return err
	}
	configured := r.draft.Image.Config.WorkingDir
	step.History = r.draft.Workdir(r.dir)
	r.draft.Image.Config.WorkingDir = configured
	if r.dir != "/" {
		if err := r.checkOwner("USER ", r.draft.Image.Config.User); err != nil {
			return err
		}
		step.Op = &Workdir{Path: cleanPath(r.dir), User: r.draft.Image.Config.User}
	}
	step.Text = r.shown(r.plan.lexer(), fmt.Sprint(ins), r.vars)
	return nil
}

// arg declares variables. Each one may use those before it on the same line.
func (r *stageResolver) arg(c command, ins *instructions.ArgCommand, step *Step) error {
	var args []image.Arg
	for _, kv := range ins.Args {
		r.lintSecret(ins, kv.Key)
		arg := image.Arg{Key: kv.Key, Value: kv.Value}
		if v, ok := r.plan.buildArgs[kv.Key]; ok {
			arg.Value = &v
		} else if kv.Value != nil {
			v, err := r.expander(c, r.plan.lexer())(*kv.Value)
			if err != nil {
				return err
			}
			arg.Value = &v
		} else if v, ok := r.plan.globals.Get(kv.Key); ok {
			arg.Value = &v
		}
		if arg.Value != nil && !sbomArg(arg.Key) {
			r.vars.set(arg.Key, *arg.Value)
		}
		args = append(args, arg)
		r.declared = append(r.declared, arg)
	}
	step.History = r.draft.Arg(args)
	return nil
}

// expose splits its arguments into words after expansion, not before.
func (r *stageResolver) expose(ins *instructions.ExposeCommand) (int, error) {
	lex := r.plan.lexer()
	var specs []string
	for _, port := range ins.Ports {
		words, err := lex.ProcessWords(port, r.vars)
		if err != nil {
			return 0, err
		}
		specs = append(specs, words...)
	}
	r.lintPorts(ins, specs)
	return r.draft.Expose(specs)
}

// shown makes the text of a step from the source of its instruction.
func (r *stageResolver) shown(lex *shell.Lex, source string, vars shell.EnvGetter) string {
	if out, _, err := lex.ProcessWord(source, vars); err == nil {
		source = out
	}
	return upperKeyword(source)
}

func upperKeyword(s string) string {
	keyword, rest, ok := strings.Cut(s, " ")
	if !ok {
		return strings.ToUpper(s)
	}
	return strings.ToUpper(keyword) + " " + rest
}
