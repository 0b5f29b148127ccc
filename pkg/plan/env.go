package plan

import "slices"

// env is a set of variables in the order in which they were last set, which is
// the order in which BuildKit hands them to a command.
type env struct {
	keys   []string
	values map[string]string
}

func newEnv() *env { return &env{values: map[string]string{}} }

func (e *env) clone() *env {
	c := newEnv()
	for _, k := range e.keys {
		c.set(k, e.values[k])
	}
	return c
}

func (e *env) set(key, value string) {
	e.unset(key)
	e.keys = append(e.keys, key)
	e.values[key] = value
}

func (e *env) unset(key string) {
	if _, ok := e.values[key]; ok {
		e.keys = slices.DeleteFunc(e.keys, func(k string) bool { return k == key })
		delete(e.values, key)
	}
}

// Get and Keys make env a shell.EnvGetter.
func (e *env) Get(key string) (string, bool) {
	v, ok := e.values[key]
	return v, ok
}

func (e *env) Keys() []string { return slices.Clone(e.keys) }

// list gives "key=value" strings.
func (e *env) list() []string {
	out := make([]string, len(e.keys))
	for i, k := range e.keys {
		out[i] = k + "=" + e.values[k]
	}
	return out
}
