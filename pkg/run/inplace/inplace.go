// Package inplace runs commands in the root of the container that the build
// itself runs in: for root in a container that allows neither namespaces nor
// mounts, as Docker's and containerd's default profiles do.
//
// # The container's own files
//
// Before the first stage is unpacked, all that is in "/" is put away: saved
// with all its metadata in a file without a name, and removed, the executor's
// own program, certificates and credentials included. What the build still
// needs of them must have been read by then ([Options.BeforeTakeover]). Mounts
// and the paths that the build works with stay: they are masked, and never part
// of an image. What an image has in a masked place is kept aside, so layers and
// COPY --from are complete, but commands can't see it.
//
// [Isolation.Close] removes the image's files and brings the container's own
// ones back, also after a failure, so that a script goes on in the container
// that it has started in. Should the process die before, a second one (package
// keeper) does it. Processes that run in the container meanwhile, other than
// the build, keep the files that they have open, and find new ones afterwards;
// a socket that they listen on is a dead one then.
//
// # Stages
//
// One stage at a time owns "/". When the next one is opened, the tree of the
// one before is moved aside by renaming, and stays readable. Changes are found
// by scans.
//
// # What a command can reach
//
// Commands are children of a subreaper and end with all they have started. They
// share network, processes, /dev, /proc and /sys with the container, and can't
// be kept from:
//
//   - reading and writing what is mounted into the container, such as volumes
//     and secrets, and the paths that the build works with. A warning names
//     credentials in known places. Landlock could not hide them: it permits
//     subtrees, and can't permit all of "/" but one, nor directories at the top
//     that are yet to be made;
//   - reading the environment of other processes of the container that belong
//     to the same user, as a shell that has started the build. The executor, its
//     keeper and its children are not dumpable: neither their environment nor
//     their memory, open files or root can be looked at without CAP_SYS_PTRACE,
//     which commands don't have;
//   - killing, as root, the executor and its keeper with SIGKILL, where these are
//     not process 1. Only with no_new_privs could Landlock prevent that and the
//     item before, and then sudo in "su user -c 'sudo …'" would not work.
//
// # Mounts of RUN
//
// Bind mounts are copies. A cache directory is moved to its place and back, or
// copied where it is on another file system; a build that is killed meanwhile
// loses it. Secrets and heredocs are files, SSH agents sockets that
// forward, tmpfs directories. All of these are taken away after the command, and
// what was in their place comes back. Read-only is not enforced: root can write
// to anything; what it writes is thrown away, except into a cache.
package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/inplace/keeper"
)

// Options say where the isolation keeps its files, and what it leaves alone.
type Options struct {
	// Dir is the build's own directory. It stays where it is.
	Dir string
	// Keep are absolute paths that stay as they are: the context, the cache
	// directory. Nothing of the image is visible below them, so the fewer the
	// better; they need not exist.
	Keep []string
	// Force works outside a container too.
	Force bool
	// Warn tells people about something that is not an error; nil discards.
	Warn func(string)
	// BeforeTakeover is called right before the container's own files go away;
	// nil does nothing. An error leaves them where they are.
	BeforeTakeover func() error

	// root is the directory to take over, for tests; "" is "/".
	root string
}

// Isolation implements run.Isolation. Only one can have taken over a container
// at a time. Close must be called after Open was.
type Isolation struct {
	options Options
	root    string

	mu sync.Mutex
	// taken is nil while the container's own files are in place.
	taken *takeover
	// current is the workspace whose tree is in root; nil when none is.
	current *workspace
	next    int
}

// New makes an isolation; nothing is done before Probe or Open.
func New(o Options) *Isolation {
	i := &Isolation{options: o, root: o.root}
	if i.root == "" {
		i.root = "/"
	}
	if i.options.Warn == nil {
		i.options.Warn = func(string) {}
	}
	return i
}

// Name implements run.Isolation.
func (*Isolation) Name() string { return "inplace" }

// Open implements run.Isolation. The first call puts the container's own files
// away. The workspace that was opened before stays readable, and can't run
// commands any more.
func (i *Isolation) Open(ctx context.Context, stage run.Stage) (_ run.Workspace, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("stage %s: %w", stage.Name, err)
		}
	}()
	parent, ok := stage.Parent.(*workspace)
	if stage.Parent != nil && (!ok || parent.isolation != i) {
		return nil, fmt.Errorf("its parent was built by something else: %T", stage.Parent)
	}
	if i.taken == nil {
		if i.taken, err = i.takeOver(ctx); err != nil {
			return nil, err
		}
	}
	if parent != nil && stage.LastUse && parent == i.current && !parent.closed {
		i.next++
		next, err := parent.goOn(stage.Name, i.next)
		if err != nil {
			return nil, err
		}
		i.current = next
		return next, nil
	}
	if err := i.vacate(ctx); err != nil {
		return nil, err
	}
	i.next++
	w := &workspace{isolation: i, name: stage.Name, number: i.next, origin: &origin{dir: i.options.Dir}}
	if w.site, err = i.newSite(i.dir("masked", w.number)); err != nil {
		return nil, err
	}
	// Whatever happens now, root holds something of this workspace.
	i.current = w
	if parent != nil {
		w.origin.parent = parent
		err = w.site.copyFrom(ctx, parent)
	} else {
		w.origin.layers = stage.Layers
		for _, l := range stage.Layers {
			if err = w.site.unpack(ctx, l); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil, errors.Join(err, w.discard())
	}
	w.site.warnHidden(i.taken)
	if w.view, err = w.site.view(); err != nil {
		return nil, errors.Join(err, w.discard())
	}
	return w, nil
}

// vacate makes room in root. The tree there is moved aside if somebody may
// still read it.
func (i *Isolation) vacate(ctx context.Context) error {
	w := i.current
	if w != nil && !w.closed {
		if err := w.moveAside(ctx, i.dir("aside", w.number)); err != nil {
			return fmt.Errorf("moving stage %s aside: %w", w.name, err)
		}
	}
	i.current = nil
	if err := keeper.Clear(i.root, i.taken.masks); err != nil {
		return err
	}
	return keeper.Blank(i.root, i.taken.masks)
}

// dir names a directory of a workspace.
func (i *Isolation) dir(kind string, n int) string {
	return filepath.Join(i.options.Dir, kind, strconv.Itoa(n))
}

// Close removes the image's files and brings the container's own ones back.
// Workspaces can't be used any more. It may be called again, and does nothing
// when nothing was opened. Should files not come back, the error says which, and
// the keeper tries once more when the process ends.
func (i *Isolation) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.taken == nil {
		return nil
	}
	var errs []error
	if w := i.current; w != nil {
		errs = append(errs, w.discard())
		i.current = nil
	}
	errs = append(errs, i.taken.giveBack())
	i.taken = nil
	for _, kind := range []string{"masked", "aside", "held"} {
		errs = append(errs, os.RemoveAll(filepath.Join(i.options.Dir, kind)))
	}
	return errors.Join(errs...)
}
