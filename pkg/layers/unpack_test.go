package layers_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// stack applies layers in the ways that there are, each to a tree of its own,
// and returns what the trees then hold.
func stack(t *testing.T, tars ...[]byte) (plain, overlay, index string, err error) {
	t.Helper()
	tree := rootfs.NewTree()
	dir := tempDir(t)
	root := openRoot(t, dir)
	var lowers []string
	var opened []*layers.Contents
	defer func() {
		for _, c := range opened {
			c.Close()
		}
	}()
	for _, b := range tars {
		err1 := layers.Unpack(t.Context(), bytes.NewReader(b), root, layers.UnpackOptions{})
		c, err2 := layers.Load(t.Context(), tree, layerOf(b), layers.LoadOptions{TempDir: t.TempDir()})
		if c != nil {
			opened = append(opened, c)
		}
		own := t.TempDir()
		opts := layers.UnpackOptions{Form: layers.OverlayUser}
		if os.Geteuid() == 0 {
			opts.Form = layers.OverlayTrusted
		}
		if len(lowers) > 0 {
			u, err := rootfs.OpenUnion(lowers, rootfs.DirOptions{})
			if err != nil {
				t.Fatal(err)
			}
			opts.Lower = u
			defer u.Close()
		} else {
			opts.Lower = rootfs.NewTree()
		}
		err3 := layers.Unpack(t.Context(), bytes.NewReader(b), openRoot(t, own), opts)
		lowers = append(lowers, own)
		if (err1 == nil) != (err2 == nil) || (err1 == nil) != (err3 == nil) {
			t.Fatalf("the ways to apply a layer differ:\n%s\nplain: %v\nindex: %v\noverlay: %v", listing(b), err1, err2, err3)
		}
		if err1 != nil {
			return "", "", "", err1
		}
	}
	u, err := rootfs.OpenUnion(lowers, rootfs.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	return dump(t, openDir(t, dir)), dump(t, u), dump(t, tree), nil
}

func listing(b []byte) string {
	var s strings.Builder
	for tr := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := tr.Next()
		if err != nil {
			return s.String()
		}
		fmt.Fprintf(&s, "%c %q %q %o\n", h.Typeflag, h.Name, h.Linkname, h.Mode)
	}
}

