package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
)

// A section tells the numbers of one package.
type section struct {
	title string
	text  string
	dir   string   // the package's, from the module's root
	skip  []string // constants, and whole files, that are neither defaults nor bounds
	zeros []string // structs of settings: the comments of their numbers say what zero means
}

var sections = []section{
	{
		title: "A job's life",
		text:  "What holds for a job when neither it nor its queue says otherwise, and what nothing can change.",
		dir:   "internal/job",
		skip:  []string{"NumberOfStates"},
	},
	{
		title: "Requests, calls and streams",
		text:  "What one request may hold, and what the server does with connections. Going over a limit is an error of that item or call.",
		dir:   "server",
		skip:  []string{"digest.go", "explicitZero", "pageMAC"},
	},
	{
		title: "Sessions and leases",
		text:  "The times that workers live by, and what the dispatcher takes at once.",
		dir:   "internal/dispatch",
		skip:  []string{"refBits", "tokenLen", "staleMin"},
	},
	{
		title: "Stores",
		text:  "What holds for a store of any kind.",
		dir:   "internal/store",
	},
	{
		title: "The embedded store",
		text:  "How much is kept, for how long, and how much of it in memory.",
		dir:   "internal/store/pebblestore",
		skip:  []string{"recordVersion", "bucketBits", "chunkBits", "filterWords", "filterProbes"},
		zeros: []string{"Config"},
	},
	{
		title: "Go SDK",
		text:  "What the client does by itself. A worker of another language is free to do otherwise, within the server's limits.",
		dir:   "client",
		zeros: []string{"WorkerConfig", "SubmitConfig"},
	},
	{
		title: "Programs run by stint work",
		dir:   "internal/sidecar",
	},
	{
		title: "Command line",
		text:  "What no flag changes.",
		dir:   "cmd/stint",
		skip:  []string{"exit.go", "barWidth", "barRefresh", "waterfallWidth", "preview"},
	},
}

// defaultsPage writes every default and bound of the code.
func defaultsPage() (string, error) {
	dirs := make([]string, len(sections))
	for i := range sections {
		dirs[i] = sections[i].dir
	}
	packages, err := loadPackages(dirs...)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("<!-- Generated from the code by internal/docgen; change it there and run: make gen -->\n\n")
	b.WriteString("# Defaults and bounds\n\n" +
		"Every number below is read from the source; the names are those of the constants there. \"1 Mi\" is 2^20.\n" +
		"The flags of each command, with their defaults, are at the end.\n")
	for i := range sections {
		if err := sections[i].write(&b, packages[sections[i].dir]); err != nil {
			return "", err
		}
	}
	err = writeProgram(&b, "./cmd/stint")
	return b.String(), err
}

// write adds the section, if the package has something to tell.
func (s *section) write(b *strings.Builder, p *goPackage) error {
	fmt.Fprintf(b, "\n## %s\n", s.title)
	paragraph(b, s.text)
	var alone [][]string // rows of declarations that no comment holds together
	var groups []group
	for _, file := range p.files {
		if slices.Contains(s.skip, filepath.Base(p.fset.Position(file.Package).Filename)) {
			continue
		}
		for _, decl := range file.Decls {
			g, ok := s.groupOf(p, decl)
			switch {
			case !ok:
			case g.text == "":
				alone = append(alone, g.rows...)
			default:
				groups = append(groups, g)
			}
		}
	}
	if len(alone)+len(groups) == 0 {
		return fmt.Errorf("%s has no constant to tell of", s.dir)
	}
	if len(alone) > 0 {
		writeTable(b, numberHeader, alone)
	}
	for _, g := range groups {
		paragraph(b, g.text)
		writeTable(b, numberHeader, g.rows)
	}
	for _, name := range s.zeros {
		fields := p.fieldsOf(name)
		if len(fields) == 0 {
			return fmt.Errorf("%s has no struct %s with a number in it", s.dir, name)
		}
		paragraph(b, "The fields of `"+name+"`:")
		writeTable(b, []string{"field", "meaning"}, fields)
	}
	return nil
}

var numberHeader = []string{"name", "value", "meaning"}

// group is the numbers of one const or var declaration, and what its comment says of them all.
type group struct {
	text string
	rows [][]string
}

// groupOf is what a declaration has to tell; false if that is nothing.
func (s *section) groupOf(p *goPackage, decl ast.Decl) (g group, ok bool) {
	d, ok := decl.(*ast.GenDecl)
	if !ok || d.Tok == token.TYPE {
		return group{}, false
	}
	for _, n := range p.numbersOf(d) {
		if !slices.Contains(s.skip, n.name) {
			g.rows = append(g.rows, []string{"`" + n.name + "`", n.value, n.meaning})
		}
	}
	if d.Lparen.IsValid() {
		g.text = oneLine(d.Doc.Text())
	}
	return g, len(g.rows) > 0
}

func paragraph(b *strings.Builder, text string) {
	if text != "" {
		b.WriteString("\n" + text + "\n")
	}
}

func writeTable(b *strings.Builder, header []string, rows [][]string) {
	line := func(cells []string) {
		b.WriteString("|")
		for _, cell := range cells {
			b.WriteString(" " + strings.ReplaceAll(cell, "|", `\|`) + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	line(header)
	line(slices.Repeat([]string{"---"}, len(header)))
	for _, row := range rows {
		line(row)
	}
}

// oneLine is a comment without its line breaks.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
