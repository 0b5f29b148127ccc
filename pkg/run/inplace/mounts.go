package inplace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
)

// mounter puts in place, as files and directories, what would be mounts, and
// takes them away again.
type mounter struct {
	ctx  context.Context
	ws   *workspace
	root *rootfs.Root
	dir  *rootfs.Dir
	// undo is called in reverse order.
	undo []func() error
	// caches are the cache directories that are in place.
	caches map[string]bool
}

func (w *workspace) newMounter(ctx context.Context) (_ *mounter, err error) {
	// What was put in place is taken away also when the command was cancelled.
	m := &mounter{ctx: ctx, ws: w, caches: map[string]bool{}}
	if m.root, err = rootfs.OpenRoot(w.site.path, rootfs.RootOptions{}); err != nil {
		return nil, err
	}
	if m.dir, err = m.root.Dir(rootfs.DirOptions{}); err != nil {
		return nil, errors.Join(err, m.root.Close())
	}
	return m, nil
}

// removeAll takes everything away, the last one first.
func (m *mounter) removeAll() error {
	m.ctx = context.WithoutCancel(m.ctx)
	var errs []error
	for n := len(m.undo) - 1; n >= 0; n-- {
		if err := m.undo[n](); err != nil {
			errs = append(errs, fmt.Errorf("removing a mount: %w", err))
		}
	}
	return errors.Join(append(errs, m.dir.Close(), m.root.Close())...)
}

// place puts one mount in place.
func (m *mounter) place(mount *run.Mount) error {
	name, exists, err := rootfs.ResolveMissing(m.dir, mount.Target)
	if err != nil {
		return err
	}
	if err := m.allowed(name); err != nil {
		return err
	}
	p := &placed{m: m, name: name, target: filepath.Join(m.ws.site.path, name)}
	m.undo = append(m.undo, p.remove)
	if err := p.prepare(exists); err != nil {
		return err
	}
	if err := p.fill(mount); err != nil {
		return err
	}
	return p.restoreTime()
}

// allowed says why nothing can be put at name.
func (m *mounter) allowed(name string) error {
	masks := m.ws.site.masks
	switch mask := masks.Covering(name); {
	case name == "." || masks.Above(name):
		return errors.New("something in this directory is in use in this container")
	case mask == name:
		return errors.New("this place is in use in this container")
	case mask != "" && !masks.Mount(mask):
		return fmt.Errorf("the build works with files in /%s", mask)
	}
	return nil
}

// placed is a mount in its place.
type placed struct {
	m      *mounter
	name   string
	target string
	// held is where the file is that was here before, "" if there was none.
	held string
	// made are directories that were made for it, the outermost first; parent is
	// the one that was there, with its time.
	made   []string
	parent string
	time   time.Time
	ready  bool
	// end, if not nil, is called before the target is removed.
	end func() error
}

// prepare makes room at the target.
func (p *placed) prepare(exists bool) (err error) {
	p.parent = path.Dir(p.name)
	for {
		e, err := p.m.dir.Lstat(p.parent)
		if err == nil {
			p.time = e.ModTime
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || p.parent == "." {
			return err
		}
		p.parent = path.Dir(p.parent)
	}
	p.ready = true
	if exists {
		p.held, err = p.m.ws.isolation.hold(p.name)
		return err
	}
	return p.m.root.MkdirParents(p.name, func(dir string) error {
		p.made = append(p.made, dir)
		return nil
	})
}

// restoreTime hides that something was made in the parent.
func (p *placed) restoreTime() error { return p.m.root.Chtimes(p.parent, p.time) }

// remove takes the mount away and brings back what was there. The command may
// have removed or replaced anything meanwhile.
func (p *placed) remove() error {
	if !p.ready {
		return nil
	}
	var errs []error
	// The command's own changes to the parent count, not those made here.
	if e, err := p.m.dir.Lstat(p.parent); err == nil && e.IsDir() {
		p.time = e.ModTime
	}
	if p.end != nil {
		errs = append(errs, p.end())
	}
	// Below a link that the command has put there, nothing is ours.
	canonical, err := p.m.root.Canonical(p.name)
	switch {
	case err == nil && canonical == p.name:
		errs = append(errs, p.m.root.Remove(p.name))
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
	default:
		errs = append(errs, err)
	}
	if p.held != "" {
		errs = append(errs, p.bringBack())
	}
	for n := len(p.made) - 1; n >= 0; n-- {
		err := os.Remove(filepath.Join(p.m.ws.site.path, p.made[n]))
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOTDIR):
		default:
			errs = append(errs, err)
		}
	}
	if e, err := p.m.dir.Lstat(p.parent); err == nil && e.IsDir() {
		errs = append(errs, p.restoreTime())
	}
	return errors.Join(errs...)
}

// bringBack moves what was held to its place. A mount keeps a command from
// removing the directories above it; here they are made again.
func (p *placed) bringBack() error {
	if err := p.m.root.MkdirParents(p.name, nil); err != nil {
		return err
	}
	if canonical, err := p.m.root.Canonical(p.name); err != nil || canonical != p.name {
		return errors.Join(err, os.RemoveAll(p.held))
	}
	return os.Rename(p.held, p.target)
}

// fill makes what the command finds at the target.
func (p *placed) fill(mount *run.Mount) error {
	switch mount.Type {
	case run.Bind:
		return copyTree(p.m.ctx, p.m.root, p.name, mount.Source, mount.SourcePath)
	case run.Cache:
		return p.cache(mount)
	case run.Tmpfs:
		if mount.Size > 0 {
			return errors.New("the size of a tmpfs can't be limited in place; leave size= out")
		}
		return p.m.root.Write(rootfs.Entry{Path: p.name, Kind: rootfs.Directory, Mode: 0o1777, ModTime: time.Now()}, nil)
	case run.Secret, run.Pipe:
		return p.file(mount)
	case run.SSH:
		return p.agent(mount)
	}
	return fmt.Errorf("type %q is unknown", mount.Type)
}

// addHosts adds lines to /etc/hosts for the time of the command.
func (m *mounter) addHosts(hosts []run.Host) error {
	if len(hosts) == 0 {
		return nil
	}
	file := filepath.Join(m.ws.site.path, "etc/hosts")
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := append([]byte(nil), before...)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	for _, h := range hosts {
		text = fmt.Appendf(text, "%s\t%s\n", h.IP, h.Name)
	}
	if !m.ws.site.masks.Covers("etc/hosts") {
		return m.place(&run.Mount{Type: run.Pipe, Target: "/etc/hosts", Data: text, Mode: 0o644})
	}
	// A mount of the container: its bytes are changed, not the file.
	if err := overwrite(file, text); err != nil {
		return fmt.Errorf("adding to /etc/hosts: %w", err)
	}
	m.undo = append(m.undo, func() error { return overwrite(file, before) })
	return nil
}

func overwrite(file string, text []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
