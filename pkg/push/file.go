package push

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// writeFile has a file with what write produces, or leaves what was there
// before. Directories that are missing are made, and removed again if it fails.
//
// Some paths cannot be renamed to: devices, pipes, and single files that are
// mounted into a container, as Kubernetes does for termination messages. Those
// are written in place.
func writeFile(path string, write func(io.Writer) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if fi, serr := os.Stat(path); serr == nil && !fi.Mode().IsRegular() {
		if fi.IsDir() {
			return errors.New("it is a directory")
		}
		return writeInPlace(path, write)
	}
	// A symbolic link stays one; the file that it leads to is replaced.
	target := path
	if real, rerr := filepath.EvalSymlinks(path); rerr == nil {
		target = real
	}
	undo, err := makeDirs(filepath.Dir(target))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			undo()
		}
	}()
	tmp, err := os.CreateTemp(filepath.Dir(target), ".cooper-*")
	if err != nil {
		if _, serr := os.Stat(target); serr == nil {
			// The file may be writable where its directory is not.
			return writeInPlace(target, write)
		}
		return err
	}
	defer func() {
		tmp.Close()
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	if err := buffered(tmp, write); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	err = os.Rename(tmp.Name(), target)
	if errors.Is(err, syscall.EBUSY) {
		// A mount point. The bytes are complete, so copying them can hardly
		// fail half-way.
		os.Remove(tmp.Name())
		return writeInPlace(target, write)
	}
	return err
}

func writeInPlace(path string, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return buffered(f, write)
}

func buffered(w io.Writer, write func(io.Writer) error) error {
	b := bufio.NewWriterSize(w, 256<<10)
	if err := write(b); err != nil {
		return err
	}
	return b.Flush()
}

// makeDirs makes a directory and those above it. undo removes the ones that it
// made, as long as they are empty.
func makeDirs(dir string) (undo func(), err error) {
	var made []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); err == nil || d == filepath.Dir(d) {
			break
		}
		made = append(made, d)
	}
	undo = func() {
		for _, d := range made {
			os.Remove(d)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}
