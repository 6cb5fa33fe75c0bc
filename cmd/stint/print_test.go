package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func TestFormat(t *testing.T) {
	var f format
	if f.String() != "table" {
		t.Errorf("the zero value is %q", &f)
	}
	for _, name := range []string{"json", "jsonl", "table"} {
		if err := f.Set(name); err != nil || f.String() != name {
			t.Errorf("%s: got %q, %v", name, &f, err)
		}
	}
	if err := f.Set("yaml"); err == nil || f != table {
		t.Errorf("yaml: got %q, %v, want an error and no change", &f, err)
	}
}

// results is an answer with two items.
var results = &stintv1.RetryJobsResponse{Results: []*stintv1.JobResult{
	{Id: "a", State: stintv1.JobState_JOB_STATE_READY},
	{Id: "b", Error: &stintv1.ItemError{Index: 1, Reason: stintv1.Reason_REASON_RUN_ACTIVE, Message: "the <job> runs"}},
}}

// The three formats are a contract with scripts: byte by byte the same in every build, which protojson alone is not.
func TestPrint(t *testing.T) {
	for output, want := range map[format]string{
		table: "ID      STATE\na       READY\nlonger  ·[1mBACKOFF\n",
		jsonl: `{"id":"a","state":"JOB_STATE_READY"}
{"id":"b","error":{"index":1,"reason":"REASON_RUN_ACTIVE","message":"the <job> runs"}}
`,
		jsons: `{
  "results": [
    {
      "id": "a",
      "state": "JOB_STATE_READY"
    },
    {
      "id": "b",
      "error": {
        "index": 1,
        "reason": "REASON_RUN_ACTIVE",
        "message": "the <job> runs"
      }
    }
  ]
}
`,
	} {
		var stdout bytes.Buffer
		g := &globals{output: output, stdout: &stdout}
		err := g.print(results, messages(results.GetResults()), func(w io.Writer) {
			row(w, "ID", "STATE")
			row(w, "a", "READY")
			row(w, "longer", "\x1b[1mBACKOFF")
		})
		if diff := cmp.Diff(want, stdout.String()); err != nil || diff != "" {
			t.Errorf("%s: error %v, (-want +got):\n%s", output, err, diff)
		}
	}
}

func TestList(t *testing.T) {
	for _, test := range []struct {
		output format
		items  int
		want   string
	}{
		{table, 0, "ID  STATE\n"},
		{table, 2, "ID  STATE\na   READY\nb   UNSPECIFIED\n"},
		{jsons, 0, "{\"results\":[\n]}\n"},
		{jsons, 1, "{\"results\":[\n  {\"id\":\"a\",\"state\":\"JOB_STATE_READY\"}\n]}\n"},
		{jsons, 2, `{"results":[
  {"id":"a","state":"JOB_STATE_READY"},
  {"id":"b","error":{"index":1,"reason":"REASON_RUN_ACTIVE","message":"the <job> runs"}}
]}
`},
		{jsonl, 0, ""},
		{jsonl, 1, "{\"id\":\"a\",\"state\":\"JOB_STATE_READY\"}\n"},
	} {
		var stdout bytes.Buffer
		l := (&globals{output: test.output, stdout: &stdout}).newList("results", "ID", "STATE")
		for _, item := range results.GetResults()[:test.items] {
			if err := l.add(item, item.GetId(), stateName(item.GetState())); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.end(); err != nil || l.count != test.items {
			t.Errorf("%s with %d items: count %d, error %v", test.output, test.items, l.count, err)
		}
		if diff := cmp.Diff(test.want, stdout.String()); diff != "" {
			t.Errorf("%s with %d items (-want +got):\n%s", test.output, test.items, diff)
		}
	}
}

// A list that breaks off shows what it has; as JSON it must not pass for the whole.
func TestListAbort(t *testing.T) {
	broken := errors.New("broken")
	for output, want := range map[format]string{
		table: "ID\na\n",
		jsons: "{\"results\":[\n  {\"id\":\"a\",\"state\":\"JOB_STATE_READY\"}",
		jsonl: "{\"id\":\"a\",\"state\":\"JOB_STATE_READY\"}\n",
	} {
		var stdout bytes.Buffer
		l := (&globals{output: output, stdout: &stdout}).newList("results", "ID")
		if err := l.add(results.GetResults()[0], "a"); err != nil {
			t.Fatal(err)
		}
		if err := l.abort(broken); !errors.Is(err, broken) || stdout.String() != want {
			t.Errorf("%s: got %v and %q, want %q", output, err, stdout.String(), want)
		}
	}
	var stdout bytes.Buffer
	l := (&globals{output: jsons, stdout: &stdout}).newList("results")
	if err := l.abort(broken); !errors.Is(err, broken) || stdout.Len() > 0 {
		t.Errorf("a list that never began: got %v and %q", err, stdout.String())
	}
}

// full is a writer whose disk is full.
type full struct{}

var errFull = errors.New("disk full")

func (full) Write([]byte) (int, error) { return 0, errFull }

// What could not be written is an error: a script must not take it for an empty answer.
func TestPrintTellsThatWritingFailed(t *testing.T) {
	for _, output := range []format{table, jsons, jsonl} {
		g := &globals{output: output, stdout: full{}}
		draw := func(w io.Writer) { row(w, "a") }
		if err := g.print(results, []proto.Message{results}, draw); !errors.Is(err, errFull) {
			t.Errorf("print as %s: got %v", output, err)
		}
		l := g.newList("results", "ID")
		if err := errors.Join(l.add(results.GetResults()[0], "a"), l.end()); !errors.Is(err, errFull) {
			t.Errorf("list as %s: got %v", output, err)
		}
	}
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"order/4711 ünïcode 日本": "order/4711 ünïcode 日本",
		"\x1b[31mred\x1b[0m":    "·[31mred·[0m",
		"a\tb\nc\rd\x00\x7f":    "a·b·c·d··",
		"\u009b31m \u2028":      "·31m ·",
		"right \u202eto left":   "right ·to left",
		"zero\u200bwidth":       "zero·width",
	} {
		if got := plain(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// Whatever a row is made of, it stays one line of printable text: no cell can move the cursor or forge a row.
func TestRowIsOneHarmlessLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var out bytes.Buffer
		w := newTable(&out)
		row(w, rapid.SliceOfN(rapid.String(), 1, 4).Draw(t, "cells")...)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		line, rest, _ := strings.Cut(out.String(), "\n")
		if rest != "" || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("got %q", out.String())
		}
	})
}
