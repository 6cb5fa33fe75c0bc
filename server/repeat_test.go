package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// named asks for jobs to be changed, under a name, and returns what became of each.
func (r *rig) named(verb, name string, jobs ...string) (lines []string) {
	r.t.Helper()
	var ids []string
	for _, job := range jobs {
		ids = append(ids, r.id(job))
	}
	interrupt := func(level stintv1.InterruptLevel) error {
		answer, err := r.jobs.InterruptJobs(r.ctx, &stintv1.InterruptJobsRequest{Ids: ids, Level: level, RequestId: name})
		for _, result := range answer.GetResults() {
			lines = append(lines, effect(result.GetState(), short(result.GetStatus().String(), "INTERRUPT_STATUS_"), result.GetError()))
		}
		return err
	}
	results := func(results []*stintv1.JobResult) {
		for _, result := range results {
			lines = append(lines, strings.TrimSpace(effect(result.GetState(), "", result.GetError())))
		}
	}
	var err error
	switch verb {
	case "interrupt RETRY":
		err = interrupt(retry)
	case "interrupt CANCEL":
		err = interrupt(cancel)
	case "park":
		var answer *stintv1.ParkJobsResponse
		answer, err = r.jobs.ParkJobs(r.ctx, &stintv1.ParkJobsRequest{Ids: ids, RequestId: name})
		results(answer.GetResults())
	case "retry":
		var answer *stintv1.RetryJobsResponse
		answer, err = r.jobs.RetryJobs(r.ctx, &stintv1.RetryJobsRequest{Ids: ids, RequestId: name})
		results(answer.GetResults())
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return lines
}

// start has a worker run the next job of the queue.
func (r *rig) start(queue string) (token string) {
	r.t.Helper()
	a := r.claim(queue)
	r.cast.meet(a)
	r.accept(a)
	return a.GetLeaseToken()
}

// fail has the next job of the queue run and fail for good.
func (r *rig) fail(queue string) {
	r.t.Helper()
	r.end(&stintv1.Finish{LeaseToken: r.start(queue), Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Final: true}}})
}

// stop has a worker give a run back because it was interrupted; the job is READY again if it was not cancelled.
func (r *rig) stop(token string) {
	r.t.Helper()
	now := durationpb.New(0)
	r.end(&stintv1.Finish{LeaseToken: token, Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Delay: now}}})
	time.Sleep(time.Millisecond)
}

// TestRepeatedRequests: the repeat of a request whose answer was lost leaves the job alone, whatever has become of it, and
// is answered with what the first one did and where the job stands now. The same request under another name acts.
func TestRepeatedRequests(t *testing.T) {
	for name, test := range map[string]struct {
		before                    func(*rig)
		verb, first, again, other string
		between                   func(*rig)
	}{
		"the next run": {
			verb: "interrupt RETRY", first: "REQUESTED running", again: "REQUESTED running", other: "REQUESTED running",
			before: func(r *rig) { r.start("q") },
			between: func(r *rig) {
				r.stop(r.token("a/1"))
				r.start("q")
			},
		},
		"the first run, which was not there": {
			verb: "interrupt RETRY", first: "NO_RUN ready", again: "NO_RUN running", other: "REQUESTED running",
			between: func(r *rig) { r.start("q") },
		},
		"cancelled": {
			verb: "interrupt CANCEL", first: "REQUESTED running", again: "REQUESTED cancelled", other: "INTERRUPT_TOO_LATE",
			before:  func(r *rig) { r.start("q") },
			between: func(r *rig) { r.stop(r.token("a/1")) },
		},
		"cancelled, then retried": {
			verb: "interrupt CANCEL", first: "CANCELLED cancelled", again: "CANCELLED ready", other: "CANCELLED cancelled",
			between: func(r *rig) { r.retry(r.id("a")) },
		},
		"it failed again": {
			verb: "retry", first: "ready", again: "failed", other: "ready",
			before:  func(r *rig) { r.fail("q") },
			between: func(r *rig) { r.fail("q") },
		},
		"it runs again": {
			verb: "retry", first: "ready", again: "running", other: "RUN_ACTIVE",
			before:  func(r *rig) { r.fail("q") },
			between: func(r *rig) { r.start("q") },
		},
		"parked, then retried": {
			verb: "park", first: "parked", again: "ready", other: "parked",
			between: func(r *rig) { r.retry(r.id("a")) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, rigConfig{}, func(r *rig) {
				r.add("q", "a")
				if test.before != nil {
					test.before(r)
				}
				expect := func(what, want string, got []string) {
					if len(got) != 1 || !strings.HasPrefix(got[0], want) {
						t.Errorf("%s: answered %q, want %q", what, got, want)
					}
				}
				expect("first", test.first, r.named(test.verb, "r1", "a"))
				test.between(r)
				before := r.job(r.id("a"))
				expect("again", test.again, r.named(test.verb, "r1", "a"))
				if diff := cmp.Diff(before, r.job(r.id("a")), protocmp.Transform()); diff != "" {
					t.Errorf("the repeat changed the job: %s", diff)
				}
				expect("under another name", test.other, r.named(test.verb, "r2", "a"))
			})
		})
	}
}

