package namespace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/child"
)

// mounts are a command's mounts on their way to its child.
type mounts struct {
	isolation *Isolation
	// dir is for files that live as long as the command.
	dir        string
	list       []child.Mount
	forwarders []*run.Forwarder
}

// close ends what serves the mounts.
func (ms *mounts) close() error {
	var errs []error
	for _, f := range ms.forwarders {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// addAll adds a RUN's mounts, those of parent directories first.
func (ms *mounts) addAll(ctx context.Context, list []run.Mount) error {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b run.Mount) int { return strings.Compare(a.Target, b.Target) })
	for n := range list {
		m, err := ms.translate(ctx, filepath.Join(ms.dir, fmt.Sprintf("mount-%d", n)), &list[n])
		if err != nil {
			return fmt.Errorf("mount %s: %w", list[n].Target, err)
		}
		ms.list = append(ms.list, m)
	}
	return nil
}

// translate turns a RUN's mount into one that a child makes. dir, which does not
// exist, is for the mount's own files.
func (ms *mounts) translate(ctx context.Context, dir string, m *run.Mount) (child.Mount, error) {
	c := child.Mount{Target: m.Target, ReadOnly: m.ReadOnly, Mode: m.Mode, UID: m.UID, GID: m.GID}
	switch m.Type {
	case run.Cache:
		c.Source = m.HostPath
	case run.SSH:
		if err := os.Mkdir(dir, 0o700); err != nil {
			return c, err
		}
		c.Source = filepath.Join(dir, "agent")
		f, err := run.Forward(c.Source, m.HostPath, m.Mode, m.UID, m.GID)
		if err != nil {
			return c, err
		}
		ms.forwarders = append(ms.forwarders, f)
	case run.Tmpfs:
		c.Tmpfs, c.Size = true, m.Size
	case run.Secret, run.Pipe:
		c.IsFile, c.Data, c.ReadOnly = true, m.Data, true
	case run.Bind:
		return c, ms.bind(ctx, dir, m, &c)
	default:
		return c, fmt.Errorf("type %q is unknown", m.Type)
	}
	return c, nil
}

// bind shows a tree. Those of stages are on the disk as a command should see
// them. All others are copied there once: a build context has files that are
// hidden and owners that are not root, an index has no files at all. What a
// command may write to is an overlay above, or, where there is no overlay, a
// copy of its own.
func (ms *mounts) bind(ctx context.Context, dir string, m *run.Mount, c *child.Mount) error {
	i := ms.isolation
	switch ws := m.Source.(type) {
	case *overlayWorkspace:
		c.Lowers, c.Source = ws.lowers, m.SourcePath
	case *plainWorkspace:
		c.Source = filepath.Join(ws.tree, m.SourcePath)
	default:
		if i.plain && !m.ReadOnly {
			break // it would be copied twice
		}
		at, err := i.sources.get(ctx, i, m.Source, m.SourcePath)
		if err != nil {
			return err
		}
		c.Source = at
		if !i.plain && !m.ReadOnly {
			c.Lowers, c.Source = []string{filepath.Dir(at)}, filepath.Base(at)
		}
	}
	if m.ReadOnly {
		return nil
	}
	if i.plain {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		c.Source = filepath.Join(dir, "source")
		return i.materialise(ctx, dir, "source", m.Source, m.SourcePath)
	}
	c.Upper, c.Work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	if err := errors.Join(os.MkdirAll(c.Upper, 0o755), os.MkdirAll(c.Work, 0o755)); err != nil {
		return err
	}
	if ws, ok := m.Source.(*overlayWorkspace); ok {
		return ws.asRoot(c.Upper)
	}
	return nil
}

// sources are copies of trees for bind mounts. A tree does not change while it
// is a source, so one copy serves all commands of the build.
type sources struct {
	mu   sync.Mutex
	made map[sourceKey]*source
}

type sourceKey struct {
	tree rootfs.Reader
	name string
}

type source struct {
	once sync.Mutex
	path string
}

// get copies name of tree, unless that was done before, and returns where the
// copy is.
func (s *sources) get(ctx context.Context, i *Isolation, tree rootfs.Reader, name string) (string, error) {
	one := &source{}
	if reflect.TypeOf(tree).Comparable() {
		s.mu.Lock()
		if s.made == nil {
			s.made = map[sourceKey]*source{}
		}
		key := sourceKey{tree, name}
		if s.made[key] == nil {
			s.made[key] = one
		}
		one = s.made[key]
		s.mu.Unlock()
	}
	one.once.Lock()
	defer one.once.Unlock()
	if one.path != "" {
		return one.path, nil
	}
	dir, err := os.MkdirTemp(i.options.Dir, "source-")
	if err != nil {
		return "", err
	}
	if err := i.materialise(ctx, dir, "source", tree, name); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	one.path = filepath.Join(dir, "source")
	return one.path, nil
}

// close removes the copies.
func (s *sources) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, one := range s.made {
		if one.path != "" {
			errs = append(errs, os.RemoveAll(filepath.Dir(one.path)))
		}
	}
	s.made = nil
	return errors.Join(errs...)
}

// materialise copies a file or directory of a tree to the name to in dir.
func (i *Isolation) materialise(ctx context.Context, dir, to string, r rootfs.Reader, from string) error {
	root, err := rootfs.OpenRoot(dir, i.ids.rootOptions())
	if err != nil {
		return err
	}
	return errors.Join(copyTree(ctx, root, to, r, from), root.Close())
}

// copyTree copies what from names in r to the name to in root.
func copyTree(ctx context.Context, root *rootfs.Root, to string, r rootfs.Reader, from string) error {
	var dirs []rootfs.Entry
	links := map[uint64]string{}
	err := rootfs.Walk(r, from, func(e rootfs.Entry) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		source := e.Path
		e.Path = path.Join(to, strings.TrimPrefix(strings.TrimPrefix(e.Path, from), "/"))
		if from == "." {
			e.Path = path.Join(to, source)
		}
		switch {
		case e.Kind == rootfs.Directory:
			dirs = append(dirs, e)
		case e.Link != 0 && links[e.Link] != "":
			return root.Link(links[e.Link], e.Path)
		case e.Link != 0:
			links[e.Link] = e.Path
		}
		var content io.Reader
		if e.Kind == rootfs.Regular {
			file, err := r.Open(source)
			if err != nil {
				return err
			}
			defer file.Close()
			content = file
		}
		return root.Write(e, content)
	})
	for n := len(dirs) - 1; err == nil && n >= 0; n-- {
		err = root.Chtimes(dirs[n].Path, dirs[n].ModTime)
	}
	return err
}

// networkFiles are /etc/hosts and /etc/resolv.conf of a command.
func networkFiles(hostname string, extra []run.Host) ([]child.Mount, error) {
	var hosts bytes.Buffer
	fmt.Fprintf(&hosts, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", hostname)
	for _, h := range extra {
		fmt.Fprintf(&hosts, "%s\t%s\n", h.IP, h.Name)
	}
	mounts := []child.Mount{{Target: "/etc/hosts", IsFile: true, Data: hosts.Bytes(), Mode: 0o644, ReadOnly: true}}
	// A machine without a resolver has nothing to give, and the image's own file
	// counts for nothing all the same.
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("resolver of this machine: %w", err)
	}
	return append(mounts, child.Mount{Target: "/etc/resolv.conf", IsFile: true, Data: resolv, Mode: 0o644, ReadOnly: true}), nil
}
