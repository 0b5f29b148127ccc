package inplace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run/inplace/keeper"
)

// takeover is what must be given back.
type takeover struct {
	root  string
	masks keeper.Masks
	// keep are the paths of the masks, as a keeper wants them.
	keep   []string
	file   *os.File
	lock   *os.File
	keeper *keeper.Keeper
	// sockets are those among the container's own files by their path. A
	// socket is found by its inode, so they can be connected to through these.
	sockets map[string]*os.File
	warn    func(string)
	warned  map[string]bool
	before  processState
}

// takeOver puts the container's own files away. After an error they are where
// they were, unless the error says otherwise.
func (i *Isolation) takeOver(ctx context.Context) (_ *takeover, err error) {
	if _, err := os.Stat(i.options.Dir); err != nil {
		return nil, err
	}
	t := &takeover{root: i.root, sockets: map[string]*os.File{}, warn: i.options.Warn, warned: map[string]bool{}}
	if t.masks, err = keeper.NewMasks(i.root, append([]string{i.options.Dir}, i.options.Keep...)); err != nil {
		return nil, err
	}
	for _, name := range t.masks.Names() {
		t.keep = append(t.keep, filepath.Join(i.root, name))
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("putting the container's own files away: %w", err)
			t.release()
		}
	}()
	if t.lock, err = lockRoot(i.root); err != nil {
		return nil, err
	}
	if before := i.options.BeforeTakeover; before != nil {
		if err := before(); err != nil {
			return nil, err
		}
	}
	t.warnCredentials()
	if t.file, err = keeper.TempFile(i.options.Dir); err != nil {
		return nil, err
	}
	lossy, first := recordsOverrides(), ""
	each := func(e rootfs.Entry) {
		if e.Kind == rootfs.Socket {
			t.holdSocket(filepath.Join(i.root, e.Path))
		}
		device := e.Kind == rootfs.CharDevice || e.Kind == rootfs.BlockDevice
		if lossy && first == "" && (device || e.Xattrs[rootfs.XattrCapability] != "") {
			first = e.Path
		}
	}
	if err := keeper.Save(ctx, i.root, t.masks, t.file, each); err != nil {
		return nil, err
	}
	if first != "" {
		t.warn(fmt.Sprintf("/%s of this container will not be quite the same after the build: making devices or file capabilities is not allowed here", first))
	}
	if t.before, err = hideProcess(i.options.Dir); err != nil {
		return nil, err
	}
	if err := t.startKeeper(); err != nil {
		return nil, errors.Join(err, t.before.restore())
	}
	if err := keeper.Clear(i.root, t.masks); err != nil {
		return nil, errors.Join(err, t.giveBack())
	}
	return t, nil
}

func (t *takeover) startKeeper() (err error) {
	if t.keeper, err = keeper.Start(t.root, t.keep, t.file, t.lock); err != nil {
		return err
	}
	return t.keeper.Arm()
}

// ensureKeeper starts another keeper when a command has killed the first.
func (t *takeover) ensureKeeper() error {
	if t.keeper.Alive() {
		return nil
	}
	t.warn("the process that brings back the container's own files was killed by the command; there is a new one")
	_ = t.keeper.Dismiss()
	return t.startKeeper()
}

// giveBack brings the container's own files back.
func (t *takeover) giveBack() error {
	err := keeper.BringBack(t.root, t.keep, t.file)
	if err == nil {
		err = t.keeper.Dismiss()
	}
	// After an error the keeper stays, and tries again when this process ends.
	err = errors.Join(err, t.before.restore())
	t.release()
	return err
}

// release closes files.
func (t *takeover) release() {
	for _, f := range []*os.File{t.file, t.lock} {
		if f != nil {
			f.Close()
		}
	}
	for _, f := range t.sockets {
		f.Close()
	}
}

// lockRoot keeps a second build from taking over the same root.
func lockRoot(root string) (*os.File, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.New("another build in place is under way in this container")
	}
	return nil, fmt.Errorf("locking %s: %w", root, err)
}

// warnCredentials names files that should be hidden from commands and can't be.
func (t *takeover) warnCredentials() {
	candidates := []string{"/kaniko/.docker/config.json", "/root/.docker/config.json", "/var/run/secrets/kubernetes.io/serviceaccount/token"}
	for _, variable := range []string{"DOCKER_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AZURE_FEDERATED_TOKEN_FILE"} {
		if p := os.Getenv(variable); p != "" {
			if variable == "DOCKER_CONFIG" {
				p = filepath.Join(p, "config.json")
			}
			candidates = append(candidates, p)
		}
	}
	told := map[string]bool{}
	for _, p := range candidates {
		real, err := filepath.EvalSymlinks(p)
		if err != nil || told[real] {
			continue
		}
		told[real] = true
		name, err := filepath.Rel(t.root, real)
		if err == nil && t.masks.Covers(name) {
			t.warn(fmt.Sprintf("RUN can read %s, which is mounted into the container: isolation inplace hides files of the container's own only", p))
		}
	}
}

// holdSocket opens a socket that will be removed: an SSH agent may listen on it.
func (t *takeover) holdSocket(p string) {
	fd, err := unix.Open(p, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		t.sockets[p] = os.NewFile(uintptr(fd), p)
	}
}

// socket is the path by which a socket can be connected to that may be one of
// the container's own.
func (t *takeover) socket(p string) string {
	if f, ok := t.sockets[filepath.Clean(p)]; ok {
		return fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	return p
}

// processState is what hideProcess has changed.
type processState struct {
	dir       string
	mode      os.FileMode
	wd        string
	dumpable  int
	subreaper bool
}

// hideProcess keeps this process's memory, environment and open files from
// commands, and makes it the reaper of what they leave behind. Other users
// can't enter dir, the build's own directory, any more.
func hideProcess(dir string) (s processState, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return s, err
	}
	s.dir, s.mode = dir, info.Mode().Perm()
	if s.wd, err = os.Getwd(); err != nil {
		s.wd = ""
	}
	if s.dumpable, err = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return s, err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return s, fmt.Errorf("hiding this process: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return s, fmt.Errorf("becoming the reaper: %w", err)
	}
	s.subreaper = true
	return s, os.Chmod(dir, 0o700)
}

// restore undoes hideProcess. The working directory is entered anew, since it
// may be another one now.
func (s processState) restore() error {
	var errs []error
	if s.dumpable == 1 {
		errs = append(errs, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
	}
	if s.subreaper {
		errs = append(errs, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))
	}
	if s.wd != "" && !strings.HasSuffix(s.wd, " (deleted)") {
		errs = append(errs, os.Chdir(s.wd))
	}
	if err := os.Chmod(s.dir, s.mode); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
