package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
)

// maxUserFile bounds /etc/passwd and /etc/group, which come from images.
const maxUserFile = 10 << 20

// User is who runs a command.
type User struct {
	UID, GID int
	// Groups are the supplementary groups that /etc/group lists for the user,
	// GID among them only where it is listed there.
	Groups []int
	// Home is the home directory that /etc/passwd gives for UID, else "/".
	Home string
}

// LookupUser finds out whom USER's argument means in a tree: "user", "uid",
// "user:group" and so on, "" for root. It follows BuildKit and runc:
//
//   - uid:gid, both numeric, is taken as it is, without supplementary groups;
//     "root" counts as 0 here.
//   - A name or a lone uid is looked up in /etc/passwd, which gives the group,
//     and /etc/group, which gives the supplementary groups. A uid that is not
//     there has group 0.
//   - An explicit group takes the place of all groups.
//   - An unknown name is an error, of the user or of the group.
func LookupUser(r Reader, spec string) (User, error) {
	passwd, err := readUserFile(r, "/etc/passwd")
	if err != nil {
		return User{}, err
	}
	u, err := lookupUser(r, spec, passwd)
	if err != nil {
		return User{}, err
	}
	u.Home = "/"
	if passwd != nil {
		found, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(p user.User) bool { return p.Uid == u.UID })
		if err == nil && len(found) > 0 && found[0].Home != "" {
			u.Home = found[0].Home
		}
	}
	return u, nil
}

func lookupUser(r Reader, spec string, passwd []byte) (User, error) {
	byDefault := spec == ""
	if byDefault {
		spec = "0"
	}
	if name, group, ok := strings.Cut(spec, ":"); ok {
		uid, err1 := parseID(name)
		gid, err2 := parseID(group)
		if err1 == nil && err2 == nil {
			return User{UID: uid, GID: gid}, nil
		}
	}
	groups, err := readUserFile(r, "/etc/group")
	if err != nil {
		return User{}, err
	}
	var pr, gr io.Reader // nil interfaces where there is no file
	if passwd != nil {
		pr = bytes.NewReader(passwd)
	}
	if groups != nil {
		gr = bytes.NewReader(groups)
	}
	x, err := user.GetExecUser(spec, nil, pr, gr)
	if err != nil && byDefault {
		return User{}, nil // an unreadable passwd is no reason not to be root
	}
	if err != nil {
		return User{}, err
	}
	return User{UID: x.Uid, GID: x.Gid, Groups: x.Sgids}, nil
}

func parseID(s string) (int, error) {
	if s == "root" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err
}

// LookupOwner finds out which owner the argument of --chown means in a tree. It
// follows BuildKit: a name that is unknown, or for which there is no file to
// look in, is silently 0. A lone uid is the gid as well, a lone user name has
// its group from /etc/passwd; "user:" is the same as "user", and ":group"
// leaves the user 0. spec must not be empty.
func LookupOwner(r Reader, spec string) (uid, gid int, err error) {
	name, group, _ := strings.Cut(spec, ":")
	if id, ok := ownerID(name); ok {
		uid, gid = id, id
	} else if name != "" {
		passwd, err := readUserFile(r, "/etc/passwd")
		if err != nil {
			return 0, 0, err
		}
		found, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(p user.User) bool { return p.Name == name })
		if err != nil {
			return 0, 0, fmt.Errorf("/etc/passwd: %w", err)
		}
		if len(found) > 0 {
			uid, gid = found[0].Uid, found[0].Gid
		}
	}
	if group == "" {
		return uid, gid, nil
	}
	if id, ok := ownerID(group); ok {
		return uid, id, nil
	}
	groups, err := readUserFile(r, "/etc/group")
	if err != nil {
		return 0, 0, err
	}
	found, err := user.ParseGroupFilter(bytes.NewReader(groups), func(g user.Group) bool { return g.Name == group })
	if err != nil {
		return 0, 0, fmt.Errorf("/etc/group: %w", err)
	}
	if len(found) > 0 {
		gid = found[0].Gid
	}
	return uid, gid, nil
}

// ownerID accepts what BuildKit takes for a number in --chown. Negative ones
// wrap around there, larger ones than fit 31 bits count as names.
func ownerID(s string) (int, bool) {
	if s == "root" {
		return 0, true
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0, false
	}
	return int(uint32(n)), true
}

// readUserFile returns nil where there is no such file.
func readUserFile(r Reader, name string) ([]byte, error) {
	resolved, err := Resolve(r, name, true)
	var data []byte
	if err == nil {
		var rc io.ReadCloser
		if rc, err = r.Open(resolved); err == nil {
			data, err = io.ReadAll(io.LimitReader(rc, maxUserFile+1))
			rc.Close()
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("looking up users: %w", err)
	case len(data) > maxUserFile:
		return nil, fmt.Errorf("looking up users: %s exceeds %d bytes", name, maxUserFile)
	case data == nil:
		data = []byte{}
	}
	return data, nil
}
