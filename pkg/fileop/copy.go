package fileop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// Copy computes what a COPY changes in dst. Files are read from src when the
// returned changes are opened, so src must stay as it is until then; what is
// opened and has another size than before is an error.
//
// The errors that a Dockerfile's author can do something about are
// *NotFoundError and *ConflictError.
func Copy(ctx context.Context, dst, src rootfs.Reader, req CopyRequest) ([]snapshot.Change, error) {
	o, err := newOperation(dst, req)
	if err != nil {
		return nil, err
	}
	for _, p := range req.Paths {
		if isURL(p) {
			return nil, fmt.Errorf("copy %s: source can't be a URL for COPY", redact(p))
		}
		if err := o.local(ctx, src, p, nil); err != nil {
			return nil, fmt.Errorf("copy %s: %w", p, err)
		}
	}
	if err := o.files(ctx, req.Files); err != nil {
		return nil, err
	}
	return o.view.changes(ctx)
}

// operation carries out one request, source by source.
type operation struct {
	req   CopyRequest
	view  *view
	owner *owner
	chmod chmod
}

func newOperation(dst rootfs.Reader, req CopyRequest) (*operation, error) {
	o := &operation{req: req}
	var err error
	if o.chmod, err = parseChmod(req.Chmod); err != nil {
		return nil, err
	}
	if req.Link && namesOwner(req.Chown) {
		return nil, fmt.Errorf("--chown=%s: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead", req.Chown)
	}
	// Names mean what they mean before this instruction, whatever it copies
	// to /etc.
	if o.owner, err = lookupOwner(dst, req.Chown); err != nil {
		return nil, err
	}
	if req.Link && req.Chmod == "" {
		dst = rootfs.NewTree()
	}
	o.view, err = newView(dst, req.Time)
	return o, err
}

// action copies one source as BuildKit's file operation does.
type action struct {
	// path is absolute and clean.
	path string
	// written is what messages call the source.
	written string
	// wildcards allows them in path; follow follows a symbolic link that is the
	// source itself; contents copies what a directory holds, not the directory.
	wildcards, follow, contents bool
	// fresh gives the source's root the time of the build: it is in no layer, and
	// BuildKit makes it when it fetches the context or unpacks the image.
	fresh   bool
	include []string
	// mustMatch is the path that is missing when include matches nothing, ""
	// where that is fine.
	mustMatch string
	// unpack tries to unpack a source as an archive; nil to copy it anyway.
	unpack func(ctx context.Context, src rootfs.Reader, name string) (bool, error)
}

// local copies a path of src.
func (o *operation) local(ctx context.Context, src rootfs.Reader, written string, unpack func(context.Context, rootfs.Reader, string) (bool, error)) error {
	a := action{written: written, wildcards: true, follow: true, contents: true, fresh: true, unpack: unpack}
	p := written
	if o.req.Parents {
		parent, pattern, pivot := strings.Cut(p, "/./")
		if !pivot {
			parent, pattern = "/", p
		}
		// The pattern counts as clean, the test for wildcards as written.
		clean := path.Join("/", pattern)
		a.include = []string{strings.TrimPrefix(clean, "/")}
		if !hasWildcards(parent) && !hasWildcards(clean) {
			a.mustMatch = path.Join("/", parent, clean)
		}
		p = parent
	}
	a.path = path.Join("/", p)
	return o.run(ctx, src, a)
}

// files copies heredocs.
func (o *operation) files(ctx context.Context, files []File) error {
	for _, f := range files {
		name := path.Join("/", f.Name)[1:]
		if name == "" || strings.Contains(name, "/") {
			// The file is made in an empty tree, in which no directory is.
			return fmt.Errorf("copy <<%s: a heredoc's name can't name a directory", f.Name)
		}
		if err := o.single(ctx, name, rootfs.Entry{Mode: 0o644, Size: int64(len(f.Data)), ModTime: o.req.Time}, bytesOpener(f.Data), nil); err != nil {
			return fmt.Errorf("copy <<%s: %w", f.Name, err)
		}
	}
	return nil
}

// single copies a regular file that is in no tree.
func (o *operation) single(ctx context.Context, name string, e rootfs.Entry, open func() (io.ReadCloser, error), unpack func(context.Context, rootfs.Reader, string) (bool, error)) error {
	src := rootfs.NewTree()
	e.Path, e.Kind = name, rootfs.Regular
	if err := src.Put(e, open); err != nil {
		return err
	}
	return o.run(ctx, src, action{path: "/" + name, written: name, unpack: unpack})
}

func bytesOpener(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// run carries out an action: for each match of the source it unpacks an
// archive or copies.
func (o *operation) run(ctx context.Context, src rootfs.Reader, a action) error {
	paths := []string{a.path}
	if a.wildcards {
		var err error
		if paths, err = matchWildcards(ctx, src, a); err != nil {
			return err
		}
	}
	matched := false
	for _, p := range paths {
		name, err := a.resolve(src, p)
		if err != nil {
			return err
		}
		if a.unpack != nil {
			done, err := a.unpack(ctx, src, name)
			if err != nil {
				return err
			}
			if done {
				matched = true
				continue
			}
		}
		c := copier{ctx: ctx, op: o, src: src, links: map[uint64]*inode{}}
		if err := c.filters(a.include, o.req.Exclude); err != nil {
			return err
		}
		if err := c.run(p, name, a); err != nil {
			return err
		}
		matched = matched || c.matched
	}
	if a.mustMatch != "" && !matched {
		return &NotFoundError{Source: a.written, Path: a.mustMatch}
	}
	return nil
}

// resolve finds the file that an absolute path of the source means.
func (a action) resolve(src rootfs.Reader, p string) (string, error) {
	name, err := rootfs.Resolve(src, p, a.follow)
	if isMissing(err) {
		if a.mustMatch != "" {
			p = a.mustMatch
		}
		return "", &NotFoundError{Source: a.written, Path: p}
	}
	return name, err
}
