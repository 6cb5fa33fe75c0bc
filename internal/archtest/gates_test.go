package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A gate finds what a file does against a house rule. Each fault names the line and the remedy.
type gate struct {
	name   string
	remedy string
	find   func(*source) []token.Pos
}

var gates = []gate{
	{"clock", "take now as an argument, or read it where the list clocks in internal/archtest/gates_test.go says", clockReads},
	{"sleep", "await the signal itself, or run the test in a synctest bubble, where time passes at once and exactly", testSleeps},
	{"legality", "what may follow what is decided in internal/job alone: call its function for this event", stateChanges},
	{"goroutine", "package job only decides: whoever calls it may run it on any goroutine", pureGoroutines},
	{"file length", "split the file by the nouns it holds, 600 lines at most", longFiles},
	{"function length", "take out the part that has a name of its own, 70 lines at most", longFunctions},
	{"name", "name the file or package after what it holds", vagueNames},
	{"nolint", "write //nolint:LINTER // REASON", bareNolints},
}

func TestGates(t *testing.T) {
	sources := tree(t)
	for _, g := range gates {
		t.Run(g.name, func(t *testing.T) {
			for _, s := range sources {
				for _, pos := range g.find(s) {
					t.Errorf("%s:%d: %s", s.path, s.line(pos), g.remedy)
				}
			}
		})
	}
}

func TestPackageComments(t *testing.T) {
	commented := make(map[string]bool)
	for _, s := range tree(t) {
		commented[s.dir()] = commented[s.dir()] || s.ast.Doc != nil && !s.test()
	}
	for dir, ok := range commented {
		if !ok {
			t.Errorf("package %s has no package comment; write %s/doc.go: what it is for, and what it leaves to others", dir, dir)
		}
	}
}

// clocks is where the wall clock may be read, and why there.
var clocks = map[string]string{
	"client":                          "it lives in another program and has deadlines of its own",
	"cmd":                             "main is where time comes in",
	"examples":                        "they are programs",
	"internal/archtest":               "it has tests only",
	"internal/bench":                  "measuring time is its job",
	"internal/demo":                   "it measures what the client side saw",
	"internal/dispatch/dispatcher.go": "the deadlines of live runs; once a turn",
	"internal/store/pebblestore":      "the store's clock, which jobs are stamped by",
}

// clockReads finds readings of the clock outside clocks. In tests the clock is a bubble's.
func clockReads(s *source) []token.Pos {
	if s.test() {
		return nil
	}
	for allowed := range clocks {
		if within(s.path, allowed) {
			return nil
		}
	}
	return uses(s, "time", "Now", "Since", "Until")
}

