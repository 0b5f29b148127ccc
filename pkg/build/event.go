package build

import "time"

// Event is something that happened during a build: one of the types of this
// file. Rendering is the receiver's concern.
type Event interface{ event() }

// StepID names a step for people: "[builder 2/6]".
type StepID struct {
	// Stage is the stage's name, or "stage-N".
	Stage string
	// Number counts from 1; Total is the stage's number of steps.
	Number, Total int
}

// IsolationChosen says how RUN will work, and why.
type IsolationChosen struct{ Name, Reason string }

// StepStarted opens a step. Text is the instruction in one line.
type StepStarted struct {
	Step StepID
	Text string
}

// StepOutput is one line that a command wrote, without its line end.
type StepOutput struct {
	Step   StepID
	Line   string
	Stderr bool
}

// StepDone closes a step. Err is nil when it succeeded.
type StepDone struct {
	Step     StepID
	Duration time.Duration
	Err      error
	// Stopped says that the step did not fail by itself: the build was ending,
	// because another step had failed or its context had ended.
	Stopped bool
}

// LayerMade reports a finished layer, which may be well after its step.
type LayerMade struct {
	Step StepID
	// Digest is of the compressed bytes, Size their number.
	Digest string
	Size   int64
}

// Progress is where a long transfer stands. The last event of a transfer is
// Finished; it may come more than once.
type Progress struct {
	// What says what is going on: "pull", "push".
	What string
	// Name is what is transferred, for people.
	Name string
	// Done and Total are in bytes; Total is 0 when it is not known.
	Done, Total int64
	// Note says how bytes were saved from being sent: "exists", "mounted from
	// …"; else "".
	Note     string
	Finished bool
}

// Message is a line for people, of a level "info", "warning" or "debug".
type Message struct{ Level, Text string }

// LintWarning is something in the Dockerfile that is probably not meant.
type LintWarning struct {
	Rule, Text, URL string
	// File and Line say where.
	File string
	Line int
}

// Written reports a finished output: a file, a directory, or a pushed
// reference with its digest.
type Written struct{ Kind, Name, Digest string }

func (IsolationChosen) event() {}
func (StepStarted) event()     {}
func (StepOutput) event()      {}
func (StepDone) event()        {}
func (LayerMade) event()       {}
func (Progress) event()        {}
func (Message) event()         {}
func (LintWarning) event()     {}
func (Written) event()         {}
