package run_test

import (
	"context"
	"errors"
	"testing"

	"github.com/cooper-build/cooper/pkg/run"
)

// fixed is an isolation that always finds the same.
type fixed struct {
	run.Isolation
	name   string
	ok     bool
	reason string
	err    error
}

func (f fixed) Name() string { return f.name }

func (f fixed) Probe(context.Context) (run.Ability, error) {
	return run.Ability{OK: f.ok, Reason: f.reason}, f.err
}

func TestChoose(t *testing.T) {
	a := fixed{name: "a", reason: "no a"}
	b := fixed{name: "b", ok: true, reason: "b works"}
	c := fixed{name: "c", ok: true, reason: "c works"}
	for _, test := range []struct {
		name            string
		list            []run.Isolation
		forced          string
		want, says, err string
	}{
		{"first that works", []run.Isolation{a, b, c}, "", "b", "b works; not a: no a", ""},
		{"forced", []run.Isolation{a, b, c}, "c", "c", "c works (asked for)", ""},
		{"forced and refused", []run.Isolation{a, b}, "a", "", "", "a: no a"},
		{"unknown", []run.Isolation{a, b}, "x", "", "", `there is no isolation "x" (there are a, b)`},
		{"none works", []run.Isolation{a, fixed{name: "d", reason: "no d"}}, "", "", "", "a: no a; d: no d"},
		{"none", nil, "", "", "", "there is no isolation to choose from"},
		{"probe fails", []run.Isolation{fixed{name: "e", err: errors.New("broken")}, b}, "", "", "", "broken"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := run.Choose(t.Context(), test.list, test.forced)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Errorf("error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil || got.Isolation.Name() != test.want || got.Explanation != test.says {
				t.Errorf("got %+v, %v; want %s and %q", got, err, test.want, test.says)
			}
		})
	}
}
