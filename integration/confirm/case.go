package confirm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/tools/txtar"
)

// Case is one build.
type Case struct {
	// Name is the file's name without its ending; About is the text before the
	// first file.
	Name, About string
	// Source is the whole file's text.
	Source []byte

	Dockerfile string // name of the Dockerfile in the context
	BuildArgs  []string
	Target     string
	// Fails says that no builder may succeed.
	Fails bool
	// Isolations are those under which Cooper builds the case.
	Isolations []string
	// Bases are further base images that the case needs, by name.
	Bases []string
	// Secrets are values by their id.
	Secrets map[string]string
	// SSH are ids of agents.
	SSH []string
	// Serve says that the case's directory "http" is served, and not part of
	// the context; ServeName stands for the address in the Dockerfile.
	Serve bool
	// Accepted are differences that are meant to be.
	Accepted []Accepted

	files []txtar.File
	steps [][]string
}

// Accepted is a difference that is meant to be, with its reason.
type Accepted struct {
	// Path is a pattern as for path.Match, where * also matches "/".
	Path, Reason string
	// Isolation is the one it concerns, "" for all.
	Isolation string
}

// ServeName is the host in URLs of a case's own HTTP server.
const ServeName = "files.test"

// Isolations are the ways in which Cooper can build a case: "namespace" and
// "rootless" on this computer as root and as an ordinary user, "inplace" in a
// container with the engine's default profile.
var Isolations = []string{"namespace", "rootless", "inplace"}

// ParseCase reads a txtar file. The lines of its file "case" are
//
//	arg NAME=VALUE              a build argument
//	target NAME                 the stage to build
//	dockerfile NAME             the Dockerfile's name, when it is another
//	fail                        the build must fail
//	base NAME...                base images beyond the small ones
//	isolations NAME...          the isolations to build under; all by default
//	secret ID VALUE             a secret
//	ssh ID                      an agent without keys
//	accept[@ISOLATION] PATTERN "REASON"
//
// and these, carried out in their order when the context is written:
//
//	mode PATH OCTAL             owner PATH UID GID
//	dir PATH                    link PATH TARGET
//	hardlink PATH EXISTING      fifo PATH
//	mtime PATH RFC3339          bytes PATH HEX
//	fill PATH SIZE              xattr PATH NAME HEX
//	archive FILE DIRECTORY [UID GID]
//	compress FILE
//	repository DIRECTORY
//
// archive makes FILE (.tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst by its
// ending) of a directory, compress FILE (.gz) of the file without the ending,
// repository a bare git repository DIRECTORY.git; each takes its source away.
// Words may be in double quotes, as in Go.
func ParseCase(file string) (*Case, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	a := txtar.Parse(data)
	c := &Case{
		Name:  strings.TrimSuffix(filepath.Base(file), ".txtar"),
		About: strings.TrimSpace(string(a.Comment)), Source: data,
		Dockerfile: "Dockerfile", Secrets: map[string]string{},
	}
	for _, f := range a.Files {
		if f.Name != "case" {
			c.files = append(c.files, f)
			c.Serve = c.Serve || strings.HasPrefix(f.Name, "http/")
			continue
		}
		for n, line := range strings.Split(string(f.Data), "\n") {
			if err := c.directive(line); err != nil {
				return nil, fmt.Errorf("%s: case:%d: %w", file, n+1, err)
			}
		}
	}
	if len(c.Isolations) == 0 {
		c.Isolations = Isolations
	}
	return c, nil
}

func (c *Case) directive(line string) error {
	w, err := words(line)
	if err != nil || len(w) == 0 {
		return err
	}
	name, isolation, _ := strings.Cut(w[0], "@")
	args := w[1:]
	need := map[string]int{
		"arg": 1, "target": 1, "dockerfile": 1, "secret": 2, "ssh": 1, "accept": 2, "mode": 2, "owner": 3, "dir": 1,
		"link": 2, "hardlink": 2, "fifo": 1, "mtime": 2, "bytes": 2, "fill": 2, "xattr": 3, "compress": 1, "repository": 1,
	}
	if n, ok := need[name]; ok && len(args) != n {
		return fmt.Errorf("%s takes %d words, not %d", name, n, len(args))
	}
	switch name {
	case "arg":
		c.BuildArgs = append(c.BuildArgs, args[0])
	case "target":
		c.Target = args[0]
	case "dockerfile":
		c.Dockerfile = args[0]
	case "fail":
		c.Fails = true
	case "base":
		c.Bases = append(c.Bases, args...)
	case "isolations":
		for _, i := range args {
			if !slices.Contains(Isolations, i) {
				return fmt.Errorf("there is no isolation %q", i)
			}
		}
		c.Isolations = args
	case "secret":
		c.Secrets[args[0]] = args[1]
	case "ssh":
		c.SSH = append(c.SSH, args[0])
	case "accept":
		c.Accepted = append(c.Accepted, Accepted{Path: args[0], Reason: args[1], Isolation: isolation})
	case "archive":
		if len(args) != 2 && len(args) != 4 {
			return fmt.Errorf("archive takes 2 or 4 words, not %d", len(args))
		}
		c.steps = append(c.steps, w)
	case "mode", "owner", "dir", "link", "hardlink", "fifo", "mtime", "bytes", "fill", "xattr", "compress", "repository":
		c.steps = append(c.steps, w)
	default:
		return fmt.Errorf("unknown directive %q", name)
	}
	return nil
}

// words splits a line at blanks; "#" begins a comment.
func words(line string) ([]string, error) {
	var out []string
	for {
		line = strings.TrimLeft(line, " \t")
		switch {
		case line == "" || line[0] == '#':
			return out, nil
		case line[0] == '"':
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
			word, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
			out, line = append(out, word), line[len(quoted):]
		default:
			i := strings.IndexAny(line, " \t")
			if i < 0 {
				i = len(line)
			}
			out, line = append(out, line[:i]), line[i:]
		}
	}
}
