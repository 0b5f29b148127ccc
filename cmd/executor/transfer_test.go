package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cooper-build/cooper/pkg/build"
)

// A transfer that reports every few kilobytes takes few lines.
func TestTransfers(t *testing.T) {
	now := time.Unix(0, 0)
	var out bytes.Buffer
	p := &plainPrinter{out: &out, level: levelInfo, transfers: transfers{now: func() time.Time { return now }}}
	const layer = 120_000_000
	for done := int64(0); done <= layer; done += 100_000 {
		p.event(build.Progress{What: "pull", Name: "base:1 layer 1/2", Done: done, Total: layer, Finished: done == layer})
		now = now.Add(10 * time.Millisecond)
	}
	p.event(build.Progress{What: "pull", Name: "base:1 layer 1/2", Done: layer, Total: layer, Finished: true})
	// A small one, one that the registry has, and the same to a second place.
	p.event(build.Progress{What: "push", Name: "sha256:0123456789abcdef", Done: 900, Total: 900, Finished: true})
	for range 2 {
		p.event(build.Progress{What: "push", Name: "sha256:fedcba9876543210", Total: 2e6})
		p.event(build.Progress{What: "push", Name: "sha256:fedcba9876543210", Done: 2e6, Total: 2e6, Note: "exists", Finished: true})
	}
	want := `pull base:1 layer 1/2: 50.0 MB of 120.0 MB (41%)
pull base:1 layer 1/2: 100.0 MB of 120.0 MB (83%)
pull base:1 layer 1/2: 120.0 MB
push sha256:fedcba987654: 2.0 MB, exists
push sha256:fedcba987654: 2.0 MB, exists
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestPlainSteps(t *testing.T) {
	a, b := build.StepID{Stage: "a", Number: 2, Total: 3}, build.StepID{Stage: "b", Number: 1, Total: 1}
	events := []build.Event{
		build.StepStarted{Step: a, Text: "RUN make"},
		build.StepStarted{Step: b, Text: "ENV A=b"},
		build.StepDone{Step: b},
		build.StepOutput{Step: a, Line: "compiling"},
		build.StepDone{Step: a, Duration: 125 * time.Second},
		build.StepStarted{Step: b, Text: "COPY . ."},
		build.StepDone{Step: b, Duration: 1500 * time.Millisecond},
		build.StepStarted{Step: a, Text: "RUN false"},
		build.StepOutput{Step: a, Line: "oh", Stderr: true},
		build.StepDone{Step: a, Duration: time.Second, Err: errors.New("exit code 1")},
		build.StepDone{Step: b, Duration: time.Second, Err: errors.New("exit code 1"), Stopped: true},
	}
	for name, test := range map[string]struct {
		level level
		want  string
	}{
		"info": {levelInfo, `[a 2/3] RUN make
[b 1/1] ENV A=b
[a 2/3] | compiling
[a 2/3] done in 2m05s
[b 1/1] COPY . .
[b 1/1] done in 1.5s
[a 2/3] RUN false
[a 2/3] | oh
[a 2/3] failed after 1.0s
[b 1/1] stopped after 1.0s
`},
		"error": {levelError, `[a 2/3] RUN false
[a 2/3] | oh
[a 2/3] failed after 1.0s
`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			p := &plainPrinter{out: &out, level: test.level}
			for _, e := range events {
				p.event(e)
			}
			if out.String() != test.want {
				t.Errorf("got\n%swant\n%s", out.String(), test.want)
			}
		})
	}
	t.Run("json", func(t *testing.T) {
		var out bytes.Buffer
		p := &jsonPrinter{out: json.NewEncoder(&out), level: levelInfo}
		for _, e := range events {
			p.event(e)
		}
		var names []string
		for line := range strings.Lines(out.String()) {
			var r record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			names = append(names, r.Level+" "+r.Event)
		}
		want := "info step, info step, info step-done, info output, info step-done, info step, info step-done, info step, info output, error step-failed, info step-stopped"
		if got := strings.Join(names, ", "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}
