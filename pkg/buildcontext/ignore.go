package buildcontext

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

const (
	errNotDir = syscall.ENOTDIR
	errIsDir  = syscall.EISDIR
)

// ignore are the rules of an ignore file, compiled. It decides about one name
// given the decision about its directory, and remembers those of directories.
//
// It is safe for concurrent use.
type ignore struct {
	file string

	mu      sync.Mutex // the matcher compiles patterns when it meets them
	matcher *patternmatcher.PatternMatcher
	// exceptions are where patterns with "!" can match.
	exceptions []scope
	dirs       map[string]verdict
}

// verdict is the decision about a file and what those about files below need.
type verdict struct {
	excluded bool
	info     patternmatcher.MatchInfo
}

// parseIgnore returns nil where there are no rules.
func parseIgnore(name string, data []byte) (*ignore, error) {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(matcher.Patterns()) == 0 {
		return nil, nil
	}
	i := &ignore{file: name, matcher: matcher, dirs: map[string]verdict{}}
	for _, p := range matcher.Patterns() {
		if p.Exclusion() {
			i.exceptions = append(i.exceptions, scopeOf(p.String()))
		}
	}
	return i, nil
}

// excluded tells whether the rules leave a file out. A directory that is left
// out may still hold files that are not.
func (i *ignore) excluded(name string) (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	v, err := i.decide(name)
	return v.excluded, err
}

// decide remembers the decisions about all directories above name.
func (i *ignore) decide(name string) (verdict, error) {
	var above verdict
	if at := strings.LastIndexByte(name, '/'); at >= 0 {
		dir := name[:at]
		var ok bool
		if above, ok = i.dirs[dir]; !ok {
			var err error
			if above, err = i.decide(dir); err != nil {
				return verdict{}, err
			}
			i.dirs[dir] = above
		}
	}
	excluded, info, err := i.matcher.MatchesUsingParentResults(name, above.info)
	if err != nil {
		return verdict{}, fmt.Errorf("%s: %w", i.file, err)
	}
	return verdict{excluded, info}, nil
}

// mayHold tells whether a directory that is left out can hold files that are
// not.
func (i *ignore) mayHold(dir string) bool {
	for _, s := range i.exceptions {
		if s.reaches(dir) {
			return true
		}
	}
	return false
}

// scope is where in a tree a pattern can match: at a path, or anywhere below a
// directory, the part of the pattern that has no wildcards.
type scope struct {
	path  string
	exact bool
}

// wildcards are the characters that make a part of a pattern more than a name.
const wildcards = `*?[\`

func scopeOf(pattern string) scope {
	at := strings.IndexAny(pattern, wildcards)
	if at < 0 {
		return scope{path: pattern, exact: true}
	}
	dir := ""
	if slash := strings.LastIndexByte(pattern[:at], '/'); slash > 0 {
		dir = pattern[:slash]
	}
	return scope{path: dir}
}

// reaches tells whether something below dir can match.
func (s scope) reaches(dir string) bool {
	if strings.HasPrefix(s.path, dir+"/") {
		return true
	}
	return !s.exact && (s.path == "" || s.path == dir || strings.HasPrefix(dir, s.path+"/"))
}
