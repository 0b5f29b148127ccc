package child

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// holdFD is the file that RunHere's child keeps open.
const holdFD = 5

// RunHere is Run for a command in this process's own root, of which setup.Root
// is nil. Whatever the command has started is gone when RunHere returns, and
// soon after this process has died: only then the child's copy of hold is
// closed. What keeps the child from that is a command that kills the child; the
// error says that the child died then, and its orphans go to the nearest
// subreaper above.
func RunHere(ctx context.Context, flags uintptr, setup Setup, hold *os.File, stdout, stderr io.Writer) (Outcome, error) {
	return start(ctx, flags, setup, hold, stdout, stderr)
}

// shield prepares a child that its own command can see. The command must not
// get at the child's files and memory, and the child must end the command when
// its builder asks for it or is gone.
func shield() error {
	unix.CloseOnExec(holdFD)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hiding the child process: %w", err)
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		// Nobody reads what is said of the command any more.
		fds := []unix.PollFd{{Fd: outcomeFD}}
		for {
			if _, err := unix.Poll(fds, -1); err != unix.EINTR && err != unix.EAGAIN {
				return
			}
		}
	}()
	go func() {
		select {
		case <-asked:
		case <-gone:
		}
		// The main thread may be about to start the command, and reaps.
		for {
			for _, pid := range children() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return nil
}
