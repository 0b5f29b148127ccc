package build

import (
	"slices"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	for _, c := range []struct {
		name   string
		writes []string
		want   []string
	}{
		{"whole lines", []string{"a\nb\n"}, []string{"a", "b"}},
		{"a line in pieces", []string{"a", "b", "\nc"}, []string{"ab", "c"}},
		{"empty lines are kept", []string{"a\n\nb\n"}, []string{"a", "", "b"}},
		{"carriage return ends a line", []string{"10%\r20%\r"}, []string{"10%", "20%"}},
		{"both are one end", []string{"a\r\nb\r", "\nc\n"}, []string{"a", "b", "c"}},
		{"long lines come in pieces", []string{strings.Repeat("x", longestLine), "y\n"}, []string{strings.Repeat("x", longestLine), "y"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			l := &lines{sink: &sink{call: func(e Event) { got = append(got, e.(StepOutput).Line) }}}
			for _, w := range c.writes {
				if n, err := l.Write([]byte(w)); n != len(w) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
			l.flush()
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
