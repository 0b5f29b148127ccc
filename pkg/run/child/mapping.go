package child

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// Range is a line of a map of user or group ids.
type Range struct{ Inside, Outside, Count int }

// mapping is how a user namespace's ids are mapped.
type mapping struct {
	uids, gids []Range
	// helpers: newuidmap and newgidmap write it, because it needs privileges.
	helpers bool
	// groups: setgroups stays possible.
	groups bool
	// note says it for people.
	note string
}

// mappings are those that this user may have, the widest first.
func mappings() []mapping {
	if os.Getuid() == 0 {
		// Root without CAP_SYS_ADMIN, in a container: its own ids again, which
		// takes CAP_SETUID, CAP_SETGID and CAP_SETFCAP. A single id would not
		// take less, since mapping root is what the last of them is for.
		uids, gids := Range{0, 0, ownIDs("/proc/self/uid_map")}, Range{0, 0, ownIDs("/proc/self/gid_map")}
		return []mapping{{
			uids: []Range{uids}, gids: []Range{gids}, groups: true,
			note: fmt.Sprintf("%d ids of this container", min(uids.Count, gids.Count)),
		}}
	}
	single := mapping{
		uids: []Range{{0, os.Getuid(), 1}}, gids: []Range{{0, os.Getgid(), 1}}, note: "a single id",
	}
	uid := strconv.Itoa(os.Getuid())
	names := []string{uid}
	if u, err := user.LookupId(uid); err == nil {
		names = append(names, u.Username)
	}
	uids, gids := subordinate("/etc/subuid", names), subordinate("/etc/subgid", names)
	if len(uids) == 0 || len(gids) == 0 {
		single.note += ": /etc/subuid or /etc/subgid has no range for this user"
		return []mapping{single}
	}
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(program); err != nil {
			single.note += ": " + program + " is not installed"
			return []mapping{single}
		}
	}
	wide := mapping{
		uids: append(single.uids[:1:1], uids...), gids: append(single.gids[:1:1], gids...),
		helpers: true, groups: true,
	}
	wide.note = fmt.Sprintf("%d ids from /etc/subuid", min(total(wide.uids), total(wide.gids)))
	// newuidmap may be there and yet not be allowed to do anything, as under
	// no_new_privs.
	return []mapping{wide, single}
}

func total(ranges []Range) int {
	n := 0
	for _, r := range ranges {
		n += r.Count
	}
	return n
}

// ownIDs is how many ids, from 0 on, this namespace has.
func ownIDs(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 1
	}
	count := 1
	for line := range strings.Lines(string(text)) {
		var inside, outside, n int
		if _, err := fmt.Sscan(line, &inside, &outside, &n); err == nil && inside == 0 {
			count = n
		}
	}
	return count
}

// subordinate reads a user's ranges of /etc/subuid or /etc/subgid and places
// them one after another from 1 on.
func subordinate(file string, names []string) []Range {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var ranges []Range
	next := 1
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 || (fields[0] != names[0] && fields[0] != names[len(names)-1]) {
			continue
		}
		start, err1 := strconv.Atoi(fields[1])
		count, err2 := strconv.Atoi(fields[2])
		if err1 != nil || err2 != nil || count <= 0 {
			continue
		}
		ranges = append(ranges, Range{next, start, count})
		next += count
	}
	return ranges
}

func procMap(ranges []Range) []syscall.SysProcIDMap {
	list := make([]syscall.SysProcIDMap, len(ranges))
	for i, r := range ranges {
		list[i] = syscall.SysProcIDMap{ContainerID: r.Inside, HostID: r.Outside, Size: r.Count}
	}
	return list
}

// helper runs newuidmap or newgidmap.
func helper(program string, pid int, ranges []Range) error {
	args := []string{strconv.Itoa(pid)}
	for _, r := range ranges {
		args = append(args, strconv.Itoa(r.Inside), strconv.Itoa(r.Outside), strconv.Itoa(r.Count))
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}
