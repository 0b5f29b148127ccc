package run

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/run/child"
)

// OutcomeError turns what a child reports into the error of Workspace.Run. A
// command that can't be started ends as a shell would say, with 127 or 126 and
// the reason on stderr, which may be nil.
func OutcomeError(o child.Outcome, stderr io.Writer) error {
	switch {
	case o.Error != "" && (o.NotFound || o.NotExecutable):
		if stderr != nil {
			fmt.Fprintln(stderr, o.Error)
		}
		code := 127
		if o.NotExecutable {
			code = 126
		}
		return &ExitError{Code: code}
	case o.Error != "":
		return errors.New(o.Error)
	case o.Signal != 0:
		return &ExitError{Code: o.Code, Signal: unix.SignalName(unix.Signal(o.Signal))}
	case o.Code != 0:
		return &ExitError{Code: o.Code}
	}
	return nil
}
