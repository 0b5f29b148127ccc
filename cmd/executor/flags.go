package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cooper-build/cooper/pkg/build"
	"github.com/cooper-build/cooper/pkg/layers"
)

// settings are what the command line says.
type settings struct {
	options build.Options
	groups  []group
	version bool

	verbosity    string
	logFormat    string
	logTimestamp bool

	buildArgs, labels, secrets, ssh, hosts []string
	compression                            string
	compressionLevel                       int
	maps, mirrors, certificates, clients   []string
}

// parseFlags turns arguments and environment into settings. The settings'
// groups are set even with an error, so that help can be shown.
func parseFlags(p process) (*settings, error) {
	s := &settings{}
	s.groups = []group{
		{"What to build", s.inputFlags()},
		{"Where it goes", s.outputFlags()},
		{"How RUN works", s.runFlags()},
		{"Registries", s.registryFlags()},
		{"General", s.generalFlags()},
	}
	all := pflag.NewFlagSet("executor", pflag.ContinueOnError)
	all.SetOutput(io.Discard)
	all.SortFlags = false
	for _, g := range s.groups {
		all.AddFlagSet(g.flags)
	}
	if err := all.Parse(p.args); err != nil {
		return s, withSuggestion(err, all)
	}
	if all.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", all.Arg(0))
	}
	if s.version {
		return s, nil
	}
	return s, s.finish(p, all)
}

func (s *settings) inputFlags() *pflag.FlagSet {
	o, f := &s.options, newSet()
	f.StringVarP(&o.Context, "context", "c", "/workspace/", "build `CONTEXT`: a directory, dir://DIR or tar://FILE (tar://stdin reads standard input)")
	f.StringVar(&o.ContextSubPath, "context-sub-path", "", "`DIR` inside the context that takes its place")
	f.StringVarP(&o.Dockerfile, "dockerfile", "f", "Dockerfile", "Dockerfile, a `FILE` looked up in the current directory, then in the context; - reads standard input")
	f.StringArrayVar(&s.buildArgs, "build-arg", nil, "value of an ARG as `NAME=VALUE`; NAME alone takes it from the environment (repeatable)")
	f.StringVar(&o.Target, "target", "", "`STAGE` to build, by name or index (default: the last)")
	f.StringVar(&o.Platform, "custom-platform", "", "platform of the image as `OS/ARCH[/VARIANT]` (default: this machine's)")
	f.StringArrayVar(&s.labels, "label", nil, "label for the image as `NAME=VALUE` (repeatable)")
	f.StringArrayVar(&s.secrets, "secret", nil, "secret for RUN --mount=type=secret as `id=ID[,src=FILE|env=NAME]` (repeatable)")
	f.StringArrayVar(&s.ssh, "ssh", nil, "agent for RUN --mount=type=ssh as `ID[=SOCKET]`; default is $SSH_AUTH_SOCK (repeatable)")
	return f
}

func (s *settings) outputFlags() *pflag.FlagSet {
	o, f := &s.options, newSet()
	f.StringArrayVarP(&o.Destinations, "destination", "d", nil, "reference to push to, as `REGISTRY/NAME:TAG` (repeatable)")
	f.BoolVar(&o.NoPush, "no-push", false, "do not push; files are still written")
	f.StringVar(&o.TarPath, "tar-path", "", "write a tar for docker load to `FILE`")
	f.StringVar(&o.OCILayoutPath, "oci-layout-path", "", "write an OCI image layout to the directory `DIR`")
	f.StringVar(&o.OCITarPath, "oci-tar-path", "", "write an OCI image layout as a tar to `FILE`")
	f.StringVar(&o.DigestFile, "digest-file", "", "write the image's digest to `FILE`")
	f.StringVar(&o.ImageNameDigestFile, "image-name-with-digest-file", "", "write NAME@DIGEST of each destination to `FILE`")
	f.StringVar(&o.ImageNameTagDigestFile, "image-name-tag-with-digest-file", "", "write NAME:TAG@DIGEST of each destination to `FILE`")
	f.StringVar(&o.Format, "image-format", "oci", "media types of the manifest, `oci|docker`")
	f.StringVar(&s.compression, "compression", "gzip", "compression of new layers, `gzip|zstd|none`")
	f.IntVar(&s.compressionLevel, "compression-level", 0, "compression `LEVEL`, 1 to 9 for gzip and 1 to 22 for zstd (default: the algorithm's)")
	f.BoolVar(&o.SkipPushCheck, "skip-push-permission-check", false, "do not check before the build that the destinations accept a push")
	return f
}

func (s *settings) runFlags() *pflag.FlagSet {
	o, f := &s.options, newSet()
	f.StringVar(&o.Isolation, "isolation", "auto", "how RUN works, `auto|namespace|inplace`; inplace is for unprivileged containers")
	f.BoolVar(&o.Force, "force", false, "let --isolation inplace replace the root file system outside a container")
	f.DurationVar(&o.RunTimeout, "run-timeout", 0, "end a RUN after `TIME`, such as 30m")
	f.StringArrayVar(&s.hosts, "add-host", nil, "line for /etc/hosts of RUN as `NAME:IP` (repeatable)")
	f.BoolVar(&o.AllowInsecure, "allow-insecure", false, "permit RUN --security=insecure")
	f.IntVar(&o.Jobs, "jobs", 0, "`N` stages are built at the same time (default: all that can be)")
	f.StringVar(&o.CacheDir, "cache-dir", "", "keep unpacked base layers and RUN cache mounts in `DIR` for later builds")
	f.StringVar(&o.WorkDir, "kaniko-dir", "", "keep the build's own files in `DIR` while it runs")
	return f
}

