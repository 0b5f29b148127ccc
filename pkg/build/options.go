package build

import (
	"io"
	"time"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/registry"
	"github.com/cooper-build/cooper/pkg/run"
)

// Options say what to build and where it goes. The zero value builds the
// Dockerfile of the current directory for this machine's platform and puts
// the image nowhere. Build does not change what it is given.
type Options struct {
	// Context is the directory that COPY and ADD read, or a context URL
	// ("dir://…", "tar://…"); "" is the current directory.
	Context string
	// ContextSubPath is a directory inside the context that takes its place.
	ContextSubPath string
	// Dockerfile is a path, looked up in the current directory and then in the
	// context; "" is "Dockerfile", "-" reads Stdin.
	Dockerfile string
	// Stdin is read for Dockerfile "-" and context "tar://stdin"; nil is empty.
	Stdin io.Reader

	// Target is the stage to build, by name or index; "" is the last.
	Target string
	// BuildArgs are the values of ARG instructions.
	BuildArgs map[string]string
	// Platform is "os/arch[/variant]"; "" is this machine's.
	Platform string
	// Labels are added to the image's configuration.
	Labels map[string]string
	// SourceDateEpoch sets the times of the new history entries and of what
	// Cooper itself makes; nil takes the build argument SOURCE_DATE_EPOCH and,
	// without one, the clock.
	SourceDateEpoch *time.Time

	// Secrets and SSH serve RUN --mount=type=secret and type=ssh.
	Secrets []Secret
	SSH     []SSHAgent
	// RunTimeout ends a RUN that takes longer; 0 is no limit.
	RunTimeout time.Duration
	// AllowInsecure permits RUN --security=insecure.
	AllowInsecure bool
	// ExtraHosts are added to /etc/hosts of every RUN.
	ExtraHosts []run.Host

	// Isolation forces one of Isolations by name; "" or "auto" takes the first
	// that works.
	Isolation string
	// Isolations are the ways to run commands, best first; nil is
	// DefaultIsolations.
	Isolations func(Places) []run.Isolation
	// Force lets a build in place start outside a container.
	Force bool
	// Jobs bounds the stages built at the same time; 0 is no bound, since RUN
	// often waits for something else than a CPU.
	Jobs int
	// WorkDir is where the build keeps its files while it runs; "" chooses
	// ($KANIKO_DIR, /kaniko in a container, else the user's cache directory).
	WorkDir string
	// CacheDir keeps unpacked base layers and RUN --mount=type=cache
	// directories for later builds; "" keeps nothing.
	CacheDir string

	// Destinations are the references the image is pushed to.
	Destinations []string
	// NoPush pushes nothing; Destinations then only name the image in files.
	NoPush bool
	// TarPath receives a tar for docker load, OCILayoutPath an OCI layout
	// directory, OCITarPath the same as a tar. "" writes none.
	TarPath, OCILayoutPath, OCITarPath string
	// DigestFile receives the manifest's digest, the other two a line
	// "repository[:tag]@digest" per destination. "" writes none.
	DigestFile, ImageNameDigestFile, ImageNameTagDigestFile string
	// Format is the manifest's kind: "oci" (also for ""), or "docker".
	Format string
	// Compression is that of new layers; the zero value is gzip.
	Compression layers.Compression
	// SkipPushCheck leaves out the check, before the build, that every
	// destination would accept a push.
	SkipPushCheck bool
	// Registry is how registries are reached.
	Registry registry.Options

	// Events receives what happens, from several goroutines but one call at a
	// time; it must return soon. nil discards.
	Events func(Event)
}

// OptionError says that Options contradict themselves, or name something that
// can't be used or written to. Nothing was done.
type OptionError struct{ Err error }

func (e *OptionError) Error() string { return e.Err.Error() }

// Unwrap gives the reason.
func (e *OptionError) Unwrap() error { return e.Err }

// Secret is a value that RUN --mount=type=secret can show. Exactly one of File
// and Env is set; the value is read when the build starts.
type Secret struct {
	ID string
	// File is a path; Env the name of a variable of this process.
	File, Env string
}

// SSHAgent is an agent that RUN --mount=type=ssh can reach.
type SSHAgent struct {
	// ID is the mount's id; "" is "default".
	ID string
	// Socket is the agent's socket; "" is $SSH_AUTH_SOCK.
	Socket string
}

// Places are the paths that an isolation needs to know.
type Places struct {
	// Work is this build's own directory; Layers holds unpacked layers by
	// diffID and may be shared by builds.
	Work, Layers string
	// Executor is the directory of the executor and its files, such as /kaniko.
	Executor string
	// Keep are paths outside Work that a build in place leaves alone: the
	// context, outputs, the cache directory.
	Keep []string
	// Force and AllowInsecure are those of Options.
	Force, AllowInsecure bool
	// Warn tells people about something that is not an error.
	Warn func(string)
	// BeforeTakeover is called before a build in place removes the container's
	// own files.
	BeforeTakeover func() error
}

// Result is what a build gave.
type Result struct {
	// Digest is the manifest's, ConfigDigest the configuration's.
	Digest, ConfigDigest string
	// MediaType is the manifest's.
	MediaType string
	// Layers are the image's, lowest first.
	Layers []LayerInfo
	// Pushed are the references with digests that a registry accepted.
	Pushed []string
	// Isolation is the name of the one used; "" when nothing was run.
	Isolation string
	Duration  time.Duration
}

// LayerInfo describes one layer of the result.
type LayerInfo struct {
	Digest, DiffID string
	// Size is in bytes, compressed.
	Size int64
	// Base tells a layer of the base image from one that was made here.
	Base bool
}