// testSleeps finds sleeps in tests that do not know the bubble. Sleeping there is how virtual time is made to pass: in
// files that import synctest or call their package's inBubble, and in simtest, which does nothing outside of one.
func testSleeps(s *source) []token.Pos {
	if !s.test() || within(s.path, "internal/simtest") || callsFunction(s, "inBubble") ||
		slices.ContainsFunc(s.ast.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` }) {
		return nil
	}
	return uses(s, "time", "Sleep")
}

// callsFunction reports whether a file calls a function of its own package by this name.
func callsFunction(s *source, name string) (calls bool) {
	ast.Inspect(s.ast, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if f, ok := call.Fun.(*ast.Ident); ok && f.Name == name {
				calls = true
			}
		}
		return !calls
	})
	return calls
}

// stateChanges finds code outside package job that puts a job into a state of its own choice.
func stateChanges(s *source) []token.Pos {
	if s.dir() == "internal/job" || s.test() {
		return nil
	}
	var found []token.Pos
	ast.Inspect(s.ast, func(n ast.Node) bool {
		assign, ok := n.(*ast.AssignStmt)
		if !ok || len(assign.Lhs) != len(assign.Rhs) {
			return true
		}
		for i, left := range assign.Lhs {
			field, ok := left.(*ast.SelectorExpr)
			if !ok || field.Sel.Name != "State" {
				continue
			}
			if value, ok := assign.Rhs[i].(*ast.SelectorExpr); ok && isPackage(value.X, "job") {
				found = append(found, assign.Pos())
			}
		}
		return true
	})
	return found
}

// pureGoroutines finds goroutines and channels in package job.
func pureGoroutines(s *source) []token.Pos {
	if s.dir() != "internal/job" || s.test() {
		return nil
	}
	var found []token.Pos
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n.(type) {
		case *ast.GoStmt, *ast.ChanType, *ast.SelectStmt:
			found = append(found, n.Pos())
		}
		return true
	})
	return found
}

const (
	fileLinesMax     = 600
	functionLinesMax = 70
)

// longFiles finds files over fileLinesMax; tests may be longer.
func longFiles(s *source) []token.Pos {
	end := s.ast.FileEnd - 1 // on the last line feed
	if s.test() || s.line(end) <= fileLinesMax {
		return nil
	}
	return []token.Pos{end}
}

// longFunctions finds functions over functionLinesMax; tests may be longer.
func longFunctions(s *source) []token.Pos {
	if s.test() {
		return nil
	}
	var found []token.Pos
	for _, decl := range s.ast.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && s.lines(f) > functionLinesMax {
			found = append(found, f.Pos())
		}
	}
	return found
}

// vague are words that say nothing of what is inside.
var vague = []string{"util", "utils", "common", "helper", "helpers", "manager", "impl", "base", "misc", "types"}

// vagueNames finds files and packages that are named so.
func vagueNames(s *source) []token.Pos {
	words := strings.FieldsFunc(strings.TrimSuffix(s.path, path.Ext(s.path)), func(r rune) bool { return r == '/' || r == '_' })
	if slices.ContainsFunc(words, func(w string) bool { return slices.Contains(vague, w) }) {
		return []token.Pos{s.ast.Package}
	}
	return nil
}

var reasonedNolint = regexp.MustCompile(`^//nolint:[a-z0-9_,]+ // \S`)

// bareNolints finds switched-off lints without linter or reason.
func bareNolints(s *source) []token.Pos {
	var found []token.Pos
	for _, group := range s.ast.Comments {
		for _, c := range group.List {
			if strings.HasPrefix(c.Text, "//nolint") && !reasonedNolint.MatchString(c.Text) {
				found = append(found, c.Pos())
			}
		}
	}
	return found
}

// uses finds where a file names one of a package's functions, called or not.
func uses(s *source, pkg string, names ...string) []token.Pos {
	var found []token.Pos
	ast.Inspect(s.ast, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && isPackage(sel.X, pkg) && slices.Contains(names, sel.Sel.Name) {
			found = append(found, n.Pos())
		}
		return true
	})
	return found
}

// isPackage tells whether an expression is a package's name. Imports keep their names here, and nothing shadows them.
func isPackage(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// TestGatesSeeTheirFaults shows each gate one file that it must report and one that it must not.
func TestGatesSeeTheirFaults(t *testing.T) {
	long := "package x\n\nfunc f() {\n" + strings.Repeat("\n", 69) + "}\n"
	for _, test := range []struct {
		gate, path, text string
		want             bool
	}{
		{"clock", "internal/job/retry.go", "package job\nvar n = time.Now\n", true},
		{"clock", "internal/dispatch/lease.go", "package dispatch\nvar n = time.Since(t)\n", true},
		{"clock", "internal/dispatch/dispatcher.go", "package dispatch\nvar n = time.Now()\n", false},
		{"clock", "internal/dispatch/lease_test.go", "package dispatch\nvar n = time.Now()\n", false},
		{"clock", "internal/clientele/a.go", "package clientele\nvar n = time.Now()\n", true},
		{"sleep", "server/a_test.go", "package server\nfunc f() { time.Sleep(1) }\n", true},
		{"sleep", "server/a_test.go", "package server\nimport \"testing/synctest\"\nfunc f() { time.Sleep(1) }\n", false},
		{"legality", "server/jobs.go", "package server\nfunc f() { j.State = job.Cancelled }\n", true},
		{"legality", "internal/store/pebblestore/record.go", "package pebblestore\nfunc f() { j.State = job.State(b[0]) }\n", false},
		{"legality", "internal/job/end.go", "package job\nfunc f() { j.State = job.Cancelled }\n", false},
		{"goroutine", "internal/job/end.go", "package job\nfunc f() { go f() }\n", true},
		{"goroutine", "internal/dispatch/end.go", "package dispatch\nfunc f() { go f() }\n", false},
		{"file length", "server/a.go", "package server\n" + strings.Repeat("//\n", 600), true},
		{"file length", "server/a.go", "package server\n" + strings.Repeat("//\n", 599), false},
		{"file length", "server/a_test.go", "package server\n" + strings.Repeat("//\n", 600), false},
		{"function length", "server/a.go", long, true},
		{"function length", "server/a.go", strings.Replace(long, "\n\n", "\n", 2), false},
		{"name", "internal/job/job_helpers.go", "package job\n", true},
		{"name", "internal/util/job.go", "package util\n", true},
		{"name", "server/manage.go", "package server\n", false},
		{"nolint", "server/a.go", "package server\n\nvar a = 1 //nolint\n", true},
		{"nolint", "server/a.go", "package server\n\nvar a = 1 //nolint:unused\n", true},
		{"nolint", "server/a.go", "package server\n\nvar a = 1 //nolint:unused // read by the linker\n", false},
	} {
		i := slices.IndexFunc(gates, func(g gate) bool { return g.name == test.gate })
		if got := len(gates[i].find(parse(t, test.path, test.text))) > 0; got != test.want {
			t.Errorf("gate %q on %s: reported %t, want %t:\n%.120s", test.gate, test.path, got, test.want, test.text)
		}
	}
}

// TestImportRulesSeeTheirFaults does the same for the table of imports.
func TestImportRulesSeeTheirFaults(t *testing.T) {
	for _, test := range []struct {
		path, imported string
		want           bool
	}{
		{"internal/job/job.go", "time", false},
		{"internal/job/job.go", "os", true},
		{"internal/job/job.go", "math/rand/v2", true},
		{"internal/job/job_test.go", "math/rand/v2", false},
		{"internal/job/job.go", module + "/internal/store", true},
		{"internal/job/job_test.go", "pgregory.net/rapid", false},
		{"internal/store/store.go", pebble, true},
		{"internal/store/pebblestore/tx.go", module + "/internal/dispatch", true},
		{"internal/store/pebblestore/tx.go", module + "/internal/store", false},
		{"internal/store/pebblestore/tx.go", module + "/internal/store/storetest", true},
		{"server/jobs.go", module + "/internal/store", false},
		{"server/jobs.go", module + "/internal/store/pebblestore", true},
		{"server/jobs_test.go", module + "/internal/store/pebblestore", false},
		{"client/worker.go", module + "/internal/job", true},
		{"client/trace.go", otel + "/trace", false},
		{"client/trace.go", otel + "/sdk/trace", true},
		{"cmd/stint/serve.go", module + "/internal/store/pebblestore", false},
		{"cmd/stint/serve_test.go", "github.com/stretchr/testify/require", true},
		{"internal/unheard/of.go", "fmt", true},
	} {
		s := parse(t, test.path, fmt.Sprintf("package x\n\nimport _ %q\n", test.imported))
		if got := len(importFaults(s)) > 0; got != test.want {
			t.Errorf("%s imports %s: reported %t, want %t", test.path, test.imported, got, test.want)
		}
	}
}
