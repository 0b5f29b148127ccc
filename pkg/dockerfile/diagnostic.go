package dockerfile

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Diagnostic is a mistake in a Dockerfile, or something in it that can't be
// honoured, with its place.
type Diagnostic struct {
	// File is the file's name as given to Parse.
	File string
	// Line and EndLine are the instruction's first and last line, counted from
	// 1; 0 where no place is known.
	Line, EndLine int
	// Column and Length mark the offending word in Line or a later line of the
	// instruction (WordLine), in bytes; Column counts from 1 and is 0 where no
	// word stands out.
	Column, Length int
	// WordLine is the line of Column, 0 without one.
	WordLine int
	// Summary says in one line what is wrong.
	Summary string
	// Detail explains further, for people; "" when there is nothing to add.
	Detail string
	// Suggestion is what was probably meant; "" when nothing comes near.
	Suggestion string
	// Source are the lines from Line to EndLine.
	Source []string

	cause error
}

// Error is the diagnostic in one line: file, line, summary and suggestion.
func (d *Diagnostic) Error() string {
	var b strings.Builder
	b.WriteString(d.File)
	if d.Line > 0 {
		fmt.Fprintf(&b, ":%d", d.Line)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(d.Summary)
	if d.Suggestion != "" {
		fmt.Fprintf(&b, " (did you mean %s?)", d.Suggestion)
	}
	return b.String()
}

// Unwrap gives the error that the diagnostic was made from, nil if there was none.
func (d *Diagnostic) Unwrap() error { return d.cause }

// Diagnose turns err into a diagnostic for the instruction at loc. Where err
// carries a place of its own, as BuildKit's errors do, that one counts. A
// suggestion at the end of the error's text becomes the Suggestion. An err that
// is a *Diagnostic already is returned as it is. loc may be nil.
func (f *File) Diagnose(loc []parser.Range, err error) *Diagnostic {
	var d *Diagnostic
	if errors.As(err, &d) {
		return d
	}
	var placed *parser.LocationError
	if errors.As(err, &placed) && len(placed.Locations) > 0 {
		if start, _ := span(placed.Locations[0]); start > 0 {
			loc = placed.Locations[0]
		}
	}
	d = f.diagnostic(loc, bare(err).Error())
	d.cause = err
	return d
}

// At makes a diagnostic for the instruction at loc, with a caret under the
// first occurrence of word in it; word may be "". The text is formatted as
// fmt.Errorf does, and what %w wraps can be found with errors.Is and errors.As.
func (f *File) At(loc []parser.Range, word, format string, args ...any) *Diagnostic {
	d := f.place(loc)
	d.cause = fmt.Errorf(format, args...)
	d.Summary = d.cause.Error()
	d.mark(word)
	return d
}

func (f *File) diagnostic(loc []parser.Range, text string) *Diagnostic {
	d := f.place(loc)
	d.Summary, d.Suggestion = splitSuggestion(text)
	if word, ok := strings.CutPrefix(d.Summary, "unknown instruction: "); ok {
		d.Suggestion = nearestInstruction(word)
	}
	for _, re := range offenders {
		m := re.FindStringSubmatch(d.Summary)
		if m == nil {
			continue
		}
		if d.mark(m[1]); d.Column > 0 {
			if strings.HasPrefix(m[1], "--") && d.Suggestion != "" {
				d.Suggestion = "--" + strings.TrimLeft(d.Suggestion, "-")
			}
			break
		}
	}
	return d
}

func (f *File) place(loc []parser.Range) *Diagnostic {
	d := &Diagnostic{File: f.Name}
	start, end := span(loc)
	if start < 1 || start > len(f.Lines) {
		return d
	}
	d.Line, d.EndLine = start, min(max(start, end), len(f.Lines))
	d.Source = f.Lines[d.Line-1 : d.EndLine]
	return d
}

// mark finds word as a word of its own in the source, or else anywhere in it.
func (d *Diagnostic) mark(word string) {
	if word == "" {
		return
	}
	for _, whole := range []bool{true, false} {
		for i, line := range d.Source {
			if col := indexWord(line, word, whole); col >= 0 {
				d.WordLine, d.Column, d.Length = d.Line+i, col+1, len(word)
				return
			}
		}
	}
}

func indexWord(line, word string, whole bool) int {
	for from := 0; ; {
		i := strings.Index(line[from:], word)
		if i < 0 {
			return -1
		}
		i += from
		end := i + len(word)
		if !whole || (i == 0 || !wordByte(line[i-1])) && (end == len(line) || !wordByte(line[end])) {
			return i
		}
		from = i + 1
	}
}

func wordByte(c byte) bool {
	return c == '_' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

var (
	suggestionText = regexp.MustCompile(`^(?s)(.*) \(did you mean ([^()]*)\?\)(.*)$`)

	// offenders find, in the wording of BuildKit's errors, the text that the
	// user wrote.
	offenders = []*regexp.Regexp{
		regexp.MustCompile(`^unknown instruction: (\S+)`),
		regexp.MustCompile(`flag: (--\S+)`),
		regexp.MustCompile(`for flag (--[^\s,]+)`),
		regexp.MustCompile(`^unexpected key '[^']*' in '([^']+)'`),
		regexp.MustCompile(`invalid value for \w+: (\S+)`),
		regexp.MustCompile(`"([^"]+)"`),
		regexp.MustCompile(`'([^']+)'`),
		regexp.MustCompile(`^invalid \w+: (\S+)`),
		regexp.MustCompile(`^(--[^\s:]+):`),
		regexp.MustCompile(`index (\d+)$`),
		regexp.MustCompile(`: (\S+)$`),
	}
)

func splitSuggestion(text string) (summary, suggestion string) {
	if m := suggestionText.FindStringSubmatch(text); m != nil {
		return m[1] + m[3], m[2]
	}
	return text, ""
}

// bare drops the wrapping that only tells the place, which diagnostics show in
// their own way.
func bare(err error) error {
	var placed *parser.LocationError
	if errors.As(err, &placed) {
		return placed.Unwrap()
	}
	return err
}

// span gives the first and last line of loc, 0 and 0 when it is empty.
func span(loc []parser.Range) (start, end int) {
	for i, r := range loc {
		if i == 0 || r.Start.Line < start {
			start = r.Start.Line
		}
		end = max(end, r.End.Line)
	}
	return start, end
}
