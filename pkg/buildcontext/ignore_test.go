package buildcontext_test

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/cooper-build/cooper/pkg/buildcontext"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

func TestIgnore(t *testing.T) {
	files := map[string]string{
		"Dockerfile": "", "a/x.md": "", "a/x.go": "", "a/b/y.md": "", "a/b/c/z.md": "", "vendor/v.go": "",
		"vendor/keep/k.go": "", "vendor/keep/deep/d.go": "", "top.md": "", "empty/": "", "node/node/n": "",
	}
	for _, test := range []struct{ rules, want string }{
		{"", "Dockerfile a/ a/b/ a/b/c/ a/b/c/z.md a/b/y.md a/x.go a/x.md empty/ node/ node/node/ node/node/n top.md vendor/ vendor/keep/ vendor/keep/deep/ vendor/keep/deep/d.go vendor/keep/k.go vendor/v.go"},
		{"*", ""},
		{"*\n!a", "a/ a/b/ a/b/c/ a/b/c/z.md a/b/y.md a/x.go a/x.md"},
		{"*\n!**/*.md", "a/ a/b/ a/b/c/ a/b/c/z.md a/b/y.md a/x.md top.md"},
		{"*\n!vendor/keep/*", "vendor/ vendor/keep/ vendor/keep/deep/ vendor/keep/deep/d.go vendor/keep/k.go"},
		{"*\n!/a/b/y.md", "a/ a/b/ a/b/y.md"},
		{"\ufeff# comment\n  /vendor/ \n\n a/b\nnode\nempty", "Dockerfile a/ a/x.go a/x.md top.md"},
		{"**/*.md\n!a/b/*.md\nvendor\nnode\nempty", "Dockerfile a/ a/b/ a/b/c/ a/b/y.md a/x.go"},
		{"*\n!vendor\nvendor/keep\n!vendor/keep/deep", "vendor/ vendor/keep/ vendor/keep/deep/ vendor/keep/deep/d.go vendor/v.go"},
		{"*\n!empty", "empty/"},
		{"*\n!missing", ""},
		{"*\n!node/node", "node/ node/node/ node/node/n"},
		{"a/?\nno*/\n[tv]*\nempty\nDockerfil\\\\?", "Dockerfile a/ a/x.go a/x.md"},
		{".", "Dockerfile a/ a/b/ a/b/c/ a/b/c/z.md a/b/y.md a/x.go a/x.md empty/ node/ node/node/ node/node/n top.md vendor/ vendor/keep/ vendor/keep/deep/ vendor/keep/deep/d.go vendor/keep/k.go vendor/v.go"},
	} {
		dir := t.TempDir()
		write(t, dir, files)
		// Beside the Dockerfile, so that the rules don't show in the list.
		beside := t.TempDir()
		write(t, beside, map[string]string{"x": "", "x.dockerignore": test.rules})
		c := open(t, buildcontext.Options{Path: dir, Dockerfile: filepath.Join(beside, "x")})
		if got := strings.Join(list(t, c), " "); got != test.want {
			t.Errorf("%q\ngot  %s\nwant %s", test.rules, got, test.want)
		}
		if name, _, err := c.Dockerfile(); err != nil || name == "" {
			t.Errorf("%q: the Dockerfile is gone: %v", test.rules, err)
		}
	}
}

func TestIgnoreFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"Dockerfile": "", ".dockerignore": "a\n", "a": "", "b": "", "c": "",
		"docker/app": "", "docker/app.dockerignore": "b\n**/.dockerignore\ndocker", "none": "", "none.dockerignore": "",
	})
	t.Chdir(t.TempDir())
	for file, want := range map[string]string{
		"Dockerfile": ".dockerignore Dockerfile b c docker/ docker/app docker/app.dockerignore none none.dockerignore",
		"docker/app": "Dockerfile a c none none.dockerignore",
		"none":       ".dockerignore Dockerfile a b c docker/ docker/app docker/app.dockerignore none none.dockerignore",
	} {
		c := open(t, buildcontext.Options{Path: dir, Dockerfile: file})
		if got := strings.Join(list(t, c), " "); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", file, got, want)
		}
	}
	c := open(t, buildcontext.Options{Path: dir, Dockerfile: "docker/app", Named: true})
	if got := strings.Join(list(t, c), " "); strings.HasPrefix(got, ".dockerignore Dockerfile a") || !strings.Contains(got, "b c") {
		t.Errorf("a named context: %s", got)
	}
	write(t, dir, map[string]string{".dockerignore": "!"})
	if _, err := buildcontext.Open(context.Background(), buildcontext.Options{Path: dir}); err == nil || !strings.Contains(err.Error(), `.dockerignore: illegal exclusion pattern: "!"`) {
		t.Errorf("got %v", err)
	}
}

