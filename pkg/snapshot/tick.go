package snapshot

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// awaitTick returns when every file that is changed from now on gets a ctime
// that no record has. Kernels stamp files with a clock that advances only
// every few milliseconds, and some file systems keep whole seconds.
func (s *scanner) awaitTick(ctx context.Context) error {
	tick := func() (int64, error) {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
			return 0, fmt.Errorf("reading the clock: %w", err)
		}
		if s.files.Load() > 0 && !s.fractions.Load() {
			return ts.Sec, nil
		}
		return ts.Nano(), nil
	}
	start, err := tick()
	if err != nil {
		return err
	}
	timer := time.NewTimer(time.Millisecond)
	defer timer.Stop()
	for {
		// A clock that was set back differs as well.
		if now, err := tick(); err != nil || now != start {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			timer.Reset(time.Millisecond)
		}
	}
}