// TestRequestsAreShown: a job's actions name the requests and say what the interrupts did. A job that a request names
// twice is changed once.
func TestRequestsAreShown(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		now := timestamppb.Now()
		for _, ask := range []struct{ verb, want string }{
			{"interrupt RETRY", "NO_RUN ready"}, {"interrupt CANCEL", "CANCELLED cancelled"}, {"retry", "ready"}, {"park", "parked"},
		} {
			if got := r.named(ask.verb, "r1", "a", "a"); !slices.Equal(got, []string{ask.want, ask.want}) {
				t.Errorf("%s: %q", ask.verb, got)
			}
		}
		want := []*stintv1.Action{
			{
				Kind: stintv1.ActionKind_ACTION_KIND_INTERRUPT_RETRY, Time: now, RequestId: "r1",
				Status: stintv1.InterruptStatus_INTERRUPT_STATUS_NO_RUN,
			},
			{
				Kind: stintv1.ActionKind_ACTION_KIND_INTERRUPT_CANCEL, Time: now, RequestId: "r1",
				Status: stintv1.InterruptStatus_INTERRUPT_STATUS_CANCELLED,
			},
			{Kind: stintv1.ActionKind_ACTION_KIND_RETRY, Time: now, RequestId: "r1"},
			{Kind: stintv1.ActionKind_ACTION_KIND_PARK, Time: now, RequestId: "r1"},
		}
		if diff := cmp.Diff(want, r.job(r.id("a")).GetActions(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestRepeatedPage: the repeat of a page answers for the jobs of the page, also those that no longer match, changes none
// of them, and goes on where the page did.
func TestRepeatedPage(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b", "c", "d", "e")
		for range 5 {
			r.fail("q")
		}
		asked := ask{filter: &stintv1.JobFilter{States: []stintv1.JobState{failed}}, size: 2, name: "r1"}
		first, token, err := verbs["retry"](r, asked)
		if diff := cmp.Diff([]string{"a ready", "b ready"}, first); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
		r.start("q") // a, which matches no longer
		r.fail("q")  // b, which matches again
		before := r.everyJob()
		again, same, err := verbs["retry"](r, asked)
		if diff := cmp.Diff([]string{"a running", "b failed"}, again); err != nil || same != token || diff != "" {
			t.Errorf("repeated: %v, the same token: %t, %s", err, same == token, diff)
		}
		if diff := cmp.Diff(before, r.everyJob(), protocmp.Transform()); diff != "" {
			t.Errorf("the repeat changed a job: %s", diff)
		}
		asked.token = token
		if got := r.sweep("retry", asked); got != "c d | e" {
			t.Errorf("the rest was %q", got)
		}
		before, asked.token = r.everyJob(), ""
		if got := r.sweep("retry", asked); got != "a b | c d | e" {
			t.Errorf("all pages repeated: %q", got)
		}
		if diff := cmp.Diff(before, r.everyJob(), protocmp.Transform()); diff != "" {
			t.Errorf("repeating all pages changed a job: %s", diff)
		}
		asked.name = "r2"
		if got := r.sweep("retry", asked); got != "b" {
			t.Errorf("under another name: %q", got)
		}
	})
}

// TestRepeatedPages: it is the same with every request that jobs remember.
func TestRepeatedPages(t *testing.T) {
	for verb, want := range map[string]string{
		"interrupt RETRY": "a NO_RUN running, b NO_RUN ready", "interrupt CANCEL": "a CANCELLED cancelled, b CANCELLED cancelled",
		"park": "a parked, b parked",
	} {
		t.Run(verb, func(t *testing.T) {
			inBubble(t, rigConfig{}, func(r *rig) {
				r.add("q", "a", "b")
				asked := ask{filter: &stintv1.JobFilter{States: []stintv1.JobState{ready}}, name: "r1"}
				if got := r.sweep(verb, asked); got != "a b" {
					t.Fatalf("first %q", got)
				}
				if verb == "interrupt RETRY" {
					r.start("q")
				}
				before := r.everyJob()
				if again, _, err := verbs[verb](r, asked); err != nil || strings.Join(again, ", ") != want {
					t.Errorf("again %q, %v", again, err)
				}
				if diff := cmp.Diff(before, r.everyJob(), protocmp.Transform()); diff != "" {
					t.Errorf("the repeat changed a job: %s", diff)
				}
			})
		})
	}
}

// TestNamedDryRun: a dry run is no request that a job remembers, whatever its name. Of a request that was made it says what
// the repeat would be answered.
func TestNamedDryRun(t *testing.T) {
	for _, verb := range []string{"interrupt RETRY", "interrupt CANCEL", "park"} {
		t.Run(verb, func(t *testing.T) {
			inBubble(t, rigConfig{}, func(r *rig) {
				r.add("q", "a")
				r.start("q")
				r.add("q", "b")
				asked := ask{filter: &stintv1.JobFilter{Queue: "q"}, name: "r1", dry: true}
				made := asked
				made.dry = false
				before := r.everyJob()
				dry, _, err := verbs[verb](r, asked)
				if diff := cmp.Diff(before, r.everyJob(), protocmp.Transform()); err != nil || diff != "" {
					t.Errorf("the dry run changed a job: %v, %s", err, diff)
				}
				real, _, err := verbs[verb](r, made)
				if err != nil || len(real) != 2 || !slices.Equal(dry, real) {
					t.Errorf("first %q, then %q, %v", dry, real, err)
				}
				if after := r.everyJob(); len(after[0].GetActions()) != 1 || len(after[1].GetActions()) != 1 {
					t.Errorf("the request was taken for a repeat of its dry run: %v", after)
				}
				if dry, _, err := verbs[verb](r, asked); err != nil || !slices.Equal(dry, real) {
					t.Errorf("then a dry run says %q, %v", dry, err)
				}
			})
		})
	}
}
