package fileop

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// Workdir makes a directory and its missing parents, 0755 and owned by user, as
// WORKDIR does. path is absolute; symbolic links in it are followed. user is
// USER's argument, "" for root, and is looked up as --chown is: unknown names
// count as 0. Times are now.
//
// No change is returned where the directory exists.
func Workdir(ctx context.Context, dst rootfs.Reader, path, user string, now time.Time) ([]snapshot.Change, error) {
	changes, err := workdir(ctx, dst, path, user, now)
	if err != nil {
		return nil, fmt.Errorf("make directory %s: %w", path, err)
	}
	return changes, nil
}

func workdir(ctx context.Context, dst rootfs.Reader, path, user string, now time.Time) ([]snapshot.Change, error) {
	o, err := lookupOwner(dst, user)
	if err != nil {
		return nil, err
	}
	v, err := newView(dst, now)
	if err != nil {
		return nil, err
	}
	name, _, err := rootfs.ResolveMissing(v, path)
	if err != nil {
		return nil, err
	}
	if err := v.mkdirAll(name, 0o755, o); err != nil {
		return nil, err
	}
	return v.changes(ctx)
}

// mkdirAll makes a directory and its missing parents. No part of name may be a
// symbolic link.
func (v *view) mkdirAll(name string, mode uint32, o *owner) error {
	if name == "." {
		return nil
	}
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		part := name[:i]
		n, err := v.look(part)
		if err != nil {
			return err
		}
		if n == nil {
			if n, err = v.mkdir(part, mode); err != nil {
				return err
			}
			o.apply(&n.ino.Entry)
		}
		if !n.ino.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: "/" + part, Err: syscall.ENOTDIR}
		}
	}
	return nil
}

// cleanName turns a path as users write it into a reader's name without
// looking at what is there.
func cleanName(path string) string {
	name := strings.TrimPrefix(cleanPath(path), "/")
	if name == "" {
		return "."
	}
	return name
}
