package build

import (
	"context"
	"errors"

	"github.com/cooper-build/cooper/pkg/fileop"
	"github.com/cooper-build/cooper/pkg/plan"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// copy computes what a COPY or ADD changes.
func (s *stage) copy(ctx context.Context, op *plan.Copy) ([]snapshot.Change, error) {
	dst, err := s.reader(ctx)
	if err != nil {
		return nil, err
	}
	src, err := s.b.source(ctx, op.From)
	if err != nil {
		return nil, err
	}
	request := fileop.CopyRequest{
		Paths: op.Paths, Dest: op.Dest, Chown: op.Chown, Chmod: op.Chmod,
		Link: op.Link, Parents: op.Parents, Exclude: op.Exclude, Time: s.b.now(),
	}
	for _, f := range op.Files {
		request.Files = append(request.Files, fileop.File{Name: f.Name, Data: f.Data})
	}
	if !op.Add {
		return fileop.Copy(ctx, dst, src, request)
	}
	scratch, err := s.b.work.sub("add")
	if err != nil {
		return nil, err
	}
	return fileop.Add(ctx, dst, src, fileop.AddRequest{
		CopyRequest: request, Checksum: op.Checksum, Unpack: op.Unpack, KeepGitDir: op.KeepGitDir,
		TempDir: scratch,
		Secret: func(name string) ([]byte, bool) {
			value, ok := s.b.secrets[name]
			return value, ok
		},
	})
}

// workdir computes what a WORKDIR changes.
func (s *stage) workdir(ctx context.Context, op *plan.Workdir) ([]snapshot.Change, error) {
	dst, err := s.reader(ctx)
	if err != nil {
		return nil, err
	}
	return fileop.Workdir(ctx, dst, op.Path, op.User, s.b.now())
}

// source opens what a COPY or a mount reads from.
func (b *builder) source(ctx context.Context, from plan.Source) (rootfs.Reader, error) {
	switch {
	case from.Stage != nil:
		st, ok := b.stages[from.Stage]
		if !ok {
			return nil, errors.New("internal error: a stage that was not planned is needed")
		}
		return st.finished(ctx)
	case from.Image != "":
		return b.images.get(from.Image, b.plan.Platform).reader(ctx)
	case from.Scratch:
		return rootfs.NewTree(), nil
	}
	return b.context, nil
}

// finished gives the tree of a stage that has been built. Several stages may
// ask at the same time.
func (s *stage) finished(ctx context.Context) (rootfs.Reader, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	return s.reader(ctx)
}
