package plan

import (
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Source names where files come from: the zero value is the build context.
// At most one field is set.
type Source struct {
	// Stage is another stage of the same plan.
	Stage *Stage
	// Image is an image reference.
	Image string
	// Scratch is an empty tree.
	Scratch bool
}

// IsContext reports whether s is the build context.
func (s Source) IsContext() bool { return s == Source{} }

// Stage is one FROM with what follows it.
type Stage struct {
	// Index is the stage's position in the file, counted from 0; Name is its
	// lower-case AS name or "".
	Index int
	Name  string
	// Base is what FROM names: an image, another stage, or scratch.
	Base Source
	// BaseName is FROM's argument after expansion, as shown to people.
	BaseName string
	// Platform is that of FROM --platform, or the target platform; that of the
	// base where it is a stage. Images that the stage only reads from have the
	// plan's platform instead.
	Platform ocispec.Platform
	// Location is FROM's place in the file.
	Location []parser.Range
	// Steps and Config are set by Resolve.
	Steps []Step
	// Config is the stage's finished image configuration: all but rootfs and
	// times. Its History ends with one entry per instruction of this stage
	// that has one, without Created unless there is a SOURCE_DATE_EPOCH.
	Config dockerspec.DockerOCIImage

	resolver *stageResolver
}

// Label is the stage's name for people: its AS name, else "stage-N".
func (s *Stage) Label() string { return s.label() }

// Step is one instruction with all variables expanded.
type Step struct {
	// Number counts a stage's steps from 1 (FROM is 1); ONBUILD triggers count too.
	Number int
	// Location is the instruction's place in the file; nil for a trigger of a base image.
	Location []parser.Range
	// Text is the instruction in one line, for people.
	Text string
	// Op is what must be done; nil where only the configuration changes.
	Op Op
	// History is the index of the step's entry in the stage's Config.History,
	// -1 when it has none. The entry's EmptyLayer tells whether the step
	// makes a layer.
	History int
}

// Op is something a step does to the tree: *Run, *Copy or *Workdir.
type Op interface{ op() }

// Run executes a command.
type Run struct {
	// Args is the final argument vector, with the shell where there is one.
	Args []string
	// Env is image environment, ARGs in scope and proxy arguments; the last of
	// several equal names counts and is the only one listed. SSH_AUTH_SOCK is
	// in it where there is an ssh mount. HOME is not added.
	Env []string
	// Dir is the absolute and clean working directory; User is USER's text, ""
	// for root.
	Dir, User string
	Mounts    []Mount
	// Network is "default", "none" or "host"; Security "sandbox" or "insecure".
	Network, Security string
	// Files are scripts of heredocs with a "#!" line, shown under /dev/pipes.
	Files []File
}

// File is a file whose bytes stand in the Dockerfile.
type File struct {
	Name string
	Data []byte
}

// Mount is one RUN --mount, with defaults filled in and variables expanded.
type Mount struct {
	// Type is "bind", "cache", "tmpfs", "secret" or "ssh".
	Type string
	// From and Source are what a bind or cache mount shows or starts with.
	From   Source
	Source string
	// Target is absolute; "" for a secret that is only an environment variable.
	Target   string
	ReadOnly bool
	// Sharing of a cache: "shared", "private" or "locked".
	Sharing string
	// ID of a cache (clean target by default), secret or ssh agent.
	ID string
	// Env is the environment variable that receives a secret; "" for none.
	Env      string
	Required bool
	// Mode is -1 where the Dockerfile gives none; UID and GID likewise.
	Mode, UID, GID int64
	// Size of a tmpfs in bytes, 0 for no limit.
	Size int64
}

// Copy is a COPY or an ADD.
type Copy struct {
	// Add tells ADD from COPY: archives are unpacked, URLs fetched.
	Add  bool
	From Source
	// Paths are the sources as written, after expansion, URLs of ADD among
	// them; Files are heredocs. BuildKit copies Paths first, then Files. A path
	// that expanded to "" is the root of the source, as in BuildKit.
	Paths []string
	Files []File
	// Dest is absolute; it ends in "/" where the written one did, or was ".".
	Dest string
	// Chown and Chmod are the flags' texts after expansion, "" when absent.
	Chown, Chmod  string
	Link, Parents bool
	Exclude       []string
	// Checksum is ADD --checksum ("sha256:…"), "" when absent.
	Checksum   string
	KeepGitDir *bool
	// Unpack is ADD --unpack; nil when absent.
	Unpack *bool
}

// Workdir makes a directory with its parents.
type Workdir struct {
	// Path is absolute and clean. It is "/" only where the Dockerfile spells the
	// root oddly ("WORKDIR //"): BuildKit then makes an empty layer. User owns
	// what is made; "" is root.
	Path, User string
}

func (*Run) op()     {}
func (*Copy) op()    {}
func (*Workdir) op() {}
