package server

import (
	"errors"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestEnums: enums convert by value between wire and domain, so each name has the same number on both sides, and each
// side has no name that the other lacks, but for those listed here.
func TestEnums(t *testing.T) {
	domain := domainEnums(t)
	for _, e := range []struct {
		wire       protoreflect.Enum
		wirePrefix string
		domain     string            // the type
		prefix     string            // of its constants
		renamed    map[string]string // wire names of domain constants
		later      string            // domain constants that the wire does not have yet
	}{
		{wire: stintv1.JobState(0), wirePrefix: "JOB_STATE_", domain: "State", prefix: "State", later: "BLOCKED"},
		{wire: stintv1.RunState(0), wirePrefix: "RUN_STATE_", domain: "RunState", prefix: "Run"},
		{wire: stintv1.Priority(0), wirePrefix: "PRIORITY_", domain: "Priority"},
		{wire: stintv1.ActionKind(0), wirePrefix: "ACTION_KIND_", domain: "ActionKind", prefix: "Action"},
		{wire: stintv1.ParkReason(0), wirePrefix: "PARK_REASON_", domain: "ParkReason", prefix: "Park"},
		{wire: stintv1.LostContact(0), wirePrefix: "LOST_CONTACT_", domain: "LostContact", prefix: "LostContact"},
		{wire: stintv1.OnZombie(0), wirePrefix: "ON_ZOMBIE_", domain: "OnZombie", prefix: "OnZombie"},
		{wire: stintv1.OnFailure(0), wirePrefix: "ON_FAILURE_", domain: "OnFailure", prefix: "OnFailure"},
		{wire: stintv1.InterruptLevel(0), wirePrefix: "INTERRUPT_LEVEL_", domain: "Level", prefix: "Level"},
		{wire: stintv1.InterruptSource(0), wirePrefix: "INTERRUPT_SOURCE_", domain: "Source", prefix: "Source"},
		{wire: stintv1.InterruptEnd(0), wirePrefix: "INTERRUPT_END_", domain: "InterruptEnd", prefix: "End"},
		{
			wire: stintv1.FailureClass(0), wirePrefix: "FAILURE_CLASS_", domain: "Class",
			renamed: map[string]string{"TIMED_OUT": "TIMEOUT"},
		},
		{wire: stintv1.InterruptStatus(0), wirePrefix: "INTERRUPT_STATUS_", domain: "InterruptEffect", prefix: "Effect"},
	} {
		t.Run(e.domain, func(t *testing.T) {
			got := map[string]int64{}
			for name, number := range domain[e.domain] {
				name = upperSnake(strings.TrimPrefix(name, e.prefix))
				if wire, ok := e.renamed[name]; ok {
					name = wire
				}
				got[name] = number
			}
			values := e.wire.Descriptor().Values()
			for i := range values.Len() {
				v := values.Get(i)
				name := strings.TrimPrefix(string(v.Name()), e.wirePrefix)
				number, ok := got[name]
				if name == "UNSPECIFIED" {
					number, ok = 0, got["NONE"] == 0
				}
				if !ok || number != int64(v.Number()) {
					t.Errorf("%s is %d on the wire and %d (%t) in the domain", name, v.Number(), number, ok)
				}
				delete(got, name)
			}
			delete(got, "NONE")
			for name := range got {
				if name != e.later {
					t.Errorf("%s is not on the wire", name)
				}
			}
			if _, missing := got[e.later]; e.later != "" && !missing {
				t.Errorf("%s is on the wire: take it off the list", e.later)
			}
		})
	}
}

// domainEnums are the typed constants of package job, by type and name.
func domainEnums(t *testing.T) map[string]map[string]int64 {
	paths, err := filepath.Glob("../internal/job/*.go")
	if err != nil {
		t.Fatal(err)
	}
	fset, files := token.NewFileSet(), []*ast.File(nil)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	// Constants need no imports, so that what imports lack is no error here.
	config := types.Config{Importer: noImports{}, Error: func(error) {}}
	pkg, _ := config.Check("job", fset, files, nil)
	enums := map[string]map[string]int64{}
	for _, name := range pkg.Scope().Names() {
		c, ok := pkg.Scope().Lookup(name).(*types.Const)
		if !ok {
			continue
		}
		of, ok := c.Type().(*types.Named)
		if !ok || of.Obj().Pkg() != pkg || !c.Exported() {
			continue
		}
		if enums[of.Obj().Name()] == nil {
			enums[of.Obj().Name()] = map[string]int64{}
		}
		number, _ := constant.Int64Val(c.Val())
		enums[of.Obj().Name()][name] = number
	}
	return enums
}

type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not needed") }

// upperSnake is NoRun as NO_RUN.
func upperSnake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}
