package build

import (
	"context"
	"errors"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/cooper-build/cooper/pkg/plan"
	"github.com/cooper-build/cooper/pkg/run"
)

// buildStages builds every stage of the plan. Where commands can run side by
// side, stages that do not need each other do; otherwise they are built in the
// plan's order, in which every stage follows those it needs.
func (b *builder) buildStages(ctx context.Context) error {
	b.makeStages()
	// Layers are compressed behind the steps that made them, and joined here
	// whatever happens.
	m := &makers{}
	m.group, m.ctx = errgroup.WithContext(ctx)
	m.group.SetLimit(runtime.GOMAXPROCS(0))
	err := b.runStages(m.ctx, m)
	// A layer that failed has ended the stages: its error is the reason.
	if made := m.group.Wait(); made != nil {
		return made
	}
	if err != nil {
		return err
	}
	if b.inTurn() {
		return b.closeStages()
	}
	// Trees on disk are of no use any more. Removing them takes a while, in
	// which the image can be written.
	b.closing = make(chan error, 1)
	go func() { b.closing <- errors.Join(b.closeStages(), b.removeUnpacked()) }()
	return nil
}

// removeUnpacked removes base layers that no later build will use.
func (b *builder) removeUnpacked() error {
	if b.options.CacheDir != "" {
		return nil
	}
	return removeAll(b.layersDir())
}

// makers write layers behind the build's back. Their context outlives the
// stages' and ends with the first layer that fails.
type makers struct {
	group *errgroup.Group
	ctx   context.Context
}

func (b *builder) makeStages() {
	for _, s := range b.plan.Stages {
		st := &stage{b: b, plan: s}
		if s.Base.Stage != nil {
			st.from = b.stages[s.Base.Stage]
		} else if s.Base.Image != "" {
			st.image = b.images.get(s.Base.Image, s.Platform)
		}
		b.stages[s] = st
	}
	if u, ok := b.isolation.(run.Unpacker); ok {
		for _, st := range b.stages {
			if img := st.bottom(); img != nil && st.runs() {
				img.unpack = u.Base
			}
		}
	}
	b.target = b.stages[b.plan.Target]
	for st := b.target; st != nil; st = st.from {
		st.shipped = true
	}
}

func (b *builder) runStages(ctx context.Context, makers *makers) error {
	if b.inTurn() {
		return b.runInTurn(ctx, makers)
	}
	done := make(map[*plan.Stage]chan struct{}, len(b.plan.Stages))
	for _, s := range b.plan.Stages {
		done[s] = make(chan struct{})
	}
	jobs := b.options.Jobs
	if jobs <= 0 {
		jobs = len(b.plan.Stages)
	}
	slots := semaphore.NewWeighted(int64(jobs))
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range b.plan.Stages {
		group.Go(func() error {
			for _, need := range s.Needs() {
				select {
				case <-done[need]:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			// Only a stage that can go on takes a slot, so slots can't be
			// taken by stages that wait for each other.
			if err := slots.Acquire(ctx, 1); err != nil {
				return err
			}
			defer slots.Release(1)
			if err := b.stages[s].build(ctx, makers); err != nil {
				return err
			}
			close(done[s])
			return nil
		})
	}
	return group.Wait()
}

// inTurn reports whether only one stage at a time can run commands.
func (b *builder) inTurn() bool { return b.isolation != nil && !b.ability.Parallel }

// runInTurn builds one stage after another. A stage that no later one needs is
// given up at once, so that its tree need not be kept for anybody.
func (b *builder) runInTurn(ctx context.Context, makers *makers) error {
	for _, s := range b.plan.Stages {
		for _, need := range s.Needs() {
			b.stages[need].users++
		}
	}
	for _, s := range b.plan.Stages {
		if err := b.stages[s].build(ctx, makers); err != nil {
			return err
		}
		for _, need := range s.Needs() {
			n := b.stages[need]
			n.users--
			if b.stages[s].ws == nil {
				// What a packed stage has copied is still read from here.
				n.lent = true
			}
			if n.users > 0 || n.lent {
				continue
			}
			if err := n.close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// closeStages gives up all workspaces, and with them the root file system of a
// build in place: what comes after works in the machine's own files.
func (b *builder) closeStages() error {
	for i := len(b.plan.Stages) - 1; i >= 0; i-- {
		if err := b.stages[b.plan.Stages[i]].close(); err != nil {
			return err
		}
	}
	return b.closeIsolation()
}
