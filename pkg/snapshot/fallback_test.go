package snapshot

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// Where statx is refused the same is learnt from fstatat.
func TestWithoutStatx(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o4750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	unix.Mknod(filepath.Join(dir, "dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(5, 300))) // for those who may
	record := func(noStatx bool) *dirRecord {
		s, fd, err := newScanner(dir, ScanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		defer unix.Close(fd)
		s.ctx = t.Context()
		s.noStatx.Store(noStatx)
		s.mount.id = 0
		d, err := s.dir(fd, ".", nil)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if a, b := record(false), record(true); len(a.recs) < 2 || !reflect.DeepEqual(a, b) {
		t.Errorf("statx: %+v\nfstatat: %+v", a, b)
	}
}

// Kernels before 5.8 don't say which mount a file belongs to.
func TestMountsWithoutIDs(t *testing.T) {
	var st unix.Statx_t
	m := newMountTest(&st, "/")
	if m.id != 0 || !m.points["proc"] {
		t.Skipf("nothing is mounted at /proc: %v", m.points)
	}
	if !m.foreign(&st, ".", "proc") || m.foreign(&st, ".", "usr") && !m.points["usr"] || m.foreign(&st, "no/such", "proc") {
		t.Error("mounts are not told apart")
	}
	m = mountTest{dev: unix.Mkdev(8, 1)}
	other := unix.Statx_t{Mode: unix.S_IFDIR, Dev_major: 8, Dev_minor: 2}
	if !m.foreign(&other, ".", "mnt") {
		t.Error("a directory of another device is no mount")
	}
	if other.Mode = unix.S_IFREG; m.foreign(&other, ".", "f") {
		t.Error("a file of another device counts as mounted; overlay mounts have such files")
	}
}
