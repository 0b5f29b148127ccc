package buildcontext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// Context is an open build context. It is safe for concurrent use but for
// Close.
type Context struct {
	rootfs.Reader
	host   string
	plain  bool
	ignore *ignore
	file   dockerfile
	temp   []string
	dir    *rootfs.Dir
}

// Open opens a context. The caller closes it when nothing reads from it any
// more, changes that were computed from it included.
func Open(ctx context.Context, opts Options) (_ *Context, err error) {
	c := &Context{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	kind, rest, err := parsePath(opts.Path)
	if err != nil {
		return nil, err
	}
	if kind == fromStdin && opts.Dockerfile == "-" && !opts.Named {
		return nil, errors.New("context and Dockerfile can't both be read from standard input")
	}
	o := opener{opts: opts, c: c}
	switch kind {
	case fromDir:
		c.host = rest
	case fromTar:
		err = o.tarFile(ctx, rest)
	case fromStdin:
		err = o.tar(ctx, "tar://stdin", o.stdin())
	case fromURL:
		err = o.url(ctx, rest)
	}
	if err != nil {
		return nil, err
	}
	if err := o.subPath(); err != nil {
		return nil, err
	}
	if err := o.openDir(kind); err != nil {
		return nil, err
	}
	if err := o.findDockerfile(ctx); err != nil {
		return nil, err
	}
	return c, o.layReaders(kind)
}

// HostPath is the directory of the host that holds the context's files, which
// shows what is ignored, too, and files with their own owners.
func (c *Context) HostPath() string { return c.host }

// Dir is the directory of the host that holds the context's files and no
// others; ok is false where something might be ignored. Files have their own
// owners there.
func (c *Context) Dir() (path string, ok bool) {
	return c.host, c.plain && c.ignore == nil
}

// Ignored tells whether an ignore file leaves a file out, and which one that
// is. name is relative to the context's root; it need not exist.
func (c *Context) Ignored(name string) (by string, ok bool) {
	if c.ignore == nil {
		return "", false
	}
	name = filepath.ToSlash(filepath.Join("/", name))[1:]
	if name == "" {
		return "", false
	}
	excluded, err := c.ignore.excluded(name)
	return c.ignore.file, err == nil && excluded
}

// Close removes what Open unpacked. It may be called again.
func (c *Context) Close() error {
	var errs []error
	if c.dir != nil {
		errs = append(errs, c.dir.Close())
		c.dir = nil
	}
	for _, path := range c.temp {
		errs = append(errs, removeAll(path))
	}
	c.temp = nil
	return errors.Join(errs...)
}

// removeAll is os.RemoveAll for trees with directories that even their owner
// may not write to.
func removeAll(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	// What can't be changed is reported by the second try.
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}

// origin is where a context comes from.
type origin int

const (
	fromDir origin = iota
	fromTar
	fromStdin
	fromURL
)

// parsePath tells the forms of Options.Path apart.
func parsePath(path string) (kind origin, rest string, err error) {
	scheme, rest, ok := strings.Cut(path, "://")
	switch {
	case path == "":
		return fromDir, ".", nil
	case !ok:
		return fromDir, path, nil
	case scheme == "dir":
		return fromDir, rest, nil
	case path == "tar://stdin":
		return fromStdin, "", nil
	case scheme == "tar":
		return fromTar, rest, nil
	case scheme == "http" || scheme == "https":
		if repo, _, _ := strings.Cut(rest, "#"); strings.HasSuffix(repo, ".git") {
			return 0, "", fmt.Errorf("context %s: git repositories can't be a context yet; clone it and give its directory", redact(path))
		}
		return fromURL, path, nil
	}
	return 0, "", fmt.Errorf("context %s: contexts of the form %s:// are not supported; a directory, tar://file, tar://stdin and the http(s) URL of a tar archive are", redact(path), scheme)
}

// opener carries out Open.
type opener struct {
	opts Options
	c    *Context
}

func (o *opener) stdin() io.Reader {
	if o.opts.Stdin == nil {
		return strings.NewReader("")
	}
	return o.opts.Stdin
}

// subPath moves the context to a directory inside. A symbolic link can't lead
// out of it.
func (o *opener) subPath() error {
	if o.opts.SubPath == "" {
		return nil
	}
	if err := checkDir(o.c.host); err != nil {
		return err
	}
	d, err := rootfs.OpenDir(o.c.host, rootfs.DirOptions{})
	if err != nil {
		return fmt.Errorf("context: %w", err)
	}
	defer d.Close()
	name, err := rootfs.Resolve(d, o.opts.SubPath, true)
	if err != nil {
		return fmt.Errorf("context sub-path %s: no such directory in the context; %s", o.opts.SubPath, listing(o.c.host))
	}
	o.c.host = filepath.Join(o.c.host, filepath.FromSlash(name))
	return nil
}

// openDir opens the directory that holds the context.
func (o *opener) openDir(kind origin) (err error) {
	if err := checkDir(o.c.host); err != nil {
		return err
	}
	o.c.dir, err = rootfs.OpenDir(o.c.host, rootfs.DirOptions{
		AllXattrs: true,
		// Only what was unpacked here was written by a rootfs.Root.
		Overrides: kind != fromDir,
	})
	if err != nil {
		return fmt.Errorf("context: %w", err)
	}
	o.c.host = o.c.dir.HostPath()
	o.c.plain = kind == fromDir
	return nil
}

// layReaders makes the reader of the context.
func (o *opener) layReaders(kind origin) error {
	var below rootfs.Reader = o.c.dir
	// BuildKit reads no ignore file of a context that it fetches itself.
	if kind != fromURL {
		ignore, err := o.readIgnore()
		if err != nil {
			return err
		}
		if ignore != nil {
			o.c.ignore = ignore
			below = newFiltered(below, ignore)
		}
	}
	// It also takes owners in such an archive at their word.
	o.c.Reader = &sent{below: below, owners: kind == fromURL, rootTime: o.opts.RootTime}
	return nil
}

// checkDir gives a missing context an error that helps to find it.
func checkDir(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("context %s: no such directory; %s", path, listing(filepath.Dir(filepath.Clean(path))))
	case err != nil:
		return fmt.Errorf("context: %w", err)
	case !info.IsDir():
		hint := ""
		if info.Mode().IsRegular() {
			hint = fmt.Sprintf("; an archive is written tar://%s", path)
		}
		return fmt.Errorf("context %s is not a directory%s", path, hint)
	}
	return nil
}

// listing says in a few words what a directory holds.
func listing(dir string) string {
	const most = 8
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Sprintf("%s can't be read either", dir)
	}
	var names []string
	for _, e := range entries {
		if len(names) == most {
			names = append(names, "…")
			break
		}
		name := e.Name()
		if e.IsDir() {
			name += "/"
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return fmt.Sprintf("%s is empty", dir)
	}
	return fmt.Sprintf("%s holds %s", dir, strings.Join(names, ", "))
}
