package rootfs

import (
	"errors"
	"io/fs"
	"path"
	"strings"
	"syscall"
)

// maxLinks is the number of symbolic links after which a path counts as a
// loop; it is what BuildKit allows, the kernel stops at 40.
const maxLinks = 255

// Resolve turns a path as users write it (absolute or not, with "..", through
// symbolic links) into a clean name of r. Links lead inside the tree only: an
// absolute target starts at the tree's root and ".." stops there. follow says
// whether a link in the last place is followed too; a trailing slash in name
// does not imply it.
//
// Everything on the way must exist. The error is an *fs.PathError with name as
// given, wrapping fs.ErrNotExist, syscall.ENOTDIR, or syscall.ELOOP after 255
// links.
func Resolve(r Reader, name string, follow bool) (string, error) {
	resolved, missing, err := resolve(r, name, follow)
	if err == nil && missing {
		err = fs.ErrNotExist
	}
	if err != nil {
		return "", pathError("resolve", name, err)
	}
	return resolved, nil
}

// ResolveMissing is Resolve for a file that is about to be made: what exists is
// resolved, links in the last place and dangling links included, and what is
// missing is taken as written. The result is the name at which the file would
// appear if its missing parents were made; exists tells whether it is there
// already. A parent that exists and is no directory is syscall.ENOTDIR.
func ResolveMissing(r Reader, name string) (resolved string, exists bool, err error) {
	resolved, missing, err := resolve(r, name, true)
	if err != nil {
		return "", false, pathError("resolve", name, err)
	}
	return resolved, !missing, nil
}

// resolve walks name component by component. Once one is missing the rest is
// joined without further look-ups, since nothing can lie below it.
func resolve(r Reader, name string, follow bool) (resolved string, missing bool, err error) {
	var done []string
	missingAt := -1 // length of done at which names stop existing
	rest := strings.Split(name, "/")
	links := 0
	onlyDir := true // what done names is a directory
	for len(rest) > 0 {
		c := rest[0]
		rest = rest[1:]
		switch c {
		case "", ".":
			continue
		case "..":
			if !onlyDir && missingAt < 0 {
				return "", false, syscall.ENOTDIR
			}
			if len(done) > 0 {
				done = done[:len(done)-1]
			}
			if missingAt >= 0 && len(done) < missingAt {
				missingAt = -1
			}
			onlyDir = true
			continue
		}
		if !onlyDir {
			return "", false, syscall.ENOTDIR
		}
		done = append(done, c)
		if missingAt >= 0 {
			continue
		}
		e, err := r.Lstat(strings.Join(done, "/"))
		if errors.Is(err, fs.ErrNotExist) {
			missingAt = len(done)
			continue
		}
		if err != nil {
			return "", false, err
		}
		if e.Kind != Symlink || (!follow && lastComponent(rest)) {
			onlyDir = e.Kind == Directory
			continue
		}
		if links++; links > maxLinks {
			return "", false, syscall.ELOOP
		}
		done = done[:len(done)-1]
		if strings.HasPrefix(e.Target, "/") {
			done = done[:0]
		}
		rest = append(strings.Split(e.Target, "/"), rest...)
	}
	if len(done) == 0 {
		return ".", false, nil
	}
	return strings.Join(done, "/"), missingAt >= 0, nil
}

func lastComponent(rest []string) bool {
	for _, c := range rest {
		if c != "" && c != "." {
			return false
		}
	}
	return true
}

// cleanName turns any slash-separated name into the form that readers use:
// relative to the root, which ".." never leaves, "." for the root itself.
func cleanName(name string) string {
	name = path.Clean("/" + name)[1:]
	if name == "" {
		return "."
	}
	return name
}

// validName reports whether name already has the form that readers use.
func validName(name string) bool {
	if name == "." {
		return true
	}
	if name == "" || name[0] == '/' || name[len(name)-1] == '/' || strings.IndexByte(name, 0) >= 0 {
		return false
	}
	for c := range strings.SplitSeq(name, "/") {
		if c == "" || c == "." || c == ".." {
			return false
		}
	}
	return true
}

// splitName separates the directory from the last component; "." is the
// directory of names at the top.
func splitName(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return ".", name
}

// joinName is the inverse of splitName.
func joinName(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}

// pathError wraps err for name unless it is about a path already; nil stays nil.
func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		if pe == err {
			return &fs.PathError{Op: op, Path: name, Err: pe.Err}
		}
		return err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
