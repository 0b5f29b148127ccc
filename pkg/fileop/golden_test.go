package fileop_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/cooper-build/cooper/pkg/fileop"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

var update = flag.Bool("update", false, "write what is got into testdata")

// now is the time of the requests; the golden files call it "now".
var now = time.Unix(2_000_000_000, 0)

// TestGolden runs the instructions in testdata. Each file holds two trees, src
// and dst, and pairs of an instruction and what it gives: the file "# COPY a b"
// lists the changes of COPY a b.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			src, dst := rootfs.NewTree(), rootfs.NewTree()
			for i, f := range archive.Files {
				switch f.Name {
				case "src":
					fill(t, src, string(f.Data))
				case "dst":
					fill(t, dst, string(f.Data))
				default:
					got := perform(t, dst, src, strings.TrimPrefix(f.Name, "# "))
					if *update {
						archive.Files[i].Data = []byte(got)
					} else if got != string(f.Data) {
						t.Errorf("%s\ngot:\n%swant:\n%s", f.Name, got, f.Data)
					}
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// fill puts files into a tree, one a line:
//
//	d 0755 0:0 1 path          a directory with modification time 1
//	f 0644 0:0 1.5 path text   a file, five nanoseconds later
//	l 0:0 1 path target        a symbolic link
//	h path other               one more name of another file
//	p 0644 0:0 1 path          a fifo
//	s 0644 0:0 1 path          a socket
//	c 0644 0:0 1 path 1,3      a character device
//	x path name value          an extended attribute of the file before it
func fill(t *testing.T, tree *rootfs.Tree, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if err := fillLine(tree, f); err != nil {
			t.Fatalf("%s: %v", strings.TrimSpace(line), err)
		}
	}
}

func fillLine(tree *rootfs.Tree, f []string) error {
	switch f[0] {
	case "h":
		return tree.Link(f[2], f[1])
	case "x":
		e, err := tree.Lstat(f[1])
		if err != nil {
			return err
		}
		e.Xattrs = map[string]string{f[2]: f[3]}
		return tree.SetMeta(e)
	}
	e := rootfs.Entry{Mode: 0o777, Kind: map[string]rootfs.Kind{
		"d": rootfs.Directory, "f": rootfs.Regular, "l": rootfs.Symlink,
		"p": rootfs.Fifo, "s": rootfs.Socket, "c": rootfs.CharDevice,
	}[f[0]]}
	if f[0] != "l" {
		mode, err := strconv.ParseUint(f[1], 8, 32)
		if err != nil {
			return err
		}
		e.Mode = uint32(mode)
		f = f[1:]
	}
	if _, err := fmt.Sscanf(f[1], "%d:%d", &e.UID, &e.GID); err != nil {
		return err
	}
	sec, nsec, _ := strings.Cut(f[2], ".")
	s, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return err
	}
	n, _ := strconv.ParseInt("0"+nsec, 10, 64)
	e.ModTime = time.Unix(s, n)
	e.Path = f[3]
	data := ""
	if len(f) > 4 {
		data = strings.Join(f[4:], " ")
	}
	switch e.Kind {
	case rootfs.Symlink:
		e.Target = data
	case rootfs.CharDevice:
		if _, err := fmt.Sscanf(data, "%d,%d", &e.Major, &e.Minor); err != nil {
			return err
		}
	case rootfs.Regular:
		e.Size = int64(len(data))
	}
	return tree.Put(e, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil })
}

