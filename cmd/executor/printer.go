package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cooper-build/cooper/pkg/build"
)

// printer shows a build's events. flush is called once no more events come.
type printer interface {
	event(build.Event)
	flush()
	summary(*build.Result)
}

func (s *settings) printer(p process) printer {
	level := levelOf(s.verbosity)
	if s.logFormat == "json" {
		return &jsonPrinter{out: json.NewEncoder(p.stdout), level: level}
	}
	return &plainPrinter{out: p.stdout, color: s.color(p), level: level, timestamps: s.logTimestamp}
}

// color reports whether to use colours: they were not refused, and standard
// output is a terminal.
func (s *settings) color(p process) bool {
	if s.logFormat != "color" || p.getenv("NO_COLOR") != "" {
		return false
	}
	f, ok := p.stdout.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// level orders verbosities; a higher one shows more.
type level int

const (
	levelError level = iota
	levelWarn
	levelInfo
	levelDebug
)

func levelOf(verbosity string) level {
	switch verbosity {
	case "trace", "debug":
		return levelDebug
	case "info":
		return levelInfo
	case "warn", "warning":
		return levelWarn
	}
	return levelError
}

// plainPrinter writes one line per event, for logs and pipes.
type plainPrinter struct {
	out        io.Writer
	color      bool
	level      level
	timestamps bool
	// progress remembers when a transfer was last shown.
	progress map[string]time.Time
}

// progressEvery is how often a running transfer is shown.
const progressEvery = 5 * time.Second

func (p *plainPrinter) event(e build.Event) {
	switch e := e.(type) {
	case build.IsolationChosen:
		p.line(levelInfo, "", "isolation %s: %s", e.Name, e.Reason)
	case build.StepStarted:
		p.line(levelInfo, "1", "%s %s", stepLabel(e.Step), e.Text)
	case build.StepOutput:
		p.line(levelInfo, "", "%s | %s", stepLabel(e.Step), e.Line)
	case build.StepDone:
		if e.Err == nil {
			p.line(levelInfo, "2", "%s done in %s", stepLabel(e.Step), seconds(e.Duration))
		} else {
			p.line(levelError, "31", "%s failed after %s", stepLabel(e.Step), seconds(e.Duration))
		}
	case build.LayerMade:
		p.line(levelDebug, "2", "%s layer %s, %s", stepLabel(e.Step), e.Digest, size(e.Size))
	case build.Progress:
		p.transfer(e)
	case build.LintWarning:
		p.line(levelWarn, "33", "%s:%d: warning: %s: %s", e.File, e.Line, e.Rule, e.Text)
	case build.Message:
		switch e.Level {
		case "warning":
			p.line(levelWarn, "33", "warning: %s", e.Text)
		case "debug":
			p.line(levelDebug, "2", "%s", e.Text)
		default:
			p.line(levelInfo, "", "%s", e.Text)
		}
	case build.Written:
		p.line(levelInfo, "", "%s %s", e.Kind, e.Name)
	}
}

func (p *plainPrinter) transfer(e build.Progress) {
	key := e.What + e.Name
	if p.progress == nil {
		p.progress = map[string]time.Time{}
	}
	last, running := p.progress[key]
	switch {
	case e.Total > 0 && e.Done >= e.Total:
		delete(p.progress, key)
		p.line(levelInfo, "2", "%s %s: %s", e.What, e.Name, size(e.Done))
	case !running:
		p.progress[key] = time.Now()
	case time.Since(last) >= progressEvery:
		p.progress[key] = time.Now()
		if e.Total > 0 {
			p.line(levelInfo, "2", "%s %s: %s of %s (%d%%)", e.What, e.Name, size(e.Done), size(e.Total), e.Done*100/e.Total)
		} else {
			p.line(levelInfo, "2", "%s %s: %s", e.What, e.Name, size(e.Done))
		}
	}
}

func (p *plainPrinter) flush() {}

func (p *plainPrinter) summary(r *build.Result) {
	var total, made int64
	fresh := 0
	for _, l := range r.Layers {
		total += l.Size
		if !l.Base {
			made += l.Size
			fresh++
		}
	}
	p.line(levelInfo, "1", "image %s", r.Digest)
	p.line(levelInfo, "", "%d layers, %s; %d new, %s; built in %s", len(r.Layers), size(total), fresh, size(made), seconds(r.Duration))
}

func (p *plainPrinter) line(at level, style, format string, args ...any) {
	if at > p.level {
		return
	}
	text := fmt.Sprintf(format, args...)
	if p.color && style != "" {
		text = "\x1b[" + style + "m" + text + "\x1b[0m"
	}
	if p.timestamps {
		text = time.Now().Format("2006-01-02T15:04:05Z07:00 ") + text
	}
	fmt.Fprintln(p.out, text)
}

func stepLabel(s build.StepID) string {
	return fmt.Sprintf("[%s %d/%d]", s.Stage, s.Number, s.Total)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

// jsonPrinter writes one JSON object per event: its type, the time, its fields.
type jsonPrinter struct {
	out   *json.Encoder
	level level
}

func (p *jsonPrinter) event(e build.Event) {
	name := strings.TrimPrefix(fmt.Sprintf("%T", e), "build.")
	var value any = e
	switch e := e.(type) {
	case build.LayerMade:
		if p.level < levelDebug {
			return
		}
	case build.Message:
		if e.Level == "debug" && p.level < levelDebug {
			return
		}
	case build.StepDone:
		// An error is an interface, which encodes as nothing useful.
		message := ""
		if e.Err != nil {
			message = e.Err.Error()
		}
		value = struct {
			Step    build.StepID
			Seconds float64
			Error   string `json:",omitempty"`
		}{e.Step, e.Duration.Seconds(), message}
	}
	p.write(name, value)
}

func (p *jsonPrinter) flush() {}

func (p *jsonPrinter) summary(r *build.Result) { p.write("Result", r) }

func (p *jsonPrinter) write(name string, value any) {
	// The encoder fails only when standard output is gone; nobody reads then.
	_ = p.out.Encode(struct {
		Time  time.Time `json:"time"`
		Event string    `json:"event"`
		Data  any       `json:"data"`
	}{time.Now().UTC(), name, value})
}
