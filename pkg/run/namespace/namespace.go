// Package namespace runs commands in Linux namespaces of their own: they see
// the image, the mounts that were asked for, and nothing else.
//
// An overlay is mounted only inside the namespace of each command, so nothing
// is mounted in the builder's and nothing stays mounted whatever happens to
// it. Each base layer is unpacked once into a directory of its own; each
// command gets a fresh upper directory, and that is what it has changed. Where
// overlay can't be mounted on the working directory, the tree is one plain
// directory and changes are found by a scan.
//
// Mounting takes CAP_SYS_ADMIN. An ordinary user gets it in a user namespace:
// [Enter], called early in main, starts the program again inside one. With
// newuidmap and a range in /etc/subuid the namespace has as many ids as an
// image needs. Without, it has a single one: files of the image keep their
// owners in the layers, by an extended attribute, but RUN can't change owners
// or run as another user than root, and a file that RUN makes belongs to root.
// Root of a container that lacks CAP_SYS_ADMIN keeps its ids; that takes
// CAP_SETFCAP, which some engines don't give.
//
// # What a command finds
//
// Its tree, made of the image alone; a /dev with the usual devices; a /proc of
// its own, or the builder's where a container hides parts of /proc and the
// kernel refuses another; /sys and the control groups read-only; /etc/hosts,
// /etc/resolv.conf and the RUN's mounts. Nothing of these is in a layer, apart
// from the directories /dev, /proc and /sys where the image had none.
//
// The first process of its namespace is a child of the builder, which reaps and
// ends everything when the command has ended. A command has the capabilities of
// an ordinary container, and with --security=insecure all that the builder has.
// There is no seccomp filter around it. The network is the builder's, unless it
// is to have none.
//
// A bind mount shows another stage's files where they are. Other sources are
// copied to the disk once for all commands, because a build context has files
// that are hidden and belong to somebody else on the disk.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/sys/capability"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/child"
)

// Options say where the isolation keeps its files.
type Options struct {
	// Dir is the build's own directory: upper directories, mount points.
	Dir string
	// Layers holds unpacked layers by diff ID and may be shared by builds, also
	// at the same time; "" is a directory in Dir.
	Layers string
	// AllowInsecure permits RUN --security=insecure.
	AllowInsecure bool
	// Plain uses a plain directory and scans even where overlay works.
	Plain bool
}

const notAllowed = "it must be allowed with --allow-insecure"

// Isolation implements run.Isolation.
type Isolation struct {
	options Options
	ids     ids
	plain   bool
	sources sources

	// unpacking is held while layers are unpacked, and guards bases.
	unpacking sync.Mutex
	bases     []*rootfs.Union
}

// New makes an isolation; nothing is done before Probe or Open.
func New(o Options) *Isolation {
	if o.Layers == "" {
		o.Layers = filepath.Join(o.Dir, "layers")
	}
	return &Isolation{options: o, ids: currentIDs(), plain: o.Plain}
}

// Name implements run.Isolation.
func (*Isolation) Name() string { return "namespace" }

// Enter lets an ordinary user's program go on in a user namespace of its own.
// Call it early in main, after run.Init and before anything is written. Where
// the process can mount already it does nothing and entered is false.
// Otherwise it starts the program again inside, waits, and returns that
// program's exit code with entered true: the caller exits with it. An error
// tells why no user namespace can be had; the program may go on without.
func Enter(ctx context.Context) (code int, entered bool, err error) {
	if privileged() {
		return 0, false, nil
	}
	code, err = child.Enter(ctx)
	return code, err == nil, err
}

// privileged reports whether this process can mount.
func privileged() bool {
	caps, err := capability.NewPid2(0)
	if err != nil || caps.Load() != nil {
		return false
	}
	return caps.Get(capability.EFFECTIVE, capability.CAP_SYS_ADMIN)
}

