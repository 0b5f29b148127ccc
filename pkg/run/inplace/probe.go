package inplace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/run"
	"github.com/cooper-build/cooper/pkg/run/child"
	"github.com/cooper-build/cooper/pkg/run/inplace/keeper"
)

// needed are the capabilities without which an image's files can't be made, or
// commands of other users not be started and ended.
var needed = [...]capability.Cap{
	capability.CAP_CHOWN, capability.CAP_DAC_OVERRIDE, capability.CAP_FOWNER, capability.CAP_FSETID,
	capability.CAP_SETUID, capability.CAP_SETGID, capability.CAP_KILL,
}

// Probe implements run.Isolation.
func (i *Isolation) Probe(ctx context.Context) (run.Ability, error) {
	refuse := func(format string, args ...any) (run.Ability, error) {
		return run.Ability{Reason: fmt.Sprintf(format, args...)}, nil
	}
	if !child.Ready() || !keeper.Ready() {
		return refuse("the program did not call run.Init at the start of main")
	}
	if os.Geteuid() != 0 {
		return refuse("it needs root, this is user %d", os.Geteuid())
	}
	caps, err := loadCaps()
	if err != nil {
		return run.Ability{}, fmt.Errorf("probing isolation inplace: %w", err)
	}
	var missing []string
	for _, c := range needed {
		if !caps.Get(capability.EFFECTIVE, c) {
			missing = append(missing, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	if len(missing) > 0 {
		return refuse("root lacks %s", strings.Join(missing, ", "))
	}
	where, contained := container()
	switch {
	case !contained && !i.options.Force:
		return refuse("no sign of a container, and it would replace this machine's files (--force does it nevertheless)")
	case !contained:
		where = "no container, forced"
	}
	if err := unix.Access("/proc/self/exe", unix.X_OK); err != nil {
		return refuse("/proc is not mounted: %v", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(i.root, &st); err == nil && st.Flags&unix.ST_RDONLY != 0 {
		return refuse("the container's root is read-only")
	}
	ability := run.Ability{
		OK:     true,
		Reason: "root in a container (" + where + "), whose own files give way to the image's",
		Lacks: map[run.Feature]string{
			run.TmpfsSize:        "nothing can be mounted, so the size has no limit; leave size= out",
			run.SecurityInsecure: "commands can't have more privileges than the container",
		},
	}
	outcome, err := child.Run(ctx, child.NewNetwork, child.Setup{Probe: true, Loopback: true}, nil, nil)
	if err == nil && outcome.Error != "" {
		err = errors.New(outcome.Error)
	}
	if err != nil {
		ability.Lacks[run.NetworkNone] = fmt.Sprintf("this container may not make a network namespace (%v)", err)
	}
	return ability, ctx.Err()
}

func loadCaps() (capability.Capabilities, error) {
	caps, err := capability.NewPid2(0)
	if err != nil {
		return nil, err
	}
	return caps, caps.Load()
}

// container tells by what this process is recognised as being in a container.
func container() (string, bool) {
	for _, f := range []struct{ path, kind string }{
		{"/.dockerenv", "docker"},
		{"/run/.containerenv", "podman"},
		{"/run/systemd/container", "systemd"},
		{"/var/run/secrets/kubernetes.io/serviceaccount", "kubernetes"},
		{"/__runsc_containers__", "gvisor"},
		{"/proc/vz", "openvz"},
	} {
		if _, err := os.Lstat(f.path); err == nil {
			return f.kind, true
		}
	}
	if os.Getenv("container") != "" {
		return "container=" + os.Getenv("container"), true
	}
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return "kubernetes", true
	}
	if text, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for _, word := range []string{"docker", "kubepods", "containerd", "libpod", "lxc", "garden", "ecs/", "buildkit", "actions_job"} {
			if strings.Contains(string(text), word) {
				return "cgroup " + strings.TrimSuffix(word, "/"), true
			}
		}
	}
	if infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter("/")); err == nil && len(infos) > 0 {
		if t := infos[len(infos)-1].FSType; t == "overlay" || t == "aufs" {
			return "root on " + t, true
		}
	}
	return "", false
}

// recordsOverrides reports whether files that can't be made here are made as
// something else: devices and file capabilities, without the capabilities for
// them or in a user namespace.
func recordsOverrides() bool {
	caps, err := loadCaps()
	if err != nil || !caps.Get(capability.EFFECTIVE, capability.CAP_MKNOD) || !caps.Get(capability.EFFECTIVE, capability.CAP_SETFCAP) {
		return true
	}
	ids, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(ids))
	return err != nil || len(fields) != 3 || fields[2] != "4294967295"
}
