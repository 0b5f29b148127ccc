// Package run executes the RUN instructions of a build.
//
// An [Isolation] is a way to run commands in an image's tree: in namespaces of
// their own (package run/namespace), or in place, in the root of the container
// that the build itself runs in (package run/inplace). It opens a [Workspace]
// for each stage that has a RUN: it brings in the stage's layers, runs
// commands, tells what they changed and gives files out again. What is above
// this package never sees a host path.
package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

// Isolation is one way to run commands. Implementations are safe for
// concurrent use where their Ability says Parallel.
type Isolation interface {
	// Name is what --isolation calls it: "namespace", "inplace".
	Name() string
	// Probe finds out what works here. It leaves nothing behind. An isolation
	// that can't work is not an error: Ability.OK is false then.
	Probe(ctx context.Context) (Ability, error)
	// Open prepares the tree of a stage. The caller closes the workspace.
	Open(ctx context.Context, stage Stage) (Workspace, error)
}

// Ability is what an isolation can do on this machine.
type Ability struct {
	OK bool
	// Reason explains in one line, for people: what was found, or what is
	// missing and what would provide it.
	Reason string
	// Parallel says that several workspaces can be used at the same time.
	Parallel bool
	// Lacks names, for each feature that can't be honoured here, the reason.
	Lacks map[Feature]string
}

// Feature is something that a RUN may ask for and an isolation may lack.
type Feature string

// The features that a Dockerfile can ask of RUN.
const (
	NetworkNone      Feature = "RUN --network=none"
	NetworkHost      Feature = "RUN --network=host"
	MountBind        Feature = "RUN --mount=type=bind"
	MountCache       Feature = "RUN --mount=type=cache"
	MountTmpfs       Feature = "RUN --mount=type=tmpfs"
	TmpfsSize        Feature = "RUN --mount=type=tmpfs,size="
	MountSecret      Feature = "RUN --mount=type=secret"
	MountSSH         Feature = "RUN --mount=type=ssh"
	SecurityInsecure Feature = "RUN --security=insecure"
)

// Stage is what a workspace starts from.
type Stage struct {
	// Name labels the stage in errors and file names.
	Name string
	// Parent is a finished workspace that this stage continues from
	// (FROM stage), nil where the stage starts from layers. The parent stays
	// usable as a Reader; nothing more is run in it.
	Parent Workspace
	// LastUse says that nobody reads Parent any more: its tree may go on as
	// this stage's, and Parent is only closed after that.
	LastUse bool
	// Layers are the base image's layers, lowest first; empty with Parent and
	// for scratch. Only DiffID and Uncompressed are called.
	Layers []v1.Layer
}

// Workspace is the place in which a stage's tree can be executed. Its methods
// are called by one goroutine at a time, those of Reader excepted.
type Workspace interface {
	rootfs.Reader
	// Run executes one command. A command that ends with a status other than 0
	// gives an *ExitError. When ctx ends the command and all it started are
	// killed, and the error is ctx's cause.
	Run(ctx context.Context, spec Spec) error
	// Put writes the changes of a COPY, ADD or WORKDIR into the tree. They are
	// not reported by Changes.
	Put(ctx context.Context, changes []snapshot.Change) error
	// Changes tells what Run changed since the previous call (or Open). The
	// sequence is used up, and the bytes behind each Change's Open are read,
	// before Run or Put is called again.
	Changes(ctx context.Context) iter.Seq2[snapshot.Change, error]
	// Close removes all that the workspace has put on the machine.
	Close() error
}

// Stable is a Workspace whose changes stay readable after later calls of Run
// and Put, until Close: layers can be made from them while the build goes on.
// Also the sequence of Changes can be used up later, and by another goroutine;
// it tells what was changed when Changes was called.
type Stable interface {
	Workspace
	// ChangesStay does nothing; it marks the promise.
	ChangesStay()
}

// Unpacker is an Isolation that can show the files of a base image whose layers
// it unpacks anyway.
type Unpacker interface {
	Isolation
	// Base gives the tree of layers, lowest first; nil where the isolation
	// keeps no layers unpacked. It is valid until the isolation is closed.
	Base(ctx context.Context, layers []v1.Layer) (rootfs.Reader, error)
}

// Identity is the user that a command runs as.
type Identity struct {
	UID, GID int
	// Groups are the supplementary groups, GID not among them unless listed.
	Groups []int
}

// Network is what a command can reach.
type Network string

// The networks of RUN --network. Default is the network of the build.
const (
	NetDefault Network = "default"
	NetHost    Network = "host"
	NetNone    Network = "none"
)

// Spec is one command. Zero values: the root directory, root, no mounts, the
// build's network, output discarded, no time limit.
type Spec struct {
	// Args is the command; Args[0] is looked up in Env's PATH inside the tree.
	Args []string
	// Env is the whole environment.
	Env []string
	// Dir is the absolute working directory; it and its parents are made
	// (0755, owned by User) where they are missing.
	Dir      string
	User     Identity
	Mounts   []Mount
	Network  Network
	Insecure bool
	// Hostname is the host's name inside; "buildkitsandbox" when empty.
	Hostname string
	// ExtraHosts are further lines for /etc/hosts.
	ExtraHosts []Host
	// ShmSize is the size of /dev/shm in bytes; 64 MiB when 0.
	ShmSize int64
	// Stdout and Stderr receive the output as it comes; nil discards it.
	Stdout, Stderr io.Writer
	// Timeout ends the command; 0 is no limit.
	Timeout time.Duration
}

// Host is a name with its address.
type Host struct{ Name, IP string }

// MountType is the type of a mount.
type MountType string

// The five types of RUN --mount, and Pipe, which shows one file with the
// bytes of a heredoc.
const (
	Bind   MountType = "bind"
	Cache  MountType = "cache"
	Tmpfs  MountType = "tmpfs"
	Secret MountType = "secret"
	SSH    MountType = "ssh"
	Pipe   MountType = "pipe"
)

// Mount is something that a command finds in its tree and that never reaches a
// layer. Mount points that had to be made for it are removed afterwards if
// they are empty, which by itself does not change their parents' times.
type Mount struct {
	Type MountType
	// Target is absolute and clean, never "/".
	Target   string
	ReadOnly bool
	// Source and SourcePath say what a Bind shows: a file or directory of a
	// tree, resolved already. Writes to a Bind that is not ReadOnly are thrown
	// away.
	Source     rootfs.Reader
	SourcePath string
	// HostPath is the directory of a Cache, or the socket of an SSH agent.
	HostPath string
	// Data is what a Secret or Pipe shows.
	Data []byte
	// Size limits a Tmpfs in bytes; 0 is no limit.
	Size int64
	// Mode, UID and GID are those of a Secret, Pipe or SSH target.
	Mode     uint32
	UID, GID int
}

// ExitError says how a command ended.
type ExitError struct {
	// Code is the exit status; 128+n for a command ended by signal n.
	Code int
	// Signal is the signal's name when the command was ended by one.
	Signal string
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return fmt.Sprintf("ended by signal %s (exit code %d)", e.Signal, e.Code)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// ErrTimeout is returned for a command that ran longer than its Spec allows.
var ErrTimeout = errors.New("the command ran longer than its time limit")
