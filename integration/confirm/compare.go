package confirm

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Difference is one thing that two pictures do not agree about.
type Difference struct {
	// Path says what: "config.config.Env[1]", "history[2].created_by",
	// "layers[1]/etc/passwd", "layers[1].order".
	Path string
	// Oracle and Cooper are the two values, "" where one has none.
	Oracle, Cooper string
}

func (d Difference) String() string {
	return fmt.Sprintf("%s\n\tBuildKit: %s\n\tCooper:   %s", d.Path, orNone(d.Oracle), orNone(d.Cooper))
}

func orNone(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// Compare lists all differences, in the order of an image's parts.
func Compare(oracle, cooper *Picture) []Difference {
	if oracle.Failed != cooper.Failed {
		return []Difference{{"build", outcome(oracle), outcome(cooper)}}
	}
	c := &comparison{}
	c.value("media_type", oracle.MediaType, cooper.MediaType)
	c.value("config_media_type", oracle.ConfigMediaType, cooper.ConfigMediaType)
	c.tree("annotations", texts(oracle.Annotations), texts(cooper.Annotations))
	c.tree("config", oracle.Config, cooper.Config)
	for i := range max(len(oracle.History), len(cooper.History)) {
		c.tree(fmt.Sprintf("history[%d]", i), at(oracle.History, i), at(cooper.History, i))
	}
	for i := range max(len(oracle.Layers), len(cooper.Layers)) {
		name := fmt.Sprintf("layers[%d]", i)
		switch {
		case i >= len(oracle.Layers):
			c.add(name, "", fmt.Sprintf("a layer with %d entries", len(cooper.Layers[i].Entries)))
		case i >= len(cooper.Layers):
			c.add(name, fmt.Sprintf("a layer with %d entries", len(oracle.Layers[i].Entries)), "")
		default:
			c.layer(name, oracle.Layers[i], cooper.Layers[i])
		}
	}
	return c.found
}

func outcome(p *Picture) string {
	if p.Failed {
		return "failed"
	}
	return "succeeded"
}

type comparison struct{ found []Difference }

func (c *comparison) add(path, oracle, cooper string) {
	c.found = append(c.found, Difference{path, oracle, cooper})
}

func (c *comparison) value(path, oracle, cooper string) {
	if oracle != cooper {
		c.add(path, oracle, cooper)
	}
}

// tree compares what JSON can hold.
func (c *comparison) tree(path string, oracle, cooper any) {
	left, right := map[string]string{}, map[string]string{}
	flatten(path, oracle, left)
	flatten(path, cooper, right)
	all := maps.Clone(left)
	maps.Copy(all, right)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		c.value(k, left[k], right[k])
	}
}

func flatten(path string, v any, into map[string]string) {
	switch v := v.(type) {
	case nil:
	case map[string]any:
		if len(v) == 0 {
			into[path] = "{}"
		}
		for k, e := range v {
			if e == nil {
				into[path+"."+k] = "null"
			}
			flatten(path+"."+k, e, into)
		}
	case []any:
		if len(v) == 0 {
			into[path] = "[]"
		}
		for i, e := range v {
			flatten(fmt.Sprintf("%s[%d]", path, i), e, into)
		}
	case string:
		into[path] = fmt.Sprintf("%q", v)
	default:
		into[path] = fmt.Sprint(v)
	}
}

func texts(m map[string]string) any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

func at(list []map[string]any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return nil
}

func (c *comparison) layer(path string, oracle, cooper Layer) {
	before := len(c.found)
	c.value(path+".base", oracle.Base, cooper.Base)
	c.value(path+".media_type", oracle.MediaType, cooper.MediaType)
	c.tree(path+".annotations", texts(oracle.Annotations), texts(cooper.Annotations))
	left, right := byName(oracle.Entries), byName(cooper.Entries)
	all := maps.Clone(left)
	maps.Copy(all, right)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c.value(path+"/"+strings.TrimSuffix(name, "/"), left[name], right[name])
	}
	if len(c.found) > before {
		return
	}
	if !slices.Equal(oracle.Entries, cooper.Entries) {
		c.add(path+".order", names(oracle.Entries), names(cooper.Entries))
		return
	}
	// Equal entries in equal order: what is left is how the tar is written.
	c.value(path+".bytes", oracle.Shape, cooper.Shape)
	if oracle.DiffID != cooper.DiffID && oracle.Shape == cooper.Shape {
		c.add(path+".diff_id", oracle.DiffID, cooper.DiffID)
	}
}

// byName maps unquoted names to what an entry's line says after the name. A
// name that comes again gets a number.
func byName(entries []string) map[string]string {
	out := map[string]string{}
	for _, e := range entries {
		quoted, text, _ := strings.Cut(e, "\" ")
		name := strings.TrimPrefix(quoted, "\"")
		for n := 2; out[name] != ""; n++ {
			name = fmt.Sprintf("%s (%d)", strings.TrimPrefix(quoted, "\""), n)
		}
		out[name] = text
	}
	return out
}

func names(entries []string) string {
	var out []string
	for _, e := range entries {
		quoted, _, _ := strings.Cut(e, "\" ")
		out = append(out, strings.TrimPrefix(quoted, "\""))
	}
	return strings.Join(out, " ")
}

// Sift parts the differences into those that a case does not accept under an
// isolation, and the accepted ones that are not there.
func (c *Case) Sift(isolation string, found []Difference) (unexpected []Difference, stale []Accepted) {
	used := map[int]bool{}
	for _, d := range found {
		accepted := false
		for i, a := range c.Accepted {
			if (a.Isolation == "" || a.Isolation == isolation) && matches(a.Path, d.Path) {
				used[i], accepted = true, true
			}
		}
		if !accepted {
			unexpected = append(unexpected, d)
		}
	}
	for i, a := range c.Accepted {
		if (a.Isolation == "" || a.Isolation == isolation) && !used[i] {
			stale = append(stale, a)
		}
	}
	return unexpected, stale
}

// matches is path.Match in which * also matches "/" and brackets are text.
func matches(pattern, name string) bool {
	plain := strings.NewReplacer("/", "\x00", "[", "\\[", "]", "\\]")
	ok, err := path.Match(plain.Replace(pattern), strings.ReplaceAll(name, "/", "\x00"))
	return err == nil && ok
}
