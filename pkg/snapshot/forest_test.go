package snapshot_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A forester grows and changes a random tree in a directory of the host by the
// calls that a RUN would use. Equal seeds do equal things but for the times
// that the kernel gives.
type forester struct {
	t        *testing.T
	rng      *rand.Rand
	root     string
	devices  bool // may make device nodes
	owners   bool // may give files away, and capabilities
	links    bool // may make hard links
	log      []string
	lastNsec int64
}

func newForester(t *testing.T, root string, seed uint64) *forester {
	isRoot := os.Geteuid() == 0
	return &forester{
		t: t, rng: rand.New(rand.NewPCG(seed, seed^0x5eed)), root: root,
		devices: isRoot, owners: isRoot, links: true,
	}
}

var (
	longName = strings.Repeat("long-", 24) + "name"
	names    = []string{
		"a", "a", "b", "b", "c", "a-b", "a!", "a b", "a.b", "a0", "b-", "\xff\xfe", "ünïcode", "-n",
		"new\nline", "..data", ".hidden", longName, "usr", "bin", "tab\t", "a\\b", "%s", "ZZ", "~",
	}
	targets = []string{"a", "b/c", "../a", "/usr", "/etc/passwd", "nowhere", ".", "..", "../../../../a", strings.Repeat("x/", 80) + "x"}
	// Few sizes, texts and whole seconds: files should be alike by chance.
	sizes = []int{0, 0, 1, 5, 5, 5, 700, 4096, 70000}
)

func (f *forester) pick(of []string) string { return of[f.rng.IntN(len(of))] }

func (f *forester) do(err error, format string, args ...any) bool {
	line := fmt.Sprintf(format, args...)
	if err != nil {
		// Most failures are part of the game: a name taken, a loop, a busy directory.
		f.log = append(f.log, line+" → "+err.Error())
		return false
	}
	f.log = append(f.log, line)
	return true
}

// paths lists what is there, the root excluded.
func (f *forester) paths(want func(fs.DirEntry) bool) []string {
	var all []string
	err := filepath.WalkDir(f.root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p != f.root && want(d) {
			all = append(all, p)
		}
		return nil
	})
	if err != nil {
		f.t.Fatalf("listing the forest: %v", err)
	}
	return all
}

func anyFile(fs.DirEntry) bool       { return true }
func isDirectory(d fs.DirEntry) bool { return d.IsDir() }
func noDirectory(d fs.DirEntry) bool { return !d.IsDir() }
func isRegular(d fs.DirEntry) bool   { return d.Type().IsRegular() }

func (f *forester) some(want func(fs.DirEntry) bool) (string, bool) {
	all := f.paths(want)
	if len(all) == 0 {
		return "", false
	}
	return all[f.rng.IntN(len(all))], true
}

// place is a name, taken or not, in some directory.
func (f *forester) place() string {
	dir := f.root
	if f.rng.IntN(4) > 0 {
		if d, ok := f.some(isDirectory); ok && strings.Count(d[len(f.root):], "/") < 6 {
			dir = d
		}
	}
	return filepath.Join(dir, f.pick(names))
}

func (f *forester) free() (string, bool) {
	for range 8 {
		p := f.place()
		if _, err := os.Lstat(p); err != nil {
			return p, true
		}
	}
	return "", false
}

func (f *forester) show(p string) string { return fmt.Sprintf("%q", strings.TrimPrefix(p, f.root+"/")) }

// grow makes n files.
func (f *forester) grow(n int) {
	for range n {
		if p, ok := f.free(); ok {
			f.create(p)
		}
	}
}

