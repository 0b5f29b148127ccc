package run

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Choice is an isolation that works here.
type Choice struct {
	Isolation Isolation
	Ability   Ability
	// Explanation is one line for people: what was found, and why isolations
	// that come first can't work.
	Explanation string
}

// Choose probes isolations in order and takes the first that works, or the one
// whose name is forced. The error says of each why it can't work.
func Choose(ctx context.Context, isolations []Isolation, forced string) (Choice, error) {
	var refused []string
	for _, i := range isolations {
		if forced != "" && i.Name() != forced {
			continue
		}
		ability, err := i.Probe(ctx)
		if err != nil {
			return Choice{}, err
		}
		if !ability.OK {
			refused = append(refused, i.Name()+": "+ability.Reason)
			continue
		}
		explanation := ability.Reason
		if forced != "" {
			explanation += " (asked for)"
		}
		if len(refused) > 0 {
			explanation += "; not " + strings.Join(refused, "; not ")
		}
		return Choice{i, ability, explanation}, nil
	}
	if len(refused) == 0 {
		if forced != "" {
			names := make([]string, len(isolations))
			for n, i := range isolations {
				names[n] = i.Name()
			}
			return Choice{}, fmt.Errorf("there is no isolation %q (there are %s)", forced, strings.Join(names, ", "))
		}
		return Choice{}, errors.New("there is no isolation to choose from")
	}
	return Choice{}, errors.New(strings.Join(refused, "; "))
}
