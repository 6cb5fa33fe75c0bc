package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
)

// eventLine is a line of `stint events -o jsonl`.
type eventLine struct{ Cursor, Kind, Queue, JobID, JobState string }

func eventLines(t *testing.T, out string) (all []eventLine) {
	t.Helper()
	for line := range strings.Lines(out) {
		var e eventLine
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// TestEvents: what happened is shown once, by any filter, and from any cursor on.
func TestEvents(t *testing.T) {
	server := at(t)
	ok(t, server, "submit", "mail", "--json", `"x"`)
	ok(t, server, "submit", "media/a", "--json", `"x"`, "--label", "tier=gold")
	ok(t, server, "queue", "pause", "mail", "--reason", "lunch")
	all := eventLines(t, ok(t, server, "events", "-o", "jsonl"))
	if len(all) != 5 {
		t.Fatalf("%d events: %+v", len(all), all)
	}
	rest := eventLines(t, ok(t, server, "events", "-o", "jsonl", "--cursor", all[1].Cursor))
	if len(rest) != 3 || rest[0] != all[2] {
		t.Errorf("behind the second: %+v", rest)
	}
	for args, want := range map[string]string{
		"--queue media/*":                          "QUEUE_CREATED JOB_SUBMITTED",
		"--label tier=gold":                        "JOB_SUBMITTED",
		"--kind queue-paused --kind queue-created": "QUEUE_CREATED QUEUE_CREATED QUEUE_PAUSED",
		"--job " + all[1].JobID:                    "JOB_SUBMITTED",
		"--queue none":                             "",
		"--kind job_submitted --queue mail":        "JOB_SUBMITTED",
	} {
		var kinds []string
		for _, e := range eventLines(t, ok(t, append([]string{server, "events", "-o", "jsonl"}, strings.Fields(args)...)...)) {
			kinds = append(kinds, strings.TrimPrefix(e.Kind, "EVENT_KIND_"))
		}
		if got := strings.Join(kinds, " "); got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
	if out := ok(t, server, "events"); !strings.Contains(out, "queue-paused") || !strings.Contains(out, `"lunch"`) {
		t.Errorf("as a table:\n%s", out)
	}
	var doc struct{ Events []eventLine }
	if err := json.Unmarshal([]byte(ok(t, server, "events", "-o", "json")), &doc); err != nil || len(doc.Events) != 5 {
		t.Errorf("as a document: %d events, %v", len(doc.Events), err)
	}
	wantCode(t, stint(t, "", server, "events", "--kind", "nope"), 2, "want one of job-submitted, job-ready")
	wantCode(t, stint(t, "", server, "events", "--follow", "-o", "json"), 2, "use -o jsonl")
	wantCode(t, stint(t, "", server, "events", "--cursor", "x"), 2, "cursor")
	wantCode(t, stint(t, "", server, "events", "--queue", ""), 2, "--queue is given without a value")
	wantCode(t, stint(t, "", server, "events", "--cursor", strings.Repeat("A", 8)), 4, "another store")
}

// TestFollowEvents: a line comes as soon as something happens.
func TestFollowEvents(t *testing.T) {
	server := at(t)
	ok(t, server, "submit", "q", "--json", `"before"`)
	ctx, signal := context.WithCancel(t.Context())
	defer signal()
	defer time.AfterFunc(time.Minute, signal).Stop()
	out, printed := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{server, "events", "--follow", "--from-oldest", "-o", "jsonl"}, strings.NewReader(""), printed, io.Discard)
	}()
	lines := bufio.NewReader(out)
	next := func() eventLine {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return eventLines(t, line)[0]
	}
	for _, kind := range []string{"QUEUE_CREATED", "JOB_SUBMITTED"} {
		if got := next(); got.Kind != "EVENT_KIND_"+kind {
			t.Fatalf("got %+v, want %s", got, kind)
		}
	}
	ok(t, server, "submit", "q", "--json", `"after"`)
	if got := next(); got.Kind != "EVENT_KIND_JOB_SUBMITTED" {
		t.Errorf("got %+v", got)
	}
	signal()
	if code := <-ended; code != 130 {
		t.Errorf("it ended with %d", code)
	}
}

// TestJobWatch: a job is watched until its end, which is the exit code.
func TestJobWatch(t *testing.T) {
	server := at(t)
	id := strings.TrimSpace(ok(t, server, "submit", "q", "--json", `"x"`))
	ctx, signal := context.WithCancel(t.Context())
	defer signal()
	defer time.AfterFunc(time.Minute, signal).Stop()
	watched := make(chan ran, 1)
	go func() { watched <- stintUntil(ctx, "", server, "job", "watch", id, "-o", "jsonl") }()
	ok(t, server, "job", "interrupt", id, "--level", "cancel", "--reason", "enough")
	got := <-watched
	wantCode(t, got, 6, "enough")
	wantCode(t, stint(t, "", server, "job", "watch", id), 6, "is CANCELLED")
	wantCode(t, stint(t, "", server, "job", "watch", "018f4e7a-1c2d-7000-8000-000000000001"), 3, "no job")
}
