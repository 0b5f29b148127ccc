package build

import (
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/cooper-build/cooper/pkg/cache"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

func cacheSharing(text string) cache.Sharing {
	if text == "" {
		return cache.Shared
	}
	return cache.Sharing(text)
}

// fillDir copies what is below from in r into an empty directory of the host,
// whose own metadata become those of root.
func fillDir(ctx context.Context, dir string, root rootfs.Entry, r rootfs.Reader, from string) (err error) {
	to, err := rootfs.OpenRoot(dir, rootfs.RootOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	// A directory's time changes while it is filled, so it is set last.
	dirs := []rootfs.Entry{root}
	links := map[uint64]string{}
	err = rootfs.Walk(r, from, func(e rootfs.Entry) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		source := e.Path
		if e.Path = below(from, e.Path); e.Path == "." {
			return nil
		}
		if e.Kind == rootfs.Directory {
			dirs = append(dirs, e)
			return to.Write(e, nil)
		}
		if e.Link != 0 {
			if first, ok := links[e.Link]; ok {
				return to.Link(first, e.Path)
			}
			links[e.Link] = e.Path
		}
		if e.Kind != rootfs.Regular {
			return to.Write(e, nil)
		}
		content, err := r.Open(source)
		if err != nil {
			return err
		}
		defer content.Close()
		return to.Write(e, io.Reader(content))
	})
	for i := len(dirs) - 1; err == nil && i >= 0; i-- {
		err = to.Write(dirs[i], nil)
	}
	return err
}

// below gives the name relative to a directory that it lies in.
func below(dir, name string) string {
	if dir == "." {
		return name
	}
	if name == dir {
		return "."
	}
	return path.Clean(strings.TrimPrefix(name, dir+"/"))
}
