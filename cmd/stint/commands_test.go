package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// eachCommand calls fn for every command of ours. What cobra adds by itself is not there before a run.
func eachCommand(fn func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		fn(c)
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	walk(newRootCommand(&globals{}))
}

// Every command explains itself: what it is in a phrase, how it is used, what each flag means.
func TestEveryCommandHasHelp(t *testing.T) {
	eachCommand(func(c *cobra.Command) {
		name := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || strings.ToUpper(c.Short[:1]) != c.Short[:1] {
			t.Errorf("%s: Short is %q; want a phrase that begins with a capital and has no full stop", name, c.Short)
		}
		if c.Runnable() && !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s has no Example", name)
		}
		flags := func(f *pflag.Flag) {
			// pflag takes what stands in backquotes for the name of the value.
			if f.Usage == "" || strings.Contains(f.Usage, "`") || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: usage is %q; want a phrase without backquotes", name, f.Name, f.Usage)
			}
		}
		c.LocalFlags().VisitAll(flags)

		help := ok(t, append(strings.Fields(name)[1:], "--help")...)
		for _, part := range []string{c.Short, c.Example} {
			if c.Long == "" && !strings.Contains(help, part) {
				t.Errorf("%s --help does not show %q", name, part)
			}
		}
	})
}

// What people paste from a help text or a README must at least be understood: its commands, flags and arguments exist.
func TestExamplesParse(t *testing.T) {
	eachCommand(func(c *cobra.Command) {
		for line := range strings.SplitSeq(c.Example, "\n") {
			checkExample(t, "the help of "+c.CommandPath(), line)
		}
	})
	for _, page := range []string{"README.md", "examples/shell/README.md"} {
		checked := 0
		for _, line := range fenced(t, page, "") {
			checked += checkExample(t, page, line)
		}
		if checked == 0 {
			t.Errorf("%s shows no command of ours", page)
		}
	}
}

// The Go code of the README is that of the examples, which the compiler has seen, line by line.
func TestREADMEShowsCompiledGo(t *testing.T) {
	text, err := os.ReadFile("../../client/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	example := strings.ReplaceAll(string(text), "\t", "")
	shown := fenced(t, "README.md", "go")
	if len(shown) < 10 {
		t.Errorf("the README shows %d lines of Go only", len(shown))
	}
	for _, line := range shown {
		if !strings.Contains(example, "\n"+strings.ReplaceAll(line, "\t", "")+"\n") {
			t.Errorf("client/example_test.go has no line %q", line)
		}
	}
}

// fenced are the lines of a page's code blocks of a language.
func fenced(t *testing.T, page, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	inside, wanted := false, false
	for line := range strings.SplitSeq(string(text), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence:
			inside, wanted = !inside, !inside && fence == language
		case wanted:
			found = append(found, line)
		}
	}
	return found
}

// checkExample parses what a shell line calls of ours, and returns how many commands that were.
func checkExample(t *testing.T, where, line string) (checked int) {
	t.Helper()
	for _, words := range shellCommands(line) {
		i := slices.IndexFunc(words, func(w string) bool { return filepath.Base(w) == "stint" })
		if i < 0 || i > 0 && words[i-1] != "xargs" || i+1 == len(words) {
			continue
		}
		checked++
		args := words[i+1:]
		c, rest, err := newRootCommand(&globals{}).Find(args)
		if err == nil {
			err = c.ParseFlags(rest)
		}
		if err == nil && i == 0 { // xargs adds the arguments
			err = c.ValidateArgs(c.Flags().Args())
		}
		if err == nil {
			err = c.ValidateFlagGroups()
		}
		if err != nil {
			t.Errorf("%s: %s: %v", where, line, err)
		}
	}
	return checked
}

// shellCommands splits a line into its commands and these into words, as a shell would, as far as examples need it:
// single quotes, pipes, lists, the & at the end, comments, and what $( runs.
func shellCommands(line string) [][]string {
	var commands [][]string
	var words []string
	word, inWord, quoted := "", false, false
	endWord := func() {
		if inWord {
			words = append(words, word)
		}
		word, inWord = "", false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, inWord = !quoted, true
		case quoted:
			word += string(r)
		case r == '#' && !inWord:
			endCommand()
			return commands
		case strings.ContainsRune("|;&()", r):
			endCommand()
		case r == ' ':
			endWord()
		default:
			word, inWord = word+string(r), true
		}
	}
	endCommand()
	return commands
}

