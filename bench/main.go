package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cooper-build/cooper/integration/machine"
)

type options struct {
	runs      int
	workloads string
	builders  string
	write     bool
	log       bool
}

func main() {
	var o options
	flag.IntVar(&o.runs, "n", 3, "builds of each kind; the median counts")
	flag.StringVar(&o.workloads, "only", "", "workloads by name, separated by commas (default: all)")
	flag.StringVar(&o.builders, "builders", "", "builders by name, separated by commas (default: all that work here)")
	flag.BoolVar(&o.write, "write", false, "write the table into docs/benchmarks.md")
	flag.BoolVar(&o.log, "log", false, "show what the builders print")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, o options) (err error) {
	// The executor is the one that make build has made.
	if os.Getenv("COOPER_EXECUTOR") == "" {
		executor := filepath.Join(machine.Repository(), "bin", "executor")
		if err := os.Setenv("COOPER_EXECUTOR", executor); err != nil {
			return err
		}
	}
	jobs, err := chosen(workloads, o.workloads)
	if err != nil {
		return err
	}
	kinds, err := chosen(builders, o.builders)
	if err != nil {
		return err
	}
	// Short, since the engine's sockets lie far below it.
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Contexts are made once: making and removing them would be felt by builds.
	for _, w := range jobs {
		context := filepath.Join(dir, w.name)
		if err := os.Mkdir(context, 0o755); err != nil {
			return err
		}
		if err := w.make(context); err != nil {
			return fmt.Errorf("make the context of %s: %w", w.name, err)
		}
	}
	report := newReport(ctx)
	for _, w := range jobs {
		for range o.runs {
			for _, b := range kinds {
				if report.missing[b.name] != "" {
					continue
				}
				if err := one(ctx, b, w, dir, o, report); err != nil {
					return err
				}
			}
		}
	}
	table := report.String()
	fmt.Print("\n", table)
	if !o.write {
		return nil
	}
	return os.WriteFile(filepath.Join(machine.Repository(), "docs", "benchmarks.md"), []byte(table), 0o644)
}

// one builds once and adds what it took to the report. A builder that can't
// work on this computer, or fails, is noted there.
func one(ctx context.Context, b builder, w workload, dir string, o options, report *report) (err error) {
	g, err := newGround(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	scratch, err := g.Sub("build")
	if err != nil {
		return err
	}
	var log bytes.Buffer
	t := task{context: filepath.Join(dir, w.name), scratch: scratch, output: filepath.Join(scratch, "image.tar"), log: &log}
	s, err := b.build(ctx, g.Machine, t)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var missing *machine.Missing
	if errors.As(err, &missing) {
		report.missing[b.name] = missing.What
		fmt.Fprintf(os.Stderr, "%s is left out: %s\n", b.name, missing.What)
		return nil
	}
	if o.log {
		os.Stderr.Write(log.Bytes())
	}
	if err == nil {
		var fi os.FileInfo
		if fi, err = os.Stat(t.output); err == nil {
			s.size = fi.Size()
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%-8s %-10s %v\n%s", w.name, b.name, err, log.Bytes())
		report.fail(w, b)
		return nil
	}
	fmt.Fprintf(os.Stderr, "%s %-8s %-10s %6.1f s  %5d MB held  %5d MB written  load %s\n",
		time.Now().Format(time.TimeOnly), w.name, b.name, s.wall.Seconds(), s.peak>>20, s.size>>20, load())
	report.add(w, b, s)
	return nil
}

// chosen are the items with the names, or all.
func chosen[T interface{ String() string }](all []T, names string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	var out []T
	for n := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(t T) bool { return t.String() == n })
		if i < 0 {
			return nil, fmt.Errorf("there is no %q among %v", n, all)
		}
		out = append(out, all[i])
	}
	return out, nil
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
