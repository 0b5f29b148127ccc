package fileop

import "strings"

// scope is where in a tree a pattern can match: at a path, above which all
// parts are literal, or anywhere below it.
type scope struct {
	dir string
	// exact tells that the pattern has no wildcards at all.
	exact bool
}

// scopeOf cuts a cleaned pattern of patternmatcher before its first part that
// is more than a name.
func scopeOf(pattern string) scope {
	i := strings.IndexAny(pattern, `*?[\`)
	if i < 0 {
		return scope{dir: pattern, exact: true}
	}
	return scope{dir: strings.TrimSuffix(pattern[:strings.LastIndexByte(pattern[:i], '/')+1], "/")}
}

// reaches tells whether the pattern may match something below a directory that
// it does not match itself.
func (s scope) reaches(dir string) bool {
	switch {
	case strings.HasPrefix(s.dir, dir+"/"):
		return true
	case s.exact:
		return false
	}
	return s.dir == "" || s.dir == dir || strings.HasPrefix(dir, s.dir+"/")
}
