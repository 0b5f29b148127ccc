package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// report collects samples and prints their medians.
type report struct {
	samples map[key][]sample
	// failed counts builds that gave no image.
	failed map[key]int
	// missing says why a builder was left out.
	missing  map[string]string
	versions map[string]string
}

type key struct{ workload, builder string }

func newReport(ctx context.Context) *report {
	r := &report{samples: map[key][]sample{}, failed: map[key]int{}, missing: map[string]string{}, versions: map[string]string{}}
	for _, b := range builders {
		r.versions[b.name] = b.version(ctx)
	}
	return r
}

func (r *report) add(w workload, b builder, s sample) {
	k := key{w.name, b.name}
	r.samples[k] = append(r.samples[k], s)
}

func (r *report) fail(w workload, b builder) { r.failed[key{w.name, b.name}]++ }

// median is that of the samples by one of their values.
func median[T cmp.Ordered](samples []sample, value func(sample) T) T {
	var all []T
	for _, s := range samples {
		all = append(all, value(s))
	}
	slices.Sort(all)
	return all[(len(all)-1)/2]
}

func seconds(s sample) float64 { return s.wall.Seconds() }
func megabytes(s sample) int64 { return s.peak >> 20 }

// String is the whole page.
func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmarks\n\nWritten by `make bench`; see bench/doc.go for how it measures.\n\n")
	fmt.Fprintf(&b, "Every build starts cold, with base images from a registry on loopback, and ends in a tar.\n")
	fmt.Fprintf(&b, "Figures are medians. In parentheses: relative to BuildKit in the same run; less is better.\n")
	fmt.Fprintf(&b, "Peak memory is the kernel's VmHWM of the builder's process (buildkitd for BuildKit), without RUN's processes.\n")
	for _, part := range []struct {
		title string
		cell  func(mine, reference []sample) string
	}{
		{"Wall time", func(mine, ref []sample) string {
			s := median(mine, seconds)
			return fmt.Sprintf("%.1f s", s) + ratio(ref, s, func(ref []sample) float64 { return median(ref, seconds) })
		}},
		{"Peak memory", func(mine, ref []sample) string {
			mb := median(mine, megabytes)
			if mb == 0 {
				return "unknown"
			}
			return fmt.Sprintf("%d MB", mb) + ratio(ref, float64(mb), func(ref []sample) float64 { return float64(median(ref, megabytes)) })
		}},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n|", part.title)
		var used []builder
		for _, k := range builders {
			if slices.ContainsFunc(workloads, func(w workload) bool { return len(r.samples[key{w.name, k.name}]) > 0 }) {
				used = append(used, k)
				fmt.Fprintf(&b, " | %s", k.name)
			}
		}
		fmt.Fprintf(&b, " |\n|---|%s\n", strings.Repeat("---:|", len(used)))
		for _, w := range workloads {
			row := "| " + w.name
			any := false
			for _, k := range used {
				mine := r.samples[key{w.name, k.name}]
				cell := "–"
				if len(mine) > 0 {
					any = true
					cell = part.cell(mine, r.samples[key{w.name, reference}])
				}
				if r.failed[key{w.name, k.name}] > 0 {
					cell = "failed"
				}
				row += " | " + cell
			}
			if any {
				fmt.Fprintf(&b, "%s |\n", row)
			}
		}
	}
	fmt.Fprintf(&b, "\n## What was measured\n\n")
	for _, w := range workloads {
		if n := r.runs(w); n > 0 {
			fmt.Fprintf(&b, "- **%s**: %s; %d of each.\n", w.name, w.about, n)
		}
	}
	fmt.Fprintln(&b)
	for _, k := range builders {
		what := r.versions[k.name]
		if why := r.missing[k.name]; why != "" {
			what = "left out, " + why
		}
		fmt.Fprintf(&b, "- **%s**: %s (%s).\n", k.name, k.about, what)
	}
	fmt.Fprintf(&b, "\nMachine: %s.\n", computer())
	return b.String()
}

func ratio(ref []sample, mine float64, of func([]sample) float64) string {
	if len(ref) == 0 || of(ref) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.2f)", mine/of(ref))
}

func (r *report) runs(w workload) int {
	n := 0
	for _, b := range builders {
		n = max(n, len(r.samples[key{w.name, b.name}]))
	}
	return n
}

// computer describes the machine in one line.
func computer() string {
	var u unix.Utsname
	kernel := "unknown kernel"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%d × %s, %s of memory, %s/%s, %s",
		runtime.NumCPU(), procField("/proc/cpuinfo", "model name"), memory(), runtime.GOOS, runtime.GOARCH, kernel)
}

func memory() string {
	var kb int64
	if _, err := fmt.Sscan(procField("/proc/meminfo", "MemTotal"), &kb); err != nil {
		return "an unknown amount"
	}
	return fmt.Sprintf("%d GB", (kb+1<<19)>>20)
}

// procField is the value of the first line that begins with name.
func procField(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}
