package build

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// groupWithLimit is an errgroup whose goroutines are bounded and whose context
// ends with the first error.
func groupWithLimit(ctx context.Context, limit int) (*errgroup.Group, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(limit)
	return group, ctx
}
