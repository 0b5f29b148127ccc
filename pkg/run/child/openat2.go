package child

import (
	"errors"

	"golang.org/x/sys/unix"
)

// openat2 is openat2(2), again for as long as the kernel asks for it: a lookup
// that is confined to a root gives EAGAIN when something was renamed or mounted
// anywhere on the machine meanwhile.
func openat2(dir int, name string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(dir, name, how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
