package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// explanation is what `stint job explain -o json` says.
type explanation struct {
	State    string
	Summary  string
	Blockers []struct {
		Kind, Text string
		JobIds     []string
		Commands   []string
	}
}

func explain(t *testing.T, server, id string) (x explanation) {
	t.Helper()
	if err := json.Unmarshal([]byte(ok(t, server, "job", "explain", id, "-o", "json")), &x); err != nil {
		t.Fatal(err)
	}
	return x
}

// words splits a command line as a shell does, as far as explain quotes.
func words(line string) (all []string) {
	var word strings.Builder
	quoted, escaped := false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && !quoted:
			escaped = true
		case r == '\'':
			quoted = !quoted
		case r == ' ' && !quoted:
			all = append(all, word.String())
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	return append(all, word.String())
}

// sdkWorker serves the queue with one run at a time until the test is over.
func sdkWorker(t *testing.T, server, queue string, handle client.Handler) {
	t.Helper()
	w := dial(t, server).NewWorker(client.WorkerConfig{ShutdownGrace: -1})
	w.Handle(queue, 1, handle)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
}

// kept is a job that something keeps from running.
type kept struct {
	want []string // the kinds of blockers
	by   int      // how many jobs the first names
	make func(t *testing.T, server string, c *client.Client) (id string)
}

