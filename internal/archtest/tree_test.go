package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
)

const (
	module = "github.com/stintrun/stint"
	root   = "../.."
)

// source is one hand-written Go file of the module.
type source struct {
	path string // from the root, with slashes: "internal/job/state.go"
	fset *token.FileSet
	ast  *ast.File
}

// dir is the path of the file's package from the root.
func (s *source) dir() string { return path.Dir(s.path) }

// test tells whether the file is compiled for tests only.
func (s *source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

// line is the line that a position is on.
func (s *source) line(p token.Pos) int { return s.fset.Position(p).Line }

// lines is how many lines a node takes.
func (s *source) lines(n ast.Node) int { return s.line(n.End()) - s.line(n.Pos()) + 1 }

// parse reads one file. Text is what parser.ParseFile takes: nil to read the file of that path.
func parse(t *testing.T, name string, text any) *source {
	t.Helper()
	s := &source{path: name, fset: token.NewFileSet()}
	var err error
	s.ast, err = parser.ParseFile(s.fset, path.Join(root, name), text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tree reads every hand-written Go file of the module, whatever its build tags say. Directories with a go.mod of their
// own are other modules.
func tree(t *testing.T) []*source {
	t.Helper()
	var sources []*source
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name == "." {
				return nil
			}
			if _, err := os.Stat(path.Join(root, name, "go.mod")); err == nil {
				return fs.SkipDir
			}
			if base := entry.Name(); base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		if s := parse(t, name, nil); !ast.IsGenerated(s.ast) {
			sources = append(sources, s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) == 0 {
		t.Fatalf("no Go file below %s; is root wrong?", root)
	}
	return sources
}
