package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cooper-build/cooper/pkg/build"
	"github.com/cooper-build/cooper/pkg/dockerfile"
)

// jsonPrinter writes one JSON object a line. Each has a time, a level, a
// message for people, and the event's name; the other fields depend on it.
type jsonPrinter struct {
	out       *json.Encoder
	level     level
	transfers transfers
}

// record is one line. The names of its fields are part of the command's
// interface.
type record struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	Msg   string    `json:"msg"`
	Event string    `json:"event"`

	// Stage, Step and Steps name a step: [STAGE STEP/STEPS].
	Stage string `json:"stage,omitempty"`
	Step  int    `json:"step,omitempty"`
	Steps int    `json:"steps,omitempty"`
	// Stream is "stdout" or "stderr" of a command.
	Stream  string  `json:"stream,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	Name    string  `json:"name,omitempty"`
	Digest  string  `json:"digest,omitempty"`
	// Done and Bytes are a transfer's progress and size, in bytes.
	Done  int64 `json:"done,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`

	File       string `json:"file,omitempty"`
	Line       int    `json:"line,omitempty"`
	Column     int    `json:"column,omitempty"`
	Rule       string `json:"rule,omitempty"`
	URL        string `json:"url,omitempty"`
	Suggestion string `json:"suggestion,omitempty"`
	ExitCode   int    `json:"exitCode,omitempty"`

	Layers []layerRecord `json:"layers,omitempty"`
	Pushed []string      `json:"pushed,omitempty"`
}

// layerRecord is a layer of the result.
type layerRecord struct {
	Digest string `json:"digest"`
	DiffID string `json:"diffID"`
	Bytes  int64  `json:"bytes"`
	Base   bool   `json:"base"`
}

func (p *jsonPrinter) event(e build.Event) {
	switch e := e.(type) {
	case build.IsolationChosen:
		p.write(levelInfo, record{Event: "isolation", Msg: e.Name + ": " + e.Reason, Name: e.Name})
	case build.StepStarted:
		p.step(levelInfo, e.Step, record{Event: "step", Msg: e.Text})
	case build.StepOutput:
		stream := "stdout"
		if e.Stderr {
			stream = "stderr"
		}
		p.step(levelInfo, e.Step, record{Event: "output", Msg: e.Line, Stream: stream})
	case build.StepDone:
		r := record{Event: "step-done", Msg: "done in " + seconds(e.Duration), Seconds: e.Duration.Seconds()}
		at := levelInfo
		if e.Err != nil {
			r.Event, r.Msg = "step-failed", endOfStep(e)+": "+e.Err.Error()
			at = levelError
		}
		if e.Stopped {
			r.Event, r.Msg, at = "step-stopped", endOfStep(e), levelInfo
		}
		p.step(at, e.Step, r)
	case build.LayerMade:
		p.step(levelDebug, e.Step, record{Event: "layer", Msg: "layer " + e.Digest, Digest: e.Digest, Bytes: e.Size})
	case build.Progress:
		if at, ok := p.transfers.show(e); ok {
			p.write(at, record{Event: e.What, Msg: transferText(e), Name: e.Name, Done: e.Done, Bytes: e.Total})
		}
	case build.LintWarning:
		p.write(levelWarn, record{Event: "lint", Msg: e.Text, Rule: e.Rule, URL: e.URL, File: e.File, Line: e.Line})
	case build.Message:
		p.write(levelOfMessage(e.Level), record{Event: "message", Msg: e.Text})
	case build.Written:
		p.write(levelInfo, record{Event: e.Kind, Msg: e.Kind + " " + e.Name, Name: e.Name, Digest: e.Digest})
	}
}

func (p *jsonPrinter) summary(r *build.Result) {
	t := totalsOf(r)
	out := record{
		Event: "result", Msg: fmt.Sprintf("image %s, %s, %s", r.Digest, count(t.layers, "layer"), size(t.size)),
		Digest: r.Digest, Bytes: t.size, Seconds: r.Duration.Seconds(), Pushed: r.Pushed,
	}
	for _, l := range r.Layers {
		out.Layers = append(out.Layers, layerRecord{Digest: l.Digest, DiffID: l.DiffID, Bytes: l.Size, Base: l.Base})
	}
	p.write(levelInfo, out)
}

func (p *jsonPrinter) failed(err error, code int) {
	r := record{Event: "error", Msg: err.Error(), ExitCode: code}
	var d *dockerfile.Diagnostic
	if errors.As(err, &d) {
		r.Msg, r.Suggestion = d.Summary, d.Suggestion
		r.File, r.Line, r.Column = d.File, d.Line, d.Column
		if d.WordLine > 0 {
			r.Line = d.WordLine
		}
	}
	p.write(levelError, r)
}

func (p *jsonPrinter) step(at level, id build.StepID, r record) {
	r.Stage, r.Step, r.Steps = id.Stage, id.Number, id.Total
	p.write(at, r)
}

func (p *jsonPrinter) write(at level, r record) {
	if at > p.level {
		return
	}
	r.Time, r.Level = time.Now().UTC(), at.String()
	// The encoder fails only when standard output is gone; nobody reads then.
	_ = p.out.Encode(r)
}
