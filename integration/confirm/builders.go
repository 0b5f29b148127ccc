package confirm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/integration/machine"
)

// Outcome is a build's picture with what the builder printed.
type Outcome struct {
	Picture *Picture
	// Log is the builder's output; Err is why there is no image.
	Log string
	Err error
	// Took is the wall time of the build.
	Took time.Duration
}

// BuildKit builds a case with BuildKit.
func BuildKit(ctx context.Context, m *machine.Machine, c *Case) (*Outcome, error) {
	b, err := m.BuildKit(ctx)
	if err != nil {
		return nil, err
	}
	// BuildKit takes WORKDIR and heredocs from earlier builds, whatever it is told.
	return build(ctx, m, c, b.Started, func(s *scene, out string) (string, error) {
		r := machine.Request{
			Context: s.context, Dockerfile: filepath.Join(s.context, c.Dockerfile), Target: c.Target, BuildArgs: c.BuildArgs,
			Output: "type=docker,name=confirm.test/case,dest=" + out,
		}
		for _, id := range slices.Sorted(maps.Keys(c.Secrets)) {
			r.Secrets = append(r.Secrets, "id="+id+",src="+s.secret(id))
		}
		for _, id := range c.SSH {
			r.SSH = append(r.SSH, id+"="+s.agent(id))
		}
		return b.Build(ctx, r)
	})
}

// Cooper builds a case with Cooper under an isolation.
func Cooper(ctx context.Context, m *machine.Machine, c *Case, isolation string) (*Outcome, error) {
	command, err := starters[isolation](ctx, m)
	if err != nil {
		return nil, err
	}
	reg, err := m.Registry(ctx)
	if err != nil {
		return nil, err
	}
	return build(ctx, m, c, time.Now(), func(s *scene, out string) (string, error) {
		if isolation == "rootless" {
			if err := giveAway(s.dir); err != nil {
				return "", err
			}
		}
		// dir is the scene's directory as the executor sees it.
		dir := s.dir
		if isolation == "inplace" {
			dir = "/case"
		}
		args := []string{
			"--context", dir + "/context", "--dockerfile", dir + "/context/" + c.Dockerfile, "--no-push",
			"--tar-path", dir + "/" + filepath.Base(out), "--destination", "confirm.test/case",
			"--registry-mirror", reg.Host, "--insecure-registry", reg.Host, "--skip-default-registry-fallback",
			"--log-format", "text",
		}
		if isolation == "inplace" {
			args = append(args, "--isolation", "inplace")
		} else {
			args = append(args, "--isolation", "namespace", "--kaniko-dir", dir+"/work")
		}
		if c.Target != "" {
			args = append(args, "--target", c.Target)
		}
		for _, a := range c.BuildArgs {
			args = append(args, "--build-arg", a)
		}
		for _, id := range slices.Sorted(maps.Keys(c.Secrets)) {
			args = append(args, "--secret", "id="+id+",src="+dir+"/secret-"+id)
		}
		for _, id := range c.SSH {
			args = append(args, "--ssh", id+"="+dir+"/agent-"+id)
		}
		log, err := command(s.dir, args).CombinedOutput()
		return string(log), err
	})
}

// starters make the executor's command for a scene in a directory.
var starters = map[string]func(context.Context, *machine.Machine) (func(dir string, args []string) *exec.Cmd, error){
	"namespace": func(ctx context.Context, m *machine.Machine) (func(string, []string) *exec.Cmd, error) {
		if os.Getuid() != 0 {
			return nil, &machine.Missing{What: "this isolation is tested as root"}
		}
		executor, err := m.Executor(ctx)
		return func(dir string, args []string) *exec.Cmd {
			cmd := exec.CommandContext(ctx, executor, args...)
			cmd.Env = plainEnvironment(dir)
			return cmd
		}, err
	},
	"rootless": func(ctx context.Context, m *machine.Machine) (func(string, []string) *exec.Cmd, error) {
		uid, gid, err := ordinaryUser()
		if err != nil {
			return nil, err
		}
		executor, err := m.Executor(ctx)
		return func(dir string, args []string) *exec.Cmd {
			as := []string{"--reuid=" + strconv.Itoa(uid), "--regid=" + strconv.Itoa(gid), "--clear-groups", executor}
			cmd := exec.CommandContext(ctx, "setpriv", append(as, args...)...)
			cmd.Env = plainEnvironment(dir)
			return cmd
		}, err
	},
	"inplace": func(ctx context.Context, m *machine.Machine) (func(string, []string) *exec.Cmd, error) {
		e, err := m.Engine(ctx)
		if err != nil {
			return nil, err
		}
		image, err := m.CooperImage(ctx)
		return func(dir string, args []string) *exec.Cmd {
			docker := []string{"--config", e.Config, "--host", e.Host, "run", "--rm", "--network=host", "-v", dir + ":/case", image}
			return exec.CommandContext(ctx, "docker", append(docker, args...)...)
		}, err
	},
}

func plainEnvironment(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "DOCKER_CONFIG=" + home, "TMPDIR=" + home}
}

// ordinaryUser is the user that setup.sh has added.
func ordinaryUser() (uid, gid int, err error) {
	u, err := user.Lookup("cooper-test")
	if err != nil || os.Getuid() != 0 {
		return 0, 0, &machine.Missing{What: "builds as an ordinary user are tested by root as cooper-test, whom integration/setup.sh adds"}
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// giveAway makes the ordinary user the owner of all below dir, keeping the mode
// bits that a change of owner takes away.
func giveAway(dir string) error {
	uid, gid, err := ordinaryUser()
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if err := os.Lchown(p, uid, gid); err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		return unix.Chmod(p, st.Mode&0o7777)
	})
}

// build sets the scene, lets run build the case into an archive, and looks at
// it. No part of the result is older than since, unless it was given.
func build(ctx context.Context, m *machine.Machine, c *Case, since time.Time, run func(s *scene, out string) (string, error)) (*Outcome, error) {
	reg, err := m.Registry(ctx)
	if err != nil {
		return nil, err
	}
	if err := reg.Need(ctx, c.Bases...); err != nil {
		return nil, err
	}
	bases, err := reg.Layers()
	if err != nil {
		return nil, err
	}
	dir, err := m.Sub("case")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s, err := c.setScene(dir)
	if err != nil {
		return nil, fmt.Errorf("prepare case %s: %w", c.Name, err)
	}
	defer s.close()
	out := filepath.Join(dir, "out.tar")
	built := Moment{Begin: since}
	begin := time.Now()
	log, err := run(s, out)
	built.End = time.Now()
	o := &Outcome{Log: log, Err: err, Took: built.End.Sub(begin)}
	if err != nil {
		var exit *exec.ExitError
		if ctx.Err() != nil || !errors.As(err, &exit) {
			return nil, err
		}
		o.Picture = &Picture{Failed: true}
		return o, nil
	}
	p, err := ReadPicture(out, built, bases)
	if err != nil {
		return nil, err
	}
	o.Picture, err = p.named(s.address)
	return o, err
}

// named is a deep copy in which the address of the case's server has the name
// that it has in the Dockerfile. It is equal to one read from a record.
func (p *Picture) named(address string) (*Picture, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	if address != "" {
		data = []byte(strings.ReplaceAll(string(data), address, ServeName))
	}
	q := &Picture{}
	return q, json.Unmarshal(data, q)
}
