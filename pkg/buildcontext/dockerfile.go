package buildcontext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// maxFile bounds Dockerfiles and ignore files, as in BuildKit.
const maxFile = 16 << 20

// dockerfile is a Dockerfile that was found.
type dockerfile struct {
	// name is the path for messages.
	name string
	data []byte
	// ignore are the bytes of the ignore file beside it, nil for none, and
	// ignoreName is that file's name.
	ignore     []byte
	ignoreName string
}

// Dockerfile gives the Dockerfile's bytes, and its path for messages: the one
// that was asked for, or what it was found as in the context.
func (c *Context) Dockerfile() (name string, data []byte, err error) {
	if c.file.name == "" {
		return "", nil, errors.New("the context was opened without a Dockerfile")
	}
	return c.file.name, c.file.data, nil
}

func (o *opener) findDockerfile(ctx context.Context) (err error) {
	name := o.opts.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	f := &o.c.file
	switch {
	case o.opts.Named, f.name != "":
		return nil
	case name == "-":
		f.name = "-"
		f.data, err = readLimited("standard input", o.stdin())
		if err == nil && len(f.data) == 0 {
			err = errors.New("nothing was given on standard input")
		}
	case strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "https://"):
		f.name = redact(name)
		f.data, err = o.fetchFile(ctx, name)
	default:
		err = o.readDockerfile(name)
	}
	if err != nil {
		return fmt.Errorf("Dockerfile: %w", err)
	}
	return nil
}

// readDockerfile tries the current directory, then the context, each also with
// the lower-case name that BuildKit accepts.
func (o *opener) readDockerfile(name string) error {
	f := &o.c.file
	names := []string{name}
	if filepath.Base(name) == "Dockerfile" {
		names = append(names, filepath.Join(filepath.Dir(name), "dockerfile"))
	}
	for _, read := range []func(string) ([]byte, error){readHostFile, o.readContextFile} {
		for _, n := range names {
			data, err := read(n)
			if isMissing(err) {
				continue
			}
			if err != nil {
				return err
			}
			f.name, f.data = n, data
			f.ignoreName = name + ".dockerignore"
			f.ignore, err = read(f.ignoreName)
			if isMissing(err) {
				err = nil
			} else if err == nil && f.ignore == nil {
				f.ignore = []byte{}
			}
			return err
		}
	}
	if filepath.IsAbs(name) {
		return fmt.Errorf("%s does not exist; %s", name, listing(filepath.Dir(name)))
	}
	return fmt.Errorf("%s is neither in the current directory nor in the context; %s", name, listing(o.c.host))
}

// readIgnore finds the rules that hold for the context: those beside the
// Dockerfile replace those in the context's root. nil is no rules.
func (o *opener) readIgnore() (*ignore, error) {
	data, name := o.c.file.ignore, o.c.file.ignoreName
	if data == nil {
		name = ".dockerignore"
		var err error
		if data, err = o.readContextFile(name); isMissing(err) {
			return nil, nil
		} else if err != nil {
			return nil, fmt.Errorf("context: %w", err)
		}
	}
	return parseIgnore(name, data)
}

func readHostFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(name, f)
}

// readContextFile reads a file of the context. A symbolic link can't lead out.
func (o *opener) readContextFile(name string) ([]byte, error) {
	resolved, err := rootfs.Resolve(o.c.dir, path.Clean(filepath.ToSlash(name)), true)
	if err != nil {
		return nil, err
	}
	f, err := o.c.dir.Open(resolved)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(name, f)
}

func readLimited(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s exceeds %d bytes", name, maxFile)
	}
	return data, err
}

// isMissing tells that a file is not there, so that another place is tried. A
// directory of the name counts as none, as does a path through a file.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) || errors.Is(err, errIsDir)
}