func (f *forester) create(p string) {
	kinds := 12
	switch k := f.rng.IntN(kinds); {
	case k < 4:
		f.write(p)
		f.dress(p)
	case k < 7:
		f.do(os.Mkdir(p, 0o755), "mkdir %s", f.show(p))
		if f.rng.IntN(3) == 0 {
			f.dress(p)
		}
	case k == 7:
		target := f.pick(targets)
		f.do(os.Symlink(target, p), "symlink %s → %s", f.show(p), target)
		if f.owners && f.rng.IntN(3) == 0 {
			f.do(os.Lchown(p, 7, 8), "lchown %s", f.show(p))
		}
		f.settle(p)
	case k == 8:
		f.do(unix.Mkfifo(p, 0o640), "mkfifo %s", f.show(p))
		f.dress(p)
	case k == 9:
		f.do(unix.Mknod(p, unix.S_IFSOCK|0o600, 0), "socket %s", f.show(p))
	case k == 10 && f.devices:
		kind, dev := uint32(unix.S_IFCHR), unix.Mkdev(1, uint32(1+f.rng.IntN(7)))
		if f.rng.IntN(2) == 0 {
			kind, dev = unix.S_IFBLK, unix.Mkdev(uint32(7+f.rng.IntN(600)), uint32(f.rng.IntN(1000)))
		}
		f.do(unix.Mknod(p, kind|0o660, int(dev)), "mknod %s", f.show(p))
		f.dress(p)
	default:
		f.link(p)
	}
}

func (f *forester) link(p string) {
	if !f.links {
		return
	}
	if old, ok := f.some(noDirectory); ok {
		f.do(os.Link(old, p), "link %s → %s", f.show(p), f.show(old))
	}
}

func (f *forester) write(p string) {
	text := bytes.Repeat([]byte{"xyz"[f.rng.IntN(3)]}, sizes[f.rng.IntN(len(sizes))])
	f.do(os.WriteFile(p, text, 0o644), "write %s: %d", f.show(p), len(text))
}

// dress gives a file modes, owners, capabilities and times.
func (f *forester) dress(p string) {
	if f.owners && f.rng.IntN(3) == 0 {
		ids := []int{0, 1, 1000, 65534, 3000000}
		uid, gid := ids[f.rng.IntN(len(ids))], ids[f.rng.IntN(len(ids))]
		if !f.devices {
			uid, gid = min(uid, 1000), min(gid, 1000) // what is mapped in a user namespace
		}
		f.do(os.Lchown(p, uid, gid), "chown %s %d:%d", f.show(p), uid, gid)
	}
	if f.rng.IntN(3) == 0 {
		modes := []uint32{0o600, 0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o6711, 0o7777, 0o700}
		if f.owners {
			modes = append(modes, 0, 0o444)
		}
		mode := modes[f.rng.IntN(len(modes))]
		f.chmod(p, mode)
	}
	if st, err := os.Lstat(p); err == nil && st.Mode().IsRegular() && f.devices && f.rng.IntN(6) == 0 {
		f.capability(p)
	}
	f.settle(p)
}

func (f *forester) chmod(p string, mode uint32) {
	if st, err := os.Lstat(p); err == nil && st.Mode()&fs.ModeSymlink == 0 {
		if st.IsDir() && !f.owners {
			mode |= 0o700 // or nobody could look
		}
		f.do(unix.Chmod(p, mode), "chmod %s %o", f.show(p), mode)
	}
}

func (f *forester) capability(p string) {
	// Revision 2: permitted and inheritable sets, in two halves.
	value := make([]byte, 20)
	value[3], value[4] = 2, byte(1+f.rng.IntN(30))
	f.do(unix.Lsetxattr(p, "security.capability", value, 0), "setcap %s %d", f.show(p), value[4])
}

// settle gives a file one of few times without a fraction, or one with an own
// fraction, or leaves it the kernel's.
func (f *forester) settle(p string) {
	var when time.Time
	switch f.rng.IntN(3) {
	case 0:
		when = time.Unix(1_000_000_000+int64(f.rng.IntN(2)), 0)
		if f.rng.IntN(10) == 0 {
			when = time.Unix(-5, 0)
		}
	case 1:
		f.lastNsec++
		when = time.Unix(1_000_000_000, int64(f.rng.IntN(1000)*1000)+f.lastNsec+1)
	default:
		return
	}
	f.touch(p, when)
}

func (f *forester) touch(p string, when time.Time) {
	ts := unix.NsecToTimespec(when.UnixNano())
	err := unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	f.do(err, "touch %s %v", f.show(p), when.UTC())
}

// change does n random things to the tree.
func (f *forester) change(n int) {
	for range n {
		f.step()
	}
}

