package build

import (
	"fmt"
	"math"
	"strings"

	"github.com/cooper-build/cooper/pkg/plan"
)

// vertex is what BuildKit calls a step's result. It gets into images: as the
// history of layers for which the base image's history has not enough entries. Only steps
// that make layers count, and an image that the stage starts from.
func (s *stage) vertex(step *plan.Step) string {
	if op, ok := step.Op.(*plan.Run); ok {
		return "mount / from exec " + strings.Join(op.Args, " ")
	}
	total, number := 0, 0
	if s.plan.Base.Image != "" {
		total = 1
	}
	for i := range s.plan.Steps {
		if s.plan.Steps[i].Op != nil {
			total++
		}
		if &s.plan.Steps[i] == step {
			number = total
		}
	}
	name := ""
	if len(s.b.plan.Stages) > 1 {
		name = s.plan.Label() + " "
	}
	return fmt.Sprintf("[%s%*d/%d] %s", name, 1+int(math.Log10(float64(max(total, 1)))), number, total, step.Text)
}
