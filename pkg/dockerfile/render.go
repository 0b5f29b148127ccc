package dockerfile

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// maxShown is the number of source lines that Render shows of a long instruction.
const maxShown = 7

// Render writes the diagnostic for people: where, what, the source lines with a
// caret under the offending word, and what was probably meant. color adds ANSI
// colours. It returns what w's Write returns.
func (d *Diagnostic) Render(w io.Writer, color bool) error {
	paint := func(code, s string) string {
		if !color {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	const bold, red, dim, green = "1", "1;31", "2", "32"

	var b strings.Builder
	where := d.File
	if d.Line > 0 {
		line := d.Line
		if d.WordLine > 0 {
			line = d.WordLine
		}
		where += fmt.Sprintf(":%d", line)
		if d.Column > 0 {
			where += fmt.Sprintf(":%d", d.Column)
		}
	}
	if where != "" {
		b.WriteString(paint(bold, where+":") + " ")
	}
	b.WriteString(paint(red, "error:") + " " + paint(bold, d.Summary) + "\n")

	first, last := d.shown()
	gutter := len(fmt.Sprint(d.EndLine))
	for n := first; n <= last; n++ {
		text := d.Source[n-d.Line]
		fmt.Fprintf(&b, " %s %s\n", paint(dim, fmt.Sprintf("%*d |", gutter, n)), text)
		if n == d.WordLine {
			fmt.Fprintf(&b, " %s %s%s\n", paint(dim, strings.Repeat(" ", gutter)+" |"),
				indent(text[:d.Column-1]), paint(red, strings.Repeat("^", max(1, width(text[d.Column-1:d.Column-1+d.Length])))))
		}
	}
	if last < d.EndLine && last > 0 {
		fmt.Fprintf(&b, " %s\n", paint(dim, strings.Repeat(" ", gutter)+" | …"))
	}
	if d.Suggestion != "" {
		fmt.Fprintf(&b, "did you mean %s?\n", paint(green, d.Suggestion))
	}
	if d.Detail != "" {
		b.WriteString(d.Detail + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// shown picks the lines to print: the first ones, or those around the word.
func (d *Diagnostic) shown() (first, last int) {
	if len(d.Source) == 0 {
		return 1, 0
	}
	first, last = d.Line, d.EndLine
	if last-first+1 <= maxShown {
		return first, last
	}
	if d.WordLine > 0 {
		first = min(max(d.Line, d.WordLine-maxShown/2), d.EndLine-maxShown+1)
	}
	return first, first + maxShown - 1
}

// indent is white space as wide as s; tabs stay tabs.
func indent(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, s)
}

func width(s string) int { return utf8.RuneCountInString(s) }