func (f *forester) step() {
	switch f.rng.IntN(17) {
	case 0, 1:
		f.grow(1)
	case 2:
		if p, ok := f.some(anyFile); ok {
			f.do(os.RemoveAll(p), "rm -r %s", f.show(p))
		}
	case 3:
		if p, ok := f.some(noDirectory); ok {
			f.do(os.Remove(p), "rm %s", f.show(p))
		}
	case 4: // another type at the same name
		if p, ok := f.some(anyFile); ok {
			f.do(os.RemoveAll(p), "rm -r %s", f.show(p))
			f.create(p)
		}
	case 5: // a directory made anew, with some of its names
		if p, ok := f.some(isDirectory); ok {
			kids, _ := os.ReadDir(p)
			f.do(os.RemoveAll(p), "rm -r %s", f.show(p))
			f.do(os.Mkdir(p, 0o755), "mkdir %s", f.show(p))
			for _, k := range kids {
				if f.rng.IntN(2) == 0 {
					f.create(filepath.Join(p, k.Name()))
				}
			}
		}
	case 6: // rename
		if p, ok := f.some(anyFile); ok {
			if to, ok := f.free(); ok {
				f.rename(p, to)
			}
		}
	case 7: // rename over something
		if p, ok := f.some(noDirectory); ok {
			if to, ok := f.some(noDirectory); ok {
				f.do(os.Rename(p, to), "mv -f %s %s", f.show(p), f.show(to))
			}
		}
	case 8: // away and back
		if p, ok := f.some(anyFile); ok {
			if to, ok := f.free(); ok && f.rename(p, to) {
				f.rename(to, p)
			}
		}
	case 9: // edit in place
		if p, ok := f.some(isRegular); ok {
			f.write(p)
		}
	case 10: // edit in place, and put the time back: only the bytes tell
		if p, ok := f.some(isRegular); ok {
			st, err := os.Lstat(p)
			if err != nil {
				return
			}
			text := bytes.Repeat([]byte{"xyz"[f.rng.IntN(3)]}, int(st.Size()))
			if f.do(os.WriteFile(p, text, 0o644), "rewrite %s", f.show(p)) {
				f.touch(p, st.ModTime().Truncate(time.Second))
			}
		}
	case 11:
		if p, ok := f.some(anyFile); ok {
			f.dress(p)
		}
	case 12: // a chown or chmod that changes nothing
		if p, ok := f.some(anyFile); ok {
			if st, err := os.Lstat(p); err == nil {
				f.do(os.Lchown(p, -1, -1), "chown %s :", f.show(p))
				if st.Mode()&fs.ModeSymlink == 0 {
					var raw unix.Stat_t
					if unix.Lstat(p, &raw) == nil {
						f.chmod(p, raw.Mode&0o7777)
					}
				}
			}
		}
	case 13:
		if p, ok := f.free(); ok {
			f.link(p)
		}
	case 14:
		if p, ok := f.some(isRegular); ok && f.devices {
			if f.rng.IntN(2) == 0 {
				f.capability(p)
			} else {
				f.do(unix.Lremovexattr(p, "security.capability"), "rmcap %s", f.show(p))
			}
		}
	case 15: // only a directory's time
		if p, ok := f.some(isDirectory); ok {
			f.settle(p)
		}
	case 16: // a tree below new directories
		if p, ok := f.free(); ok {
			f.do(os.MkdirAll(filepath.Join(p, "x", "y"), 0o755), "mkdir -p %s", f.show(p))
			f.write(filepath.Join(p, "x", "y", f.pick(names)))
		}
	}
}

// rename moves a file as mv does: by copying where overlayfs refuses.
func (f *forester) rename(from, to string) bool {
	err := os.Rename(from, to)
	if err != unix.EXDEV && !isCrossDevice(err) {
		return f.do(err, "mv %s %s", f.show(from), f.show(to))
	}
	if strings.HasPrefix(to, from+"/") {
		return false
	}
	copyTree(f.t, from, to)
	return f.do(os.RemoveAll(from), "cp -a, rm %s %s", f.show(from), f.show(to))
}

func isCrossDevice(err error) bool {
	le, ok := err.(*os.LinkError)
	return ok && le.Err == unix.EXDEV
}
