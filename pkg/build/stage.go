package build

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/plan"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// stage is a stage being built. It starts packed: a base, and the changes that
// COPY, ADD and WORKDIR make to it, of which only an index is kept. The first
// RUN opens a workspace; from then on everything happens there.
type stage struct {
	b    *builder
	plan *plan.Stage
	// from is the stage that this one continues; image the base image. Both
	// are nil for scratch.
	from  *stage
	image *baseImage
	// shipped: the stage's layers are part of the result.
	shipped bool
	// users counts the stages that still need this one, where they are built
	// in turn.
	users int
	// lent: a packed stage refers to files of this one, which therefore stays
	// as it is until the end.
	lent bool

	tree *rootfs.Tree
	// puts are the packed changes that an opened workspace would need.
	puts [][]snapshot.Change
	ws   run.Workspace
	made []*madeLayer
	// making describes the step at work.
	making string
	// reading guards the index of a stage that others read once it is built.
	reading sync.Mutex
}

// madeLayer is a layer of a shipped stage. Its fields are set once the
// builder's makers have ended.
type madeLayer struct {
	layer v1.Layer
	// at is when the step that made it had ended.
	at time.Time
	// description is for a history that has no entry for the layer.
	description string
}

// build executes all steps.
func (s *stage) build(ctx context.Context, makers *makers) error {
	if s.from != nil && s.from.ws == nil {
		// A packed parent is continued by taking over what it knows.
		s.image = s.from.image
		s.puts = slices.Clone(s.from.puts)
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	for i := range s.plan.Steps {
		step := &s.plan.Steps[i]
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := s.step(ctx, step, makers); err != nil {
			return s.b.stepError(step, err)
		}
	}
	return nil
}

// runs reports whether the stage has a RUN.
func (s *stage) runs() bool { return s.firstRun() != nil }

func (s *stage) firstRun() *plan.Step {
	for i := range s.plan.Steps {
		if _, ok := s.plan.Steps[i].Op.(*plan.Run); ok {
			return &s.plan.Steps[i]
		}
	}
	return nil
}

// bottom is the image that the stage and those it continues start from.
func (s *stage) bottom() *baseImage {
	for ; s.from != nil; s = s.from {
	}
	return s.image
}

// begin reports FROM as the stage's first step. A stage with a RUN is unpacked
// now: it will be anyway, and an index would be made for nothing.
func (s *stage) begin(ctx context.Context) (err error) {
	id := StepID{Stage: s.plan.Label(), Number: 1, Total: s.plan.Total()}
	text := "FROM " + s.plan.BaseName
	if s.image != nil && s.plan.Base.Image != "" && !strings.Contains(text, "@") {
		text += "@" + s.image.digest
	}
	s.b.sink.emit(StepStarted{Step: id, Text: text})
	start := time.Now()
	defer func() { s.b.stepDone(ctx, id, start, err) }()
	if !s.runs() {
		return nil
	}
	if err := s.open(ctx); err != nil {
		return s.b.stepError(s.firstRun(), err)
	}
	return nil
}

func (b *builder) stepDone(ctx context.Context, id StepID, start time.Time, err error) {
	b.sink.emit(StepDone{Step: id, Duration: time.Since(start), Err: err, Stopped: err != nil && ctx.Err() != nil})
}

// step executes one step and reports it.
func (s *stage) step(ctx context.Context, step *plan.Step, makers *makers) (err error) {
	id := stepID(s.plan, step)
	s.making = s.vertex(step)
	s.b.sink.emit(StepStarted{Step: id, Text: step.Text})
	start := time.Now()
	defer func() { s.b.stepDone(ctx, id, start, err) }()
	switch op := step.Op.(type) {
	case nil:
		return nil
	case *plan.Run:
		if err := s.run(ctx, id, op); err != nil {
			return err
		}
		return s.snapshot(id, makers)
	case *plan.Copy:
		changes, err := s.copy(ctx, op)
		if err != nil {
			return err
		}
		// The tree of a stage that is given up after its last use does not wait
		// for a layer that is made behind the build's back.
		return s.apply(ctx, id, changes, op.From.Stage == nil || !s.b.inTurn(), makers)
	case *plan.Workdir:
		changes, err := s.workdir(ctx, op)
		if err != nil {
			return err
		}
		return s.apply(ctx, id, changes, true, makers)
	default:
		return fmt.Errorf("internal error: no way to execute %T", op)
	}
}

// apply adds computed changes to the stage and makes their layer.
func (s *stage) apply(ctx context.Context, id StepID, changes []snapshot.Change, stable bool, makers *makers) error {
	if s.ws != nil {
		if err := s.ws.Put(ctx, changes); err != nil {
			return err
		}
	} else {
		if err := indexChanges(s.tree, changes); err != nil {
			return err
		}
		s.puts = append(s.puts, changes)
	}
	if !s.shipped {
		return nil
	}
	return s.layer(id, sequence(changes), stable, makers)
}

// snapshot makes the layer of what a command changed.
func (s *stage) snapshot(id StepID, makers *makers) error {
	if !s.shipped {
		return nil
	}
	// The context of the makers is that in which the sequence is used up.
	changes := s.ws.Changes(makers.ctx)
	_, stable := s.ws.(run.Stable)
	return s.layer(id, func(yield func(snapshot.Change, error) bool) {
		for c, err := range changes {
			if err != nil {
				err = fmt.Errorf("finding what has changed: %w", err)
			}
			if !yield(c, err) {
				return
			}
		}
	}, stable, makers)
}

// layer writes changes as a layer: behind the following steps where the bytes
// stay what they are, else at once.
func (s *stage) layer(id StepID, changes iter.Seq2[snapshot.Change, error], stable bool, makers *makers) error {
	made := &madeLayer{at: s.b.now(), description: s.making}
	s.made = append(s.made, made)
	dir, err := s.b.work.sub("blobs")
	if err != nil {
		return err
	}
	create := func() error {
		l, err := layers.Create(makers.ctx, dir, changes, s.b.options.Compression)
		if err != nil {
			return fmt.Errorf("layer of step %d of stage %s: %w", id.Number, id.Stage, err)
		}
		made.layer = l
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		size, err := l.Size()
		if err != nil {
			return err
		}
		s.b.sink.emit(LayerMade{Step: id, Digest: digest.String(), Size: size})
		return nil
	}
	if !stable {
		return create()
	}
	makers.group.Go(create)
	return nil
}

// reader gives the stage's tree as it is now, for COPY to look at and to read
// from.
func (s *stage) reader(ctx context.Context) (rootfs.Reader, error) {
	if s.ws != nil {
		return s.ws, nil
	}
	if s.tree != nil {
		return s.tree, nil
	}
	tree, err := s.baseTree(ctx)
	if err != nil {
		return nil, err
	}
	s.tree = tree
	return tree, nil
}

// baseTree is an index of the stage's base that the stage may change.
func (s *stage) baseTree(ctx context.Context) (*rootfs.Tree, error) {
	switch {
	case s.from != nil && s.from.ws != nil:
		return treeOf(ctx, s.from.ws)
	case s.from != nil:
		r, err := s.from.finished(ctx)
		if err != nil {
			return nil, err
		}
		return r.(*rootfs.Tree).Clone(), nil
	case s.image != nil:
		tree, err := s.image.reader(ctx)
		if err != nil {
			return nil, err
		}
		return tree.Clone(), nil
	}
	return rootfs.NewTree(), nil
}

// open makes the stage's workspace: its base, and what was put on it so far.
func (s *stage) open(ctx context.Context) error {
	if s.ws != nil {
		return nil
	}
	start := run.Stage{Name: s.plan.Label()}
	switch {
	case s.from != nil && s.from.ws != nil:
		start.Parent = s.from.ws
		start.LastUse = s.b.inTurn() && s.from.users == 1 && !s.from.lent
	case s.image != nil:
		files, err := s.image.fetch(ctx)
		if err != nil {
			return err
		}
		start.Layers = files
	}
	ws, err := s.b.isolation.Open(ctx, start)
	if err != nil {
		return fmt.Errorf("unpacking the stage: %w", err)
	}
	for _, changes := range s.puts {
		if err := ws.Put(ctx, changes); err != nil {
			ws.Close()
			return fmt.Errorf("unpacking the stage: %w", err)
		}
	}
	s.ws, s.tree, s.puts = ws, nil, nil
	return nil
}

func (s *stage) close() error {
	if s.ws == nil {
		return nil
	}
	err := s.ws.Close()
	s.ws = nil
	return err
}

// now is the time that enters the image.
func (b *builder) now() time.Time {
	if epoch := b.epoch(); epoch != nil {
		return *epoch
	}
	return time.Now().UTC()
}

// epoch is SOURCE_DATE_EPOCH, nil when there is none.
func (b *builder) epoch() *time.Time {
	if b.options.SourceDateEpoch != nil {
		return b.options.SourceDateEpoch
	}
	return b.plan.SourceDateEpoch
}
