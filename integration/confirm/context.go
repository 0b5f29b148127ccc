package confirm

import (
	"archive/tar"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// contextTime is the time of a context's files where the case gives no other:
// not a whole second, since layers hold whole ones.
var contextTime = time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)

// WriteContext writes the case's files into dir, which exists. Text "files.test"
// in the Dockerfile becomes address where the case serves files.
func (c *Case) WriteContext(dir, address string) error {
	w := contextWriter{dir: dir, times: map[string]time.Time{}}
	for _, f := range c.files {
		data := string(f.Data)
		if c.Serve && f.Name == c.Dockerfile {
			data = strings.ReplaceAll(data, ServeName, address)
		}
		if err := w.file(f.Name, data); err != nil {
			return err
		}
	}
	for _, s := range c.steps {
		if err := w.step(s[0], s[1:]); err != nil {
			return fmt.Errorf("case %s: %s: %w", c.Name, strings.Join(s, " "), err)
		}
	}
	return w.finish()
}

type contextWriter struct {
	dir   string
	times map[string]time.Time
}

func (w *contextWriter) path(name string) string { return filepath.Join(w.dir, name) }

func (w *contextWriter) file(name, data string) error {
	p := w.path(name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	return os.WriteFile(p, []byte(data), 0o644)
}

func (w *contextWriter) step(name string, a []string) error {
	p := w.path(a[0])
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	switch name {
	case "mode":
		m, err := strconv.ParseUint(a[1], 8, 32)
		if err != nil {
			return err
		}
		return unix.Chmod(p, uint32(m))
	case "owner":
		uid, gid, err := owner(a[1], a[2])
		if err != nil {
			return err
		}
		return os.Lchown(p, uid, gid)
	case "dir":
		return os.MkdirAll(p, 0o755)
	case "link":
		return os.Symlink(a[1], p)
	case "hardlink":
		return os.Link(w.path(a[1]), p)
	case "fifo":
		return unix.Mkfifo(p, 0o644)
	case "mtime":
		t, err := time.Parse(time.RFC3339, a[1])
		w.times[filepath.Clean(p)] = t
		return err
	case "bytes":
		b, err := hex.DecodeString(a[1])
		if err != nil {
			return err
		}
		return w.file(a[0], string(b))
	case "fill":
		n, err := strconv.Atoi(a[1])
		if err != nil {
			return err
		}
		b := make([]byte, n)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
		return w.file(a[0], string(b))
	case "xattr":
		b, err := hex.DecodeString(a[2])
		if err != nil {
			return err
		}
		return unix.Lsetxattr(p, a[1], b, 0)
	case "archive":
		return w.archive(p, w.path(a[1]), a[2:])
	case "compress":
		return compress(p, strings.TrimSuffix(p, ".gz"))
	case "repository":
		return w.repository(p)
	}
	return fmt.Errorf("unknown step %q", name)
}

func owner(u, g string) (uid, gid int, err error) {
	if uid, err = strconv.Atoi(u); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(g)
	return uid, gid, err
}

// finish sets the modes of directories that no step has set, and all times.
func (w *contextWriter) finish() error {
	var paths []string
	err := filepath.WalkDir(w.dir, func(p string, _ fs.DirEntry, err error) error {
		paths = append(paths, p)
		return err
	})
	for i := len(paths) - 1; i >= 0 && err == nil; i-- {
		t, ok := w.times[paths[i]]
		if !ok {
			t = contextTime
		}
		ts := unix.NsecToTimespec(t.UnixNano())
		if err = unix.UtimesNanoAt(unix.AT_FDCWD, paths[i], []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			err = fmt.Errorf("set the time of %s: %w", paths[i], err)
		}
	}
	return err
}

// archive makes a tar of a directory's content and removes the directory.
func (w *contextWriter) archive(file, dir string, ids []string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	var tool *exec.Cmd
	var to io.WriteCloser
	switch {
	case strings.HasSuffix(file, ".gz"):
		to = gzip.NewWriter(out)
	case strings.HasSuffix(file, ".bz2"):
		tool = exec.Command("bzip2")
	case strings.HasSuffix(file, ".xz"):
		tool = exec.Command("xz")
	case strings.HasSuffix(file, ".zst"):
		tool = exec.Command("zstd", "-q")
	default:
		to = out
	}
	if tool != nil {
		tool.Stdout = out
		if to, err = tool.StdinPipe(); err != nil {
			return err
		}
		if err := tool.Start(); err != nil {
			return err
		}
	}
	if err := w.tarOf(dir, to, ids); err != nil {
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	if tool != nil {
		if err := tool.Wait(); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

func (w *contextWriter) tarOf(dir string, to io.Writer, ids []string) error {
	t := tar.NewWriter(to)
	links := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if target, err = os.Readlink(p); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(dir, p); err != nil {
			return err
		}
		if info.IsDir() {
			h.Name += "/"
		}
		h.ModTime, h.Uname, h.Gname, h.Uid, h.Gid = contextTime.Truncate(time.Second), "", "", 0, 0
		if t, ok := w.times[p]; ok {
			h.ModTime = t
		}
		if len(ids) == 2 {
			if h.Uid, h.Gid, err = owner(ids[0], ids[1]); err != nil {
				return err
			}
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if first, ok := links[st.Ino]; ok && info.Mode().IsRegular() {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		}
		links[st.Ino] = h.Name
		if err := t.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		_, err = t.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	return t.Close()
}

func compress(file, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	z := gzip.NewWriter(out)
	if _, err := z.Write(data); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.Remove(from)
}

// repository makes a bare git repository with one commit on main and the tag v1.
func (w *contextWriter) repository(dir string) error {
	bare := dir + ".git"
	script := `set -e
git init -q -b main "$1"; cd "$1"
git add -A; git commit -q -m first; git tag v1
git clone -q --bare "$1" "$2"; cd "$2"; git config uploadpack.allowAnySHA1InWant true`
	cmd := exec.Command("sh", "-c", script, "sh", dir, bare)
	cmd.Env = append(os.Environ(), "HOME="+w.dir, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE=2024-05-06T07:08:09Z", "GIT_COMMITTER_DATE=2024-05-06T07:08:09Z")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make a repository: %w: %s", err, out)
	}
	return os.RemoveAll(dir)
}
