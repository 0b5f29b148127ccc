package registry

import "strings"

// challenge is one WWW-Authenticate challenge: scheme "basic" or "bearer", or
// "" when the registry asks for nothing.
type challenge struct {
	scheme string
	params map[string]string
}

// parseChallenges reads the headers of RFC 9110 §11.6.1 and picks the challenge
// that can be met: a bearer token before a password.
func parseChallenges(headers []string) (challenge, bool) {
	var found challenge
	for _, h := range headers {
		for _, c := range splitChallenges(h) {
			switch {
			case c.scheme == "bearer" && c.params["realm"] != "":
				return c, true
			case c.scheme == "basic" && found.scheme == "":
				found = c
			}
		}
	}
	return found, found.scheme != ""
}

// splitChallenges separates the challenges in one header; a comma divides both
// challenges and parameters, so only what follows tells which.
func splitChallenges(h string) []challenge {
	var all []challenge
	for {
		h = strings.TrimLeft(h, " \t,")
		if h == "" {
			return all
		}
		word, rest := cutToken(h)
		if word == "" {
			// Not of this grammar; what was understood so far counts.
			return all
		}
		after := strings.TrimLeft(rest, " \t")
		value, isParam := strings.CutPrefix(after, "=")
		if !isParam || len(all) == 0 {
			all = append(all, challenge{strings.ToLower(word), map[string]string{}})
			h = rest
			continue
		}
		v, rest := cutValue(strings.TrimLeft(value, " \t"))
		all[len(all)-1].params[strings.ToLower(word)] = v
		h = rest
	}
}

func cutToken(s string) (token, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}

func cutValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		if i := strings.IndexAny(s, ", \t"); i >= 0 {
			return s[:i], s[i:]
		}
		return s, ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}