// Probe implements run.Isolation. It mounts what a command would get, in a
// child process.
func (i *Isolation) Probe(ctx context.Context) (run.Ability, error) {
	if !child.Ready() {
		return run.Ability{Reason: "the program did not call run.Init at the start of main"}, nil
	}
	if !privileged() {
		if err := child.TryEnter(); err != nil {
			return run.Ability{Reason: fmt.Sprintf("no CAP_SYS_ADMIN, and no user namespace: %v", err)}, nil
		}
		return run.Ability{Reason: "no CAP_SYS_ADMIN; the program could have a user namespace, but did not call namespace.Enter"}, nil
	}
	dir, err := os.MkdirTemp(i.options.Dir, "probe-")
	if err != nil {
		return run.Ability{}, fmt.Errorf("probing isolation namespace: %w", err)
	}
	defer os.RemoveAll(dir)
	overlayErr := errors.New("not asked for")
	if !i.options.Plain {
		overlayErr = i.try(ctx, dir, true, 0)
	}
	i.plain = overlayErr != nil
	if i.plain {
		if err := i.try(ctx, dir, false, 0); err != nil {
			return run.Ability{Reason: fmt.Sprintf("a root file system of its own can't be made: %v", err)}, nil
		}
	}
	ability := run.Ability{OK: true, Parallel: true, Lacks: map[run.Feature]string{}}
	ability.Reason = i.ids.describe() + ", overlay snapshots"
	if i.plain {
		ability.Reason = fmt.Sprintf("%s, plain directory and scans (overlay: %v)", i.ids.describe(), overlayErr)
	}
	ability.Reason = strings.ReplaceAll(ability.Reason, "\n", "; ")
	if !i.options.AllowInsecure {
		ability.Lacks[run.SecurityInsecure] = notAllowed
	}
	if err := i.try(ctx, dir, false, child.NewNetwork); err != nil {
		ability.Lacks[run.NetworkNone] = err.Error()
	}
	return ability, ctx.Err()
}

// try prepares a root in a child as a command would have it.
func (i *Isolation) try(ctx context.Context, dir string, overlay bool, more uintptr) error {
	outcome, err := child.Run(ctx, child.Namespaces|more, i.probeSetup(dir, overlay), nil, nil)
	if err == nil && outcome.Error != "" {
		err = errors.New(outcome.Error)
	}
	return err
}

func (i *Isolation) probeSetup(dir string, overlay bool) child.Setup {
	root := &child.Root{
		Scratch: filepath.Join(dir, "scratch"), Upper: filepath.Join(dir, "upper"),
		UserXattr: i.ids.user, ShmSize: shmSize,
	}
	dirs := []string{root.Scratch, root.Upper}
	if overlay {
		root.Lowers, root.Work = []string{filepath.Join(dir, "lower")}, filepath.Join(dir, "work")
		dirs = append(dirs, root.Lowers[0], root.Work)
	}
	for _, d := range dirs {
		// What can't be made shows as a failing probe.
		_ = os.MkdirAll(d, 0o755)
	}
	return child.Setup{Root: root, Probe: true}
}

// ids describes this process's user namespace.
type ids struct {
	// user: it is not the initial one, so devices can't be made and overlay
	// keeps its marks in user attributes.
	user  bool
	count int
	// key tells mappings apart under which files on disk look different.
	key string
}

// initialNamespace is the name that the kernel gives the first user namespace.
const initialNamespace = "user:[4026531837]"

func currentIDs() ids {
	// The map does not tell: a namespace inside may have all ids as well.
	name, err := os.Readlink("/proc/self/ns/user")
	if err == nil && name == initialNamespace {
		return ids{count: 1 << 32, key: "root"}
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return ids{count: 1 << 16, key: "root"}
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		var inside, outside, count int
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err == nil {
			n += count
		}
	}
	return ids{user: true, count: n, key: "user-" + strings.Join(strings.Fields(string(text)), "-")}
}

func (i ids) describe() string {
	if !i.user {
		return "root with CAP_SYS_ADMIN"
	}
	if note, ok := child.Entered(); ok {
		return "user namespace with " + note
	}
	if i.count == 1 {
		return "user namespace with a single id"
	}
	return fmt.Sprintf("user namespace with %d ids", i.count)
}

// owners is how files get their owners on disk.
func (i ids) owners() rootfs.OwnerPolicy {
	if i.user && i.count == 1 {
		return rootfs.OwnRecorded
	}
	return rootfs.OwnExact
}

// form is how overlay's marks are kept.
func (i ids) form() layers.Form {
	if i.user {
		return layers.OverlayUser
	}
	return layers.OverlayTrusted
}

func (i ids) rootOptions() rootfs.RootOptions { return rootfs.RootOptions{Owners: i.owners()} }

func (i ids) dirOptions() rootfs.DirOptions { return rootfs.DirOptions{Overrides: i.user} }
