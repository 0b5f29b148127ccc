package confirm

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// record is BuildKit's picture of a case, kept in a file.
type record struct {
	// Case is the digest of the case's text: a record is of no use for another.
	Case    string   `json:"case"`
	Picture *Picture `json:"picture"`
}

func recordPath(dir string, c *Case) string { return filepath.Join(dir, c.Name+".json") }

// WriteRecord keeps BuildKit's picture of a case in dir.
func WriteRecord(dir string, c *Case, p *Picture) error {
	data, err := json.MarshalIndent(record{Case: digestOf(c.Source), Picture: p}, "", "\t")
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
	if r.Case != digestOf(c.Source) || r.Picture == nil {
		return nil, fmt.Errorf("%s is of another version of the case", recordPath(dir, c))
	}
	return r.Picture, nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return digest(sum[:])
}
