package fileop

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/opencontainers/go-digest"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// AddRequest is an ADD. URLs and references to git repositories may stand among
// Paths.
type AddRequest struct {
	CopyRequest
	// Checksum is --checksum's argument, "" for none. It needs a URL or a
	// repository as the only source.
	Checksum string
	// Unpack is --unpack: nil unpacks local archives and leaves fetched ones
	// as they are.
	Unpack *bool
	// KeepGitDir is --keep-git-dir, nil for none.
	KeepGitDir *bool
	// TempDir is a directory for what is unpacked and fetched. The changes read
	// from there; the caller removes it after their last use.
	TempDir string
	// HTTP fetches URLs; nil is a client with the usual defaults.
	HTTP *http.Client
	// Secret gives a secret of the build by name, nil where there are none.
	// HTTP_AUTH_HEADER_<host> and HTTP_AUTH_TOKEN_<host> are asked for.
	Secret func(name string) (value []byte, ok bool)
	// Git gives a repository's tree. nil makes a repository as a source an
	// error.
	Git func(ctx context.Context, src GitSource) (rootfs.Reader, error)
}

// GitSource is a reference to a git repository as ADD understands it.
type GitSource struct {
	// Remote is the repository's address, Ref what to check out ("" for its
	// default branch), Subdir a directory inside ("" for all).
	Remote, Ref, Subdir string
	// Checksum is the commit that Ref must be, or begin with; "" for any.
	Checksum string
	// KeepGitDir keeps the .git directory; SkipSubmodules fetches none.
	KeepGitDir, SkipSubmodules bool
	// FetchByCommit fetches the commit itself, not a branch that holds it.
	FetchByCommit bool
}

// Add computes what an ADD changes in dst. It is [Copy] but that sources which
// are tar archives, compressed or not, are unpacked into the destination, and
// that URLs are fetched.
//
// An archive's members keep their owners unless --chown is given and have their
// modes whatever --chmod says. A fetched file has mode 0600, belongs to root
// and has the time that the server names in Last-Modified, else 1970-01-01.
func Add(ctx context.Context, dst, src rootfs.Reader, req AddRequest) ([]snapshot.Change, error) {
	o, err := newOperation(dst, req.CopyRequest)
	if err != nil {
		return nil, err
	}
	a := adder{operation: o, req: req}
	if err := a.checkChecksum(); err != nil {
		return nil, err
	}
	for _, p := range req.Paths {
		if err := a.add(ctx, src, p); err != nil {
			return nil, fmt.Errorf("add %s: %w", redact(p), err)
		}
	}
	if err := o.files(ctx, req.Files); err != nil {
		return nil, err
	}
	return o.view.changes(ctx)
}

type adder struct {
	*operation
	req AddRequest
}

func (a *adder) add(ctx context.Context, src rootfs.Reader, p string) error {
	git, isGit, err := parseGit(p)
	switch {
	case err != nil:
		return err
	case isGit:
		return a.git(ctx, git, p)
	case isURL(p):
		return a.url(ctx, p)
	}
	if a.req.Unpack != nil && !*a.req.Unpack {
		return a.local(ctx, src, p, nil)
	}
	return a.local(ctx, src, p, a.unpack)
}

func (a *adder) checkChecksum() error {
	if a.req.Checksum == "" {
		return nil
	}
	if len(a.req.Paths) != 1 {
		return errors.New("checksum can't be specified for multiple sources")
	}
	if _, isGit, _ := parseGit(a.req.Paths[0]); !isGit && !isURL(a.req.Paths[0]) {
		return errors.New("checksum requires HTTP(S) or Git sources")
	}
	return nil
}

// url fetches a source and copies or unpacks it.
func (a *adder) url(ctx context.Context, p string) error {
	f := fetcher{client: a.req.HTTP, dir: a.req.TempDir, secret: a.req.Secret}
	if a.req.Checksum != "" {
		var err error
		if f.want, err = digest.Parse(a.req.Checksum); err != nil {
			return fmt.Errorf("--checksum=%s: %w", a.req.Checksum, err)
		}
	}
	got, err := f.fetch(ctx, p)
	if err != nil {
		return err
	}
	unpack := a.unpack
	if a.req.Unpack == nil || !*a.req.Unpack {
		unpack = nil
	}
	return a.single(ctx, got.name, rootfs.Entry{Mode: 0o600, Size: got.size, ModTime: got.modTime}, got.open, unpack)
}

// git copies a repository's files.
func (a *adder) git(ctx context.Context, ref *dfgitutil.GitRef, p string) error {
	if a.req.Git == nil {
		return errors.New("git repositories can't be a source of ADD here")
	}
	keep, sum := a.req.KeepGitDir, a.req.Checksum
	if ref.KeepGitDir != nil {
		if keep != nil && *keep != *ref.KeepGitDir {
			return errors.New("inconsistent keep-git-dir configuration")
		}
		keep = ref.KeepGitDir
	}
	if ref.Checksum != "" {
		if sum != "" && sum != ref.Checksum {
			return fmt.Errorf("checksum mismatch %q != %q", sum, ref.Checksum)
		}
		sum = ref.Checksum
	}
	src, err := a.req.Git(ctx, GitSource{
		Remote: ref.Remote, Ref: ref.Ref, Subdir: ref.SubDir, Checksum: sum,
		KeepGitDir:     keep != nil && *keep,
		SkipSubmodules: ref.Submodules != nil && !*ref.Submodules,
		FetchByCommit:  ref.FetchByCommit,
	})
	if err != nil {
		return err
	}
	return a.run(ctx, src, action{path: "/", written: p})
}

// parseGit tells whether a source is a git repository. A path that could be one
// by its looks alone is none.
func parseGit(p string) (ref *dfgitutil.GitRef, isGit bool, err error) {
	ref, isGit, err = dfgitutil.ParseGitRef(p)
	if err != nil {
		if isGit {
			return nil, false, err
		}
		return nil, false, nil
	}
	return ref, !ref.IndistinguishableFromLocal, nil
}

func isURL(p string) bool {
	if !strings.HasPrefix(p, "http://") && !strings.HasPrefix(p, "https://") {
		return false
	}
	_, isGit, _ := parseGit(p)
	return !isGit
}

// redact takes passwords out of a URL.
func redact(p string) string {
	if !strings.Contains(p, "://") {
		return p
	}
	u, err := url.Parse(p)
	if err != nil || u.User == nil {
		return p
	}
	u.User = url.User("xxxxx")
	return u.String()
}
