package plan

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/cooper-build/cooper/pkg/image"
)

const epochArg = "SOURCE_DATE_EPOCH"

// setGlobals computes what FROM can use: the platform variables, then the ARGs
// before the first FROM.
func (p *Plan) setGlobals(metaArgs []instructions.ArgCommand, target string) error {
	p.globals = p.platformArgs(target)
	p.globalKeys = map[string]struct{}{}
	lex := p.lexer()
	for i := range metaArgs {
		if err := expandGlobals(p.globals, lex, &metaArgs[i], p.buildArgs); err != nil {
			return p.file.Diagnose(metaArgs[i].Location(), err)
		}
		for _, a := range metaArgs[i].Args {
			p.globalKeys[a.Key] = struct{}{}
		}
	}
	for _, k := range p.globals.keys {
		p.globalKeys[k] = struct{}{}
	}
	return p.setEpoch(metaArgs)
}

// platformArgs are the variables that every build has. Build arguments of the
// same name replace them.
func (p *Plan) platformArgs(target string) *env {
	if target == "" {
		target = "default"
	}
	build, want := p.BuildPlatform, p.Platform
	short := build
	short.OSVersion, short.OSFeatures = "", nil
	e := newEnv()
	for _, kv := range [][2]string{
		{"BUILDPLATFORM", image.FormatPlatform(short)},
		{"BUILDOS", build.OS},
		{"BUILDOSVERSION", build.OSVersion},
		{"BUILDARCH", build.Architecture},
		{"BUILDVARIANT", build.Variant},
		{"TARGETPLATFORM", image.FormatPlatform(want)},
		{"TARGETOS", want.OS},
		{"TARGETOSVERSION", want.OSVersion},
		{"TARGETARCH", want.Architecture},
		{"TARGETVARIANT", want.Variant},
		{"TARGETSTAGE", target},
	} {
		value := kv[1]
		if v, ok := p.buildArgs[kv[0]]; ok {
			value = v
		}
		e.set(kv[0], value)
	}
	return e
}

func expandGlobals(e *env, lex *shell.Lex, cmd *instructions.ArgCommand, buildArgs map[string]string) error {
	for _, a := range cmd.Args {
		if v, ok := buildArgs[a.Key]; ok {
			e.set(a.Key, v)
		} else if a.Value != nil {
			v, _, err := lex.ProcessWord(*a.Value, e)
			if err != nil {
				return err
			}
			e.set(a.Key, v)
		}
	}
	return nil
}

// setEpoch reads SOURCE_DATE_EPOCH and writes it back in its one spelling; an
// empty value is no value.
func (p *Plan) setEpoch(metaArgs []instructions.ArgCommand) error {
	value, given := p.buildArgs[epochArg]
	if !given {
		if value, given = p.globals.Get(epochArg); !given || value == "" {
			return nil
		}
	}
	if value == "" {
		delete(p.buildArgs, epochArg)
		p.globals.unset(epochArg)
		return nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		d := p.file.At(nil, "", "invalid SOURCE_DATE_EPOCH: %s", value)
		for i := range metaArgs {
			for _, a := range metaArgs[i].Args {
				if _, fromOutside := p.buildArgs[epochArg]; a.Key == epochArg && !fromOutside {
					d = p.file.At(metaArgs[i].Location(), epochArg, "invalid SOURCE_DATE_EPOCH: %s", value)
				}
			}
		}
		d.Detail = "It must be a number of seconds since 1970. The time of a context or of a stage can't be taken."
		return d
	}
	t := time.Unix(seconds, 0).UTC()
	p.SourceDateEpoch = &t
	value = strconv.FormatInt(seconds, 10)
	if _, ok := p.buildArgs[epochArg]; ok {
		p.buildArgs[epochArg] = value
	}
	if _, ok := p.globals.Get(epochArg); ok {
		p.globals.set(epochArg, value)
	}
	return nil
}

// proxies are the variables that build arguments give to RUN without an ARG,
// under both spellings. Of a name given in both, the lower-case one counts.
func (p *Plan) proxies() []string {
	values := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(p.buildArgs)) {
		values[strings.ToUpper(k)] = p.buildArgs[k]
	}
	var out []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
		if v := values[name]; v != "" {
			out = append(out, name+"="+v, strings.ToLower(name)+"="+v)
		}
	}
	return out
}

// sbomArg tells the two arguments that only concern BuildKit's scanner. They
// are declared like others and never reach an environment.
func sbomArg(key string) bool {
	return key == "BUILDKIT_SBOM_SCAN_CONTEXT" || key == "BUILDKIT_SBOM_SCAN_STAGE"
}

func (p *Plan) lexer() *shell.Lex { return shell.NewLex(p.file.Escape) }
