package job

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the generated sections of doc.go")

// TestDoc keeps the manual true: what doc.go prints of the table is what the table says.
func TestDoc(t *testing.T) {
	have, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	hand, _, found := strings.Cut(string(have), "// # Steps\n")
	if !found {
		t.Fatal("doc.go has no section Steps")
	}
	want := hand + "// # Steps\n//\n" + comment(steps()) + "//\n// # Table\n//\n" + comment(matrix()) + "package job\n"
	if *update {
		if err := os.WriteFile("doc.go", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(have)); diff != "" {
		t.Errorf("doc.go is stale, run: go test -run TestDoc -update (-want +have)\n%s", diff)
	}
}

func comment(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight("//"+line, " \t\n") + "\n")
	}
	return b.String()
}

// steps draws each phase with its arrows.
func steps() string {
	var b strings.Builder
	b.WriteString(" Events that lead back to where they came from are left out here.\n\n")
	for from := range numberOfPhases {
		name := from.String()
		if from == none {
			name = "(new)"
		}
		for target := range numberOfPhases {
			events := between(from, target)
			if len(events) == 0 {
				continue
			}
			arrow := "`-->"
			if name != "" {
				arrow = "--->"
			}
			fmt.Fprintf(&b, "\t%-10s %s %-10s  %s\n", name, arrow, shown(target), strings.Join(events, ", "))
			name = ""
		}
	}
	return b.String()
}

func between(from, target phase) (events []string) {
	for e := range numberOfEvents {
		if from != target && table[from][e].has(target) {
			events = append(events, e.String())
		}
	}
	return events
}

func shown(p phase) string {
	if p == none {
		return "(deleted)"
	}
	return p.String()
}

// letters stand for the phases in the matrix.
const letters = "-SRKDNBPsfce"

// matrix prints the table, an event a line, a phase a column.
func matrix() string {
	var b strings.Builder
	b.WriteString(" A cell names the phases that an event may lead to; a dot means that it is illegal there.\n\n\t")
	for p := range numberOfPhases {
		if p != none {
			fmt.Fprintf(&b, "%c %s  ", letters[p], p)
		}
		if p == running {
			b.WriteString("\n\t")
		}
	}
	b.WriteString("- (deleted)\n\n")
	fmt.Fprintf(&b, "\t%-16s", "")
	for p := range numberOfPhases {
		if p != none {
			fmt.Fprintf(&b, "  %-6c", letters[p])
		}
	}
	b.WriteString("\n")
	for e := EventSubmit + 1; e < numberOfEvents; e++ {
		fmt.Fprintf(&b, "\t%-16s", e)
		for p := range numberOfPhases {
			if p != none {
				fmt.Fprintf(&b, "  %-6s", cell(table[p][e]))
			}
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\n A new job, by submit, is one of %s.\n", cell(table[none][EventSubmit]))
	return b.String()
}

func cell(s phases) string {
	if s == 0 {
		return "."
	}
	var b strings.Builder
	for p := range s.all() {
		b.WriteByte(letters[p])
	}
	return b.String()
}
