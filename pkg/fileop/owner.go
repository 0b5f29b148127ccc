package fileop

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	mode "github.com/tonistiigi/dchapes-mode"

	"github.com/cooper-build/cooper/pkg/rootfs"
)

// owner is the argument of --chown, looked up.
type owner struct{ uid, gid int }

// lookupOwner returns nil where there is no --chown.
func lookupOwner(dst rootfs.Reader, spec string) (*owner, error) {
	if spec == "" {
		return nil, nil
	}
	uid, gid, err := rootfs.LookupOwner(dst, spec)
	if err != nil {
		return nil, fmt.Errorf("--chown=%s: %w", spec, err)
	}
	return &owner{uid, gid}, nil
}

// namesOwner tells whether --chown's argument has to be looked up.
func namesOwner(spec string) bool {
	for part := range strings.SplitSeq(spec, ":") {
		if part == "" || part == "root" {
			continue
		}
		if _, err := strconv.ParseInt(part, 10, 32); err != nil {
			return true
		}
	}
	return false
}

func (o *owner) apply(e *rootfs.Entry) {
	if o != nil {
		e.UID, e.GID = o.uid, o.gid
	}
}

// chmod is the argument of --chmod, parsed. The zero value changes nothing.
type chmod struct {
	octal    uint32
	isOctal  bool
	symbolic *mode.Set
}

func parseChmod(spec string) (chmod, error) {
	if spec == "" {
		return chmod{}, nil
	}
	notOctal := fmt.Errorf("invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777", spec)
	if bits, err := strconv.ParseUint(spec, 8, 32); err == nil {
		if bits > 0o7777 {
			return chmod{}, notOctal
		}
		return chmod{octal: uint32(bits), isOctal: true}, nil
	}
	set, err := mode.ParseWithUmask(spec, 0)
	if number := (*strconv.NumError)(nil); errors.As(err, &number) {
		return chmod{}, notOctal
	}
	if err != nil {
		return chmod{}, fmt.Errorf("--chmod=%s: %w", spec, err)
	}
	return chmod{symbolic: &set}, nil
}

// file is the mode of a copied file or directory.
func (c chmod) file(e rootfs.Entry) uint32 {
	switch {
	case c.isOctal:
		return c.octal
	case c.symbolic == nil:
		return e.Mode
	}
	m := fs.FileMode(e.Mode & 0o777)
	for _, bit := range specialBits {
		if e.Mode&bit.unix != 0 {
			m |= bit.mode
		}
	}
	if e.IsDir() {
		m |= fs.ModeDir
	}
	m = c.symbolic.Apply(m)
	bits := uint32(m.Perm())
	for _, bit := range specialBits {
		if m&bit.mode != 0 {
			bits |= bit.unix
		}
	}
	return bits
}

// made is the mode of a directory that is made without a source: only the
// permission bits of an octal mode count.
func (c chmod) made() uint32 {
	if c.isOctal {
		return c.octal & 0o777
	}
	return 0o755
}

var specialBits = [...]struct {
	unix uint32
	mode fs.FileMode
}{
	{rootfs.ModeSetuid, fs.ModeSetuid},
	{rootfs.ModeSetgid, fs.ModeSetgid},
	{rootfs.ModeSticky, fs.ModeSticky},
}