// reference lists what BuildKit sends: it walks everything and decides with the
// decisions about all parents at hand.
func reference(t testing.TB, dir, rules string) []string {
	t.Helper()
	patterns, err := ignorefile.ReadAll(strings.NewReader(rules))
	if err != nil {
		t.Fatal(err)
	}
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		return nil
	}
	type parent struct {
		name  string
		info  patternmatcher.MatchInfo
		shown bool
	}
	var parents []parent
	var names []string
	err = filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		for len(parents) > 0 && !strings.HasPrefix(rel, parents[len(parents)-1].name+"/") {
			parents = parents[:len(parents)-1]
		}
		var above patternmatcher.MatchInfo
		if len(parents) > 0 {
			above = parents[len(parents)-1].info
		}
		out, info, err := pm.MatchesUsingParentResults(rel, above)
		if err != nil {
			return err
		}
		if !out {
			for i := range parents {
				if !parents[i].shown {
					parents[i].shown = true
					names = append(names, parents[i].name+"/")
				}
			}
			if fi.IsDir() {
				rel += "/"
			}
			names = append(names, rel)
		}
		if fi.IsDir() {
			parents = append(parents, parent{strings.TrimSuffix(rel, "/"), info, !out})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestIgnoreAgrees compares the reader with a walk that skips nothing.
func TestIgnoreAgrees(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewSource(1))
	parts := []string{"a", "b", "ab", "c.md", "d"}
	for range 60 {
		name := ""
		for range 1 + r.Intn(4) {
			name = filepath.Join(name, parts[r.Intn(len(parts))])
		}
		if os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755) == nil {
			_ = os.WriteFile(filepath.Join(dir, name), nil, 0o644)
		}
	}
	pieces := []string{"a", "b", "ab", "c.md", "d", "*", "**", "a*", "*.md", "?", "[ab]", `\a`}
	beside := t.TempDir()
	for i := range 500 {
		var rules []string
		for range 1 + r.Intn(5) {
			rule := ""
			for range 1 + r.Intn(3) {
				rule = filepath.Join(rule, pieces[r.Intn(len(pieces))])
			}
			if r.Intn(3) == 0 {
				rule = "!" + rule
			}
			rules = append(rules, rule)
		}
		text := strings.Join(rules, "\n")
		write(t, beside, map[string]string{"x": "", "x.dockerignore": text})
		c, err := buildcontext.Open(context.Background(), buildcontext.Options{Path: dir, Dockerfile: filepath.Join(beside, "x")})
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprint(reference(t, dir, text))
		if got := fmt.Sprint(list(t, c)); got != want {
			t.Fatalf("case %d, rules:\n%s\ngot  %s\nwant %s", i, text, got, want)
		}
		// A look at one name must agree with the walk.
		for _, name := range list(t, c.Reader) {
			if _, err := c.Lstat(strings.TrimSuffix(name, "/")); err != nil {
				t.Fatalf("rules:\n%s\n%v", text, err)
			}
		}
		c.Close()
	}
}

func FuzzIgnore(f *testing.F) {
	dir := f.TempDir()
	write(f, dir, map[string]string{"a/b/c.md": "", "a/d": "", "b/a/c": "", "c.md": "", "e/": ""})
	f.Add("*\n!a/b")
	f.Add("**/*.md\n!a")
	f.Fuzz(func(t *testing.T, rules string) {
		beside := t.TempDir()
		write(t, beside, map[string]string{"x": "", "x.dockerignore": rules})
		c, err := buildcontext.Open(context.Background(), buildcontext.Options{Path: dir, Dockerfile: filepath.Join(beside, "x")})
		if err != nil {
			return
		}
		defer c.Close()
		var got []string
		err = rootfs.Walk(c, ".", func(e rootfs.Entry) error {
			if e.Kind == rootfs.Regular {
				rc, err := c.Open(e.Path)
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, rc)
				rc.Close()
				got = append(got, e.Path)
				return err
			}
			return nil
		})
		if err != nil {
			return // a pattern that does not compile says so
		}
		var want []string
		for _, name := range reference(t, dir, rules) {
			if !strings.HasSuffix(name, "/") {
				want = append(want, name)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("rules %q\ngot  %q\nwant %q", rules, got, want)
		}
	})
}

// BenchmarkWalk lists 30,000 files with rules that can prune and rules that
// have to look.
func BenchmarkWalk(b *testing.B) {
	dir := b.TempDir()
	for i := range 300 {
		sub := filepath.Join(dir, "node_modules", fmt.Sprint(i))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(j)), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	beside := b.TempDir()
	for name, rules := range map[string]string{
		"none": "", "kept": "**/*.log\n.git\n*.md", "pruned": "node_modules\n!src", "looked": "node_modules\n!**/*.md",
	} {
		b.Run(name, func(b *testing.B) {
			write(b, beside, map[string]string{"x": "", "x.dockerignore": rules})
			for b.Loop() {
				c := open(b, buildcontext.Options{Path: dir, Dockerfile: filepath.Join(beside, "x")})
				list(b, c)
			}
		})
	}
}
