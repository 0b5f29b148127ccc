package build

import (
	"fmt"
	"path"
	"strings"

	"github.com/moby/buildkit/util/suggest"

	"github.com/cooper-build/cooper/pkg/fileop"
	"github.com/cooper-build/cooper/pkg/plan"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// explainMissing says what was probably meant by a source that does not exist,
// or why it is not there. Both texts are "" when nothing is known.
func (b *builder) explainMissing(step *plan.Step, missing *fileop.NotFoundError) (suggestion, detail string) {
	op, ok := step.Op.(*plan.Copy)
	if !ok {
		return "", ""
	}
	if op.From.IsContext() {
		if by, ok := b.context.Ignored(treePath(missing.Path)); ok {
			return "", fmt.Sprintf("%s leaves it out of the build context", by)
		}
	}
	return nearestSource(b.opened(op.From), missing), ""
}

// nearestSource is the name in r that comes near the missing one, written the
// way that the Dockerfile writes it; "" when there is none.
func nearestSource(r rootfs.Reader, missing *fileop.NotFoundError) string {
	if r == nil {
		return ""
	}
	dir, name := path.Split(path.Clean("/" + missing.Path))
	// The first directory above that exists is where the mistake is.
	for dir != "/" {
		if _, err := r.Lstat(treePath(dir)); err == nil {
			break
		}
		dir, name = path.Split(strings.TrimSuffix(dir, "/"))
	}
	entries, err := r.ReadDir(treePath(dir))
	if err != nil {
		return ""
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = path.Base(e.Path)
	}
	near := nearest(name, names)
	if near == "" {
		return ""
	}
	near = path.Join(dir, near)
	if !strings.HasPrefix(missing.Source, "/") {
		near = strings.TrimPrefix(near, "/")
	}
	return near
}

// nearest prefers a name that differs in case alone.
func nearest(name string, names []string) string {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	near, _ := suggest.Search(name, names, true)
	return near
}

// opened is a tree that a step has read from, nil when that failed.
func (b *builder) opened(from plan.Source) rootfs.Reader {
	switch {
	case from.Stage != nil:
		st := b.stages[from.Stage]
		if st == nil {
			return nil
		}
		st.reading.Lock()
		defer st.reading.Unlock()
		if st.ws != nil {
			return st.ws
		}
		if st.tree != nil {
			return st.tree
		}
		return nil
	case from.Image != "":
		if tree := b.images.get(from.Image, b.plan.Platform).tree; tree != nil {
			return tree
		}
		return nil
	case from.IsContext():
		return b.context
	}
	return nil
}

// treePath is an absolute path as trees name it.
func treePath(p string) string {
	if p = strings.Trim(path.Clean(p), "/"); p == "" {
		return "."
	}
	return p
}
