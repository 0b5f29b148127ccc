package registry

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestFindCredentials(t *testing.T) {
	config := fmt.Sprintf(`{
		"auths": {
			"https://index.docker.io/v1/": {"auth": %q},
			"reg.example": {"auth": %q},
			"reg.example/team/secret": {"auth": %q},
			"https://old.example/v2/": {"username": "old", "password": "pw"},
			"token.example": {"identitytoken": "id"}
		},
		"HttpHeaders": {"X": "y"}, "plugins": {}
	}`, b64("hub:a:b"), b64("host:pw"), b64("path:pw"))
	env := dockerEnv(t, config)
	dir := env("DOCKER_CONFIG")
	d, err := loadDocker(func(k string) string {
		return map[string]string{
			"DOCKER_CONFIG":        dir,
			"DOCKER_AUTH_CONFIG":   fmt.Sprintf(`{"auths":{"env.example":{"auth":%q}}}`, b64("env:pw")),
			"CI_REGISTRY":          "ci.example:5050",
			"CI_REGISTRY_USER":     "ci",
			"CI_REGISTRY_PASSWORD": "pw",
		}[k]
	})
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"alpine":                       "hub:a:b",
		"docker.io/team/app":           "hub:a:b",
		"reg.example/x":                "host:pw",
		"reg.example/team/other":       "host:pw",
		"reg.example/team/secret/deep": "path:pw",
		"old.example/x":                "old:pw",
		"token.example/x":              ":id",
		"env.example/x":                "env:pw",
		"ci.example:5050/g/p":          "ci:pw",
		"none.example/x":               "none",
	} {
		r, err := name.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.find(t.Context(), r.Context())
		got := c.Username + ":" + c.Password + c.IdentityToken
		if c.anonymous() {
			got = c.source
		}
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", ref, got, err, want)
		}
	}
}

func TestBrokenConfigKeepsItsSecrets(t *testing.T) {
	for _, config := range []string{
		`{"auths":{"a.example":{"auth":"hunter2`,
		`{"auths":{"a.example":{"auth":"hunter2!"}}}`,
		`{"auths":{"a.example":{"auth":["hunter2"]}}}`,
		`{"auths":"hunter2"}`,
	} {
		env := dockerEnv(t, config)
		_, err := New(Options{Getenv: env})
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), env("DOCKER_CONFIG")) {
			t.Errorf("%s: %v", config, err)
		}
	}
}

func TestHelpers(t *testing.T) {
	bin := t.TempDir()
	write := func(name, script string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	write("good", `read s; echo "$s" >> "`+bin+`/asked"; echo "{\"ServerURL\":\"$s\",\"Username\":\"u-$s\",\"Secret\":\"pw\"}"`)
	write("idtoken", `echo '{"Username":"<token>","Secret":"refresh"}'`)
	write("empty", `echo "credentials not found in native keychain"; exit 1`)
	write("bad", `echo "cannot open the vault"; exit 3`)
	write("ecr-login", `echo "no role"; exit 1`)
	env := dockerEnv(t, fmt.Sprintf(`{
		"credsStore": "empty",
		"credHelpers": {"good.example": "good", "id.example": "idtoken", "bad.example": "bad", "gone.example": "gone"},
		"auths": {"plain.example": {"auth": %q}}}`, b64("plain:pw")))
	c := client(t, Options{Getenv: env})
	if err := c.Preload(t.Context(), []string{"good.example", "good.example/app:1"}); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(bin, "docker-credential-good"))
	for host, want := range map[string]string{
		"good.example":                      "u-good.example:pw",
		"id.example":                        ":refresh",
		"plain.example":                     "plain:pw",
		"none.example":                      ":",
		"1.dkr.ecr.eu-west-1.amazonaws.com": ":",
	} {
		reg, _ := name.NewRegistry(host)
		got, err := c.creds.find(t.Context(), reg.Repo("x"))
		if s := got.Username + ":" + got.Password + got.IdentityToken; err != nil || s != want {
			t.Errorf("%s: %s, %v; want %s", host, s, err, want)
		}
	}
	for host, want := range map[string]string{"bad.example": "cannot open the vault", "gone.example": "docker-credential-gone"} {
		reg, _ := name.NewRegistry(host)
		if _, err := c.creds.find(t.Context(), reg.Repo("x")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if asked, _ := os.ReadFile(filepath.Join(bin, "asked")); string(asked) != "good.example\n" {
		t.Errorf("the helper was asked %q", asked)
	}
}

func TestChallenges(t *testing.T) {
	for _, tt := range []struct {
		headers []string
		scheme  string
		realm   string
	}{
		{[]string{`Bearer realm="https://a/t",service="x, y",scope="a:b:c"`}, "bearer", "https://a/t"},
		{[]string{`Basic realm="x"`}, "basic", "x"},
		{[]string{`Negotiate, Basic realm="x"`}, "basic", "x"},
		{[]string{`Basic realm="x"`, `bearer realm=https://a/t`}, "bearer", "https://a/t"},
		{[]string{`Basic realm="q\"uote", Bearer realm="https://a/t" , service=s`}, "bearer", "https://a/t"},
		{[]string{`Negotiate`}, "", ""},
		{[]string{`"`, `=`, `Bearer`}, "", ""},
		{nil, "", ""},
	} {
		c, ok := parseChallenges(tt.headers)
		if c.scheme != tt.scheme || c.params["realm"] != tt.realm || ok != (tt.scheme != "") {
			t.Errorf("%q: %+v", tt.headers, c)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://a/t",service="x, y"`)
	f.Add(`Basic realm="q\"uote", Bearer realm=x`)
	f.Fuzz(func(_ *testing.T, h string) { parseChallenges([]string{h}) })
}