// TestExplainCommands: for everything that may keep a job, explain says so, and when one command for each has run, whichever
// it is, the job runs.
func TestExplainCommands(t *testing.T) {
	for name, k := range map[string]kept{
		"terminal": {[]string{"TERMINAL"}, 0, func(t *testing.T, server string, _ *client.Client) string {
			id := submit(t, server, "q")
			ok(t, server, "job", "interrupt", id, "--level", "cancel")
			return id
		}},
		"parked": {[]string{"PARKED"}, 0, func(t *testing.T, server string, _ *client.Client) string {
			id := submit(t, server, "q")
			ok(t, server, "job", "park", id, "--reason", "not now")
			return id
		}},
		"time": {[]string{"TIME", "NO_WORKER"}, 0, func(t *testing.T, server string, _ *client.Client) string {
			return submit(t, server, "q", "--delay", "1h")
		}},
		"paused": {[]string{"PAUSED", "NO_WORKER"}, 0, func(t *testing.T, server string, _ *client.Client) string {
			id := submit(t, server, "q")
			ok(t, server, "queue", "pause", "q", "--reason", "disk")
			return id
		}},
		"max running": {[]string{"MAX_RUNNING", "NO_WORKER"}, 1, func(t *testing.T, server string, c *client.Client) string {
			submit(t, server, "q")
			claim(t, c, "q")
			ok(t, server, "queue", "set", "q", "--max-running", "1")
			return submit(t, server, "q")
		}},
		"limit": {[]string{"LIMIT", "NO_WORKER"}, 1, func(t *testing.T, server string, c *client.Client) string {
			ok(t, server, "limit", "put", "l", "--max", "2")
			submit(t, server, "q", "--limit", "l")
			claim(t, c, "q")
			return submit(t, server, "q", "--limit", "l*2")
		}},
		"two keys": {[]string{"LIMIT", "LIMIT", "NO_WORKER"}, 1, func(t *testing.T, server string, c *client.Client) string {
			ok(t, server, "limit", "put", "l", "--max", "9", "--key", "it's a=key=1", "--key", "=1")
			submit(t, server, "q", "--limit", "l=it's a=key", "--limit", "l")
			claim(t, c, "q")
			return submit(t, server, "q", "--limit", "l=it's a=key", "--limit", "l")
		}},
		"a limit that was lowered": {[]string{"LIMIT_TOO_LOW", "NO_WORKER"}, 0, func(t *testing.T, server string, _ *client.Client) string {
			ok(t, server, "limit", "put", "l", "--max", "3")
			id := submit(t, server, "q", "--limit", "l*3=k")
			ok(t, server, "limit", "put", "l", "--max", "2")
			return id
		}},
		"a time and a limit": {[]string{"TIME", "LIMIT", "NO_WORKER"}, 0, func(t *testing.T, server string, c *client.Client) string {
			ok(t, server, "limit", "put", "l", "--max", "1")
			submit(t, server, "q", "--limit", "l")
			claim(t, c, "q")
			return submit(t, server, "q", "--limit", "l", "--delay", "1h")
		}},
		"throttled": {[]string{"THROTTLED", "NO_WORKER"}, 1, func(t *testing.T, server string, c *client.Client) string {
			ok(t, server, "limit", "put", "l", "--max", "5")
			submit(t, server, "q", "--limit", "l=a b")
			released := &stintv1.Released{Kind: &stintv1.Released_Throttled{Throttled: &stintv1.Throttled{Limit: "l", Key: "a b"}}}
			end(t, c, claim(t, c, "q"), &stintv1.Finish{Outcome: &stintv1.Finish_Released{Released: released}})
			return submit(t, server, "q", "--limit", "l=a b")
		}},
		"a throttled queue": {[]string{"THROTTLED", "NO_WORKER"}, 1, func(t *testing.T, server string, c *client.Client) string {
			submit(t, server, "q")
			released := &stintv1.Released{Reason: "429", Kind: &stintv1.Released_Throttled{Throttled: &stintv1.Throttled{}}}
			end(t, c, claim(t, c, "q"), &stintv1.Finish{Outcome: &stintv1.Finish_Released{Released: released}})
			return submit(t, server, "q")
		}},
		"a circuit breaker": {[]string{"CIRCUIT_BREAKER", "CIRCUIT_BREAKER", "NO_WORKER"}, 0, func(t *testing.T, server string, c *client.Client) string {
			ok(t, server, "limit", "put", "l", "--circuit-breaker", "1,retry-in=1h")
			ok(t, server, "queue", "set", "q", "--circuit-breaker", "1")
			submit(t, server, "q", "--limit", "l")
			end(t, c, claim(t, c, "q"), &stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Message: "refused"}}})
			return submit(t, server, "q", "--limit", "l")
		}},
		"a rate": {[]string{"RATE", "RATE", "NO_WORKER"}, 0, func(t *testing.T, server string, _ *client.Client) string {
			ok(t, server, "limit", "put", "l", "--rate", "1/1h")
			ok(t, server, "queue", "set", "q", "--rate", "10/h,burst=2")
			return submit(t, server, "q", "--limit", "l=k")
		}},
		"a burst that was lowered": {[]string{"LIMIT_TOO_LOW", "NO_WORKER"}, 0, func(t *testing.T, server string, _ *client.Client) string {
			ok(t, server, "limit", "put", "l", "--rate", "1000/s,burst=3", "--key-rate", "it's=1000/s")
			id := submit(t, server, "q", "--limit", "l*3")
			ok(t, server, "limit", "put", "l", "--rate", "1000/s,burst=2")
			return id
		}},
		"busy workers": {[]string{"WORKERS_BUSY"}, 0, func(t *testing.T, server string, _ *client.Client) string {
			begun := make(chan struct{})
			sdkWorker(t, server, "q", func(ctx context.Context, _ *client.Run) error { close(begun); <-ctx.Done(); return ctx.Err() })
			submit(t, server, "q")
			<-begun
			return submit(t, server, "q")
		}},
		"not me": {[]string{"NOT_ME"}, 0, func(t *testing.T, server string, c *client.Client) string {
			sdkWorker(t, server, "q", func(context.Context, *client.Run) error { return client.NotMe("no") })
			id := submit(t, server, "q")
			for len(explain(t, server, id).Blockers) == 0 || explain(t, server, id).Blockers[0].Kind != "BLOCKER_KIND_NOT_ME" {
				if t.Context().Err() != nil {
					t.Fatal("it is never given back")
				}
			}
			return id
		}},
		"a time, at another one": {[]string{"TIME", "NO_WORKER"}, 0, func(t *testing.T, server string, _ *client.Client) string {
			id := submit(t, server, "q")
			ok(t, server, "job", "update", id, "--delay", "1h")
			return id
		}},
		"limits that were lowered": {[]string{"LIMIT_TOO_LOW", "LIMIT_TOO_LOW", "NO_WORKER"}, 0, func(t *testing.T, server string, _ *client.Client) string {
			ok(t, server, "limit", "put", "gone", "--max", "1")
			ok(t, server, "limit", "put", "l", "--max", "3")
			id := submit(t, server, "q", "--limit", "l*3=it's", "--limit", "l*2", "--limit", "gone")
			ok(t, server, "limit", "put", "l", "--max", "1")
			ok(t, server, "limit", "delete", "gone", "--force")
			return id
		}},
	} {
		for way := range 2 {
			t.Run(fmt.Sprint(name, ", way ", way), func(t *testing.T) { k.explained(t, way) })
		}
	}
}

