package dockerfile

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/command"
)

// nearestInstruction finds the keyword that was probably meant, in the case of
// word; "" when none is near. Two neighbouring letters in the wrong order count
// as one mistake, and of equally near keywords the first in the alphabet is
// taken, so the answer is always the same.
func nearestInstruction(word string) string {
	keywords := make([]string, 0, len(command.Commands))
	for k := range command.Commands {
		keywords = append(keywords, k)
	}
	slices.Sort(keywords)
	best, mistakes := "", 3
	for _, k := range keywords {
		if d := distance(strings.ToLower(word), k); d < mistakes {
			best, mistakes = k, d
		}
	}
	if word != strings.ToLower(word) {
		best = strings.ToUpper(best)
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
