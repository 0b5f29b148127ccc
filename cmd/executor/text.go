package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/cooper-build/cooper/pkg/build"
)

func stepLabel(s build.StepID) string {
	return fmt.Sprintf("[%s %d/%d]", s.Stage, s.Number, s.Total)
}

// seconds shows a duration as people say it: 0.4s, 12.3s, 2m05s.
func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
}

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

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// shortDigest is enough of a digest to tell layers apart.
func shortDigest(digest string) string {
	if algorithm, hex, ok := strings.Cut(digest, ":"); ok && (algorithm == "sha256" || algorithm == "sha512") && len(hex) > 12 {
		return algorithm + ":" + hex[:12]
	}
	return digest
}

// endOfStep says how a step ended that did not succeed.
func endOfStep(e build.StepDone) string {
	if e.Stopped {
		return "stopped after " + seconds(e.Duration)
	}
	return "failed after " + seconds(e.Duration)
}

// totals are the numbers of a finished image, in bytes where not counted.
type totals struct {
	layers, made   int
	size, sizeMade int64
}

func totalsOf(r *build.Result) totals {
	t := totals{layers: len(r.Layers)}
	for _, l := range r.Layers {
		t.size += l.Size
		if !l.Base {
			t.sizeMade += l.Size
			t.made++
		}
	}
	return t
}
