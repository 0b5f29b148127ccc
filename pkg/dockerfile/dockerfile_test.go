package dockerfile_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cooper-build/cooper/pkg/dockerfile"
)

func TestDiagnostics(t *testing.T) {
	long := "FROM a\nRUN one \\\n" + strings.Repeat("  x \\\n", 10) + "  --y\nCOPY --chmod=1 --chmod=2 a \\\n b\n"
	for _, c := range []struct{ name, source, want string }{
		{"empty", "", "D: error: the Dockerfile cannot be empty\n"},
		{"comments", "# only\n\n", "D:2: error: file with no instructions\n 2 | \n"},
		{"swapped letters", "FROM a\nCPOY a b\n", "D:2:1: error: unknown instruction: CPOY\n 2 | CPOY a b\n   | ^^^^\ndid you mean COPY?\n"},
		{"lower case", "from a\nrnu x\n", "D:2:1: error: unknown instruction: rnu\n 2 | rnu x\n   | ^^^\ndid you mean run?\n"},
		{"nothing near", "FROM a\nFOOBARBAZ\n", "D:2:1: error: unknown instruction: FOOBARBAZ\n 2 | FOOBARBAZ\n   | ^^^^^^^^^\n"},
		{"flag", "FROM a\n\tRUN --mounts=x y\n", "D:2:6: error: unknown flag: --mounts\n 2 | \tRUN --mounts=x y\n   | \t    ^^^^^^^^\ndid you mean --mount?\n"},
		{"continued", long, "D:14:6: error: duplicate flag specified: --chmod\n 14 | COPY --chmod=1 --chmod=2 a \\\n    |      ^^^^^^^\n 15 |  b\n"},
		{"unterminated heredoc", "FROM a\nRUN <<EOF\nx\n", "D:2: error: unterminated heredoc\n 2 | RUN <<EOF\n 3 | x\n"},
		{"stage name", "FROM a AS 1st\n", "D:1:11: error: invalid name for build stage: \"1st\", name can't start with a number or contain symbols\n 1 | FROM a AS 1st\n   |           ^^^\n"},
		{"byte order mark", "\xef\xbb\xbfFROM a\r\nX\r\n", "D:2:1: error: unknown instruction: X\n 2 | X\n   | ^\n"},
		{"directive twice", "# escape=`\n# escape=`\nFROM a\n", "D:1: error: only one escape parser directive can be used\n 1 | # escape=`\n"},
		{"check", "# check=foo=bar\nFROM a\n", "D: error: failed to parse check options: invalid check option \"foo\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := dockerfile.Parse("D", []byte(c.source), dockerfile.Options{})
			var d *dockerfile.Diagnostic
			if !errors.As(err, &d) {
				t.Fatalf("not a diagnostic: %v", err)
			}
			var b strings.Builder
			if err := d.Render(&b, false); err != nil {
				t.Fatal(err)
			}
			if b.String() != c.want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), c.want)
			}
		})
	}
}

func TestRenderLongAndColored(t *testing.T) {
	source := "FROM a\nRUN one \\\n" + strings.Repeat("  x \\\n", 10) + "  here\n"
	f, err := dockerfile.Parse("D", []byte(source), dockerfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	loc := f.Stages[0].Commands[0].Location()
	var b strings.Builder
	d := f.At(loc, "here", "no %w", io.EOF)
	if err := d.Render(&b, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\x1b[1mD:13:3:\x1b[0m", "\x1b[1;31m^^^^\x1b[0m", "7 |", "13 |"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), " 2 |") {
		t.Errorf("all of a long instruction is shown:\n%s", b.String())
	}
	if !errors.Is(d, io.EOF) {
		t.Error("the wrapped error is lost")
	}
	b.Reset()
	if err := f.At(loc, "", "no").Render(&b, false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "…") {
		t.Errorf("nothing tells that lines were left out:\n%s", b.String())
	}
	if again := f.Diagnose(nil, fmt.Errorf("outer: %w", d)); again != d {
		t.Error("a diagnostic was wrapped in another one")
	}
}

func TestWarnings(t *testing.T) {
	source := "FROM a AS Upper\nfrom b as context\nMAINTAINER x\nRUN a \\\n\n b\n"
	for check, want := range map[string]string{
		"":         "NoEmptyContinuation 6,StageNameCasing 1,MaintainerDeprecated 3,ReservedStageName 2,ConsistentInstructionCasing 2",
		"skip=all": "",
		"skip=StageNameCasing,MaintainerDeprecated": "NoEmptyContinuation 6,ReservedStageName 2,ConsistentInstructionCasing 2",
	} {
		f, err := dockerfile.Parse("D", []byte(source), dockerfile.Options{Check: check})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range f.Warnings {
			if w.Message == "" || w.URL == "" {
				t.Errorf("incomplete warning %+v", w)
			}
			got = append(got, fmt.Sprintf("%s %d", w.Rule, w.Line))
		}
		if strings.Join(got, ",") != want {
			t.Errorf("check %q: got %s, want %s", check, strings.Join(got, ","), want)
		}
	}
}

func TestInstructionsAreCopies(t *testing.T) {
	f, err := dockerfile.Parse("D", []byte("ARG A\nFROM a\nENV X=$A\n"), dockerfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	one, _, err := f.Instructions()
	if err != nil {
		t.Fatal(err)
	}
	two, args, err := f.Instructions()
	if err != nil {
		t.Fatal(err)
	}
	if one[0].Commands[0] == two[0].Commands[0] || one[0].Commands[0] == f.Stages[0].Commands[0] {
		t.Error("two readers share an instruction")
	}
	if len(args) != 1 {
		t.Errorf("%d global ARGs, want 1", len(args))
	}
}

// FuzzParse: reading any bytes ends with a File or a Diagnostic, which can be
// drawn, and what was read once can be read again.
func FuzzParse(f *testing.F) {
	seeds, _ := filepath.Glob("../plan/testdata/*.txtar")
	for _, name := range seeds {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		source, _, _ := strings.Cut(string(data), "\n-- want")
		_, source, _ = strings.Cut(source, "-- Dockerfile --\n")
		f.Add([]byte(source))
	}
	f.Add([]byte("# check=skip=X\nFROM a\n# check=skip=all\nONBUILD RUN <<A\nA\n"))
	f.Fuzz(func(t *testing.T, source []byte) {
		file, err := dockerfile.Parse("D", source, dockerfile.Options{})
		if err != nil {
			var d *dockerfile.Diagnostic
			if !errors.As(err, &d) {
				t.Fatalf("not a diagnostic: %v", err)
			}
			if err := d.Render(io.Discard, true); err != nil {
				t.Fatal(err)
			}
			return
		}
		stages, _, err := file.Instructions()
		if err != nil {
			t.Fatalf("second reading: %v", err)
		}
		for _, s := range stages {
			for _, c := range s.Commands {
				file.At(c.Location(), c.Name(), "x").Render(io.Discard, false)
			}
		}
	})
}