// perform carries out an instruction and describes what it changes.
func perform(t *testing.T, dst, src *rootfs.Tree, instruction string) string {
	t.Helper()
	words := strings.Fields(instruction)
	req := fileop.AddRequest{CopyRequest: fileop.CopyRequest{Time: now}, TempDir: t.TempDir()}
	user := ""
	verb := words[0]
	words = words[1:]
	for len(words) > 0 && strings.HasPrefix(words[0], "--") {
		name, value, _ := strings.Cut(words[0][2:], "=")
		words = words[1:]
		switch name {
		case "chown":
			req.Chown = value
		case "chmod":
			req.Chmod = value
		case "exclude":
			req.Exclude = append(req.Exclude, value)
		case "link":
			req.Link = true
		case "parents":
			req.Parents = true
		case "unpack":
			b := value != "false"
			req.Unpack = &b
		case "checksum":
			req.Checksum = value
		case "user":
			user = value
		default:
			t.Fatalf("unknown flag --%s", name)
		}
	}
	req.Dest = words[len(words)-1]
	for _, w := range words[:len(words)-1] {
		if name, ok := strings.CutPrefix(w, "<<"); ok {
			req.Files = append(req.Files, fileop.File{Name: name, Data: []byte("here " + name)})
		} else {
			req.Paths = append(req.Paths, w)
		}
	}
	var changes []snapshot.Change
	var err error
	ctx := context.Background()
	switch verb {
	case "COPY":
		changes, err = fileop.Copy(ctx, dst, src, req.CopyRequest)
	case "ADD":
		changes, err = fileop.Add(ctx, dst, src, req)
	case "WORKDIR":
		changes, err = fileop.Workdir(ctx, dst, req.Dest, user, now)
	default:
		t.Fatalf("unknown instruction %s", verb)
	}
	if err != nil {
		kind := ""
		var missing *fileop.NotFoundError
		var conflict *fileop.ConflictError
		switch {
		case errors.As(err, &missing):
			kind = " (missing)"
		case errors.As(err, &conflict):
			kind = " (conflict)"
		}
		return fmt.Sprintf("error%s: %v\n", kind, err)
	}
	return describe(t, changes)
}

func describe(t *testing.T, changes []snapshot.Change) string {
	t.Helper()
	var out strings.Builder
	for _, c := range changes {
		e := c.Entry
		if c.Kind == snapshot.Remove {
			fmt.Fprintf(&out, "remove %s\n", e.Path)
			continue
		}
		kind := map[snapshot.Kind]string{snapshot.Write: "write", snapshot.Parent: "parent"}[c.Kind]
		letter := map[rootfs.Kind]string{
			rootfs.Directory: "d", rootfs.Regular: "f", rootfs.Symlink: "l",
			rootfs.Fifo: "p", rootfs.Socket: "s", rootfs.CharDevice: "c",
		}[e.Kind]
		when := "now"
		if !e.ModTime.Equal(now) {
			when = strconv.FormatInt(e.ModTime.Unix(), 10)
			if n := e.ModTime.Nanosecond(); n != 0 {
				when += "." + strconv.Itoa(n)
			}
		}
		fmt.Fprintf(&out, "%s %s %04o %d:%d %s %s", kind, letter, e.Mode, e.UID, e.GID, when, e.Path)
		if e.Target != "" {
			fmt.Fprintf(&out, " -> %s", e.Target)
		}
		if e.Major+e.Minor > 0 {
			fmt.Fprintf(&out, " %d,%d", e.Major, e.Minor)
		}
		var xattrs []string
		for k, v := range e.Xattrs {
			xattrs = append(xattrs, k+"="+v)
		}
		sort.Strings(xattrs)
		for _, x := range xattrs {
			fmt.Fprintf(&out, " %s", x)
		}
		if e.Link != 0 {
			fmt.Fprintf(&out, " link=%d", e.Link)
		}
		if e.Kind == rootfs.Regular {
			fmt.Fprintf(&out, " %q", content(t, c))
		}
		out.WriteByte('\n')
	}
	if out.Len() == 0 {
		return "nothing\n"
	}
	return out.String()
}

func content(t *testing.T, c snapshot.Change) string {
	t.Helper()
	rc, err := c.Open()
	if err != nil {
		t.Fatalf("%s: %v", c.Entry.Path, err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatalf("%s: %v", c.Entry.Path, err)
	}
	if int64(len(data)) != c.Entry.Size {
		t.Errorf("%s: %d bytes, size says %d", c.Entry.Path, len(data), c.Entry.Size)
	}
	return string(data)
}
