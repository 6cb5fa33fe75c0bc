package main

import (
	"encoding/json"
	"strings"
	"testing"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/top"
)

// TestTopOnce: one look at a real server shows problems, rates and tables, as text and as JSON.
func TestTopOnce(t *testing.T) {
	server := at(t)
	c := dial(t, server)
	submit(t, server, "parked")
	ok(t, server, "job", "park", "--queue", "parked", "--all", "--reason", "wait")
	submit(t, server, "paused")
	ok(t, server, "queue", "pause", "paused", "--reason", "disk full")
	ok(t, server, "limit", "put", "db", "--max", "2")
	submit(t, server, "limited", "--limit", "db=k")
	claim(t, c, "limited")

	done := make(chan ran, 1)
	go func() { done <- stint(t, "", server, "top", "--once", "-o", "json") }()
	for { // What happens while it measures has a rate.
		submit(t, server, "busy")
		end(t, c, claim(t, c, "busy"), &stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Message: "no such file"}}})
		select {
		case got := <-done:
			checkTopJSON(t, got)
		default:
			continue
		}
		break
	}

	out := squeeze(ok(t, server, "top", "--once"))
	for _, want := range []string{
		"stint top 127.0.0.1:", "\njobs ", "\nper s ", "\nPROBLEMS 2\nparked parked 1 job for a person to look at\npaused paused for ", ": disk full; 1 job waits\n",
		"\nQUEUES 4 READY RUN ", "\nlimited 0 1 0 0 ", "\nLIMITS 1 KEY TAKEN MAX WAITING STATE\ndb k 1 2 0",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in:\n%s", want, out)
		}
	}
	out = squeeze(ok(t, server, "top", "--once", "--filter", "pause", "-o", "jsonl"))
	if strings.Contains(out, "limited") || len(lines(out)) != 1 {
		t.Errorf("with a filter it printed:\n%s", out)
	}
}

func checkTopJSON(t *testing.T, got ran) {
	t.Helper()
	if got.code != 0 {
		t.Fatalf("it ended with %d: %s", got.code, got.stderr)
	}
	var s struct {
		Rates    top.Rates
		Problems []struct{ Problem, Name, Command string }
		Queues   []struct{ Name string }
		Limits   []struct{ Taken int }
	}
	decoder := json.NewDecoder(strings.NewReader(got.stdout))
	if err := decoder.Decode(&s); err != nil {
		t.Fatalf("%v in:\n%s", err, got.stdout)
	}
	if s.Rates.Events == 0 || s.Rates.Submits == 0 || s.Rates.Starts == 0 || s.Rates.FailuresLastMinute == 0 {
		t.Errorf("the rates are %+v", s.Rates)
	}
	if len(s.Problems) < 3 || s.Problems[0].Problem != "parked" || s.Problems[0].Command != "stint job list --queue parked --state parked" {
		t.Errorf("the problems are %+v", s.Problems)
	}
	if len(s.Queues) != 4 || len(s.Limits) != 1 || s.Limits[0].Taken != 1 {
		t.Errorf("there are %+v and %+v", s.Queues, s.Limits)
	}
}

// TestTopRefuses: without a terminal it says what to use instead, without a server that there is none.
func TestTopRefuses(t *testing.T) {
	server := at(t)
	for _, say := range []string{"stint top --once", "stint events -f -o jsonl", "stint queue list"} {
		wantCode(t, stint(t, "", server, "top"), exitUsage, say)
	}
	wantCode(t, stint(t, "", server, "top", "-o", "json"), exitUsage, "--once")
	wantCode(t, stint(t, "", "--server=127.0.0.1:1", "top", "--once"), exitNoServer, "no server at 127.0.0.1:1")
	wantCode(t, stint(t, "", server, "top", "--once", "--timeout", "1s"), exitTimeout, "timed out")
}
