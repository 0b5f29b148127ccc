package rootfs

import (
	"fmt"
	"strconv"
	"strings"
)

// OverrideXattr is the extended attribute in which a Root notes what it could
// not give a file. Its value is an [Override] in text. Readers hide it, and
// files from layers can't bring it along.
const OverrideXattr = "user.cooper.override"

// capabilityXattr keeps a file's security.capability where the process may not
// set the real one.
const capabilityXattr = "user.cooper.capability"

// Override is what a file would have had if the process had been allowed to
// make it so.
type Override struct {
	UID, GID int
	// Mode counts only where Kind differs from the file's real one: a
	// placeholder's. For all others the file's own mode is true.
	Mode         uint32
	Kind         Kind
	Major, Minor uint32
}

var kindNames = [...]string{"file", "dir", "symlink", "fifo", "char", "block", "socket"}

// String is the attribute's value: "uid:gid:mode:kind:major:minor", the mode in
// octal, the kind one of file, dir, symlink, fifo, char, block and socket.
func (o Override) String() string {
	return fmt.Sprintf("%d:%d:%o:%s:%d:%d", o.UID, o.GID, o.Mode, kindNames[o.Kind], o.Major, o.Minor)
}

// ParseOverride is the inverse of Override.String.
func ParseOverride(s string) (Override, error) {
	bad := func() (Override, error) {
		return Override{}, fmt.Errorf("malformed %s %q", OverrideXattr, s)
	}
	f := strings.Split(s, ":")
	if len(f) != 6 {
		return bad()
	}
	var n [6]uint64
	for i, base := range []int{10, 10, 8, 0, 10, 10} {
		if base == 0 {
			continue
		}
		v, err := strconv.ParseUint(f[i], base, 32)
		if err != nil {
			return bad()
		}
		n[i] = v
	}
	for k, name := range kindNames {
		if name == f[3] && n[2] <= uint64(ModeMask) {
			return Override{
				UID: int(n[0]), GID: int(n[1]), Mode: uint32(n[2]),
				Kind: Kind(k), Major: uint32(n[4]), Minor: uint32(n[5]),
			}, nil
		}
	}
	return bad()
}

// apply corrects what stat said of the file that carries the attribute.
func (o Override) apply(e *Entry) {
	e.UID, e.GID = o.UID, o.GID
	if o.Kind != e.Kind {
		e.Kind, e.Mode, e.Size = o.Kind, o.Mode, 0
		e.Major, e.Minor = o.Major, o.Minor
	}
}
