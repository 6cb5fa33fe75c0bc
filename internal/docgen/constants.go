package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// goPackage is a package's source with the values of its constant expressions.
type goPackage struct {
	fset  *token.FileSet
	files []*ast.File
	info  *types.Info
}

// listed is what `go list` says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
}

// loadPackages reads packages by their directories. What they import comes from what the go command has compiled.
func loadPackages(dirs ...string) (map[string]*goPackage, error) {
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,DepOnly"}
	for _, dir := range dirs {
		args = append(args, "./"+dir)
	}
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w", cmd, err)
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	exports := make(map[string]string)
	packages := make(map[string]*goPackage, len(dirs))
	for stream := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := stream.Decode(&l); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		exports[l.ImportPath] = l.Export // dependencies come before those who need them
		if l.DepOnly {
			continue
		}
		dir, err := filepath.Rel(here, l.Dir)
		if err != nil {
			return nil, err
		}
		if packages[filepath.ToSlash(dir)], err = checkPackage(&l, exports); err != nil {
			return nil, err
		}
	}
}

// checkPackage parses a package and works out its constants.
func checkPackage(l *listed, exports map[string]string) (*goPackage, error) {
	p := &goPackage{fset: token.NewFileSet(), info: &types.Info{
		Types: make(map[ast.Expr]types.TypeAndValue), Defs: make(map[*ast.Ident]types.Object),
	}}
	for _, name := range l.GoFiles {
		file, err := parser.ParseFile(p.fset, filepath.Join(l.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p.files = append(p.files, file)
	}
	imports := importer.ForCompiler(p.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	check := types.Config{Importer: imports, IgnoreFuncBodies: true}
	_, err := check.Check(l.ImportPath, p.fset, p.files, p.info)
	return p, err
}

// number is a named number of the source.
type number struct{ name, value, meaning string }

// numbersOf are the numbers and durations that a declaration names. Enums, which have types of their own, are not meant,
// nor is the largest integer, which stands for none.
func (p *goPackage) numbersOf(group *ast.GenDecl) []number {
	var numbers []number
	for _, spec := range group.Specs {
		named, ok := spec.(*ast.ValueSpec)
		if !ok {
			continue
		}
		doc := named.Doc
		if doc == nil && !group.Lparen.IsValid() {
			doc = group.Doc
		}
		for i, name := range named.Names {
			value, kind := p.valueOf(named, i)
			if value == nil || value.Kind() == constant.Int && constant.Compare(value, token.EQL, constant.MakeInt64(math.MaxInt64)) {
				continue
			}
			if shown := show(value, kind); shown != "" {
				numbers = append(numbers, number{name.Name, shown, meaning(name.Name, doc.Text(), named.Comment.Text())})
			}
		}
	}
	return numbers
}

// valueOf is the constant that the i-th name of a declaration stands for, or begins with if it is a variable.
func (p *goPackage) valueOf(spec *ast.ValueSpec, i int) (constant.Value, types.Type) {
	if c, ok := p.info.Defs[spec.Names[i]].(*types.Const); ok {
		return c.Val(), c.Type()
	}
	if i >= len(spec.Values) {
		return nil, nil
	}
	v := p.info.Types[spec.Values[i]]
	return v.Value, v.Type
}

// show is a number as the page has it; empty for what is none.
func show(v constant.Value, t types.Type) string {
	if named, ok := t.(*types.Named); ok {
		if named.String() != "time.Duration" {
			return ""
		}
		d, _ := constant.Int64Val(v)
		return showDuration(time.Duration(d))
	}
	basic, ok := t.Underlying().(*types.Basic)
	if !ok || basic.Info()&types.IsNumeric == 0 || basic.Kind() == types.UntypedRune || basic.Kind() == types.Byte {
		return ""
	}
	if n, exact := constant.Int64Val(constant.ToInt(v)); exact {
		return showInt(n)
	}
	f, _ := constant.Float64Val(v)
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// showInt groups the digits in thousands, and adds the binary multiple that a large number is.
func showInt(n int64) string {
	digits := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, digit := range digits {
		if i > 0 && digits[i-1] != '-' && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	for _, unit := range []struct {
		name string
		size int64
	}{{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}} {
		if n >= unit.size && n%unit.size == 0 {
			return fmt.Sprintf("%s (%d %s)", b.String(), n/unit.size, unit.name)
		}
	}
	return b.String()
}

// showDuration is a duration without the parts that are zero; of whole days, in days.
func showDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d > day && d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// meaning is what a name's comment says, without the name at its beginning.
func meaning(name, doc, comment string) string {
	text := oneLine(doc)
	if text == "" {
		text = oneLine(comment)
	}
	if said, ok := strings.CutPrefix(text, name+" "); ok && !strings.HasPrefix(said, "and ") {
		text = strings.TrimPrefix(said, "is ")
	}
	if !strings.Contains(text, ". ") {
		text = strings.TrimSuffix(text, ".")
	}
	return text
}

// fieldsOf are rows of the numbers in a struct: field and comment.
func (p *goPackage) fieldsOf(name string) [][]string {
	var rows [][]string
	for _, file := range p.files {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != name {
				return true
			}
			if fields, ok := spec.Type.(*ast.StructType); ok {
				rows = p.numericFields(fields)
			}
			return false
		})
	}
	return rows
}

func (p *goPackage) numericFields(of *ast.StructType) [][]string {
	var rows [][]string
	for _, field := range of.Fields.List {
		basic, ok := p.info.Types[field.Type].Type.Underlying().(*types.Basic)
		if !ok || basic.Info()&types.IsNumeric == 0 {
			continue
		}
		for _, name := range field.Names {
			rows = append(rows, []string{"`" + name.Name + "`", meaning(name.Name, field.Doc.Text(), field.Comment.Text())})
		}
	}
	return rows
}
