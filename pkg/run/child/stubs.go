package child

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// stubs are the mount points that had to be made in the image's tree. Once
// their mounts are gone they are removed, if the command has left them empty,
// so that nothing of them reaches a layer. Taking them away does not change the
// times of the directories they were made in; making them did, and so may have
// what the command did there.
type stubs struct {
	made []stub
	// mounted are the targets of mounts, in order.
	mounted []string
}

type stub struct {
	name string
	dir  bool
}

// make creates name with its parents below root.
func (s *stubs) make(root int, name string, dir bool) error {
	parts := strings.Split(strings.Trim(path.Clean(name), "/"), "/")
	parent := "/"
	for i, part := range parts {
		current := path.Join(parent, part)
		fd, err := openIn(root, current, unix.O_PATH)
		if err == nil {
			unix.Close(fd)
			parent = current
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := s.makeOne(root, parent, part, dir || i < len(parts)-1); err != nil {
			return fmt.Errorf("making %s: %w", current, err)
		}
		parent = current
	}
	return nil
}

func (s *stubs) makeOne(root int, parent, base string, dir bool) error {
	fd, err := openIn(root, parent, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if dir {
		err = unix.Mkdirat(fd, base, 0o755)
	} else {
		var file int
		if file, err = unix.Openat(fd, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644); err == nil {
			unix.Close(file)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		// A dangling symbolic link is in the way; what it points at is made.
		return s.throughLink(root, fd, parent, base, dir)
	}
	if err != nil {
		return err
	}
	s.made = append(s.made, stub{path.Join(parent, base), dir})
	return nil
}

// throughLink makes the target of a dangling link.
func (s *stubs) throughLink(root, fd int, parent, base string, dir bool) error {
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(fd, base, buf)
	if err != nil {
		return err
	}
	to := string(buf[:n])
	if !path.IsAbs(to) {
		to = path.Join(parent, to)
	}
	return s.make(root, to, dir)
}

func openIn(root int, name string, flags uint64) (int, error) {
	return openat2(root, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
}

// chown gives what was made an owner.
func (s *stubs) chown(root, uid, gid int) error {
	for _, t := range s.made {
		fd, err := openIn(root, t.name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Fchown(fd, uid, gid)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("owner of %s: %w", t.name, err)
		}
	}
	return nil
}

// remove unmounts everything and takes the stubs away. It is called inside the
// root.
func (s *stubs) remove() error {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	return s.undo(root)
}

func (s *stubs) undo(root int) error {
	if len(s.made) == 0 {
		return nil
	}
	for i := len(s.mounted) - 1; i >= 0; i-- {
		fd, err := openIn(root, s.mounted[i], unix.O_PATH)
		if err != nil {
			continue
		}
		// The command may have put anything in the place of its parent; a mount
		// that is not there any more needs no unmounting.
		_ = unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", fd), unix.MNT_DETACH)
		unix.Close(fd)
	}
	var errs []error
	for i := len(s.made) - 1; i >= 0; i-- {
		errs = append(errs, s.made[i].remove(root))
	}
	return errors.Join(errs...)
}

// remove takes one stub away unless the command has put something there.
func (t stub) remove(root int) error {
	parent, err := openIn(root, path.Dir(t.name), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil // the command removed the directory, and the stub with it
	}
	defer unix.Close(parent)
	var before unix.Stat_t
	if err := unix.Fstat(parent, &before); err != nil {
		return fmt.Errorf("removing mount point %s: %w", t.name, err)
	}
	base, flags := path.Base(t.name), 0
	if t.dir {
		flags = unix.AT_REMOVEDIR
	} else {
		var st unix.Stat_t
		if unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Size != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return nil
		}
	}
	err = unix.Unlinkat(parent, base, flags)
	switch {
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR):
		return nil
	case err != nil:
		return fmt.Errorf("removing mount point %s: %w", t.name, err)
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, before.Mtim}
	if err := unix.UtimesNanoAt(parent, "", times, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("restoring the time of %s: %w", path.Dir(t.name), err)
	}
	return nil
}
