package archtest

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A rule says what the packages at a path may import besides the standard library. Paths are from the module's root and
// mean one package, or with "/..." at their end also those below it. Paths of other modules mean all below them.
type rule struct {
	path  string
	may   []string
	tests []string // what its tests may import besides
	never []string // exceptions from may and from the standard library, tests excepted
	why   string
}

const (
	stubs    = "gen/go/stint/v1"
	grpc     = "google.golang.org/grpc"
	protobuf = "google.golang.org/protobuf"
	details  = "google.golang.org/genproto/googleapis/rpc"
	otel     = "go.opentelemetry.io/otel"
	uuid     = "github.com/google/uuid"
	pebble   = "github.com/cockroachdb/pebble/v2"
	unix     = "golang.org/x/sys/unix"
	anything = ""
)

// rules is docs/design.md, section 9, as a table: cmd → server → dispatch → store → job, cmd → pebblestore → store →
// job, client → gen.
var rules = []rule{
	{
		path:  "internal/job",
		tests: []string{uuid},
		never: []string{"context", "crypto/rand", "log", "math/rand", "net", "os", "sync", "syscall"},
		why:   "it decides, and does nothing else: time and chance are arguments, so that every decision can be tested and replayed",
	},
	{
		path:  "internal/event",
		may:   []string{"internal/job"},
		never: []string{"context", "log", "net", "os", "sync", "syscall"},
		why:   "it says what happened, by what was and what is, and does nothing else",
	},
	{
		path:  "internal/feed",
		may:   []string{"internal/event", "internal/job", "internal/store"},
		tests: []string{"internal/store/pebblestore", pebble + "/vfs"},
		why:   "it hands events of any store to followers over any protocol",
	},
	{
		path: "internal/store",
		may:  []string{"internal/event", "internal/job"},
		why:  "it names what must be durable, for any engine",
	},
	{
		path: "internal/store/storetest",
		may:  []string{"internal/event", "internal/job", "internal/store", "pgregory.net/rapid", "github.com/google/go-cmp", "github.com/anishathalye/porcupine"},
		why:  "it says what a store means, to every engine alike, so it knows none",
	},
	{
		path:  "internal/store/pebblestore",
		may:   []string{"internal/event", "internal/job", "internal/store", pebble, unix, protobuf + "/encoding/protowire"},
		tests: []string{"internal/store/storetest"},
		why:   "an engine loads and puts; it does not know who asks",
	},
	{
		path:  "internal/dispatch",
		may:   []string{"internal/event", "internal/job", "internal/store"},
		tests: []string{"internal/store/pebblestore", pebble + "/vfs"},
		why:   "it matches room to jobs over any store and for any protocol",
	},
	{
		path:  "server",
		may:   []string{stubs, "internal/event", "internal/feed", "internal/job", "internal/store", "internal/dispatch", grpc, protobuf, details, otel, uuid, "github.com/grpc-ecosystem/go-grpc-middleware/v2"},
		tests: []string{"internal/store/pebblestore", pebble + "/vfs", "client"},
		never: []string{"internal/store/pebblestore", otel + "/sdk"},
		why:   "it speaks gRPC over any store; cmd chooses the engine and the telemetry",
	},
	{
		path:  "client",
		may:   []string{stubs, grpc, protobuf, details, otel, uuid},
		tests: []string{"server", "internal/job", "internal/store", "internal/dispatch", pebble + "/vfs"},
		never: []string{otel + "/sdk"},
		why:   "every import becomes a dependency of each user's program",
	},
	{
		path: "internal/sidecar/...",
		may:  []string{stubs, "client", protobuf, unix},
		why:  "it is a worker like any other, built on what the SDK offers to all",
	},
	{
		path: "internal/demo/...",
		may:  []string{stubs, "client", "internal/bench/child", grpc, protobuf, uuid},
		why:  "it proves what a user sees, so it uses what a user has",
	},
	{
		path: "internal/bench/...",
		may:  []string{stubs, "internal/bench/...", "client", grpc, protobuf, uuid, unix, "github.com/HdrHistogram/hdrhistogram-go"},
		why:  "it measures what a client sees, so it must not reach into the server",
	},
	{
		path:  "internal/top",
		may:   []string{stubs, protobuf},
		never: []string{"context", "net", "os", "sync", "syscall"},
		why:   "it says what an operator should see of what a server tells, and neither asks the server nor draws",
	},
	{
		path:  "internal/top/source",
		may:   []string{stubs, "client", "internal/top", grpc},
		tests: []string{details},
		why:   "it sees what a client sees; drawing is another's",
	},
	{
		path: "internal/top/screen",
		may:  []string{"internal/top", "charm.land/bubbletea/v2", "github.com/charmbracelet/x/ansi"},
		why:  "the library for terminals stays here, so that another one can take its place",
	},
	{
		path: "internal/docgen",
		may:  []string{protobuf, "internal/...", "server"},
		why:  "pages about the code come from the code",
	},
	{
		path: "internal/archtest",
		why:  "the tools that check the tree are part of it",
	},
	{
		path: "internal/simtest/...",
		may:  []string{anything},
		why:  "it puts the whole system into one bubble",
	},
	{
		path: "internal/blackbox/...",
		may:  []string{stubs, "client", grpc, protobuf, uuid, unix},
		why:  "it drives the real binary from outside",
	},
	{
		path: "cmd/...",
		may:  []string{anything},
		why:  "main builds everything from its parts",
	},
	{
		path: "examples/...",
		may:  []string{stubs, "client", grpc, protobuf},
		why:  "an example uses what a user has",
	},
}