// A flag that nothing reads promises what does not happen. Every variable that a flag sets is looked for outside of the
// calls that define flags.
func TestNoFlagIsDead(t *testing.T) {
	files, uses := checkedSource(t)
	flags := map[types.Object]string{}
	read := map[types.Object]bool{}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if target, flag, ok := flagDefinition(n); ok {
					if of := object(uses, target); of != nil {
						flags[of] = flag
					} else {
						t.Errorf("--%s sets something that this test cannot find", flag)
					}
					return false
				}
			case *ast.AssignStmt: // setting is not reading
				for _, value := range n.Rhs {
					ast.Inspect(value, func(n ast.Node) bool {
						note(read, uses, n)
						return true
					})
				}
				return !slices.ContainsFunc(n.Lhs, func(e ast.Expr) bool { return object(uses, e) != nil })
			case *ast.KeyValueExpr:
				ast.Inspect(n.Value, func(n ast.Node) bool {
					note(read, uses, n)
					return true
				})
				_, isField := n.Key.(*ast.Ident)
				return !isField
			}
			note(read, uses, n)
			return true
		})
	}
	if len(flags) < 40 {
		t.Fatalf("found %d flags only; the search is broken: %v", len(flags), flags)
	}
	for of, flag := range flags {
		if !read[of] {
			t.Errorf("--%s sets %s, which nothing reads", flag, of.Name())
		}
	}
}

// note notes what a name stands for.
func note(read map[types.Object]bool, uses map[*ast.Ident]types.Object, n ast.Node) {
	if id, ok := n.(*ast.Ident); ok && uses[id] != nil {
		read[uses[id]] = true
	}
}

// checkedSource is the files of this package, tests left out, and what the names in them stand for. Imports are not
// followed: what belongs to other packages stays unknown.
func checkedSource(t *testing.T) ([]*ast.File, map[*ast.Ident]types.Object) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	fset := token.NewFileSet()
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	check := types.Config{Importer: noImports{}, Error: func(error) {}}
	_, _ = check.Check("main", fset, files, &info) // the error is of what is imported, which is missing on purpose
	return files, info.Uses
}

// noImports imports packages without anything in them.
type noImports struct{}

func (noImports) Import(name string) (*types.Package, error) {
	p := types.NewPackage(name, path.Base(strings.TrimSuffix(name, "/v2")))
	p.MarkComplete()
	return p, nil
}

// flagDefinition is what a call f.XVar(&target, "name", …) defines.
func flagDefinition(call *ast.CallExpr) (target ast.Expr, flag string, ok bool) {
	fn, isMethod := call.Fun.(*ast.SelectorExpr)
	if !isMethod || !strings.HasSuffix(fn.Sel.Name, "Var") && !strings.HasSuffix(fn.Sel.Name, "VarP") || len(call.Args) < 3 {
		return nil, "", false
	}
	address, isAddress := call.Args[0].(*ast.UnaryExpr)
	name, isText := call.Args[1].(*ast.BasicLit)
	if !isAddress || address.Op != token.AND || !isText {
		return nil, "", false
	}
	flag, err := strconv.Unquote(name.Value)
	return address.X, flag, err == nil
}

// object is the field or variable that a.b.c names; of what another package declares, the value that holds it.
func object(uses map[*ast.Ident]types.Object, e ast.Expr) types.Object {
	switch e := e.(type) {
	case *ast.Ident:
		return uses[e]
	case *ast.SelectorExpr:
		if of := uses[e.Sel]; of != nil {
			return of
		}
		return object(uses, e.X)
	default:
		return nil
	}
}

func TestCompletion(t *testing.T) {
	server := at(t)
	for _, queue := range []string{"media/audio", "media/video", "mail"} {
		ok(t, server, "submit", queue, "--data", "x")
	}
	ok(t, server, "limit", "put", "db", "--max", "1")
	nobody := "--server=127.0.0.1:1"
	for _, test := range []struct {
		args string
		want []string
	}{
		{server + " queue get m", []string{"mail", "media/audio", "media/video", ":4"}},
		{server + " queue get media/v", []string{"media/video", ":4"}},
		{server + " queue get mail m", []string{":4"}},
		{server + " submit me", []string{"media/audio", "media/video", ":4"}},
		{server + " work mail m", []string{"media/audio", "media/video", ":4"}},
		{server + " job list --queue mai", []string{"mail", ":4"}},
		{nobody + " queue get m", []string{":5"}},
		{server + " limit usage d", []string{"db", ":4"}},
		{server + " limit delete db d", []string{":4"}},
		{nobody + " limit usage d", []string{":5"}},
		// Of what is fixed the shell picks what fits.
		{nobody + " job list --state ru", []string{
			"backoff", "cancelled", "expired", "failed", "parked", "ready", "running", "scheduled", "succeeded", ":4",
		}},
		{nobody + " submit mail --priority very", []string{"very-low", "low", "normal", "high", "very-high", ":4"}},
		{nobody + " job interrupt --level r", []string{"retry", "cancel", ":4"}},
		{nobody + " queue list -o js", []string{"table", "json", "jsonl", ":4"}},
		{nobody + " wor", []string{"work", "worker", ":4"}},
	} {
		out := ok(t, append([]string{"__complete"}, strings.Fields(test.args)...)...)
		var got []string
		for _, line := range lines(out) {
			word, _, _ := strings.Cut(line, "\t")
			got = append(got, word)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.args, got, test.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if script := ok(t, "completion", shell); !strings.Contains(script, "stint") {
			t.Errorf("the completion for %s does not name the program", shell)
		}
	}
}
