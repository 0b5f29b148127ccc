package main

import (
	"encoding/json"
	"os"

	"github.com/cooper-build/cooper/pkg/build"
)

// printer shows a build to whoever runs it: its events as they come, then
// either summary or failed.
type printer interface {
	event(build.Event)
	summary(*build.Result)
	// failed shows the build's error in the printer's own form. What people
	// read on standard error is reportError's concern.
	failed(err error, code int)
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

func (l level) String() string { return [...]string{"error", "warning", "info", "debug"}[l] }

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

// levelOfMessage is the level of a build.Message.
func levelOfMessage(name string) level {
	switch name {
	case "warning":
		return levelWarn
	case "debug":
		return levelDebug
	}
	return levelInfo
}
