package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/cooper-build/cooper/pkg/build"
)

// plainPrinter writes lines, for logs, pipes and terminals. Every line of a
// step begins with the step's label, because steps of several stages may run at
// the same time.
type plainPrinter struct {
	out        io.Writer
	color      bool
	level      level
	timestamps bool

	transfers transfers
	// running are the steps under way.
	running map[build.StepID]*runningStep
	// colors gives each stage's labels a colour of their own.
	colors map[string]string
}

// runningStep is what is remembered of a step until it ends.
type runningStep struct {
	text string
	// spoke: the step's command has written something.
	spoke bool
	// tail are the last lines that were written and not shown, because the
	// verbosity hides them; they are shown if the step fails.
	tail []string
}

const (
	// quickStep is the duration under which a silent step's end goes without
	// saying.
	quickStep = 100 * time.Millisecond
	// tailLines is how much of a failed command's hidden output is shown.
	tailLines = 20
)

// SGR codes.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// labelColors are those of the stages' labels, in the order of their first
// appearance; red and yellow mean something else.
var labelColors = [...]string{"36", "35", "34", "32", "96", "95", "94", "92"}

func (p *plainPrinter) event(e build.Event) {
	switch e := e.(type) {
	case build.IsolationChosen:
		p.line(levelInfo, dim, "isolation %s: %s", e.Name, e.Reason)
	case build.StepStarted:
		p.started(e)
	case build.StepOutput:
		p.output(e)
	case build.StepDone:
		p.done(e)
	case build.LayerMade:
		p.step(levelDebug, e.Step, dim, "layer %s, %s", e.Digest, size(e.Size))
	case build.Progress:
		if at, ok := p.transfers.show(e); ok {
			p.line(at, dim, "%s", transferText(e))
		}
	case build.LintWarning:
		p.line(levelWarn, yellow, "%s:%d: warning: %s: %s", e.File, e.Line, e.Rule, e.Text)
	case build.Message:
		switch at := levelOfMessage(e.Level); at {
		case levelWarn:
			p.line(at, yellow, "warning: %s", e.Text)
		case levelDebug:
			p.line(at, dim, "%s", e.Text)
		default:
			p.line(at, "", "%s", e.Text)
		}
	case build.Written:
		p.line(levelInfo, "", "%s %s", e.Kind, e.Name)
	}
}

func (p *plainPrinter) started(e build.StepStarted) {
	if p.running == nil {
		p.running = map[build.StepID]*runningStep{}
	}
	p.running[e.Step] = &runningStep{text: e.Text}
	p.step(levelInfo, e.Step, bold, "%s", e.Text)
}

func (p *plainPrinter) output(e build.StepOutput) {
	if this := p.running[e.Step]; this != nil {
		this.spoke = true
		if p.level < levelInfo {
			this.tail = append(this.tail, e.Line)
			this.tail = this.tail[max(0, len(this.tail)-tailLines):]
		}
	}
	p.step(levelInfo, e.Step, "", "| %s", e.Line)
}

func (p *plainPrinter) done(e build.StepDone) {
	this := p.running[e.Step]
	if this == nil {
		this = &runningStep{}
	}
	delete(p.running, e.Step)
	switch {
	case e.Stopped:
		p.step(levelInfo, e.Step, dim, "%s", endOfStep(e))
	case e.Err != nil:
		if p.level < levelInfo {
			p.step(levelError, e.Step, bold, "%s", this.text)
		}
		for _, line := range this.tail {
			p.step(levelError, e.Step, "", "| %s", line)
		}
		p.step(levelError, e.Step, red, "%s", endOfStep(e))
	case this.spoke || e.Duration >= quickStep:
		p.step(levelInfo, e.Step, dim, "done in %s", seconds(e.Duration))
	}
}

func (p *plainPrinter) summary(r *build.Result) {
	t := totalsOf(r)
	for i, l := range r.Layers {
		kind := "new"
		if l.Base {
			kind = "base"
		}
		p.line(levelDebug, dim, "layer %d/%d %s %s, %s", i+1, len(r.Layers), kind, l.Digest, size(l.Size))
	}
	text := fmt.Sprintf("%s, %s", count(t.layers, "layer"), size(t.size))
	if t.made < t.layers {
		text += fmt.Sprintf(" (%d new, %s)", t.made, size(t.sizeMade))
	}
	p.line(levelInfo, bold, "image %s", r.Digest)
	p.line(levelInfo, "", "%s, built in %s", text, seconds(r.Duration))
}

// failed has nothing to add to what reportError shows.
func (p *plainPrinter) failed(error, int) {}

// step writes a line of a step.
func (p *plainPrinter) step(at level, id build.StepID, style, format string, args ...any) {
	label := stepLabel(id)
	if p.color {
		label = paint(p.labelColor(id.Stage), label)
	}
	p.write(at, label+" "+p.painted(style, fmt.Sprintf(format, args...)))
}

func (p *plainPrinter) line(at level, style, format string, args ...any) {
	p.write(at, p.painted(style, fmt.Sprintf(format, args...)))
}

func (p *plainPrinter) write(at level, text string) {
	if at > p.level {
		return
	}
	var b strings.Builder
	if p.timestamps {
		b.WriteString(time.Now().Format("2006-01-02T15:04:05Z07:00 "))
	}
	b.WriteString(text)
	b.WriteByte('\n')
	// A reader that went away must not end the build.
	_, _ = io.WriteString(p.out, b.String())
}

func (p *plainPrinter) labelColor(stage string) string {
	if p.colors == nil {
		p.colors = map[string]string{}
	}
	code, ok := p.colors[stage]
	if !ok {
		code = labelColors[len(p.colors)%len(labelColors)]
		p.colors[stage] = code
	}
	return code
}

func (p *plainPrinter) painted(style, text string) string {
	if !p.color || style == "" {
		return text
	}
	return paint(style, text)
}

func paint(style, text string) string { return "\x1b[" + style + "m" + text + "\x1b[0m" }
