package confirm

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// record is BuildKit's picture of a case, kept in a file.
type record struct {
	// Case is the digest of the case's text but for what it accepts: a record is
	// of no use for another.
	Case    string   `json:"case"`
	Picture *Picture `json:"picture"`
}

func recordPath(dir string, c *Case) string { return filepath.Join(dir, c.Name+".json") }

// WriteRecord keeps BuildKit's picture of a case in dir.
func WriteRecord(dir string, c *Case, p *Picture) error {
	data, err := json.MarshalIndent(record{Case: c.digest(), Picture: p}, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(recordPath(dir, c), append(data, '\n'), 0o644)
}

// ReadRecord returns what WriteRecord has kept; it fails if the case has
// changed since.
func ReadRecord(dir string, c *Case) (*Picture, error) {
	data, err := os.ReadFile(recordPath(dir, c))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", recordPath(dir, c), err)
	}
	if r.Case != c.digest() || r.Picture == nil {
		return nil, fmt.Errorf("%s is of another version of the case", recordPath(dir, c))
	}
	return r.Picture, nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return digest(sum[:])
}

func (c *Case) digest() string {
	var kept []string
	for _, line := range strings.SplitAfter(string(c.Source), "\n") {
		if !strings.HasPrefix(line, "accept") {
			kept = append(kept, line)
		}
	}
	return digestOf([]byte(strings.Join(kept, "")))
}