// testLibraries is what the tests of every package may import.
var testLibraries = []string{
	protobuf, "github.com/google/go-cmp", "pgregory.net/rapid", "github.com/anishathalye/porcupine", "github.com/cockroachdb/datadriven",
}

// banned is what nobody imports, tests included.
var banned = map[string]string{
	"github.com/stretchr/testify":   "compare with go-cmp and report with t.Errorf",
	"github.com/golang/mock":        "use the real thing, or a small fake beside the test",
	"go.uber.org/mock":              "use the real thing, or a small fake beside the test",
	"go.uber.org/zap":               "log with log/slog, by a logger that is passed in",
	"github.com/sirupsen/logrus":    "log with log/slog, by a logger that is passed in",
	"github.com/rs/zerolog":         "log with log/slog, by a logger that is passed in",
	"github.com/spf13/viper":        "flags and the environment are the configuration",
	"github.com/pkg/errors":         "wrap with fmt.Errorf and %w",
	"github.com/golang/protobuf":    "use google.golang.org/protobuf",
	"github.com/cockroachdb/errors": "wrap with fmt.Errorf and %w",
}

func TestImports(t *testing.T) {
	for _, s := range tree(t) {
		for _, fault := range importFaults(s) {
			t.Error(fault)
		}
	}
}

// importFaults returns the imports of a file that its package's rule does not allow.
func importFaults(s *source) []string {
	i := slices.IndexFunc(rules, func(r rule) bool { return matches(s.dir(), r.path) })
	if i < 0 {
		return []string{fmt.Sprintf("%s: no rule says what package %s may import; add one to rules in internal/archtest/imports_test.go, with its reason", s.path, s.dir())}
	}
	var faults []string
	for _, spec := range s.ast.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		for prefix, remedy := range banned {
			if within(imported, prefix) {
				faults = append(faults, fmt.Sprintf("%s:%d: imports %s: %s", s.path, s.line(spec.Pos()), imported, remedy))
			}
		}
		if !rules[i].allows(imported, s) {
			faults = append(faults, fmt.Sprintf("%s:%d: package %s may not import %s: %s. Turn the dependency round, or change its rule in internal/archtest",
				s.path, s.line(spec.Pos()), s.dir(), imported, rules[i].why))
		}
	}
	return faults
}

func (r rule) allows(imported string, s *source) bool {
	local, isLocal := strings.CutPrefix(imported, module+"/")
	if isLocal {
		imported = local
	}
	hit := func(pattern string) bool {
		return pattern == anything || matches(imported, pattern) || !isLocal && within(imported, pattern)
	}
	if s.test() {
		if imported == s.dir() || !isLocal && standard(imported) || slices.ContainsFunc(testLibraries, hit) || slices.ContainsFunc(r.tests, hit) {
			return true
		}
	}
	if slices.ContainsFunc(r.never, hit) {
		return false
	}
	return !isLocal && standard(imported) || slices.ContainsFunc(r.may, hit)
}

// matches tells whether a pattern of a rule means this package.
func matches(pkg, pattern string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return within(pkg, below)
	}
	return pkg == pattern
}

// within tells whether an import path is the other one or lies below it.
func within(imported, prefix string) bool {
	return imported == prefix || strings.HasPrefix(imported, prefix+"/")
}

// standard tells whether an import path is one of the standard library.
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

// TestWhatUsersLink looks at everything that comes along, at any depth, into a program that uses the SDK or embeds the
// server.
func TestWhatUsersLink(t *testing.T) {
	engines := "an engine belongs to the binary, which chooses it"
	telemetry := "the SDK of OpenTelemetry belongs to main; libraries use its API"
	cli := "flags belong to main"
	server := "a worker must not carry the server"
	for name, bad := range map[string]map[string]string{
		"client": {
			module + "/internal": server, module + "/server": server,
			"github.com/cockroachdb": engines, "github.com/jackc/pgx": engines, otel + "/sdk": telemetry,
			"github.com/spf13": cli, "github.com/prometheus": telemetry, "testing": "tests are not shipped",
		},
		"server": {
			"github.com/cockroachdb": engines, "github.com/jackc/pgx": engines, otel + "/sdk": telemetry,
			"github.com/spf13": cli, "github.com/prometheus": telemetry, "testing": "tests are not shipped",
		},
	} {
		for _, dep := range goList(t, "-deps", "./"+name) {
			for prefix, why := range bad {
				if within(dep, prefix) {
					t.Errorf("package %s links %s: %s. Find the way with: go list -deps -json ./%s", name, dep, why, name)
				}
			}
		}
	}
}

// directMax is how many other modules the code may import. Each is code that nobody here reviews; before adding one more,
// see what it would take to do without, or which can go.
const directMax = 20

func TestDirectDependencies(t *testing.T) {
	direct := make(map[string]bool)
	for _, s := range tree(t) {
		for _, spec := range s.ast.Imports {
			if imported, _ := strconv.Unquote(spec.Path.Value); !standard(imported) && !within(imported, module) {
				direct[imported] = true
			}
		}
	}
	args := append([]string{"-f", "{{with .Module}}{{.Path}}{{end}}"}, slices.Sorted(maps.Keys(direct))...)
	modules := slices.Compact(slices.Sorted(slices.Values(goList(t, args...))))
	if len(modules) > directMax {
		t.Errorf("the code imports %d modules, want at most %d: %v", len(modules), directMax, modules)
	}
}

// goList runs go list at the root and returns the words that it prints.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e"}, args...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	return strings.Fields(string(out))
}
