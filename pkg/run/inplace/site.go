package inplace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/cooper-build/cooper/pkg/rootfs"
	"github.com/cooper-build/cooper/pkg/run/inplace/keeper"
)

// site is an image's tree in root, between the masked places. What the image
// has in these is in a directory of its own, the shadow.
//
// The directories that masked places lie in are special: they are there whether
// the image has them or not, and can't be removed or replaced.
type site struct {
	path, shadowPath string
	root, shadow     *rootfs.Root
	// overrides: root holds files that stand for others.
	overrides bool
	masks     keeper.Masks
	// inImage are those of the special directories that the image has.
	inImage map[string]bool
	// hidden is a file that Put has made where no command can see it.
	hidden string
}

func (i *Isolation) newSite(shadow string) (_ *site, err error) {
	s := &site{
		path: i.root, shadowPath: shadow, masks: i.taken.masks, overrides: recordsOverrides(),
		inImage: map[string]bool{".": true},
	}
	if err := os.MkdirAll(shadow, 0o755); err != nil {
		return nil, err
	}
	if s.root, err = rootfs.OpenRoot(s.path, rootfs.RootOptions{}); err != nil {
		return nil, err
	}
	if s.shadow, err = rootfs.OpenRoot(s.shadowPath, rootfs.RootOptions{}); err != nil {
		s.root.Close()
		return nil, err
	}
	return s, nil
}

func (s *site) close() error {
	return errors.Join(s.root.Close(), s.shadow.Close(), os.RemoveAll(s.shadowPath))
}

// special reports whether name can't be removed or replaced in root.
func (s *site) special(name string) bool { return s.masks.Covers(name) || s.masks.Above(name) }

// imply notes that name is the image's, and with it the special directories that
// it lies in. Those that nobody described look so.
func (s *site) imply(name string) error { return s.implyDir(path.Dir(name)) }

func (s *site) implyDir(dir string) error {
	for ; !s.inImage[dir]; dir = path.Dir(dir) {
		if !s.masks.Above(dir) {
			continue
		}
		s.inImage[dir] = true
		if err := s.root.SetMeta(keeper.Implied(dir)); err != nil {
			return err
		}
	}
	return nil
}

// block masks a special directory that the image has something else for, such as
// a symbolic link /var/run where /var/run/secrets is mounted. What the image had
// there is removed from root.
func (s *site) block(name string) error {
	if name == "." {
		return errors.New("the root can't be anything but a directory")
	}
	if err := keeper.ClearBelow(s.root, s.masks, name, nil); err != nil {
		return err
	}
	s.masks = s.masks.Add(name)
	delete(s.inImage, name)
	for dir := range s.inImage {
		if strings.HasPrefix(dir, name+"/") {
			delete(s.inImage, dir)
		}
	}
	return nil
}

// vanish removes a special directory from the image, but for the names of keep,
// which has the directories above those as well; nil keeps none. Directories
// that stay keep their times.
func (s *site) vanish(name string, keep map[string]struct{}) error {
	below := func(dir string) bool { return name == "." || dir == name || strings.HasPrefix(dir, name+"/") }
	kept := func(n string) bool { _, ok := keep[n]; return ok }
	d, err := s.root.Dir(rootfs.DirOptions{Skip: s.masks.Covers})
	if err != nil {
		return err
	}
	defer d.Close()
	var stay []rootfs.Entry
	note := func(dir string) {
		if e, err := d.Lstat(dir); err == nil && e.IsDir() && below(dir) {
			stay = append(stay, e)
		}
	}
	for _, dir := range s.masks.Directories() {
		note(dir)
	}
	for n := range keep {
		if !s.masks.Above(n) {
			note(n)
		}
	}
	if err := keeper.ClearBelow(s.root, s.masks, name, kept); err != nil {
		return err
	}
	for _, e := range stay {
		if err := s.root.Chtimes(e.Path, e.ModTime); err != nil {
			return err
		}
	}
	for dir := range s.inImage {
		if dir != "." && below(dir) && !kept(dir) {
			delete(s.inImage, dir)
		}
	}
	return s.shadow.RemoveChildren(name, kept)
}

// describe gives a special directory its metadata.
func (s *site) describe(e rootfs.Entry) error {
	if err := s.imply(e.Path); err != nil {
		return err
	}
	s.inImage[e.Path] = true
	return s.root.SetMeta(e)
}

// aside writes a file of a masked place into the shadow.
func (s *site) aside(e rootfs.Entry, content io.Reader) error {
	if err := s.imply(e.Path); err != nil {
		return err
	}
	if err := s.shadow.MkdirParents(e.Path, nil); err != nil {
		return err
	}
	return s.shadow.Write(e, content)
}

// system are mounts that every container has, over what images have there.
func system(mask string) bool {
	switch mask {
	case "proc", "sys", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf":
		return true
	}
	return strings.HasPrefix(mask, "dev/") || strings.HasPrefix(mask, "proc/") || strings.HasPrefix(mask, "sys/")
}

// warnHidden tells about files of the image that commands can't see.
func (s *site) warnHidden(t *takeover) {
	d, err := s.shadow.Dir(rootfs.DirOptions{})
	if err != nil {
		return
	}
	defer d.Close()
	for _, mask := range s.masks.Names() {
		if system(mask) || t.warned[mask] {
			continue
		}
		found := ""
		_ = rootfs.Walk(d, mask, func(e rootfs.Entry) error {
			if e.IsDir() {
				return nil
			}
			found = e.Path
			return fs.SkipAll
		})
		if found != "" {
			t.warned[mask] = true
			t.warn(fmt.Sprintf("RUN can't see the image's /%s: in this container /%s is in use otherwise", found, mask))
		}
	}
}

// view reads the image.
func (s *site) view() (*view, error) {
	v := &view{site: s}
	var err error
	if v.main, err = rootfs.OpenDir(s.path, rootfs.DirOptions{Skip: s.masks.Covers, Overrides: s.overrides}); err != nil {
		return nil, err
	}
	if v.shadow, err = rootfs.OpenDir(s.shadowPath, rootfs.DirOptions{Overrides: s.overrides}); err != nil {
		v.main.Close()
		return nil, err
	}
	return v, nil
}
