package namespace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/child"
)

// translate turns a RUN's mount into one that a child makes. dir is for the
// mount's own files.
func (i *Isolation) translate(ctx context.Context, dir string, m *run.Mount) (child.Mount, error) {
	c := child.Mount{Target: m.Target, ReadOnly: m.ReadOnly, Mode: m.Mode, UID: m.UID, GID: m.GID}
	switch m.Type {
	case run.Cache, run.SSH:
		c.Source = m.HostPath
	case run.Tmpfs:
		c.Tmpfs, c.Size = true, m.Size
	case run.Secret, run.Pipe:
		c.IsFile, c.Data, c.ReadOnly = true, m.Data, true
	case run.Bind:
		// The tree's files are copied: its own must not change, a context has
		// files that are hidden and owners that are not on disk, an index has
		// no files at all. Trees of other stages are shown as they are.
		if ws, ok := m.Source.(*overlayWorkspace); ok && m.ReadOnly {
			c.Lowers, c.Source = ws.lowers, m.SourcePath
			return c, nil
		}
		target, err := i.materialise(ctx, dir, m.Source, m.SourcePath)
		if err != nil {
			return c, err
		}
		c.Source = target
	default:
		return c, fmt.Errorf("type %q is unknown", m.Type)
	}
	return c, nil
}

// materialise copies a file or directory of a tree below dir and returns where
// it is.
func (i *Isolation) materialise(ctx context.Context, dir string, r rootfs.Reader, from string) (_ string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	root, err := rootfs.OpenRoot(dir, i.ids.rootOptions())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return filepath.Join(dir, "source"), copyTree(ctx, root, "source", r, from)
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
func networkFiles(hostname string, extra []run.Host) []child.Mount {
	var hosts bytes.Buffer
	fmt.Fprintf(&hosts, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", hostname)
	for _, h := range extra {
		fmt.Fprintf(&hosts, "%s\t%s\n", h.IP, h.Name)
	}
	mounts := []child.Mount{{Target: "/etc/hosts", IsFile: true, Data: hosts.Bytes(), Mode: 0o644, ReadOnly: true}}
	// A machine without a resolver has nothing to give.
	if resolv, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		mounts = append(mounts, child.Mount{Target: "/etc/resolv.conf", IsFile: true, Data: resolv, Mode: 0o644, ReadOnly: true})
	}
	return mounts
}
