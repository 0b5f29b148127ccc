package child

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// placer puts mounts into a root that this process has not entered yet.
// Targets are resolved inside the root by the kernel, so a symbolic link in
// the image can't lead a mount out of it.
type placer struct {
	root    int
	stubs   *stubs
	scratch string
	files   int
	// userXattr is how overlays are mounted.
	userXattr bool
}

// target opens a mount's target, which is made, as a directory or an empty
// file, where it is missing.
func (p *placer) target(name string, dir bool) (fd int, err error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err = openat2(p.root, name, how)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if err := p.stubs.make(p.root, name, dir); err != nil {
		return -1, err
	}
	return openat2(p.root, name, how)
}

// at runs mount with a path that names the target.
func (p *placer) at(name string, dir bool, mount func(path string) error) error {
	fd, err := p.target(name, dir)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd)
	p.stubs.mounted = append(p.stubs.mounted, name)
	return mount("/proc/self/fd/" + strconv.Itoa(fd))
}

// system mounts what every command finds: /proc, /sys and /dev. Where the image
// has no such directory the one that is made for it stays, as it does in images
// that BuildKit builds.
func (p *placer) system(r *Root) error {
	p = &placer{root: p.root, stubs: &stubs{}, scratch: p.scratch}
	err := p.at("/proc", true, func(at string) error {
		err := unix.Mount("proc", at, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		if err == nil {
			return nil
		}
		// Where the outer /proc is masked, a new one is refused.
		if bindErr := unix.Mount("/proc", at, "", unix.MS_BIND|unix.MS_REC, ""); bindErr != nil {
			return fmt.Errorf("mounting proc: %w", errors.Join(err, bindErr))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !r.Privileged {
		p.maskProc()
	}
	err = p.at("/sys", true, func(at string) error {
		err := unix.Mount("sysfs", at, "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		if err == nil {
			p.cgroups()
			return nil
		}
		if bindErr := unix.Mount("/sys", at, "", unix.MS_BIND|unix.MS_REC, ""); bindErr != nil {
			return fmt.Errorf("mounting sysfs: %w", errors.Join(err, bindErr))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !r.Privileged {
		p.mask("/sys/firmware", "/sys/devices/virtual/powercap")
		if err := p.readOnly("/sys"); err != nil {
			return err
		}
	}
	return p.dev(r)
}

// dev makes a /dev with the devices of an ordinary container.
func (p *placer) dev(r *Root) error {
	err := p.at("/dev", true, func(at string) error {
		return unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=65536k")
	})
	if err != nil {
		return fmt.Errorf("mounting /dev: %w", err)
	}
	inner := &stubs{} // all of it is on the tmpfs and goes with it
	sub := &placer{root: p.root, stubs: inner, scratch: p.scratch}
	names := []string{"null", "zero", "full", "random", "urandom", "tty"}
	if r.Privileged {
		names = append(names, "kmsg", "cuse", "fuse", "kvm", "net/tun", "loop-control")
		loops, _ := filepath.Glob("/dev/loop[0-9]*")
		for _, l := range loops {
			names = append(names, filepath.Base(l))
		}
	}
	for _, name := range names {
		host := "/dev/" + name
		if _, err := os.Stat(host); err != nil {
			continue
		}
		err := sub.at(host, false, func(at string) error { return unix.Mount(host, at, "", unix.MS_BIND, "") })
		if err != nil {
			return fmt.Errorf("device %s: %w", host, err)
		}
	}
	for _, m := range []struct {
		name, kind, options string
		flags               uintptr
	}{
		{"/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"/dev/shm", "tmpfs", "mode=1777,size=" + strconv.FormatInt(r.ShmSize, 10), unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"/dev/mqueue", "mqueue", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	} {
		err := sub.at(m.name, true, func(at string) error {
			err := unix.Mount(m.kind, at, m.kind, m.flags, m.options)
			if m.kind == "devpts" && err != nil {
				// The group of terminals may not exist in this user namespace.
				err = unix.Mount(m.kind, at, m.kind, m.flags, strings.TrimSuffix(m.options, ",gid=5"))
			}
			return err
		})
		if err != nil && m.kind != "mqueue" {
			return fmt.Errorf("mounting %s: %w", m.name, err)
		}
	}
	dev, err := openat2(p.root, "/dev", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	links := map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
		"stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	}
	if _, err := os.Stat("/proc/kcore"); err == nil {
		links["core"] = "/proc/kcore"
	}
	for name, to := range links {
		if err := unix.Symlinkat(to, dev, name); err != nil {
			return fmt.Errorf("/dev/%s: %w", name, err)
		}
	}
	return nil
}

// cgroups shows the control groups, where programs look for the limits of
// their memory and processors. Without them the command has to do.
func (p *placer) cgroups() {
	p.existing("/sys/fs/cgroup", func(at string) error {
		var st unix.Statfs_t
		if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
			return err
		}
		if st.Type == unix.CGROUP2_SUPER_MAGIC {
			err := unix.Mount("cgroup2", at, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
			if err == nil {
				return nil
			}
		}
		return unix.Mount("/sys/fs/cgroup", at, "", unix.MS_BIND|unix.MS_REC, "")
	})
}

// maskProc hides what a container should not see of the kernel. It is as much
// as the machine allows: a part that can't be hidden stays.
func (p *placer) maskProc() {
	p.mask("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats")
	for _, name := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"} {
		p.existing(name, func(at string) error {
			return unix.Mount(at, at, "", unix.MS_BIND|unix.MS_REC, "")
		})
		_ = p.readOnly(name) // a name that is not there
	}
}

// mask puts nothing over files and directories that exist.
func (p *placer) mask(names ...string) {
	for _, name := range names {
		p.existing(name, func(at string) error {
			if info, err := os.Stat(at); err == nil && info.IsDir() {
				return unix.Mount("tmpfs", at, "tmpfs", unix.MS_RDONLY, "size=0k")
			}
			return unix.Mount("/dev/null", at, "", unix.MS_BIND, "")
		})
	}
}

// existing runs mount for a target that is there; what fails is left as it is.
func (p *placer) existing(name string, mount func(at string) error) {
	fd, err := openat2(p.root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = mount("/proc/self/fd/" + strconv.Itoa(fd))
}

// mount adds one mount of the command.
func (p *placer) mount(m *Mount) error {
	switch {
	case m.Tmpfs:
		// A directory of the image lends its mode, as with runc.
		options := "mode=1777"
		if fd, err := openIn(p.root, m.Target, unix.O_PATH); err == nil {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil {
				options = "mode=" + strconv.FormatUint(uint64(st.Mode&0o7777), 8)
			}
			unix.Close(fd)
		}
		return p.at(m.Target, true, func(at string) error {
			if m.Size > 0 {
				options += ",size=" + strconv.FormatInt(m.Size, 10)
			}
			flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
			if m.ReadOnly {
				flags |= unix.MS_RDONLY
			}
			return unix.Mount("tmpfs", at, "tmpfs", flags, options)
		})
	case m.IsFile:
		return p.file(m)
	case len(m.Lowers) > 0:
		return p.merged(m)
	}
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	if err := p.at(m.Target, info.IsDir(), func(at string) error {
		return unix.Mount(m.Source, at, "", unix.MS_BIND|unix.MS_REC, "")
	}); err != nil {
		return err
	}
	if m.ReadOnly {
		return p.readOnly(m.Target)
	}
	return nil
}

// file shows bytes as a file. They lie on the scratch tmpfs, which nothing but
// this process can reach, and in no other file system.
func (p *placer) file(m *Mount) error {
	p.files++
	source := filepath.Join(p.scratch, "file"+strconv.Itoa(p.files))
	if err := os.WriteFile(source, m.Data, 0o600); err != nil {
		return err
	}
	if err := os.Lchown(source, m.UID, m.GID); err != nil {
		return err
	}
	if err := unix.Chmod(source, m.Mode); err != nil {
		return err
	}
	if err := p.at(m.Target, false, func(at string) error {
		return unix.Mount(source, at, "", unix.MS_BIND, "")
	}); err != nil {
		return err
	}
	return p.readOnly(m.Target)
}

// merged shows directories as overlay merges them.
func (p *placer) merged(m *Mount) error {
	p.files++
	top := filepath.Join(p.scratch, "merged"+strconv.Itoa(p.files), "root")
	if err := os.MkdirAll(top, 0o755); err != nil {
		return err
	}
	lowers := m.Lowers
	if m.Upper == "" && len(lowers) == 1 {
		// Overlay refuses a single directory.
		empty := filepath.Join(filepath.Dir(top), "empty")
		if err := os.Mkdir(empty, 0o755); err != nil {
			return err
		}
		lowers = []string{empty, lowers[0]}
	}
	if err := overlay(top, lowers, m.Upper, m.Work, p.userXattr); err != nil {
		return err
	}
	return p.mount(&Mount{Target: m.Target, Source: path.Join(top, m.Source), ReadOnly: m.ReadOnly})
}

// readOnly makes the mount at name, and those below it, read-only.
func (p *placer) readOnly(name string) error {
	fd, err := openat2(p.root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr)
	if err == nil {
		return nil
	}
	// Before Linux 5.12: flags that are locked in a user namespace must be
	// repeated.
	var st unix.Statfs_t
	at := "/proc/self/fd/" + strconv.Itoa(fd)
	if statErr := unix.Statfs(at, &st); statErr != nil {
		return errors.Join(err, statErr)
	}
	flags := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME)
	if oldErr := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, ""); oldErr != nil {
		return fmt.Errorf("making %s read-only: %w", name, errors.Join(err, oldErr))
	}
	return nil
}
