package build

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/plan"
	"github.com/cooper-build/cooper/pkg/run"
)

// checkOutputs finds contradictions among the outputs, and outputs that could
// not be written, before anything is done.
func checkOutputs(o Options) error {
	for _, destination := range o.Destinations {
		if _, err := name.NewTag(destination); err != nil {
			return fmt.Errorf("destination %q: %w", destination, err)
		}
	}
	if err := o.Compression.Check(); err != nil {
		return err
	}
	for flag, path := range map[string]string{
		"tar": o.TarPath, "OCI tar": o.OCITarPath, "OCI layout": o.OCILayoutPath,
		"digest file": o.DigestFile, "image name file": o.ImageNameDigestFile, "image name and tag file": o.ImageNameTagDigestFile,
	} {
		if path == "" || strings.HasPrefix(path, "https://") {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() != (path == o.OCILayoutPath) {
			return fmt.Errorf("%s %s: %s", flag, path, map[bool]string{true: "it is a directory", false: "it is not a directory"}[info.IsDir()])
		}
		if err := writableDir(filepath.Dir(path)); err != nil {
			return fmt.Errorf("%s %s: %w", flag, path, err)
		}
	}
	if o.Format != "" && o.Format != "oci" && o.Format != "docker" {
		return fmt.Errorf("image format %q is neither oci nor docker", o.Format)
	}
	return nil
}

// check finds out, before anything runs, whether this machine can do all that
// the plan asks for, and that every destination would take the image.
func (b *builder) check(ctx context.Context) error {
	if err := b.chooseIsolation(ctx); err != nil {
		return err
	}
	for _, s := range b.plan.Stages {
		for i := range s.Steps {
			if err := b.checkStep(&s.Steps[i]); err != nil {
				return err
			}
		}
	}
	if b.options.NoPush || b.options.SkipPushCheck {
		return nil
	}
	for _, ref := range b.options.Destinations {
		if err := b.client.CheckPush(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// chooseIsolation picks the way to run commands, if there are any to run.
func (b *builder) chooseIsolation(ctx context.Context) error {
	first := b.firstRun()
	if first == nil {
		return nil
	}
	layersDir := b.layersDir()
	places := Places{
		Work: b.work.path, Layers: layersDir,
		Executor:       filepath.Dir(b.work.path),
		Keep:           b.keepPaths(),
		Force:          b.options.Force,
		AllowInsecure:  b.options.AllowInsecure,
		Warn:           func(text string) { b.sink.message("warning", text) },
		BeforeTakeover: func() error { return b.beforeTakeover(ctx) },
	}
	make := b.options.Isolations
	if make == nil {
		make = DefaultIsolations
	}
	forced := b.options.Isolation
	if forced == "auto" {
		forced = ""
	}
	choice, err := run.Choose(ctx, make(places), forced)
	if err != nil {
		return b.file.At(first.Location, "", "RUN can't work here: %w", err)
	}
	b.isolation, b.ability, b.used = choice.Isolation, choice.Ability, choice.Isolation.Name()
	b.sink.emit(IsolationChosen{Name: choice.Isolation.Name(), Reason: choice.Explanation})
	return nil
}

// firstRun is the first RUN of the plan, nil when there is none.
func (b *builder) firstRun() *plan.Step {
	for _, s := range b.plan.Stages {
		for i := range s.Steps {
			if _, ok := s.Steps[i].Op.(*plan.Run); ok {
				return &s.Steps[i]
			}
		}
	}
	return nil
}

// checkStep refuses a RUN that asks for something that the isolation lacks, or
// for a secret or agent that was not given.
func (b *builder) checkStep(step *plan.Step) error {
	op, ok := step.Op.(*plan.Run)
	if !ok {
		return nil
	}
	for _, f := range features(op) {
		if reason, lacks := b.ability.Lacks[f]; lacks {
			return b.file.At(step.Location, "", "%s is not possible with isolation %s: %s", f, b.isolation.Name(), reason)
		}
	}
	for _, m := range op.Mounts {
		if !m.Required {
			continue
		}
		switch m.Type {
		case "secret":
			if _, ok := b.secrets[m.ID]; !ok {
				return b.file.At(step.Location, m.ID, "secret %s is required and was not given: use --secret id=%s,src=FILE", m.ID, m.ID)
			}
		case "ssh":
			if _, ok := b.sockets[m.ID]; !ok {
				return b.file.At(step.Location, m.ID, "ssh agent %s is required and was not given: use --ssh %s=SOCKET", m.ID, m.ID)
			}
		}
	}
	return nil
}

// features lists what a RUN asks for beyond running a command.
func features(op *plan.Run) []run.Feature {
	var list []run.Feature
	switch op.Network {
	case "none":
		list = append(list, run.NetworkNone)
	case "host":
		list = append(list, run.NetworkHost)
	}
	if op.Security == "insecure" {
		list = append(list, run.SecurityInsecure)
	}
	for _, m := range op.Mounts {
		list = append(list, run.Feature("RUN --mount=type="+m.Type))
		if m.Type == "tmpfs" && m.Size > 0 {
			list = append(list, run.TmpfsSize)
		}
	}
	return list
}

// keepPaths are what a build in place must leave where it is. Outputs are not
// among them: they are written once the container has its own files again.
func (b *builder) keepPaths() []string {
	var absolute []string
	for _, path := range []string{b.context.HostPath(), b.options.CacheDir} {
		if path == "" {
			continue
		}
		// Abs fails only when there is no current directory; such a relative
		// path names nothing that could be kept.
		if path, err := filepath.Abs(path); err == nil && path != "/" {
			absolute = append(absolute, path)
		}
	}
	return absolute
}

// beforeTakeover brings in what can't be had once the container's own files
// are away: all layers, and the certificate authorities, which Go reads once.
func (b *builder) beforeTakeover(ctx context.Context) error {
	if _, err := x509.SystemCertPool(); err != nil {
		return fmt.Errorf("certificate authorities: %w", err)
	}
	for _, want := range b.plan.Images() {
		if _, err := b.images.get(want.Name, want.Platform).fetch(ctx); err != nil {
			return err
		}
	}
	return b.client.Preload(ctx, b.options.Destinations)
}

// writableDir checks that files can be made in dir, or in the directory above
// it in which dir would be made.
func writableDir(dir string) error {
	for {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir):
			dir = filepath.Dir(dir)
			continue
		case err != nil:
			return err
		case !info.IsDir():
			return fmt.Errorf("%s is not a directory", dir)
		}
		if err := unix.Access(dir, unix.W_OK); err != nil {
			return fmt.Errorf("directory %s: %w", dir, err)
		}
		return nil
	}
}
