package snapshot_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/snapshot"
)

var (
	lawN    = flag.Int("law.n", 100, "number of random trees that each test of the layer law tries")
	lawSeed = flag.Uint64("law.seed", 1, "seed of the first random tree")
)

// The layer law: a layer made of the changes from a to b, applied to a copy of
// a, gives b. Accepted differences, all of them BuildKit's: a directory's time
// alone is no change, sockets are in no layer, and times are whole seconds
// that don't come before 1970.

// seeds runs a test for each seed, or for one share of them, stopping at the
// first that fails.
func seeds(t *testing.T, share int, test func(t *testing.T, seed uint64)) {
	for i := range (*lawN + share - 1) / share {
		seed := *lawSeed + uint64(i)
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { test(t, seed) }) {
			t.Fatalf("again with -run '%s' -law.n 1 -law.seed %d", t.Name(), seed)
		}
	}
}

// quickDir is a temporary directory in memory where there is one: the trees
// are many, and disks are slow. TMPDIR, where set, has its way.
func quickDir(t *testing.T) string {
	t.Helper()
	if os.Getenv("TMPDIR") != "" {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "snapshot-law-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func all(t *testing.T, seq iter.Seq2[snapshot.Change, error]) []snapshot.Change {
	t.Helper()
	var list []snapshot.Change
	for c, err := range seq {
		if err != nil {
			t.Fatalf("diff: %v", err)
		}
		list = append(list, c)
	}
	return list
}

func sequence(list []snapshot.Change) iter.Seq2[snapshot.Change, error] {
	return func(yield func(snapshot.Change, error) bool) {
		for _, c := range list {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func openDir(t *testing.T, dir string) *rootfs.Dir {
	t.Helper()
	d, err := rootfs.OpenDir(dir, rootfs.DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// apply writes changes as a layer and unpacks it into dir.
func apply(t *testing.T, list []snapshot.Change, dir string) {
	t.Helper()
	var tar bytes.Buffer
	if err := layers.Write(t.Context(), &tar, sequence(list)); err != nil {
		t.Fatalf("write: %v", err)
	}
	root, err := rootfs.OpenRoot(dir, rootfs.RootOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := layers.Unpack(t.Context(), &tar, root, layers.UnpackOptions{}); err != nil {
		t.Fatalf("unpack: %v", err)
	}
}

// checkLaw applies changes to a copy of before, and compares with after.
// split accepts names of one file that are listed without their siblings.
func checkLaw(t *testing.T, before, after string, list []snapshot.Change, split bool) {
	t.Helper()
	checkOrder(t, list)
	result := filepath.Join(quickDir(t), "result")
	copyTree(t, before, result)
	apply(t, list, result)

	listed := map[string]snapshot.Change{}
	for _, c := range list {
		listed[c.Entry.Path] = c
	}
	want, wantText := survey(t, after)
	got, gotText := survey(t, result)
	underSocket := func(name string) bool {
		for ; name != "."; name = path.Dir(name) {
			if want[name].Kind == rootfs.Socket {
				return true
			}
		}
		return false
	}
	for _, name := range got.sorted() {
		if _, ok := want[name]; !ok && !underSocket(name) {
			t.Errorf("%q should be gone", name)
		}
	}
	groups := map[uint64][]string{}
	for _, name := range want.sorted() {
		w := want[name]
		if underSocket(name) {
			continue
		}
		g, ok := got[name]
		if !ok {
			t.Errorf("%q is missing", name)
			continue
		}
		_, isListed := listed[name]
		if gs, ws := describe(g, isListed), describe(w, isListed); gs != ws {
			t.Errorf("%q is\n  %s, not\n  %s", name, gs, ws)
		}
		if gotText[name] != wantText[name] {
			t.Errorf("%q has other bytes", name)
		}
		if w.Link != 0 {
			groups[w.Link] = append(groups[w.Link], name)
		}
		if isListed && listed[name].Kind == snapshot.Write && w.Link == 0 && g.Link != 0 {
			t.Errorf("%q got a sibling", name)
		}
	}
	for _, group := range groups {
		for _, name := range group[1:] {
			_, a := listed[group[0]]
			_, b := listed[name]
			switch {
			case a && b:
				if got[name].Link == 0 || got[name].Link != got[group[0]].Link {
					t.Errorf("%q and %q are not one file", group[0], name)
				}
			case a != b && !split:
				t.Errorf("of one file %q and %q, one is listed and one isn't", group[0], name)
			}
		}
	}
	if t.Failed() {
		t.Logf("changes:\n%s", text(list))
	}
}

// describe leaves out what the law does not promise.
func describe(e rootfs.Entry, listed bool) string {
	when := fmt.Sprint(max(e.ModTime.Unix(), 0)) // earlier ones are not restored from layers
	if e.IsDir() && !listed {
		when = "-"
	}
	return fmt.Sprintf("kind=%d mode=%o owner=%d:%d size=%d time=%s target=%q dev=%d,%d cap=%x",
		e.Kind, e.Mode, e.UID, e.GID, e.Size, when, e.Target, e.Major, e.Minor, e.Xattrs[rootfs.XattrCapability])
}

// checkOrder verifies what Change promises of a list, but for the place of
// further names of a file.
func checkOrder(t *testing.T, list []snapshot.Change) {
	t.Helper()
	seen := map[string]snapshot.Kind{}
	links := map[uint64]bool{}
	last := ""
	for _, c := range list {
		name := c.Entry.Path
		if _, ok := seen[name]; ok {
			t.Errorf("%q is listed twice", name)
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if k, ok := seen[dir]; !ok || k == snapshot.Remove {
				t.Errorf("%q is listed without its parent %q", name, dir)
			}
		}
		if c.Kind == snapshot.Parent && !c.Entry.IsDir() {
			t.Errorf("parent %q is no directory", name)
		}
		seen[name] = c.Kind
		further := c.Entry.Link != 0 && links[c.Entry.Link]
		if c.Entry.Link != 0 {
			links[c.Entry.Link] = true
		}
		key := strings.ReplaceAll(name, "/", "\x00")
		if !further && c.Kind != snapshot.Parent {
			if key <= last {
				t.Errorf("%q is listed too late", name)
			}
			last = key
		}
	}
}

func text(list []snapshot.Change) string {
	var b strings.Builder
	for _, c := range list {
		kind := [...]string{"write ", "parent", "remove"}[c.Kind]
		fmt.Fprintf(&b, "%s %q", kind, c.Entry.Path)
		if c.Kind != snapshot.Remove {
			fmt.Fprintf(&b, " %s", describe(c.Entry, true))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// contentOf compares with a copy of the tree as it was.
func contentOf(before string) func(context.Context, string, func() (io.ReadCloser, error)) (bool, error) {
	return func(_ context.Context, name string, now func() (io.ReadCloser, error)) (bool, error) {
		old, err := os.ReadFile(filepath.Join(before, name))
		if err != nil {
			return false, err
		}
		rc, err := now()
		if err != nil {
			return false, err
		}
		defer rc.Close()
		b, err := io.ReadAll(rc)
		return bytes.Equal(old, b), err
	}
}

func take(t *testing.T, dir string, opts snapshot.ScanOptions) *snapshot.Baseline {
	t.Helper()
	b, err := snapshot.Take(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rescan(t *testing.T, b *snapshot.Baseline) ([]snapshot.Change, *snapshot.Baseline) {
	t.Helper()
	list, next, err := b.Diff(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list, next
}

func logSteps(t *testing.T, f *forester) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("steps:\n%s", strings.Join(f.log, "\n"))
		}
	})
}

// TestLawOfDiffAndScan also holds the two against each other: they must find
// the very same changes.
func TestLawOfDiffAndScan(t *testing.T) {
	seeds(t, 1, func(t *testing.T, seed uint64) {
		tmp := quickDir(t)
		tree, before := filepath.Join(tmp, "tree"), filepath.Join(tmp, "before")
		if err := os.Mkdir(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		f := newForester(t, tree, seed)
		logSteps(t, f)
		f.grow(5 + f.rng.IntN(40))

		exact := take(t, tree, snapshot.ScanOptions{SameContent: contentOf(before)})
		coarse := take(t, tree, snapshot.ScanOptions{})
		for round := range 2 {
			copyTree(t, tree, before)
			f.log = append(f.log, fmt.Sprintf("-- round %d", round))
			f.change(1 + f.rng.IntN(20))

			diffed := all(t, snapshot.Diff(t.Context(), openDir(t, before), openDir(t, tree)))
			checkLaw(t, before, tree, diffed, false)
			var scanned []snapshot.Change
			scanned, exact = rescan(t, exact)
			if a, b := text(diffed), text(scanned); a != b {
				t.Errorf("Diff finds\n%s\nScan finds\n%s", a, b)
			}
			scanned, coarse = rescan(t, coarse)
			checkLaw(t, before, tree, scanned, false)
			if again, _ := rescan(t, coarse); len(again) > 0 {
				t.Errorf("changes where nothing was done:\n%s", text(again))
			}
			if err := os.RemoveAll(before); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestLawFromNothing makes a layer of a whole tree.
func TestLawFromNothing(t *testing.T) {
	seeds(t, 1, func(t *testing.T, seed uint64) {
		tmp := quickDir(t)
		tree, before := filepath.Join(tmp, "tree"), filepath.Join(tmp, "before")
		for _, d := range []string{tree, before} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		f := newForester(t, tree, seed)
		logSteps(t, f)
		f.grow(30)
		f.change(10)
		checkLaw(t, before, tree, all(t, snapshot.Diff(t.Context(), rootfs.NewTree(), openDir(t, tree))), false)
	})
}

// TestUpdate tells a Baseline of changes; it must find none then.
func TestUpdate(t *testing.T) {
	seeds(t, 1, func(t *testing.T, seed uint64) {
		tmp := quickDir(t)
		tree, before := filepath.Join(tmp, "tree"), filepath.Join(tmp, "before")
		if err := os.Mkdir(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		f := newForester(t, tree, seed)
		logSteps(t, f)
		f.grow(30)
		b := take(t, tree, snapshot.ScanOptions{SameContent: contentOf(before)})
		copyTree(t, tree, before)
		f.change(1 + f.rng.IntN(20))
		var names []string
		for c := range snapshot.Diff(t.Context(), openDir(t, before), openDir(t, tree)) {
			names = append(names, c.Entry.Path)
		}
		for name, e := range func() grove { g, _ := survey(t, tree); return g }() {
			if e.Kind == rootfs.Socket {
				names = append(names, name) // changed, but in no list
			}
		}
		f.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		if err := b.Update(t.Context(), names); err != nil {
			t.Fatal(err)
		}
		if list, _ := rescan(t, b); len(list) > 0 {
			t.Errorf("after Update(%q):\n%s", names, text(list))
		}
	})
}
