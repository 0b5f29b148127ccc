package plan

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/util/system"
	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"
	mode "github.com/tonistiigi/dchapes-mode"

	"github.com/cooper-build/cooper/pkg/image"
)

// transfer is a COPY or ADD before its destination is made absolute.
type transfer struct {
	op     *Copy
	dest   string
	source string
}

func copyOf(ins *instructions.CopyCommand, sources []Source) transfer {
	t := transfer{source: fmt.Sprint(ins), dest: ins.DestPath, op: &Copy{
		Chown: ins.Chown, Chmod: ins.Chmod, Link: ins.Link, Parents: ins.Parents,
		Exclude: ins.ExcludePatterns, Paths: ins.SourcePaths, Files: inline(ins.SourcesAndDest),
	}}
	if len(sources) > 0 {
		t.op.From = sources[0]
	}
	return t
}

func addOf(ins *instructions.AddCommand) transfer {
	return transfer{source: fmt.Sprint(ins), dest: ins.DestPath, op: &Copy{
		Add: true, Chown: ins.Chown, Chmod: ins.Chmod, Link: ins.Link,
		Exclude: ins.ExcludePatterns, Paths: ins.SourcePaths, Files: inline(ins.SourcesAndDest),
		Checksum: ins.Checksum, KeepGitDir: ins.KeepGitDir, Unpack: ins.Unpack,
	}}
}

func inline(sd instructions.SourcesAndDest) []File {
	var files []File
	for _, c := range sd.SourceContents {
		files = append(files, File{Name: c.Path, Data: []byte(c.Data)})
	}
	return files
}

func (r *stageResolver) copy(t transfer, step *Step) error {
	op := t.op
	var err error
	if op.Dest, err = r.copyDest(t.dest); err != nil {
		return err
	}
	if err := checkCopyFlags(op); err != nil {
		return err
	}
	if err := r.checkOwner("--chown=", op.Chown); err != nil {
		return err
	}
	for _, src := range op.Paths {
		if err := checkCopySource(op, src); err != nil {
			return err
		}
	}
	note := image.Transfer{Add: op.Add, Parents: op.Parents, Chown: op.Chown, Chmod: op.Chmod, Paths: op.Paths, Dest: t.dest}
	for _, f := range op.Files {
		note.Files = append(note.Files, f.Name)
	}
	// BuildKit gives up linking where a mode is asked for.
	op.Link = op.Link && op.Chmod == ""
	step.Op = op
	step.Text = r.shown(r.plan.lexer(), t.source, r.vars)
	step.History = r.draft.Copy(note)
	return nil
}

// copyDest makes a destination absolute and keeps whether it must be a directory.
func (r *stageResolver) copyDest(dest string) (string, error) {
	os := r.stage.Platform.OS
	dest, err := system.CheckSystemDriveAndRemoveDriveLetter(dest, os, true)
	if err != nil {
		return "", fmt.Errorf("removing drive letter: %w", err)
	}
	parent := r.dir
	if system.IsAbs(dest, os) {
		parent = "/"
	} else if dest == "" || dest == "." {
		// Neither names a file, so both are the directory itself.
		dest = "./"
	}
	if dest, err = system.NormalizePath(parent, dest, os, true); err != nil {
		return "", fmt.Errorf("removing drive letter: %w", err)
	}
	directory := strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.")
	if dest = cleanPath(dest); directory && dest != "/" {
		dest += "/"
	}
	return dest, nil
}

func checkCopyFlags(op *Copy) error {
	if op.Link && op.Chown != "" && namesUser(op.Chown) {
		return fmt.Errorf("--chown=%s: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead", op.Chown)
	}
	if op.Chmod != "" {
		if err := checkMode(op.Chmod); err != nil {
			return err
		}
	}
	if op.Checksum != "" {
		if len(op.Paths) != 1 {
			return errors.New("checksum can't be specified for multiple sources")
		}
		if !isURL(op.Paths[0]) && !isGit(op.Paths[0]) {
			return errors.New("checksum requires HTTP(S) or Git sources")
		}
	}
	if _, err := patternmatcher.New(op.Exclude); err != nil {
		return fmt.Errorf("invalid --exclude: %w", err)
	}
	return nil
}

func checkCopySource(op *Copy, src string) error {
	ref, git, err := dfgitutil.ParseGitRef(src)
	switch {
	case git && err != nil:
		return err
	case err == nil && !ref.IndistinguishableFromLocal:
		if !op.Add {
			return errors.New("source can't be a git ref for COPY")
		}
		return fmt.Errorf("ADD from a git repository is not supported yet: %s", ref.Remote)
	case isURL(src):
		if !op.Add {
			return errors.New("source can't be a URL for COPY")
		}
		if op.Checksum != "" {
			if _, err := digest.Parse(op.Checksum); err != nil {
				return fmt.Errorf("--checksum=%s: %w", op.Checksum, err)
			}
		}
	}
	return nil
}

// checkMode accepts an octal number or chmod's symbolic form.
func checkMode(s string) error {
	octal := fmt.Errorf("invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777", s)
	if n, err := strconv.ParseUint(s, 8, 32); err == nil {
		if n > 0o7777 {
			return octal
		}
		return nil
	}
	if _, err := mode.Parse(s); err != nil {
		if _, ok := errors.AsType[*strconv.NumError](err); ok {
			return octal
		}
		return fmt.Errorf("invalid chmod parameter: '%s': %w", s, err)
	}
	return nil
}

// checkOwner refuses names where no file can tell their numbers. Later, when
// only these files are missing, names count as 0.
func (r *stageResolver) checkOwner(what, owner string) error {
	if r.blank && namesUser(owner) {
		return fmt.Errorf("%s%s: names can't be looked up in an empty image, use numeric uid[:gid] instead", what, owner)
	}
	return nil
}

// namesUser tells whether a --chown has to be looked up in the image.
func namesUser(chown string) bool {
	user, group, _ := strings.Cut(chown, ":")
	for _, name := range []string{user, group} {
		if _, err := strconv.ParseInt(name, 10, 32); err != nil && name != "root" && name != "" {
			return true
		}
	}
	return false
}

func isURL(src string) bool {
	return (strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://")) && !isGit(src)
}

func isGit(src string) bool {
	ref, git, _ := dfgitutil.ParseGitRef(src)
	return git && ref != nil
}

func cleanPath(p string) string { return path.Join("/", p) }
