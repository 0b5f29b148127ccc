package rootfs

import "time"

// Kind is the type of a file.
type Kind uint8

// The kinds of files that a tree can hold. A hard link is not a kind: files
// that are the same inode carry the same [Entry.Link].
const (
	Regular Kind = iota
	Directory
	Symlink
	Fifo
	CharDevice
	BlockDevice
	Socket
)

// Mode bits of [Entry.Mode] beside the nine permission bits, as in stat(2).
const (
	ModeSetuid uint32 = 0o4000
	ModeSetgid uint32 = 0o2000
	ModeSticky uint32 = 0o1000
	ModeMask   uint32 = 0o7777
)

// XattrCapability is the extended attribute that holds file capabilities, the
// only one that layers carry.
const XattrCapability = "security.capability"

// Entry describes one file of a tree. It is a value: it never refers to an
// open file, and its maps are not changed after it was made.
type Entry struct {
	// Path is relative to the tree's root, slash-separated and clean, without
	// a leading slash. The root itself is ".".
	Path string
	Kind Kind
	// Mode holds the permission, setuid, setgid and sticky bits only.
	Mode uint32
	UID  int
	GID  int
	// Size is the number of bytes of a regular file, 0 for all other kinds.
	Size    int64
	ModTime time.Time
	// Target is a symbolic link's text, verbatim.
	Target string
	// Major and Minor are a device's numbers.
	Major, Minor uint32
	// Xattrs holds extended attributes by their full name
	// ("security.capability", "user.x"); nil when there are none.
	Xattrs map[string]string
	// Link is 0 for a file with one name. Entries of one tree with an equal
	// Link other than 0 are names of the same file.
	Link uint64
}

// IsDir reports whether e is a directory.
func (e Entry) IsDir() bool { return e.Kind == Directory }
