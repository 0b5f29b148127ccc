package child

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// enter makes the root file system and moves into it. The returned stubs are
// what must be taken away once the command has ended.
func (r *Root) enter(setup *Setup) (*stubs, error) {
	// Nothing that is mounted here may show outside, nor the other way round.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", r.Scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return nil, fmt.Errorf("mounting a tmpfs: %w", err)
	}
	top := filepath.Join(r.Scratch, "root")
	if err := os.Mkdir(top, 0o755); err != nil {
		return nil, err
	}
	if err := r.mountTree(top); err != nil {
		return nil, err
	}
	s := &stubs{}
	root, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	place := &placer{root: root, stubs: s, scratch: r.Scratch, userXattr: r.UserXattr}
	if setup.Dir != "" {
		// The working directory is made in the image, not in what is mounted
		// over it, and belongs to the user, as with BuildKit.
		made := &stubs{}
		if err := made.make(root, setup.Dir, true); err != nil {
			return nil, fmt.Errorf("working directory: %w", err)
		}
		if err := made.chown(root, setup.UID, setup.GID); err != nil {
			return nil, fmt.Errorf("working directory: %w", err)
		}
	}
	if err := place.system(r); err != nil {
		return nil, errors.Join(err, s.undo(root))
	}
	for i := range r.Mounts {
		if err := place.mount(&r.Mounts[i]); err != nil {
			return nil, errors.Join(fmt.Errorf("mount %s: %w", r.Mounts[i].Target, err), s.undo(root))
		}
	}
	if err := pivot(top); err != nil {
		return nil, err
	}
	return s, nil
}

// mountTree mounts the image's tree at top.
func (r *Root) mountTree(top string) error {
	if len(r.Lowers) == 0 {
		if err := unix.Mount(r.Upper, top, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("binding %s: %w", r.Upper, err)
		}
		return nil
	}
	return overlay(top, r.Lowers, r.Upper, r.Work, r.UserXattr)
}

// overlay mounts directories, lowest first. The mount API of Linux 6.8 takes
// one directory at a time; mount(2) takes a page of options at most, which
// short relative names make the most of.
func overlay(top string, lowers []string, upper, work string, userXattr bool) error {
	err := overlayFS(top, lowers, upper, work, userXattr)
	if err == nil {
		return nil
	}
	if old := overlayOld(top, lowers, upper, work, userXattr); old != nil {
		return fmt.Errorf("mounting overlay of %d directories: %w; %w", len(lowers), err, old)
	}
	return nil
}

func overlayFS(top string, lowers []string, upper, work string, userXattr bool) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	set := func(key, value string) {
		if err == nil {
			if err = unix.FsconfigSetString(fs, key, value); err != nil {
				err = fmt.Errorf("fsconfig %s: %w", key, err)
			}
		}
	}
	set("source", "overlay")
	for i := len(lowers) - 1; i >= 0; i-- {
		set("lowerdir+", lowers[i])
	}
	if upper != "" {
		set("upperdir", upper)
		set("workdir", work)
		if err == nil {
			// Kernels before 5.10 don't know it, and do without.
			_ = unix.FsconfigSetFlag(fs, volatile)
		}
	}
	set("index", "off")
	if userXattr {
		// This turns the other two off, and takes no word on them.
		if err == nil {
			err = unix.FsconfigSetFlag(fs, "userxattr")
		}
	} else {
		set("redirect_dir", "off")
		set("metacopy", "off")
	}
	if err != nil {
		return err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return os.NewSyscallError("fsconfig create", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mount)
	return os.NewSyscallError("move_mount", unix.MoveMount(mount, "", unix.AT_FDCWD, top, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// volatile lets an overlay leave out all syncing of its upper directory: what a
// command asks for, as package managers do after every file, and that of the
// whole file system when the overlay is unmounted. A build that did not end has
// no use for the directory, so nothing is lost with the power.
const volatile = "volatile"

func overlayOld(top string, lowers []string, upper, work string, userXattr bool) error {
	links := filepath.Join(filepath.Dir(top), "l")
	if err := os.Mkdir(links, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	names := make([]string, 0, len(lowers))
	for i := len(lowers) - 1; i >= 0; i-- {
		name := strconv.Itoa(i)
		if err := os.Symlink(lowers[i], filepath.Join(links, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		names = append(names, name)
	}
	options := "lowerdir=" + strings.Join(names, ":")
	extra := ""
	if upper != "" {
		options += ",upperdir=" + upper + ",workdir=" + work
		extra = "," + volatile
	}
	options += ",index=off"
	if userXattr {
		options += ",userxattr"
	} else {
		options += ",redirect_dir=off"
	}
	before, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := os.Chdir(links); err != nil {
		return err
	}
	err = unix.Mount("overlay", top, "overlay", 0, options+extra)
	if err == unix.EINVAL {
		err = unix.Mount("overlay", top, "overlay", 0, options)
	}
	return errors.Join(os.NewSyscallError("mount", err), os.Chdir(before))
}

// pivot makes top the root and takes the old one away.
func pivot(top string) error {
	if err := os.Chdir(top); err != nil {
		return err
	}
	// Stacking the old root on the new one needs no directory for it inside.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detaching the old root: %w", err)
	}
	return os.Chdir("/")
}
