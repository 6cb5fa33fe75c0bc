package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// format says what standard output shows. The zero value is a table.
type format string

const (
	table format = "table"
	jsons format = "json"
	jsonl format = "jsonl"
)

// String, Set and Type make it a flag.
func (f *format) String() string {
	if *f == "" {
		return string(table)
	}
	return string(*f)
}

// Set takes the flag's value.
func (f *format) Set(s string) error {
	switch v := format(s); v {
	case table, jsons, jsonl:
		*f = v
		return nil
	default:
		return errors.New("want table, json or jsonl")
	}
}

// Type names the flag's value in help texts.
func (f *format) Type() string { return "format" }

// print shows an answer: whole as JSON, its items one a line as JSON lines, or as the table that draw writes, with tabs
// between columns.
func (g *globals) print(answer proto.Message, items []proto.Message, draw func(io.Writer)) error {
	switch g.output {
	case jsons:
		line, err := compact(answer)
		if err != nil {
			return err
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, line, "", "  "); err != nil {
			return err
		}
		_, err = fmt.Fprintln(g.stdout, indented.String())
		return err
	case jsonl:
		for _, item := range items {
			line, err := compact(item)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(g.stdout, "%s\n", line); err != nil {
				return err
			}
		}
		return nil
	default:
		w := newTable(g.stdout)
		draw(w)
		return w.Flush()
	}
}

// compact is a message as proto3 JSON on one line. protojson varies its white space on purpose; ours is always the same.
func compact(m proto.Message) ([]byte, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer
	err = json.Compact(&line, raw)
	return line.Bytes(), err
}

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

// row writes cells of a table. What the cells hold is made harmless to a terminal.
func row(w io.Writer, cells ...string) {
	for i, cell := range cells {
		cells[i] = plain(cell)
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

// plain makes text that others chose harmless to a terminal: what is not printable is shown as a dot in the middle.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, s)
}

// list shows many items of one answer as they come, so that any number of them can pass.
type list struct {
	g      *globals
	field  string // The name of the items in the answer's JSON.
	header []string
	table  *tabwriter.Writer
	begun  bool
	count  int
}

// newList starts a list; the header is the first row of its table.
func (g *globals) newList(field string, header ...string) *list {
	return &list{g: g, field: field, header: header, table: newTable(g.stdout)}
}

// begin shows what comes before the first item. It waits for that one, or for the end, so that a command which fails
// at once shows nothing.
func (l *list) begin() error {
	if l.begun {
		return nil
	}
	l.begun = true
	switch l.g.output {
	case jsons:
		_, err := fmt.Fprintf(l.g.stdout, "{%q:[", l.field)
		return err
	case jsonl:
	default:
		row(l.table, l.header...)
	}
	return nil
}

// add shows one item.
func (l *list) add(item proto.Message, cells ...string) error {
	if err := l.begin(); err != nil {
		return err
	}
	l.count++
	if l.g.output != jsons && l.g.output != jsonl {
		row(l.table, cells...)
		return nil
	}
	line, err := compact(item)
	if err != nil {
		return err
	}
	lead, end := "", "\n"
	if l.g.output == jsons {
		lead, end = "\n  ", ""
		if l.count > 1 {
			lead = ",\n  "
		}
	}
	_, err = fmt.Fprintf(l.g.stdout, "%s%s%s", lead, line, end)
	return err
}

// flush shows the rows so far; columns are aligned between two flushes.
func (l *list) flush() error {
	if l.g.output == jsons || l.g.output == jsonl {
		return nil // an empty write may wait for its reader
	}
	return l.table.Flush()
}

// abort ends a list that cannot go on because of err, which it returns. What was shown stays; as JSON it does not parse,
// so that nobody takes a part for the whole.
func (l *list) abort(err error) error { return errors.Join(err, l.flush()) }

// end completes the answer.
func (l *list) end() error {
	if err := l.begin(); err != nil {
		return err
	}
	if l.g.output == jsons {
		_, err := fmt.Fprint(l.g.stdout, "\n]}\n")
		return err
	}
	return l.flush()
}

// messages turns a slice of one kind of message into one of any.
func messages[M proto.Message](of []M) []proto.Message {
	all := make([]proto.Message, len(of))
	for i, m := range of {
		all[i] = m
	}
	return all
}
