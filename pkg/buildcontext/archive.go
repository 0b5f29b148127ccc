package buildcontext

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cooper-build/cooper/pkg/layers"
	"github.com/cooper-build/cooper/pkg/rootfs"
)

// errNoArchive says that bytes are no tar archive.
var errNoArchive = errors.New("not a tar archive")

func (o *opener) tarFile(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("context tar://%s: no such file; %s", path, listing(filepath.Dir(path)))
		}
		return fmt.Errorf("context: %w", err)
	}
	defer f.Close()
	return o.tar(ctx, "tar://"+path, f)
}

// tar unpacks an archive into a directory that becomes the context.
func (o *opener) tar(ctx context.Context, name string, r io.Reader) error {
	dir, err := os.MkdirTemp(o.opts.TempDir, "context-")
	if err != nil {
		return fmt.Errorf("context: %w", err)
	}
	o.c.temp = append(o.c.temp, dir)
	o.c.host = dir
	if err := unpack(ctx, r, dir); err != nil {
		return fmt.Errorf("context %s: %w", name, err)
	}
	return nil
}

// unpack writes an archive's files through the guarded handle, so that none of
// them ends up outside of dir.
func unpack(ctx context.Context, r io.Reader, dir string) (err error) {
	plain, err := layers.Decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	br := bufio.NewReaderSize(plain, 64<<10)
	start, err := br.Peek(1024)
	if err != nil && err != io.EOF {
		return err
	}
	if !looksLikeTar(start) {
		return errNoArchive
	}
	opts := rootfs.RootOptions{Owners: rootfs.OwnRecorded}
	if os.Geteuid() == 0 {
		opts.Owners = rootfs.OwnExact
	}
	root, err := rootfs.OpenRoot(dir, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return layers.Unpack(ctx, br, root, layers.UnpackOptions{})
}

// looksLikeTar checks the first header. An archive without files, which is two
// blocks of zeros, is one as well.
func looksLikeTar(start []byte) bool {
	if len(start) < 512 {
		return false
	}
	empty := true
	for _, b := range start {
		if b != 0 {
			empty = false
			break
		}
	}
	if empty {
		return true
	}
	_, err := tar.NewReader(&oneHeader{start[:512]}).Next()
	// A header that announces another one, as long names do, ends early here.
	return err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

type oneHeader struct{ rest []byte }

func (h *oneHeader) Read(p []byte) (int, error) {
	if len(h.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, h.rest)
	h.rest = h.rest[n:]
	return n, nil
}