func (s *settings) registryFlags() *pflag.FlagSet {
	r, f := &s.options.Registry, newSet()
	f.BoolVar(&r.Insecure, "insecure", false, "push over plain HTTP")
	f.BoolVar(&r.InsecurePull, "insecure-pull", false, "pull over plain HTTP")
	f.BoolVar(&r.SkipTLSVerify, "skip-tls-verify", false, "push without verifying certificates")
	f.BoolVar(&r.SkipTLSVerifyPull, "skip-tls-verify-pull", false, "pull without verifying certificates")
	f.StringArrayVar(&r.InsecureRegistries, "insecure-registry", nil, "`HOST` of a registry to reach over plain HTTP, push and pull (repeatable)")
	f.StringArrayVar(&r.SkipTLSVerifyRegistries, "skip-tls-verify-registry", nil, "`HOST` of a registry whose certificate is not verified (repeatable)")
	f.StringArrayVar(&s.certificates, "registry-certificate", nil, "further certificate authority as `HOST=FILE` (repeatable)")
	f.StringArrayVar(&s.clients, "registry-client-cert", nil, "client certificate as `HOST=CERT,KEY` (repeatable)")
	f.StringArrayVar(&s.mirrors, "registry-mirror", nil, "mirror of Docker Hub, `HOST[/PREFIX]` (repeatable)")
	f.StringArrayVar(&s.maps, "registry-map", nil, "pull from elsewhere, as `HOST=HOST[/PREFIX][;HOST=...]` (repeatable)")
	f.BoolVar(&r.SkipDefaultFallback, "skip-default-registry-fallback", false, "do not try the original registry after its mirrors")
	f.IntVar(&r.PullRetries, "image-download-retry", 0, "`N` further tries of a failed pull (default: 3)")
	f.IntVar(&r.PushRetries, "push-retry", 0, "`N` further tries of a failed push (default: 3)")
	return f
}

func (s *settings) generalFlags() *pflag.FlagSet {
	f := newSet()
	f.StringVarP(&s.verbosity, "verbosity", "v", "info", "what is shown, `error|warn|info|debug`")
	f.StringVar(&s.logFormat, "log-format", "color", "how it is shown, `color|text|json`; json is one object a line")
	f.BoolVar(&s.logTimestamp, "log-timestamp", false, "put the time of day before each line")
	f.BoolVar(&s.version, "version", false, "show the version and end")
	skip := true
	f.BoolVar(&skip, "skip-unused-stages", true, "always so: only the stages that the target needs are built")
	return f
}

func newSet() *pflag.FlagSet {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.SortFlags = false
	return f
}

// finish checks what single flags can't and fills in what comes from the
// environment.
func (s *settings) finish(p process, all *pflag.FlagSet) error {
	o := &s.options
	o.Stdin = p.stdin
	if !all.Changed("context") {
		if _, err := os.Stat("/workspace"); err != nil {
			return fmt.Errorf("no build context: --context is missing and /workspace does not exist")
		}
	}
	if err := s.checkChoices(); err != nil {
		return err
	}
	if v, ok := p.lookupEnv("KANIKO_NO_PUSH"); ok && !all.Changed("no-push") {
		switch strings.ToLower(v) {
		case "1", "t", "true":
			o.NoPush = true
		case "", "0", "f", "false":
		default:
			return fmt.Errorf("KANIKO_NO_PUSH=%q is neither true nor false", v)
		}
	}
	if !o.NoPush && len(o.Destinations) == 0 {
		return fmt.Errorf("nowhere to push to: give --destination, or --no-push")
	}
	if (o.ImageNameDigestFile != "" || o.ImageNameTagDigestFile != "") && len(o.Destinations) == 0 {
		return fmt.Errorf("--image-name-with-digest-file and --image-name-tag-with-digest-file need a --destination")
	}
	var err error
	if o.BuildArgs, err = s.parseBuildArgs(p); err != nil {
		return err
	}
	if o.Labels, err = pairs("--label", s.labels); err != nil {
		return err
	}
	if err := s.finishMounts(); err != nil {
		return err
	}
	if err := s.finishRegistry(p); err != nil {
		return err
	}
	o.Compression = layers.Compression{Algorithm: layers.Algorithm(s.compression), Level: max(s.compressionLevel, 0)}
	for _, path := range []*string{&o.TarPath, &o.OCILayoutPath, &o.OCITarPath, &o.CacheDir, &o.WorkDir} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

func (s *settings) checkChoices() error {
	for _, c := range []struct {
		flag, value string
		allowed     []string
	}{
		{"--isolation", s.options.Isolation, []string{"auto", "namespace", "inplace"}},
		{"--image-format", s.options.Format, []string{"oci", "docker"}},
		{"--compression", s.compression, []string{"gzip", "zstd", "none"}},
		{"--log-format", s.logFormat, []string{"color", "text", "json"}},
		{"--verbosity", s.verbosity, []string{"trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"}},
	} {
		if !slices.Contains(c.allowed, c.value) {
			return fmt.Errorf("%s=%q: must be one of %s", c.flag, c.value, strings.Join(c.allowed, ", "))
		}
	}
	return nil
}

// wantsNamespace reports whether RUN may need the namespace isolation.
func (s *settings) wantsNamespace() bool {
	return s.options.Isolation == "auto" || s.options.Isolation == "namespace"
}
