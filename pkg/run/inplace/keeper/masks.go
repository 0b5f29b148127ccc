package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Masks are places in a tree that are not the tree's own: nothing there is
// saved, removed or seen as part of an image. A Masks is not changed after it
// was made.
type Masks struct {
	// at are the topmost places, above the directories they lie in; both by
	// clean names relative to the root. The value tells a mount.
	at    map[string]bool
	above map[string]bool
}

// NewMasks finds what is mounted below the directory root, and adds the paths
// of keep that lie there. Of a kept path with symbolic links, the links stay as
// well.
func NewMasks(root string, keep []string) (Masks, error) {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return Masks{}, fmt.Errorf("listing mounts: %w", err)
	}
	names := map[string]bool{}
	for _, info := range infos {
		if name, ok := below(root, info.Mountpoint); ok {
			names[name] = true
		}
	}
	for _, p := range keep {
		places, err := stations(p)
		if err != nil {
			return Masks{}, err
		}
		for _, place := range places {
			if name, ok := below(root, place); ok && !names[name] {
				names[name] = false
			}
		}
	}
	return makeMasks(names), nil
}

// makeMasks takes names, with true for a mount.
func makeMasks(names map[string]bool) Masks {
	m := Masks{at: map[string]bool{}, above: map[string]bool{".": true}}
	for name, mount := range names {
		covered := false
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := names[dir]; ok {
				covered = true
			}
		}
		if covered {
			continue
		}
		m.at[name] = mount
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			m.above[dir] = true
		}
	}
	return m
}

// below gives p's name relative to root, and false for root itself and what is
// elsewhere.
func below(root, p string) (string, bool) {
	rel, err := filepath.Rel(root, p)
	if err != nil || rel == "." || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	return filepath.ToSlash(rel), true
}

// stations lists the symbolic links that p leads through and where it ends.
func stations(p string) ([]string, error) {
	if !filepath.IsAbs(p) {
		return nil, fmt.Errorf("path %q to be kept is not absolute", p)
	}
	var list []string
	at, rest := "/", strings.Split(filepath.Clean(p), "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, part)
		target, err := os.Readlink(next)
		if err != nil {
			// Not a link, or not there: then the rest is taken as written.
			if errors.Is(err, fs.ErrPermission) {
				return nil, err
			}
			at = next
			continue
		}
		if links++; links > 40 {
			return nil, fmt.Errorf("path %q to be kept: too many symbolic links", p)
		}
		list = append(list, next)
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return append(list, at), nil
}

// Add returns the masks with one more place.
func (m Masks) Add(name string) Masks {
	names := map[string]bool{name: false}
	for n, mount := range m.at {
		names[n] = mount
	}
	return makeMasks(names)
}

// Names lists the topmost places in order.
func (m Masks) Names() []string {
	names := make([]string, 0, len(m.at))
	for n := range m.at {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Mount reports whether name is the topmost mount point of its place.
func (m Masks) Mount(name string) bool { return m.at[name] }

// Covering returns the place that name is, or lies in; "" when there is none.
func (m Masks) Covering(name string) string {
	for i, c := range name {
		if c == '/' {
			if _, ok := m.at[name[:i]]; ok {
				return name[:i]
			}
		}
	}
	if _, ok := m.at[name]; ok {
		return name
	}
	return ""
}

// Covers reports whether name is one of the places or lies in one.
func (m Masks) Covers(name string) bool {
	// Called for every file of a tree: most need no more than their first
	// component looked up.
	first, _, more := strings.Cut(name, "/")
	if _, ok := m.at[first]; ok {
		return true
	}
	if !more || !m.above[first] {
		return false
	}
	return m.Covering(name) != ""
}

// Above reports whether name is a directory that one of the places lies in, the
// root included. It can be neither removed nor replaced.
func (m Masks) Above(name string) bool { return m.above[name] }

// Directories lists those directories, outer ones first.
func (m Masks) Directories() []string {
	names := make([]string, 0, len(m.above))
	for n := range m.above {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		switch {
		case a == b:
			return 0
		case a == ".":
			return -1
		case b == ".":
			return 1
		}
		return strings.Compare(a, b)
	})
	return names
}
