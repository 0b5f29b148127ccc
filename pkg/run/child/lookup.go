package child

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// groups are the supplementary groups with the group itself first.
func (s *Setup) groups() []uint32 {
	groups := []uint32{uint32(s.GID)}
	for _, g := range s.Groups {
		if g != s.GID {
			groups = append(groups, uint32(g))
		}
	}
	return groups
}

// asUser runs fn with the rights of the command's user to files. They belong to
// the thread, which the caller has locked.
func asUser(s Setup, fn func() (string, error)) (string, error) {
	if s.UID == 0 && s.GID == 0 || s.NoGroups {
		return fn()
	}
	before, err := unix.Getgroups()
	if err != nil {
		return "", err
	}
	old := make([]uint32, len(before))
	for i, g := range before {
		old[i] = uint32(g)
	}
	if err := threadGroups(s.groups()); err != nil {
		return "", fmt.Errorf("setting groups: %w", err)
	}
	gid, err := unix.SetfsgidRetGid(s.GID)
	if err != nil {
		return "", err
	}
	uid, err := unix.SetfsuidRetUid(s.UID)
	if err != nil {
		return "", err
	}
	path, err := fn()
	_, _ = unix.SetfsuidRetUid(uid)
	_, _ = unix.SetfsgidRetGid(gid)
	return path, errors.Join(err, threadGroups(old))
}

// threadGroups is setgroups(2) for this thread alone.
func threadGroups(groups []uint32) error {
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
		return errno
	}
	return nil
}

// lookPath finds a command in the PATH of env, as seen from the working
// directory.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", &execError{name, err.Error(), err}
		}
		return name, nil
	}
	search := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	for _, dir := range filepath.SplitList(search) {
		if dir == "" {
			dir = "."
		}
		candidate := dir + "/" + name
		if executable(candidate) == nil {
			return candidate, nil
		}
	}
	return "", &execError{name, "executable file not found in $PATH", fs.ErrNotExist}
}

// executable reports why a file can't be executed, nil if it can.
func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return fs.ErrPermission
	}
	err = unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		if info.Mode()&0o111 == 0 {
			return fs.ErrPermission
		}
		return nil
	}
	if errors.Is(err, unix.EACCES) {
		return fs.ErrPermission
	}
	return err
}

// execError says why a command can't be started.
type execError struct {
	name, text string
	cause      error
}

func (e *execError) Error() string { return fmt.Sprintf("exec: %q: %s", e.name, e.text) }
func (e *execError) Unwrap() error { return e.cause }
