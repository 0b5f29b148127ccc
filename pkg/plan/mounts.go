package plan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/util/system"
)

// mounts fills in what --mount leaves open. File systems come in the order of
// their targets, so that one inside another comes after it; then secrets and
// agents as written.
func (r *stageResolver) mounts(ins *instructions.RunCommand, sources []Source) ([]Mount, error) {
	var trees, others []Mount
	agents := 0
	for i, m := range instructions.GetMounts(ins) {
		out := Mount{
			Type:     string(m.Type),
			ReadOnly: m.ReadOnly,
			Required: m.Required,
			Mode:     number(m.Mode),
			UID:      number(m.UID),
			GID:      number(m.GID),
		}
		var err error
		switch m.Type {
		case instructions.MountTypeSecret:
			err = secret(&out, m)
			others = append(others, out)
		case instructions.MountTypeSSH:
			err = agent(&out, m, agents)
			agents++
			others = append(others, out)
		default:
			if m.Type == instructions.MountTypeTmpfs {
				out.Size = m.SizeLimit
			} else {
				r.content(&out, m, sources[i])
			}
			out.Target, err = r.mountTarget(m.Target)
			trees = append(trees, out)
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(trees, func(a, b Mount) int { return strings.Compare(a.Target, b.Target) })
	return append(trees, others...), nil
}

// content says what a bind or cache mount shows.
func (r *stageResolver) content(out *Mount, m *instructions.Mount, src Source) {
	out.Source = path.Join("/", m.Source)
	if m.From != "" || m.Type == instructions.MountTypeCache {
		out.From = src
	}
	if m.Type != instructions.MountTypeCache {
		return
	}
	out.Sharing = string(m.CacheSharing)
	if out.Sharing == "" {
		out.Sharing = string(instructions.MountSharingShared)
	}
	if out.ID = m.CacheID; out.ID == "" {
		out.ID = path.Clean(m.Target)
	}
	if ns := r.plan.buildArgs["BUILDKIT_CACHE_MOUNT_NS"]; ns != "" {
		out.ID = ns + "/" + out.ID
	}
	if out.Source != "/" {
		// The directory that is shown has an owner and a mode already.
		out.Mode, out.UID, out.GID = -1, -1, -1
	} else if out.Mode >= 0 || out.UID >= 0 || out.GID >= 0 {
		// BuildKit then starts with a new directory instead of from's root.
		out.From = Source{Scratch: true}
	}
}

func (r *stageResolver) mountTarget(target string) (string, error) {
	out := path.Clean(target)
	if !system.IsAbsolutePath(out) {
		out = path.Join("/", r.dir, target)
	}
	if out == "/" {
		return "", fmt.Errorf("invalid mount target %q", out)
	}
	return out, nil
}

func secret(out *Mount, m *instructions.Mount) error {
	out.ReadOnly = true
	out.ID = m.CacheID
	if m.Source != "" {
		out.ID = m.Source
	}
	if out.ID == "" {
		if m.Target == "" {
			return errors.New("one of source, target required")
		}
		out.ID = path.Base(m.Target)
	}
	if m.Env != nil {
		if out.Env = *m.Env; out.Env == "" {
			return fmt.Errorf("secret %s: env must not be empty", out.ID)
		}
	}
	if target := m.Target; target != "" {
		out.Target = path.Join("/", target)
	} else if m.Env == nil {
		out.Target = "/run/secrets/" + path.Base(out.ID)
	}
	if out.Target == "/" {
		return fmt.Errorf("invalid mount target %q", m.Target)
	}
	return nil
}

func agent(out *Mount, m *instructions.Mount, n int) error {
	if m.Source != "" {
		return errors.New("ssh does not support source")
	}
	if out.ID = m.CacheID; out.ID == "" {
		out.ID = "default"
	}
	out.Target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", n)
	if m.Target != "" {
		out.Target = path.Join("/", m.Target)
	}
	if out.Target == "/" {
		return fmt.Errorf("invalid mount target %q", m.Target)
	}
	return nil
}

// number is -1 for a value that is not given.
func number(v *uint64) int64 {
	if v == nil {
		return -1
	}
	return int64(*v)
}
