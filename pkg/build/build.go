package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cooper-build/cooper/pkg/buildcontext"
	"github.com/cooper-build/cooper/pkg/cache"
	"github.com/cooper-build/cooper/pkg/dockerfile"
	"github.com/cooper-build/cooper/pkg/plan"
	"github.com/cooper-build/cooper/pkg/registry"
	"github.com/cooper-build/cooper/pkg/run"
)

// Build builds an image as o says. Errors about the Dockerfile are
// *dockerfile.Diagnostic; a RUN that failed has a *run.ExitError in its chain.
// On an error nothing was pushed, unless pushing itself failed half-way; then
// the files that were asked for exist, since they are written first. Otherwise
// no output file exists that did not exist before.
func Build(ctx context.Context, o Options) (result *Result, err error) {
	start := time.Now()
	b, err := newBuilder(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	if err := b.readPlan(ctx); err != nil {
		return nil, err
	}
	if err := b.resolve(ctx); err != nil {
		return nil, err
	}
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	if err := b.buildStages(ctx); err != nil {
		return nil, err
	}
	result, err = b.deliver(ctx)
	if err != nil {
		return nil, err
	}
	result.Duration = time.Since(start)
	return result, nil
}

// builder is one build under way.
type builder struct {
	options  Options
	sink     *sink
	work     *workdir
	client   *registry.Client
	secrets  map[string][]byte
	sockets  map[string]string
	mounts   *cache.Mounts
	platform platformPair

	context *buildcontext.Context
	file    *dockerfile.File
	plan    *plan.Plan
	images  *images
	stages  map[*plan.Stage]*stage
	target  *stage

	// isolation is nil where no step needs one.
	isolation run.Isolation
	ability   run.Ability
	// closing gives the error of what is taken away beside the last steps; nil
	// where nothing is.
	closing chan error
	// used is the name of the isolation, also when it was closed.
	used string
}

// newBuilder checks what does not depend on the Dockerfile.
func newBuilder(ctx context.Context, o Options) (_ *builder, err error) {
	b := &builder{options: o, sink: &sink{call: o.Events}, stages: map[*plan.Stage]*stage{}}
	if err := b.readOptions(); err != nil {
		return nil, &OptionError{err}
	}
	// The client reads credentials now: a build in place may take the file away.
	access := o.Registry
	if access.Log == nil {
		access.Log = func(text string) { b.sink.message("warning", text) }
	}
	if b.client, err = registry.New(access); err != nil {
		return nil, &OptionError{err}
	}
	root := o.WorkDir
	if root == "" {
		if root, err = defaultWorkRoot(); err != nil {
			return nil, err
		}
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, fmt.Errorf("working directory: %w", err)
	}
	if b.work, err = newWorkdir(root); err != nil {
		return nil, err
	}
	caches := o.CacheDir
	if caches == "" {
		caches = b.work.path
	}
	b.mounts = cache.NewMounts(filepath.Join(caches, "mounts"))
	b.images = newImages(b.client, b.work, b.sink)
	return b, nil
}

// readOptions finds options that no build could honour.
func (b *builder) readOptions() (err error) {
	o := b.options
	if b.platform, err = parsePlatform(o.Platform); err != nil {
		return err
	}
	if b.secrets, err = secretValues(o.Secrets); err != nil {
		return err
	}
	if b.sockets, err = sshSockets(o.SSH); err != nil {
		return err
	}
	return checkOutputs(o)
}

// close removes everything that is not a result. It is safe at any point.
func (b *builder) close() error {
	var errs []error
	if b.closing != nil {
		errs = append(errs, <-b.closing)
	}
	for _, s := range b.stages {
		errs = append(errs, s.close())
	}
	errs = append(errs, b.closeIsolation())
	if b.context != nil {
		errs = append(errs, b.context.Close())
	}
	errs = append(errs, b.images.close(), b.client.Close(), b.work.close())
	return errors.Join(errs...)
}

// closeIsolation gives a container its own files back. It may be called again.
func (b *builder) closeIsolation() error {
	closer, ok := b.isolation.(interface{ Close() error })
	b.isolation = nil
	if !ok {
		return nil
	}
	return closer.Close()
}

// readPlan reads context and Dockerfile and plans the stages.
func (b *builder) readPlan(ctx context.Context) error {
	o := b.options
	scratch, err := b.work.sub("context")
	if err != nil {
		return err
	}
	b.context, err = buildcontext.Open(ctx, buildcontext.Options{
		Path:       o.Context,
		SubPath:    o.ContextSubPath,
		Dockerfile: o.Dockerfile,
		Stdin:      o.Stdin,
		TempDir:    scratch,
		RootTime:   b.contextTime(),
	})
	if err != nil {
		return err
	}
	name, source, err := b.context.Dockerfile()
	if err != nil {
		return err
	}
	if b.file, err = dockerfile.Parse(name, source, dockerfile.Options{Check: o.BuildArgs["BUILDKIT_DOCKERFILE_CHECK"]}); err != nil {
		return err
	}
	for _, w := range b.file.Warnings {
		b.warn(w)
	}
	args := maps.Clone(o.BuildArgs)
	if o.SourceDateEpoch != nil {
		if args == nil {
			args = map[string]string{}
		}
		args["SOURCE_DATE_EPOCH"] = strconv.FormatInt(o.SourceDateEpoch.Unix(), 10)
	}
	b.plan, err = plan.New(b.file, plan.Options{
		Target:        o.Target,
		BuildArgs:     args,
		Platform:      b.platform.target,
		BuildPlatform: b.platform.build,
		Labels:        o.Labels,
	})
	return err
}

// contextTime is the time at which the context counts as received.
func (b *builder) contextTime() time.Time {
	if b.options.SourceDateEpoch != nil {
		return *b.options.SourceDateEpoch
	}
	// The plan, which reads this argument too, and refuses a bad one, is made
	// later.
	if seconds, err := strconv.ParseInt(b.options.BuildArgs["SOURCE_DATE_EPOCH"], 10, 64); err == nil {
		return time.Unix(seconds, 0).UTC()
	}
	return time.Now().UTC()
}
