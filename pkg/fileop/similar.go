package fileop

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// Similar gives the paths, absolute and the most likely first, that may have
// been meant by a source that does not exist: those that differ in the one part
// at which the path stops to exist, and there by a few letters or in case. It
// gives at most three, and none when src can't be read.
func (e *NotFoundError) Similar(src rootfs.Reader) []string {
	parts := strings.Split(strings.Trim(e.Path, "/"), "/")
	for i, part := range parts {
		dir := "/" + strings.Join(parts[:i], "/")
		if _, err := rootfs.Resolve(src, dir+"/"+part, true); err == nil {
			continue
		}
		name, err := rootfs.Resolve(src, dir, true)
		if err != nil {
			return nil
		}
		entries, err := src.ReadDir(name)
		if err != nil {
			return nil
		}
		return pick(entries, strings.TrimSuffix(dir, "/"), part, strings.Join(parts[i+1:], "/"), func(path string) bool {
			_, err := rootfs.Resolve(src, path, true)
			return err == nil
		})
	}
	return nil
}

// pick finds the names next to part among which the rest of the path exists.
func pick(entries []rootfs.Entry, dir, part, rest string, exists func(string) bool) []string {
	type candidate struct {
		path     string
		distance int
	}
	var found []candidate
	for _, e := range entries {
		_, base := splitName(e.Path)
		d := distance(strings.ToLower(base), strings.ToLower(part))
		if base == part || d > 2 || d >= max(len(base), len(part)) {
			continue
		}
		path := dir + "/" + base
		if rest != "" {
			path += "/" + rest
		}
		if exists(path) {
			found = append(found, candidate{path, d})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	var paths []string
	for _, c := range found[:min(len(found), 3)] {
		paths = append(paths, c.path)
	}
	return paths
}

// distance is how many letters have to be put in, left out or replaced.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
