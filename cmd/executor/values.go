package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cooper-build/cooper/pkg/build"
	"github.com/cooper-build/cooper/pkg/run"
)

// pairs parses NAME=VALUE arguments of one flag.
func pairs(flag string, args []string) (map[string]string, error) {
	m := make(map[string]string, len(args))
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s %q is not NAME=VALUE", flag, arg)
		}
		m[name] = value
	}
	return m, nil
}

// parseBuildArgs takes the value of a NAME without one from the environment,
// and leaves the argument unset where the environment has none.
func (s *settings) parseBuildArgs(p process) (map[string]string, error) {
	m := make(map[string]string, len(s.buildArgs))
	for _, arg := range s.buildArgs {
		name, value, ok := strings.Cut(arg, "=")
		if name == "" {
			return nil, fmt.Errorf("--build-arg %q has no name", arg)
		}
		if !ok {
			if value, ok = p.lookupEnv(name); !ok {
				continue
			}
		}
		m[name] = value
	}
	return m, nil
}

func (s *settings) finishMounts() error {
	o := &s.options
	for _, arg := range s.secrets {
		secret, err := parseSecret(arg)
		if err != nil {
			return err
		}
		o.Secrets = append(o.Secrets, secret)
	}
	for _, arg := range s.ssh {
		id, socket, _ := strings.Cut(arg, "=")
		o.SSH = append(o.SSH, build.SSHAgent{ID: id, Socket: socket})
	}
	for _, arg := range s.hosts {
		name, ip, ok := strings.Cut(arg, ":")
		if !ok {
			name, ip, ok = strings.Cut(arg, "=")
		}
		if !ok || name == "" || net.ParseIP(strings.Trim(ip, "[]")) == nil {
			return fmt.Errorf("--add-host %q is not NAME:IP", arg)
		}
		o.ExtraHosts = append(o.ExtraHosts, run.Host{Name: name, IP: strings.Trim(ip, "[]")})
	}
	return nil
}

// parseSecret parses id=ID[,src=FILE][,env=NAME][,type=file|env]. Without a
// source the secret is the environment variable of the same name if there is
// one of type env, else the file of that name.
func parseSecret(arg string) (build.Secret, error) {
	var secret build.Secret
	kind := ""
	for _, field := range strings.Split(arg, ",") {
		key, value, _ := strings.Cut(field, "=")
		switch strings.ToLower(key) {
		case "id":
			secret.ID = value
		case "src", "source":
			secret.File = value
		case "env":
			secret.Env = value
		case "type":
			kind = value
		default:
			return secret, fmt.Errorf("--secret: unknown field %q, want id, src, env or type", key)
		}
	}
	if kind != "" && kind != "file" && kind != "env" {
		return secret, fmt.Errorf("--secret: type %q is neither file nor env", kind)
	}
	if kind == "env" && secret.Env == "" {
		secret.Env, secret.File = secret.File, ""
	}
	switch {
	case secret.ID == "":
		return secret, fmt.Errorf("--secret: id is missing")
	case secret.File != "" && secret.Env != "":
		return secret, fmt.Errorf("--secret id=%s: src and env exclude each other", secret.ID)
	case secret.File == "" && secret.Env == "" && kind == "env":
		secret.Env = secret.ID
	case secret.File == "" && secret.Env == "":
		secret.File = secret.ID
	}
	return secret, nil
}

func (s *settings) finishRegistry(p process) error {
	r := &s.options.Registry
	var err error
	if r.Certificates, err = pairs("--registry-certificate", s.certificates); err != nil {
		return err
	}
	if r.ClientCerts, err = pairs("--registry-client-cert", s.clients); err != nil {
		return err
	}
	r.Mirrors = s.mirrors
	if m := p.getenv("KANIKO_REGISTRY_MIRROR"); m != "" {
		r.Mirrors = append(r.Mirrors, m)
	}
	maps := s.maps
	if m := p.getenv("KANIKO_REGISTRY_MAP"); m != "" {
		maps = append(maps, m)
	}
	r.Map = map[string][]string{}
	for _, arg := range maps {
		for _, pair := range strings.Split(arg, ";") {
			from, to, ok := strings.Cut(pair, "=")
			if !ok || from == "" || to == "" {
				return fmt.Errorf("--registry-map %q is not HOST=HOST[/PREFIX]", pair)
			}
			r.Map[from] = append(r.Map[from], to)
		}
	}
	return nil
}

// withSuggestion adds the nearest flag to the error for an unknown one.
func withSuggestion(err error, flags *pflag.FlagSet) error {
	_, name, found := strings.Cut(err.Error(), "unknown flag: --")
	if !found {
		return err
	}
	best, distance := "", 4
	flags.VisitAll(func(f *pflag.Flag) {
		if d := editDistance(name, f.Name); d < distance {
			best, distance = f.Name, d
		}
	})
	if best == "" {
		return err
	}
	return fmt.Errorf("%w (did you mean --%s?)", err, best)
}

// editDistance is the Levenshtein distance of two short words.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
