package layers

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// MismatchError says that bytes are not those that were asked for.
type MismatchError struct {
	// What differs: "digest" or "size".
	What      string
	Want, Got string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("content has %s %s, not %s", e.What, e.Got, e.Want)
}

// Verify reads from rc and checks what passes: instead of io.EOF it returns a
// *MismatchError when digest or size is not the given one. A size below 0 is
// not checked. Bytes that were read count for nothing before io.EOF was.
//
// Close reads on to the end if that is near, as behind a tar's last block, and
// fails if the end was not reached or the check did not succeed. It closes rc.
func Verify(rc io.ReadCloser, digest v1.Hash, size int64) io.ReadCloser {
	v := &verifier{rc: rc, digest: digest, size: size}
	switch digest.Algorithm {
	case "sha256":
		v.h = sha256.New()
	case "sha512":
		v.h = sha512.New()
	default:
		v.err = fmt.Errorf("digest %s: unknown algorithm", digest)
	}
	return v
}

// tail is how much Close reads on.
const tail = 1 << 20

type verifier struct {
	rc     io.ReadCloser
	h      hash.Hash
	digest v1.Hash
	size   int64
	n      int64
	err    error // what Read ended with
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.rc.Read(p)
	v.h.Write(p[:n])
	v.n += int64(n)
	switch {
	case v.size >= 0 && v.n > v.size:
		v.err = &MismatchError{What: "size", Want: fmt.Sprint(v.size), Got: fmt.Sprintf("more than %d", v.size)}
	case err == io.EOF:
		v.err = v.check()
	case err != nil:
		v.err = err
	}
	return n, v.err
}

func (v *verifier) check() error {
	if v.size >= 0 && v.n != v.size {
		return &MismatchError{What: "size", Want: fmt.Sprint(v.size), Got: fmt.Sprint(v.n)}
	}
	got := v1.Hash{Algorithm: v.digest.Algorithm, Hex: hex.EncodeToString(v.h.Sum(nil))}
	if got != v.digest {
		return &MismatchError{What: "digest", Want: v.digest.String(), Got: got.String()}
	}
	return io.EOF
}

func (v *verifier) Close() error {
	if v.err == nil {
		_, _ = io.CopyN(io.Discard, readerOnly{v}, tail)
	}
	cerr := v.rc.Close()
	switch v.err {
	case io.EOF:
		return cerr
	case nil:
		return fmt.Errorf("content was closed after %d bytes, before it could be verified", v.n)
	}
	return v.err
}

type readerOnly struct{ io.Reader }