func TestApply(t *testing.T) {
	needRoot(t)
	whiteout := func(name string) item { return item{hdr: tar.Header{Typeflag: tar.TypeReg, Name: name}} }
	noMeta := func(name string) item {
		return dir(name).with(func(h *tar.Header) { h.Mode, h.ModTime = 0o700, noon.Add(time.Hour) })
	}
	base := []item{dir("etc/"), file("etc/passwd", "root"), file("etc/group", "g"), dir("usr/"), dir("usr/lib/"),
		file("usr/lib/a.so", "a"), symlink("lib", "usr/lib"), dir("d/"), dir("d/e/"), file("d/e/f", "f")}
	for _, tt := range []struct {
		name   string
		layers [][]item
		want   string
	}{
		{"every kind", [][]item{{
			dir("d/").with(func(h *tar.Header) { h.Mode, h.Uid, h.Gid = 0o1777, 5, 6 }),
			file("d/suid", "x").with(func(h *tar.Header) { h.Mode, h.Uid = 0o6755, 7 }),
			hardlink("d/again", "d/suid").with(func(h *tar.Header) { h.Mode, h.Uid = 0o6755, 7 }),
			fifo("pipe"),
			symlink("s", "../../outside"), hardlink("s2", "s").with(func(h *tar.Header) { h.Mode = 0o777 }),
			item{hdr: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
			item{hdr: tar.Header{Typeflag: tar.TypeBlock, Name: "sda", Mode: 0o660, Devmajor: 8}},
			file("cap", "x").with(func(h *tar.Header) {
				h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
			}),
		}}, `file "cap" 644 0:0 43200 "x" security.capability="\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
dir "d" 1777 5:6 43200
file "d/again" 6755 7:0 43200 "x"
file "d/suid" 6755 7:0 43200 "x" = "d/again"
char "null" 666 0:0 0 1,3
fifo "pipe" 600 0:0 43200
symlink "s" 777 0:0 43200 → "../../outside"
symlink "s2" 777 0:0 43200 → "../../outside" = "s"
block "sda" 660 0:0 0 8,0
`},
		{"whiteouts", [][]item{base, {whiteout("etc/.wh.group"), whiteout(".wh.d"), whiteout(".wh.nothing"), whiteout("usr/lib/a.so/.wh.x")}},
			`dir "etc" 755 0:0 43200
file "etc/passwd" 644 0:0 43200 "root"
symlink "lib" 777 0:0 43200 → "usr/lib"
dir "usr" 755 0:0 43200
dir "usr/lib" 755 0:0 43200
file "usr/lib/a.so" 644 0:0 43200 "a"
`},
		{"whiteouts hide lower layers only, wherever they stand", [][]item{base, {
			dir("d/"), file("d/new", "n"), whiteout(".wh.d"),
			whiteout("etc/.wh.passwd"), file("etc/passwd", "two"), file("etc/group", "two"), whiteout("etc/.wh.group"),
			whiteout(".wh.usr"), file("usr/x", "x"),
			whiteout(".wh.lib"),
		}}, `dir "d" 755 0:0 43200
file "d/new" 644 0:0 43200 "n"
dir "etc" 755 0:0 43200
file "etc/group" 644 0:0 43200 "two"
file "etc/passwd" 644 0:0 43200 "two"
dir "usr" 755 0:0 0
file "usr/x" 644 0:0 43200 "x"
`},
		{"opaque before and after", [][]item{base, {
			dir("d/"), whiteout("d/.wh..wh..opq"), file("d/new", "n"),
			dir("usr/"), dir("usr/lib/"), file("usr/lib/b.so", "b"), whiteout("usr/.wh..wh..opq"),
		}}, `dir "d" 755 0:0 43200
file "d/new" 644 0:0 43200 "n"
dir "etc" 755 0:0 43200
file "etc/group" 644 0:0 43200 "g"
file "etc/passwd" 644 0:0 43200 "root"
symlink "lib" 777 0:0 43200 → "usr/lib"
dir "usr" 755 0:0 43200
dir "usr/lib" 755 0:0 43200
file "usr/lib/b.so" 644 0:0 43200 "b"
`},
		{"opaque root", [][]item{base, {whiteout(".wh..wh..opq"), dir("d/"), file("new", "n")}},
			"dir \"d\" 755 0:0 43200\nfile \"new\" 644 0:0 43200 \"n\"\n"},
		{"types swap", [][]item{{file("a", "a"), dir("b/"), file("b/x", "x"), symlink("c", "b"), dir("l/")}, {
			dir("a/"), file("a/y", "y"), file("b", "b"), dir("c/"), symlink("l", "a"),
		}}, `dir "a" 755 0:0 43200
file "a/y" 644 0:0 43200 "y"
file "b" 644 0:0 43200 "b"
dir "c" 755 0:0 43200
symlink "l" 777 0:0 43200 → "a"
`},
		{"missing parents and parents that are links", [][]item{base, {
			file("lib/b.so", "b"), file("new/deep/x", "x"), noMeta("d/"), whiteout("lib/.wh.a.so"),
		}}, `dir "d" 700 0:0 46800
dir "d/e" 755 0:0 43200
file "d/e/f" 644 0:0 43200 "f"
dir "etc" 755 0:0 43200
file "etc/group" 644 0:0 43200 "g"
file "etc/passwd" 644 0:0 43200 "root"
symlink "lib" 777 0:0 43200 → "usr/lib"
dir "new" 755 0:0 0
dir "new/deep" 755 0:0 0
file "new/deep/x" 644 0:0 43200 "x"
dir "usr" 755 0:0 43200
dir "usr/lib" 755 0:0 43200
file "usr/lib/b.so" 644 0:0 43200 "b"
`},
		{"odd names and headers", [][]item{{
			dir("./"), file("./a", "a"), file("/b", "b"), file("x/../c", "c"), file("../../d", "d"),
			item{hdr: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}},
			file(strings.Repeat("n", 200), "long").with(func(h *tar.Header) { h.Format = tar.FormatGNU }),
			file("old", "1900").with(func(h *tar.Header) { h.ModTime = time.Unix(-1e9, 0); h.Format = tar.FormatPAX }),
			file("\xff\xfe", "raw"),
		}}, `file "a" 644 0:0 43200 "a"
file "b" 644 0:0 43200 "b"
file "c" 644 0:0 43200 "c"
file "d" 644 0:0 43200 "d"
file "` + strings.Repeat("n", 200) + `" 644 0:0 43200 "long"
file "old" 644 0:0 0 "1900"
file "\xff\xfe" 644 0:0 43200 "raw"
`},
		{"hard link to a lower layer's file", [][]item{base, {hardlink("etc/again", "lib/a.so")}}, `dir "d" 755 0:0 43200
dir "d/e" 755 0:0 43200
file "d/e/f" 644 0:0 43200 "f"
dir "etc" 755 0:0 43200
file "etc/again" 644 0:0 43200 "a"
file "etc/group" 644 0:0 43200 "g"
file "etc/passwd" 644 0:0 43200 "root"
symlink "lib" 777 0:0 43200 → "usr/lib"
dir "usr" 755 0:0 43200
dir "usr/lib" 755 0:0 43200
file "usr/lib/a.so" 644 0:0 43200 "a" = "etc/again"
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tars [][]byte
			for _, l := range tt.layers {
				tars = append(tars, tarOf(t, l...))
			}
			plain, overlay, index, err := stack(t, tars...)
			if err != nil {
				t.Fatal(err)
			}
			for _, got := range []struct{ form, text string }{{"plain", plain}, {"overlay", overlay}, {"index", index}} {
				if got.text != tt.want {
					t.Errorf("%s:\n%s\nwant:\n%s", got.form, got.text, tt.want)
				}
			}
		})
	}
}

// The three ways to apply layers agree on layers that nobody would make.
func TestWaysAgree(t *testing.T) {
	needRoot(t)
	n := 150
	if testing.Short() {
		n = 30
	}
	applied := 0
	for seed := range n {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 1))
			var tars [][]byte
			for range 3 {
				tars = append(tars, randomTar(t, rng))
			}
			// Layers that can't be applied end the stack, for all ways alike.
			for n := len(tars); n > 0; n-- {
				plain, overlay, index, err := stack(t, tars[:n]...)
				if err != nil {
					continue
				}
				applied += n
				if plain != overlay || plain != index {
					t.Fatalf("%s\n%s\n%s\nplain:\n%s\noverlay:\n%s\nindex:\n%s",
						listing(tars[0]), listing(tars[1]), listing(tars[2]), plain, overlay, index)
				}
				return
			}
		})
	}
	if applied < n {
		t.Errorf("only %d of %d layers could be applied", applied, 3*n)
	}
}

func randomTar(t *testing.T, rng *rand.Rand) []byte {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	name := func() string {
		n := pick("a", "b", "c", "d")
		for rng.IntN(2) == 0 {
			n += "/" + pick("a", "b", "c", "d")
		}
		switch rng.IntN(8) {
		case 0:
			n = "./" + n
		case 1:
			n = "../" + n
		case 2:
			n += "/../" + pick("a", "b")
		}
		return n
	}
	var items []item
	for range 2 + rng.IntN(5) {
		var i item
		switch n := name(); rng.IntN(9) {
		case 0, 1:
			i = dir(n + "/")
		case 2:
			i = symlink(n, pick("a", "/b", "../c", "../../../etc", "/", ".", "nope/x", "d"))
		case 3:
			if i = hardlink(n, name()); len(items) > 0 && rng.IntN(8) > 0 {
				i = hardlink(n, items[rng.IntN(len(items))].hdr.Name)
			}
		case 4:
			i = fifo(n)
		case 5:
			i = file(path.Dir(n)+"/.wh."+path.Base(n), "")
		case 6:
			i = file(n+"/.wh..wh..opq", "")
		default:
			i = file(n, pick("", "x", "some more"))
		}
		items = append(items, i.with(func(h *tar.Header) {
			h.Mode, h.Uid = int64(rng.IntN(0o10000)&^0o2000), rng.IntN(4)
			h.ModTime = time.Unix(rng.Int64N(1e9), 0)
		}))
	}
	return tarOf(t, items...)
}

// hostile are layers that try to reach what lies beside the root.
func hostile() map[string][]item {
	owned := func(name string) item { return file(name, "owned") }
	victim := "../victim"
	return map[string][]item{
		"dots":                     {owned("../victim")},
		"many dots":                {owned("a/../../../../../../../../victim")},
		"absolute link":            {symlink("l", "/"), owned("l/../victim")},
		"relative link":            {symlink("l", ".."), owned("l/victim")},
		"link in the last place":   {symlink("l", victim), owned("l")},
		"chain":                    {symlink("a", ".."), symlink("b", "a/.."), owned("b/victim")},
		"link over a directory":    {dir("d/"), file("d/f", ""), symlink("d", ".."), owned("d/victim")},
		"link and directory":       {symlink("d", ".."), dir("d/victim/"), dir("d/")},
		"hard link out":            {hardlink("h", victim), owned("h")},
		"hard link through a link": {symlink("l", ".."), hardlink("h", "l/victim"), owned("h")},
		"hard link to a link":      {symlink("l", victim), hardlink("h", "l"), owned("h")},
		"whiteout":                 {owned("../.wh.victim")},
		"whiteout through a link":  {symlink("l", ".."), owned("l/.wh.victim")},
		"opaque through a link":    {symlink("l", ".."), owned("l/.wh..wh..opq")},
		"whiteout of a link":       {symlink("l", victim), file(".wh.l", "")},
		"whiteout dots":            {file(".wh...", "")},
		"whiteout dot":             {file("d/.wh..", "")},
		"whiteout nothing":         {file("d/.wh.", "")},
		"mode through a link":      {symlink("l", victim), dir("l/").with(func(h *tar.Header) { h.Mode = 0o777 })},
		"attribute through a link": {symlink("l", victim).with(func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y"} })},
		"loop":                     {symlink("a", "b"), symlink("b", "a"), owned("a/victim")},
		"root as a file":           {owned("."), owned("x/../.."), owned("..")},
		"root as a link":           {symlink(".", ".."), symlink("/", "..")},
		"hard link to the root":    {hardlink("h", "/"), hardlink("g", "..")},
		"device":                   {item{hdr: tar.Header{Typeflag: tar.TypeChar, Name: "../dev", Devmajor: 1, Devminor: 3}}},
		"fifo":                     {symlink("l", ".."), fifo("l/fifo"), fifo("../fifo")},
		"proc":                     {symlink("p", "/proc/self/root"), owned("p/victim"), symlink("q", "/proc/self/cwd/.."), owned("q/victim")},
		"override": {owned("o").with(func(h *tar.Header) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.cooper.override": "0:0:777:char:1:3"}
		})},
	}
}

// beside puts files next to a root and returns a function that fails when they
// changed.
func beside(t testing.TB, dir string) func() {
	t.Helper()
	parent := filepath.Dir(dir)
	if err := os.WriteFile(filepath.Join(parent, "victim"), []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		d, err := rootfs.OpenDir(parent, rootfs.DirOptions{AllXattrs: true, Skip: func(name string) bool { return name == filepath.Base(dir) }})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(parent, "victim"), &st); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(dump(t, d), st.Nlink, st.Ino, st.Mtim)
	}
	before := state()
	return func() {
		t.Helper()
		if after := state(); after != before {
			t.Errorf("the host changed:\n%s\nto\n%s", before, after)
		}
	}
}

func TestHostile(t *testing.T) {
	for name, items := range hostile() {
		t.Run(name, func(t *testing.T) {
			b := tarOf(t, items...)
			for _, form := range []layers.Form{layers.Plain, layers.OverlayUser} {
				dir := tempDir(t)
				check := beside(t, dir)
				err := layers.Unpack(t.Context(), bytes.NewReader(b), openRoot(t, dir), layers.UnpackOptions{Form: form, Lower: rootfs.NewTree()})
				check()
				t.Log(err)
				dump(t, openDir(t, dir)) // no placeholder passes for something else
			}
			if c, err := layers.Load(t.Context(), rootfs.NewTree(), layerOf(b), layers.LoadOptions{}); err == nil {
				c.Close()
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	for name, i := range map[string]item{
		"owner":  file("f", "").with(func(h *tar.Header) { h.Uid = -1; h.Format = tar.FormatGNU }),
		"device": {hdr: tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1 << 40, Format: tar.FormatGNU}},
		"type":   {hdr: tar.Header{Typeflag: 'V', Name: "v"}},
		"link":   symlink("l", ""),
	} {
		err := layers.Unpack(t.Context(), bytes.NewReader(tarOf(t, i)), openRoot(t, tempDir(t)), layers.UnpackOptions{})
		if !errors.Is(err, layers.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole := tarOf(t, file("f", strings.Repeat("x", 4000)))
	for _, n := range []int{100, 600, 2000} {
		if err := layers.Unpack(t.Context(), bytes.NewReader(whole[:n]), openRoot(t, tempDir(t)), layers.UnpackOptions{}); err == nil {
			t.Errorf("a layer cut off at %d was applied", n)
		}
	}
}

func TestSkip(t *testing.T) {
	dir := tempDir(t)
	root := openRoot(t, dir)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "proc/1"), 0o755))
	must(os.Symlink("proc", filepath.Join(dir, "p")))
	skip := func(name string) bool { return name == "proc" || strings.HasPrefix(name, "proc/") }
	b := tarOf(t, file("proc/x", "x"), file("p/y", "y"), file(".wh.proc", ""), file("p/.wh.1", ""), file("proc/.wh..wh..opq", ""), file("z", "z"))
	must(layers.Unpack(t.Context(), bytes.NewReader(b), root, layers.UnpackOptions{Skip: skip}))
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	inside, _ := filepath.Glob(filepath.Join(dir, "proc/*"))
	if len(names) != 3 || len(inside) != 1 {
		t.Errorf("%v %v", names, inside)
	}
}

func TestImplied(t *testing.T) {
	for _, tt := range []struct {
		name  string
		items []item
		want  string
		err   error
	}{
		{"complete", []item{dir("a/"), dir("a/b/"), file("a/b/c", ""), file("x", ""), hardlink("y", "x")}, "[]", nil},
		{"missing parents", []item{file("a/b/c", ""), file("a/b/d", "")}, "[a a/b]", nil},
		{"link from below", []item{hardlink("y", "x")}, "[x]", layers.ErrNeedsLower},
		{"opaque root", []item{file(".wh..wh..opq", "")}, "[.]", layers.ErrNeedsLower},
	} {
		got := []string{}
		err := layers.Unpack(t.Context(), bytes.NewReader(tarOf(t, tt.items...)), openRoot(t, tempDir(t)), layers.UnpackOptions{
			Form: layers.OverlayUser, Implied: func(name string) { got = append(got, name) },
		})
		if !errors.Is(err, tt.err) || fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for _, items := range hostile() {
		f.Add(tarOf(f, items...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			t.Skip("large inputs find nothing more")
		}
		dir := tempDir(t)
		check := beside(t, dir)
		rc, err := layers.Decompress(io.LimitReader(bytes.NewReader(data), 1<<20))
		if err != nil {
			return
		}
		defer rc.Close()
		limited := io.LimitReader(rc, 4<<20)
		root, err := rootfs.OpenRoot(dir, rootfs.RootOptions{Owners: rootfs.OwnRecorded})
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_ = layers.Unpack(t.Context(), limited, root, layers.UnpackOptions{})
		check()
	})
}
