package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBuildsFollowEachOther runs several builds in one container, a failing one
// among them, with the script's own files and tools in use in between.
func TestBuildsFollowEachOther(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	reg := needs(t)
	dir := folder(t, map[string]string{
		"first.Dockerfile":  "FROM busybox\nRUN rm -r /root /home /etc/passwd && echo one > /one && ls / > /seen\n",
		"broken.Dockerfile": "FROM busybox\nRUN echo broken > /broken; exit 42\n",
		"second.Dockerfile": "FROM layered AS a\nRUN test ! -e /one && test ! -e /broken && test ! -e /own && ls / > /seen\n" +
			"FROM busybox\nRUN test ! -e /stack && echo two > /two\nCOPY --from=a /seen /seen\n",
	})
	script := `
build() { /kaniko/executor --context . --dockerfile $1.Dockerfile --no-push --tar-path /builds/project/$1.tar ` + strings.Join(pull(reg), " ") + `; }
before=$(ls -A / /bin /etc /busybox | sort)
mkdir /own
echo kept > /own/file
build first
test "$(cat /own/file)" = kept
code=0; build broken || code=$?
test $code = 42 || { echo "a RUN that exits with 42 gives $code"; exit 1; }
test ! -e broken.tar
test "$(cat /own/file)" = kept
build second
test "$(cat /own/file)" = kept
rm -r /own
after=$(ls -A / /bin /etc /busybox | sort)
test "$before" = "$after" || { echo "before: $before"; echo "after: $after"; exit 1; }
tar tf second.tar | grep -q index.json
echo all well
`
	out, err := container(t, ctx, dir, script)
	if err != nil || !strings.HasSuffix(out, "all well") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"first.tar", "second.tar"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// hidden are commands that must not find what belongs to the job: the executor,
// its credentials, environment and open files. The environment of the job's
// shell is not among them: package inplace says why.
var hidden = map[string]string{
	"executor":       `cat /kaniko/executor > /dev/null`,
	"listing":        `ls /kaniko/.docker/config.json`,
	"credentials":    `cat /kaniko/.docker/config.json`,
	"search":         `find / -xdev -type f -name config.json -print0 2>/dev/null | xargs -0 -r grep -l SECRETTOKEN | grep .`,
	"own env":        `env | grep -e CI_JOB_SECRET -e EXECUTOR_SECRET -e DOCKER_CONFIG`,
	"executor's env": `cat /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | grep EXECUTOR_SECRET`,
	"others' root":   `cat /proc/[0-9]*/root/kaniko/.docker/config.json 2>/dev/null | grep SECRETTOKEN`,
	"others' fd":     `for f in /proc/[0-9]*/fd/*; do case $(readlink $f) in */config.json|*/executor) cat $f > /dev/null && exit 0;; esac; done; false`,
}

// TestRunReachesNothing checks that RUN does not see what is hidden, in a
// container without privileges.
func TestRunReachesNothing(t *testing.T) {
	reg := needs(t)
	const credentials = `{"auths":{"registry.test":{"auth":"U0VDUkVUVE9LRU46eA==","registrytoken":"SECRETTOKEN"}}}`
	for name, command := range hidden {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			dir := folder(t, map[string]string{
				"Dockerfile": "FROM busybox\nRUN if ( " + command + " ); then echo REACHED; exit 7; fi\n",
			})
			out, err := container(t, ctx, dir, `echo '`+credentials+`' > /kaniko/.docker/config.json
EXECUTOR_SECRET=hidden /kaniko/executor --context . --dockerfile Dockerfile --no-push `+strings.Join(pull(reg), " ")+`
grep -q SECRETTOKEN /kaniko/.docker/config.json && echo back`, "--env", "CI_JOB_SECRET=hidden")
			if err != nil || !strings.HasSuffix(out, "back") {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		})
	}
}