// explained has the job explained and runs the commands of this number, or the last of those of a blocker that has fewer.
func (k kept) explained(t *testing.T, way int) {
	server := at(t)
	id := k.make(t, server, dial(t, server))
	x := explain(t, server, id)
	var kinds []string
	for _, b := range x.Blockers {
		kinds = append(kinds, strings.TrimPrefix(b.Kind, "BLOCKER_KIND_"))
	}
	if !slices.Equal(kinds, k.want) || x.Summary != x.Blockers[0].Text || len(x.Blockers[0].JobIds) != k.by {
		t.Fatalf("explained as %+v; want %v, the first by %d jobs", x, k.want, k.by)
	}
	if text := ok(t, server, "job", "explain", id); !strings.Contains(text, x.Blockers[0].Text) || !strings.Contains(text, x.Blockers[0].Commands[0]) {
		t.Errorf("explain printed:\n%s", text)
	}
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	defer working.Wait()
	defer stop()
	work := false
	for _, b := range x.Blockers {
		line := b.Commands[min(way, len(b.Commands)-1)]
		args := append([]string{server}, words(line)[1:]...)
		if args[1] == "work" {
			args[len(args)-1], work = "true", true
			working.Go(func() { stintUntil(ctx, "", args...) })
			continue
		}
		ok(t, args...)
	}
	if !work {
		working.Go(func() { stintUntil(ctx, "", server, "work", "q", "--", "true") })
	}
	if got := stint(t, "", server, "job", "wait", id); got.code != 0 {
		t.Errorf("the job did not succeed: %d, %s; it is kept by %+v", got.code, got.stderr, explain(t, server, id).Blockers)
	}
	if after := explain(t, server, id); after.State != "JOB_STATE_SUCCEEDED" || len(after.Blockers) != 1 || len(after.Blockers[0].Commands) != 0 {
		t.Errorf("after its success: %+v", after)
	}
}

// end ends a run.
func end(t *testing.T, c *client.Client, token string, f *stintv1.Finish) {
	t.Helper()
	f.LeaseToken = token
	answer, err := c.Workers().FinishRuns(t.Context(), &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{f}})
	if err != nil || answer.GetAcks()[0].GetStatus() != stintv1.FinishStatus_FINISH_STATUS_RECORDED {
		t.Fatalf("finish: %v, %v", answer, err)
	}
}

// TestExplainPlace: what stands before a job is told, and a running job is said to run.
func TestExplainPlace(t *testing.T) {
	server := at(t)
	c := dial(t, server)
	running := submit(t, server, "q")
	claim(t, c, "q")
	for range 3 {
		submit(t, server, "q")
	}
	id := submit(t, server, "q")
	if out := squeeze(ok(t, server, "job", "explain", id)); !strings.Contains(out, "\nBefore it 3 of its kind; begun in its queue in the last minute: 1\nEstimate 3m0s at that rate") {
		t.Errorf("explain printed:\n%s", out)
	}
	if x := explain(t, server, running); len(x.Blockers) != 0 || !strings.HasPrefix(x.Summary, `it is running on "a test" since `) {
		t.Errorf("a running job: %+v", x)
	}
	wantCode(t, stint(t, "", server, "job", "explain", newID()), 3, "JOB_NOT_FOUND")
	_, err := c.Jobs().ExplainJob(t.Context(), &stintv1.ExplainJobRequest{Id: "x"})
	if client.ReasonOf(err) != stintv1.Reason_REASON_INVALID_FIELD {
		t.Errorf("a bad id: %v", err)
	}
}
