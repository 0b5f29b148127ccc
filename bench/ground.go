package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/integration/machine"
)

// ground is what one build stands on: a machine with daemons and registry of its
// own, in a file system of its own. On a shared one, builds would pay for each
// other: ext4 gives no inode away again for minutes after its file was removed,
// and searches past all of those whenever it makes a file.
type ground struct {
	*machine.Machine
	dir     string
	mounted bool
}

const groundSize = 24 << 30 // sparse

// newGround makes one below dir. Where it can't mount, it is a plain directory.
func newGround(ctx context.Context, dir string) (_ *ground, err error) {
	g := &ground{dir: filepath.Join(dir, "g")}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	image := g.dir + ".ext4"
	if err := makeSparse(image, groundSize); err != nil {
		return nil, err
	}
	// Nothing is initialised in the background.
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", image},
		{"mount", "-o", "loop,noinit_itable", image, g.dir},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "builds share a file system: %s: %v: %s\n", args[0], err, out)
			break
		} else if args[0] == "mount" {
			g.mounted = true
		}
	}
	// What is unlinked while it is mounted goes away with the mount.
	if err := os.Remove(image); err != nil {
		return nil, err
	}
	if err := os.Setenv("TMPDIR", g.dir); err != nil {
		return nil, err
	}
	if g.Machine, err = machine.New(); err != nil {
		return nil, err
	}
	reg, err := g.Registry(ctx)
	if err != nil {
		return nil, err
	}
	if err := reg.Need(ctx, "debian", "node"); err != nil {
		return nil, err
	}
	// What was written so far is not for the build to wait for.
	unix.Sync()
	return g, nil
}

func makeSparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func (g *ground) close() error {
	var errs []error
	if g.Machine != nil {
		errs = append(errs, g.Machine.Close())
	}
	if g.mounted {
		if err := unix.Unmount(g.dir, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", g.dir, err))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(g.dir))...)
}
