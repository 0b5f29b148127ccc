package rootfs

import (
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Tree is a tree in memory: the index over layers that have not been unpacked.
// It holds what an Entry says of each file, and for regular files a function
// that gives the bytes.
//
// A Tree is safe for concurrent use. It takes some 150 bytes for each file
// beside the file's name.
type Tree struct {
	mu   sync.RWMutex
	root *node
	// gen marks the directories that belong to this tree alone. All others are
	// shared with clones and are copied before they change.
	gen *generation
	// links holds what the names of one file share.
	links    map[uint64]*inode
	lastLink uint64
}

type generation struct{ _ byte }

// node is a name in a directory. Nodes never change after they were made; only
// the dirData of the tree's own generation does.
type node struct {
	name string
	ino  *inode
	dir  *dirData // nil unless ino is a directory
}

type dirData struct {
	gen  *generation
	kids []*node // sorted by name
}

// inode is immutable. In a node of a file with several names only link is set;
// the rest is found in Tree.links.
type inode struct {
	kind     Kind
	mode     uint32
	uid, gid uint32
	nsec     int32
	sec      int64
	size     int64
	link     uint64
	extra    *extra
	open     func() (io.ReadCloser, error)
}

// extra is what few files have.
type extra struct {
	target       string
	major, minor uint32
	xattrs       map[string]string
}

// NewTree returns a tree that holds nothing but its root, a directory 0755 of
// root with the modification time 1970-01-01.
func NewTree() *Tree {
	g := new(generation)
	return &Tree{
		gen:   g,
		root:  &node{name: ".", ino: makeInode(impliedDir(".")), dir: &dirData{gen: g}},
		links: map[uint64]*inode{},
	}
}

// impliedDir is a directory that nothing describes but that must be there.
func impliedDir(name string) Entry {
	return Entry{Path: name, Kind: Directory, Mode: 0o755, ModTime: time.Unix(0, 0)}
}

// Clone returns a tree with the same files. The two don't share later changes.
// It takes constant time but for files with several names.
func (t *Tree) Clone() *Tree {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gen = new(generation) // what is there now is shared from here on
	return &Tree{root: t.root, gen: new(generation), links: maps.Clone(t.links), lastLink: t.lastLink}
}

// Put adds e, or puts it in the place of what is there. A directory put over a
// directory keeps what that holds; everything else takes the place of what was
// there, with all that lay below it. Missing parents are made as directories
// 0755 of root; a parent that is something else gives syscall.ENOTDIR.
//
// open gives the bytes of a regular file and must be safe for concurrent use;
// nil is an empty file. e.Link is ignored: names of one file are made with Link.
func (t *Tree) Put(e Entry, open func() (io.ReadCloser, error)) error {
	if !validName(e.Path) {
		return pathError("put", e.Path, fs.ErrInvalid)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	ino := makeInode(e)
	ino.open = open
	return pathError("put", e.Path, t.put(e.Path, ino))
}

func (t *Tree) put(name string, ino *inode) error {
	if name == "." {
		if ino.kind != Directory {
			return syscall.EISDIR
		}
		t.root = &node{name: ".", ino: ino, dir: t.root.dir}
		return nil
	}
	dir, base := splitName(name)
	d, err := t.ownDir(dir, true)
	if err != nil {
		return err
	}
	n := &node{name: base, ino: ino}
	i, found := d.find(base)
	if ino.kind == Directory && ino.link == 0 {
		if found && d.kids[i].dir != nil {
			n.dir = d.kids[i].dir
		} else {
			n.dir = &dirData{gen: t.gen}
		}
	}
	if found {
		d.kids[i] = n
	} else {
		d.kids = slices.Insert(d.kids, i, n)
	}
	return nil
}

// Link makes name a further name of the file old, which must not be a
// directory. What was at name before is replaced, as by Put.
func (t *Tree) Link(old, name string) error {
	if !validName(name) {
		return pathError("link", name, fs.ErrInvalid)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.lookup(old)
	if n == nil {
		return pathError("link", old, fs.ErrNotExist)
	}
	if n.dir != nil {
		return pathError("link", old, syscall.EISDIR)
	}
	if old == name {
		return nil
	}
	if name == "." || strings.HasPrefix(old, name+"/") {
		return pathError("link", old, fs.ErrNotExist) // gone once name is replaced
	}
	stub := n.ino
	if stub.link == 0 {
		t.lastLink++
		shared := *n.ino
		shared.link = t.lastLink
		stub = &inode{link: t.lastLink}
		t.links[t.lastLink] = &shared
		if err := t.put(old, stub); err != nil {
			return pathError("link", old, err)
		}
	}
	return pathError("link", name, t.put(name, stub))
}

// SetMeta gives an existing file, under all of its names, the mode, owner,
// modification time and extended attributes of e; all else of e but its Path
// is ignored. A symbolic link keeps its mode.
func (t *Tree) SetMeta(e Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.lookup(e.Path)
	if n == nil {
		return pathError("set metadata", e.Path, fs.ErrNotExist)
	}
	was := t.entry(e.Path, n)
	e.Kind, e.Size, e.Target, e.Major, e.Minor = was.Kind, was.Size, was.Target, was.Major, was.Minor
	if was.Kind == Symlink {
		e.Mode = was.Mode
	}
	ino := makeInode(e)
	ino.open = t.inode(n).open
	if link := n.ino.link; link != 0 {
		ino.link = link
		t.links[link] = ino
		return nil
	}
	return pathError("set metadata", e.Path, t.put(e.Path, ino))
}

// Remove takes a file, or a directory with all it holds, out of the tree. It
// is no error when there is none. The root can't be removed.
func (t *Tree) Remove(name string) {
	if name == "." {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lookup(name) == nil {
		return
	}
	dir, base := splitName(name)
	d, err := t.ownDir(dir, false)
	if err != nil {
		return
	}
	if i, found := d.find(base); found {
		d.kids = slices.Delete(d.kids, i, i+1)
	}
}

// RemoveChildren empties a directory. It does nothing for any other file.
func (t *Tree) RemoveChildren(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.lookup(name); n == nil || n.dir == nil {
		return
	}
	if d, err := t.ownDir(name, false); err == nil {
		d.kids = nil
	}
}

// ownDir returns the contents of a directory for changing: it copies what is
// shared with clones on the way, and makes missing directories if asked to.
func (t *Tree) ownDir(name string, create bool) (*dirData, error) {
	if t.root.dir.gen != t.gen {
		t.root = &node{name: ".", ino: t.root.ino, dir: t.root.dir.copy(t.gen)}
	}
	d := t.root.dir
	if name == "." {
		return d, nil
	}
	for c := range strings.SplitSeq(name, "/") {
		i, found := d.find(c)
		switch {
		case !found && !create:
			return nil, fs.ErrNotExist
		case !found:
			d.kids = slices.Insert(d.kids, i, &node{name: c, ino: makeInode(impliedDir(c)), dir: &dirData{gen: t.gen}})
		case d.kids[i].dir == nil:
			return nil, syscall.ENOTDIR
		case d.kids[i].dir.gen != t.gen:
			k := d.kids[i]
			d.kids[i] = &node{name: k.name, ino: k.ino, dir: k.dir.copy(t.gen)}
		}
		d = d.kids[i].dir
	}
	return d, nil
}

func (d *dirData) copy(g *generation) *dirData {
	return &dirData{gen: g, kids: slices.Clone(d.kids)}
}

func (d *dirData) find(name string) (int, bool) {
	// Layers list the names of a directory in order: the place is mostly the end.
	if n := len(d.kids); n == 0 || d.kids[n-1].name < name {
		return n, false
	}
	return slices.BinarySearchFunc(d.kids, name, func(n *node, name string) int {
		return strings.Compare(n.name, name)
	})
}

func (t *Tree) lookup(name string) *node {
	n := t.root
	if name == "." {
		return n
	}
	for c := range strings.SplitSeq(name, "/") {
		if n.dir == nil {
			return nil
		}
		i, found := n.dir.find(c)
		if !found {
			return nil
		}
		n = n.dir.kids[i]
	}
	return n
}

func (t *Tree) inode(n *node) *inode {
	if n.ino.link != 0 {
		return t.links[n.ino.link]
	}
	return n.ino
}

func makeInode(e Entry) *inode {
	i := &inode{
		kind: e.Kind, mode: e.Mode & ModeMask, uid: uint32(e.UID), gid: uint32(e.GID),
		sec: e.ModTime.Unix(), nsec: int32(e.ModTime.Nanosecond()),
	}
	if e.Kind == Regular {
		i.size = e.Size
	}
	if e.Target != "" || e.Major != 0 || e.Minor != 0 || len(e.Xattrs) > 0 {
		i.extra = &extra{target: e.Target, major: e.Major, minor: e.Minor, xattrs: e.Xattrs}
	}
	return i
}

func (t *Tree) entry(name string, n *node) Entry {
	i := t.inode(n)
	e := Entry{
		Path: name, Kind: i.kind, Mode: i.mode, UID: int(i.uid), GID: int(i.gid), Size: i.size,
		ModTime: time.Unix(i.sec, int64(i.nsec)), Link: i.link,
	}
	if x := i.extra; x != nil {
		e.Target, e.Major, e.Minor, e.Xattrs = x.target, x.major, x.minor, x.xattrs
	}
	return e
}
