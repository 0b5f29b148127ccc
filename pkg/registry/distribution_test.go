package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// startDistribution runs the reference registry and returns its host and its
// storage; extra is added to its configuration.
func startDistribution(t *testing.T, http, extra string) (host, dir string) {
	t.Helper()
	prog, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	l.Close()
	dir = t.TempDir()
	config := filepath.Join(t.TempDir(), "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp:\n  addr: %s\n%s\n%s\n", dir, host, http, extra)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(prog, "serve", config)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		out.Close()
	})
	for range 100 {
		c, err := net.Dial("tcp", host)
		if err == nil {
			c.Close()
			return host, dir
		}
		time.Sleep(50 * time.Millisecond)
	}
	log, _ := os.ReadFile(out.Name())
	t.Fatalf("docker-registry does not listen: %s", log)
	return "", ""
}

func TestDistribution(t *testing.T) {
	host, dir := startDistribution(t, "", "")
	c := client(t, Options{})
	if err := c.CheckPush(t.Context(), host+"/base:1"); err != nil {
		t.Fatal(err)
	}
	// This registry writes a hash state after it has dropped an upload, but an
	// upload without startedat is none.
	if left, _ := filepath.Glob(filepath.Join(dir, "docker/registry/v2/repositories/base/_uploads/*/startedat")); len(left) != 0 {
		t.Errorf("the check leaves uploads: %v", left)
	}
	base := randomImage(t, 50<<10, 3)
	if _, err := c.Push(t.Context(), host+"/base:1", base, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	pulled, err := c.Image(t.Context(), host+"/base:1", linux)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(pulled); err != nil {
		t.Error(err)
	}
	l, err := random.Layer(100, types.OCILayer)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(pulled, l)
	if err != nil {
		t.Fatal(err)
	}
	mounted := 0
	o := PushOptions{Progress: func(p BlobProgress) {
		if p.Note == "mounted from base" {
			mounted++
		}
	}}
	c.opt.Jobs = 1
	if _, err := c.Push(t.Context(), host+"/team/app:1", img, o); err != nil {
		t.Fatal(err)
	}
	if mounted != 3 {
		t.Errorf("%d layers were mounted", mounted)
	}
	if h, err := c.Digest(t.Context(), host+"/team/app:1"); err != nil || h != digestOf(t, img) {
		t.Errorf("digest %s, %v", h, err)
	}
	if _, err := c.Image(t.Context(), host+"/base:nope", linux); !IsKind(err, NotFound) {
		t.Errorf("missing tag: %v", err)
	}
}

func TestDistributionChunks(t *testing.T) {
	host, _ := startDistribution(t, "", "")
	c := client(t, Options{})
	img := randomImage(t, 3<<20, 1)
	ls, _ := img.Layers()
	size, _ := ls[0].Size()
	target, err := preloadRepository(host + "/a")
	if err != nil {
		t.Fatal(err)
	}
	u := upload{pushTarget: c.pushTarget(target), layer: ls[0], digest: digestOf(t, ls[0]), size: size,
		progress: &progressOnce{}, chunked: true, chunk: 1 << 20}
	if err := u.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if there, err := u.exists(t.Context()); err != nil || !there {
		t.Errorf("after the upload: %v, %v", there, err)
	}
}

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1")},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kb, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: kb}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestDistributionTLSAndPassword(t *testing.T) {
	cert, key := certificate(t)
	htpasswd := filepath.Join(t.TempDir(), "htpasswd")
	// bcrypt of "geheim", cost 4.
	if err := os.WriteFile(htpasswd, []byte("bob:$2b$04$abcdefghijklmnopqrstuuPWRtT5yx7FBi4dcf6ROhboeNunUrLQ.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host, _ := startDistribution(t,
		fmt.Sprintf("  tls: {certificate: %s, key: %s, clientcas: [%s]}", cert, key, cert),
		fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}", htpasswd))
	env := dockerEnv(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, b64("bob:geheim")))
	mtls := map[string]string{host: cert + "," + key}
	ref := host + "/a:1"
	img := randomImage(t, 100, 2)

	ca := client(t, Options{Getenv: env, Certificates: map[string]string{host: cert}, ClientCerts: mtls})
	if _, err := ca.Push(t.Context(), ref, img, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := ca.Image(t.Context(), ref, linux)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		name       string
		o          Options
		pull, push bool
	}{
		{"nothing", Options{}, false, false},
		{"skip", Options{SkipTLSVerify: true}, true, true},
		{"skip pull", Options{SkipTLSVerifyPull: true}, true, false},
		{"skip this", Options{SkipTLSVerifyRegistries: []string{host}}, true, true},
		{"skip other", Options{SkipTLSVerifyRegistries: []string{"other.example"}}, false, false},
	} {
		tt.o.Getenv, tt.o.ClientCerts, tt.o.PullRetries, tt.o.PushRetries = env, mtls, -1, -1
		c := client(t, tt.o)
		if _, err := c.Image(t.Context(), ref, linux); (err == nil) != tt.pull {
			t.Errorf("%s: pull: %v", tt.name, err)
		}
		if err := c.CheckPush(t.Context(), ref); (err == nil) != tt.push {
			t.Errorf("%s: push: %v", tt.name, err)
		}
	}
	noCert := client(t, Options{Getenv: env, Certificates: map[string]string{host: cert}})
	if _, err := noCert.Image(t.Context(), ref, linux); err == nil {
		t.Error("the registry took us without our certificate")
	}
	noPass := client(t, Options{Certificates: map[string]string{host: cert}, ClientCerts: mtls})
	if err := noPass.CheckPush(t.Context(), ref); !IsKind(err, Denied) || !strings.Contains(err.Error(), "401") {
		t.Errorf("without a password: %v", err)
	}
}
