// Package child is the other side of RUN: a re-executed process of the same
// program that prepares the place a command runs in, starts it, waits for all
// of it, and cleans up.
//
// The builder describes a command as a [Setup], starts a child with [Run], and
// gets an [Outcome] back. Both travel as JSON over pipes, so that neither
// arguments nor environment of the child show what the command gets. [Main]
// must be called at the start of main: in a child it never returns.
package child

import (
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"
)

// argv0 marks a child; no user starts a program under this name by accident.
const argv0 = "cooper-run-child"

// File descriptors of a child beside the standard three.
const (
	setupFD   = 3
	outcomeFD = 4
)

// ready records that Main was called: without it a child would run the user's
// program a second time instead of the command.
var ready atomic.Bool

// Main turns the process into a child if it was started as one; then it never
// returns. Otherwise it records that children can be started.
func Main() {
	enterMain()
	if len(os.Args) == 1 && os.Args[0] == argv0 {
		os.Exit(childMain())
	}
	ready.Store(true)
}

// Ready reports whether Main was called in this process.
func Ready() bool { return ready.Load() }

// Setup says what a child does.
type Setup struct {
	// Root prepares a root file system of its own in new namespaces; nil stays
	// in the current one.
	Root *Root `json:",omitempty"`
	// Probe ends after Root was prepared, without a command.
	Probe bool `json:",omitempty"`

	Args []string
	Env  []string
	// Dir is made if it is missing and belongs to the user then.
	Dir      string
	UID, GID int
	// Groups are the supplementary groups. NoGroups leaves them as they are,
	// for user namespaces that forbid setgroups.
	Groups   []int
	NoGroups bool `json:",omitempty"`
	Hostname string
	// Loopback brings up the loopback interface of a new network namespace.
	Loopback bool `json:",omitempty"`
	// AllCapabilities leaves the command every capability that the child has.
	AllCapabilities bool `json:",omitempty"`
}

// Root is the root file system of a command.
type Root struct {
	// Scratch is an empty directory that the child may mount things on.
	Scratch string
	// Lowers are overlay directories, lowest first; Upper and Work the
	// writable ones. With Lowers empty, Upper is the tree itself.
	Lowers      []string
	Upper, Work string
	UserXattr   bool
	// Mounts are added in order, once /proc, /sys and /dev are there.
	Mounts []Mount
	// ShmSize is the size of /dev/shm in bytes.
	ShmSize int64
	// Privileged leaves all of /proc and /sys open and adds devices.
	Privileged bool `json:",omitempty"`
}

// Mount is one mount of a command.
type Mount struct {
	// Target is absolute inside the root. A missing one is made, and removed
	// again at the end.
	Target string
	// Source is a path of the host that is bound; with Tmpfs or Data it is "".
	Source   string
	ReadOnly bool
	// Tmpfs mounts an empty tmpfs of at most Size bytes (0: no limit).
	Tmpfs bool
	Size  int64
	// IsFile shows a file with the bytes of Data, its mode and owner.
	IsFile   bool
	Data     []byte
	Mode     uint32
	UID, GID int
	// Lowers shows directories merged by overlay, lowest first; Source is a
	// name in them then. Upper and Work, if any, make them writable.
	Lowers      []string `json:",omitempty"`
	Upper, Work string   `json:",omitempty"`
}

// Outcome says how it went.
type Outcome struct {
	// Error is what kept the command from being started; "" when it ran.
	Error string
	// NotFound and NotExecutable say that it was the command's own fault.
	NotFound, NotExecutable bool
	// Code is the exit status; Signal the number of the signal that ended the
	// command, 0 for none.
	Code, Signal int
}

func childMain() int {
	out := os.NewFile(outcomeFD, "outcome")
	outcome := func() Outcome {
		in := os.NewFile(setupFD, "setup")
		var setup Setup
		if err := json.NewDecoder(in).Decode(&setup); err != nil {
			return Outcome{Error: fmt.Sprintf("reading the command: %v", err)}
		}
		in.Close()
		return perform(setup)
	}()
	if err := json.NewEncoder(out).Encode(outcome); err != nil {
		return 1
	}
	return 0
}
