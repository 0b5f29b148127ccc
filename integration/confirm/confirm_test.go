package confirm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cooper-build/cooper/integration/machine"
)

var (
	recordFlag    = flag.Bool("record", false, "renew the records of BuildKit's results")
	isolationFlag = flag.String("isolations", "", "build only under these isolations, separated by commas; none: BuildKit alone")
	parallelFlag  = flag.Int("at-once", 2, "cases built at the same time")
)

// shared is the machine of all tests of this process.
var shared *machine.Machine

func TestMain(t *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		var err error
		if shared, err = machine.New(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := t.Run()
		if err := shared.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

const (
	casesDir   = "../testdata/confirm"
	recordsDir = "../testdata/oracle"
)

func cases(t *testing.T) []*Case {
	t.Helper()
	paths, err := filepath.Glob(casesDir + "/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var all []*Case
	for _, p := range paths {
		c, err := ParseCase(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// check ends the test for err: as skipped if this computer lacks something.
func check(t *testing.T, err error) {
	t.Helper()
	var missing *machine.Missing
	if errors.As(err, &missing) {
		t.Skip(missing.What)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestConfirm builds every case with BuildKit and, under each of its
// isolations, with Cooper.
func TestConfirm(t *testing.T) {
	wanted := Isolations
	switch *isolationFlag {
	case "":
	case "none":
		wanted = nil
	default:
		wanted = strings.Split(*isolationFlag, ",")
	}
	places := make(chan struct{}, *parallelFlag)
	sum := &tally{byIsolation: map[string]*count{}}
	t.Run("case", func(t *testing.T) {
		for _, c := range cases(t) {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				places <- struct{}{}
				defer func() { <-places }()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				oracle := oracleOf(t, ctx, c)
				for _, isolation := range c.Isolations {
					if slices.Contains(wanted, isolation) {
						t.Run(isolation, func(t *testing.T) { confirm(t, ctx, c, isolation, oracle, sum) })
					}
				}
			})
		}
	})
	t.Log(sum)
}

// oracleOf is BuildKit's picture: fresh where BuildKit runs, else the record.
func oracleOf(t *testing.T, ctx context.Context, c *Case) *Picture {
	t.Helper()
	o, err := BuildKit(ctx, shared, c)
	var missing *machine.Missing
	if errors.As(err, &missing) && !*recordFlag {
		p, err := ReadRecord(recordsDir, c)
		if err != nil {
			t.Skipf("%s, and there is no record: %v", missing, err)
		}
		return p
	}
	check(t, err)
	if o.Picture.Failed != c.Fails {
		t.Fatalf("BuildKit: %s, but the case expects otherwise\n%s", outcome(o.Picture), o.Log)
	}
	if *recordFlag {
		if err := WriteRecord(recordsDir, c, o.Picture); err != nil {
			t.Fatal(err)
		}
	}
	return o.Picture
}

func confirm(t *testing.T, ctx context.Context, c *Case, isolation string, oracle *Picture, sum *tally) {
	o, err := Cooper(ctx, shared, c, isolation)
	check(t, err)
	found := Compare(oracle, o.Picture)
	unexpected, stale := c.Sift(isolation, found)
	for _, d := range unexpected {
		t.Errorf("%s", d)
	}
	for _, a := range stale {
		t.Errorf("the accepted difference %s is not there: %s", a.Path, a.Reason)
	}
	sum.add(isolation, oracle, o.Picture, len(unexpected)+len(stale) == 0)
	if t.Failed() {
		t.Logf("%s\n\nCooper's output:\n%s", c.About, indent(o.Log))
	}
}

func indent(s string) string {
	return "\t" + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n\t")
}

// tally counts how much of what was built is equal.
type tally struct {
	mu          sync.Mutex
	byIsolation map[string]*count
}

type count struct {
	cases, confirmed                   int
	images, allEqual                   int
	layers, equalBytes, fixed, equalID int
}

func (t *tally) add(isolation string, oracle, cooper *Picture, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byIsolation[isolation]
	if n == nil {
		n = &count{}
		t.byIsolation[isolation] = n
	}
	n.cases++
	if ok {
		n.confirmed++
	}
	if oracle.Failed || cooper.Failed {
		return
	}
	n.images++
	all := len(oracle.Layers) == len(cooper.Layers)
	for i, l := range oracle.Layers {
		if l.Base != "" {
			continue
		}
		n.layers++
		equal := i < len(cooper.Layers) && cooper.Layers[i].Shape == l.Shape
		if equal {
			n.equalBytes++
		}
		all = all && equal
		if l.DiffID != "" {
			n.fixed++
			if i < len(cooper.Layers) && cooper.Layers[i].DiffID == l.DiffID {
				n.equalID++
			}
		}
	}
	if all {
		n.allEqual++
	}
}

func (t *tally) String() string {
	var b strings.Builder
	for _, i := range Isolations {
		n := t.byIsolation[i]
		if n == nil {
			continue
		}
		fmt.Fprintf(&b, "\n%s: %d of %d cases confirmed; all layers equal byte for byte in %d of %d images; "+
			"%d of %d layers equal byte for byte but for the time of the build; %d of %d diff ids equal where no time is of the build",
			i, n.confirmed, n.cases, n.allEqual, n.images, n.equalBytes, n.layers, n.equalID, n.fixed)
	}
	return b.String()
}
