package fileop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// hasWildcards tells whether a path is a pattern. A backslash hides the
// character after it, but no backslash is taken away from a path that is none:
// BuildKit does not either.
func hasWildcards(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// splitWildcards separates the parts of a clean absolute path before the first
// that has wildcards from the rest.
func splitWildcards(p string) (dir, pattern string) {
	for i := 0; i < len(p); {
		end := len(p)
		if j := strings.IndexByte(p[i+1:], '/'); j >= 0 {
			end = i + 1 + j
		}
		if hasWildcards(p[i:end]) {
			return path.Join("/", p[:i]), p[i+1:]
		}
		i = end
	}
	return p, ""
}

// matchWildcards returns the files that a source with wildcards means, as
// absolute paths in the order of a walk; none when nothing matches. Symbolic
// links are followed before the first wildcard, not after it. A source without
// wildcards means itself.
func matchWildcards(ctx context.Context, src rootfs.Reader, a action) ([]string, error) {
	dir, pattern := splitWildcards(a.path)
	if pattern == "" {
		return []string{a.path}, nil
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("%w: %s", err, pattern)
	}
	root, err := a.resolve(src, dir)
	if err != nil {
		return nil, err
	}
	prefix := ""
	if root != "." {
		prefix = root + "/"
	}
	// A class may match a slash, so with one a pattern's depth says nothing.
	depth := strings.Count(pattern, "/")
	if strings.Contains(pattern, "[") {
		depth = -1
	}
	var matches []string
	err = rootfs.Walk(src, root, func(e rootfs.Entry) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e.Path == root {
			return nil
		}
		rel := strings.TrimPrefix(e.Path, prefix)
		if ok, _ := path.Match(pattern, rel); ok {
			matches = append(matches, "/"+e.Path)
			return skipDir(e)
		}
		if depth < 0 || !e.IsDir() {
			return nil
		}
		level := strings.Count(rel, "/")
		if level >= depth {
			return fs.SkipDir
		}
		if ok, _ := path.Match(firstParts(pattern, level+1), rel); !ok {
			return fs.SkipDir
		}
		return nil
	})
	return matches, err
}

// skipDir leaves out what a directory holds. For other files fs.SkipDir would
// mean the rest of their directory.
func skipDir(e rootfs.Entry) error {
	if e.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// firstParts are the first n parts of a path.
func firstParts(p string, n int) string {
	for i := range len(p) {
		if p[i] == '/' {
			if n--; n == 0 {
				return p[:i]
			}
		}
	}
	return p
}

func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// cleanPath makes a path absolute and clean and keeps a slash at its end.
func cleanPath(p string) string {
	clean := path.Join("/", p)
	if clean != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")) {
		clean += "/"
	}
	return clean
}
