package namespace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// tempPrefix begins the names of layer directories that are not complete.
const tempPrefix = ".unpacking-"

// unpackAll gives a directory for each layer, lowest first. Layers that were
// unpacked before are taken as they are, the others are unpacked at the same
// time. A layer that takes something from those below it, such as a directory
// that it does not bring, is unpacked again once these are there, under a name
// that stands for the whole chain.
//
// Calls take turns, so that stages with the same base unpack it once.
func (i *Isolation) unpackAll(ctx context.Context, all []v1.Layer) ([]string, error) {
	i.unpacking.Lock()
	defer i.unpacking.Unlock()
	store := filepath.Join(i.options.Layers, i.ids.key)
	if err := os.MkdirAll(store, 0o755); err != nil {
		return nil, fmt.Errorf("directory of unpacked layers: %w", err)
	}
	removeUnfinished(store)
	dirs := make([]string, len(all))
	names := make([]string, len(all))
	dependent := make([]bool, len(all))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	chain := sha256.New()
	chains := make([]string, len(all))
	for n, l := range all {
		id, err := l.DiffID()
		if err != nil {
			return nil, err
		}
		chain.Write([]byte(id.String()))
		chains[n] = "chain-" + hex.EncodeToString(chain.Sum(nil))
		names[n] = id.Hex
		dirs[n] = filepath.Join(store, id.Hex)
		if exists(filepath.Join(store, chains[n])) {
			dirs[n] = filepath.Join(store, chains[n])
			continue
		}
		if exists(dirs[n]) {
			continue
		}
		group.Go(func() error {
			var err error
			dependent[n], err = i.unpack(gctx, l, store, dirs[n], nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for n, l := range all {
		if !dependent[n] {
			continue
		}
		dirs[n] = filepath.Join(store, chains[n])
		if exists(dirs[n]) {
			continue
		}
		if err := i.unpackAbove(ctx, l, store, dirs[n], dirs[:n]); err != nil {
			return nil, err
		}
	}
	return compact(dirs), nil
}

// compact leaves out a directory of a stack that comes again further up: overlay
// refuses it, and whatever it holds or hides is held or hidden there.
func compact(dirs []string) []string {
	seen := make(map[string]bool, len(dirs))
	kept := make([]string, 0, len(dirs))
	for _, d := range slices.Backward(dirs) {
		if !seen[d] {
			seen[d] = true
			kept = append(kept, d)
		}
	}
	slices.Reverse(kept)
	return kept
}

// Base implements run.Unpacker.
func (i *Isolation) Base(ctx context.Context, all []v1.Layer) (rootfs.Reader, error) {
	if i.plain || len(all) == 0 {
		return nil, nil
	}
	dirs, err := i.unpackAll(ctx, all)
	if err != nil {
		return nil, err
	}
	u, err := rootfs.OpenUnion(dirs, i.ids.dirOptions())
	if err != nil {
		return nil, err
	}
	i.unpacking.Lock()
	defer i.unpacking.Unlock()
	i.bases = append(i.bases, u)
	return u, nil
}

// Close releases what Base has opened and removes what bind mounts have shown.
func (i *Isolation) Close() error {
	i.unpacking.Lock()
	defer i.unpacking.Unlock()
	errs := []error{i.sources.close()}
	for _, u := range i.bases {
		errs = append(errs, u.Close())
	}
	i.bases = nil
	return errors.Join(errs...)
}

// unpackAbove unpacks a layer that takes something from the ones below.
func (i *Isolation) unpackAbove(ctx context.Context, l v1.Layer, store, dir string, lowers []string) error {
	lower := rootfs.Reader(rootfs.NewTree())
	if len(lowers) > 0 {
		union, err := rootfs.OpenUnion(lowers, i.ids.dirOptions())
		if err != nil {
			return err
		}
		defer union.Close()
		lower = union
	}
	_, err := i.unpack(ctx, l, store, dir, lower)
	return err
}

// unpack unpacks one layer into dir, which appears when it is complete. With
// lower nil it does not appear, and dependent is true, when the layer turns out
// to need the ones below.
func (i *Isolation) unpack(ctx context.Context, l v1.Layer, store, dir string, lower rootfs.Reader) (dependent bool, err error) {
	temp, err := os.MkdirTemp(store, tempPrefix)
	if err != nil {
		return false, err
	}
	lock, err := os.Open(temp)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		defer lock.Close()
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if err != nil {
		return false, err
	}
	files := filepath.Join(temp, "fs")
	if err := os.Mkdir(files, 0o755); err != nil {
		return false, err
	}
	var implied atomic.Bool
	o := layers.UnpackOptions{Form: i.ids.form(), Lower: lower, Implied: func(string) { implied.Store(true) }}
	if err := i.unpackTo(ctx, l, files, o); err != nil {
		if lower == nil && implied.Load() {
			return true, nil // it may well work above the others
		}
		return false, err
	}
	if lower == nil && implied.Load() {
		return true, nil
	}
	err = os.Rename(files, dir)
	if errors.Is(err, os.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return false, nil // another build was faster
	}
	return false, err
}

func (i *Isolation) unpackTo(ctx context.Context, l v1.Layer, dir string, o layers.UnpackOptions) (err error) {
	root, err := rootfs.OpenRoot(dir, i.ids.rootOptions())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	tar, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer tar.Close()
	if err := layers.Unpack(ctx, tar, root, o); err != nil {
		id, _ := l.DiffID()
		return fmt.Errorf("unpacking layer %s: %w", id, err)
	}
	return nil
}

// removeUnfinished removes what builds that died were unpacking.
func removeUnfinished(store string) {
	names, err := os.ReadDir(store)
	if err != nil {
		return
	}
	for _, n := range names {
		if !strings.HasPrefix(n.Name(), tempPrefix) {
			continue
		}
		path := filepath.Join(store, n.Name())
		// A directory is made and locked in two steps; one without content is
		// between them.
		if !exists(filepath.Join(path, "fs")) {
			continue
		}
		dir, err := os.Open(path)
		if err != nil {
			continue
		}
		if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		dir.Close()
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
