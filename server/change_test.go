package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// ask is what the tests say of a request by filter, whichever it is.
type ask struct {
	filter *stintv1.JobFilter
	all    bool
	dry    bool
	token  string
	size   uint32
	name   string // the request_id; a deletion has none
}

// verbs ask for the next page of changes. A page is a line for each job: its name and what became of it.
var verbs = map[string]func(*rig, ask) (page []string, token string, err error){
	"interrupt RETRY":  func(r *rig, a ask) ([]string, string, error) { return r.interruptPage(retry, a) },
	"interrupt CANCEL": func(r *rig, a ask) ([]string, string, error) { return r.interruptPage(cancel, a) },
	"retry": func(r *rig, a ask) ([]string, string, error) {
		answer, err := r.jobs.RetryJobs(r.ctx, &stintv1.RetryJobsRequest{
			Filter: a.filter, All: a.all, DryRun: a.dry, ContinueToken: a.token, PageSize: a.size, RequestId: a.name,
		})
		return r.resultLines(answer.GetResults()), answer.GetContinueToken(), err
	},
	"park": func(r *rig, a ask) ([]string, string, error) {
		answer, err := r.jobs.ParkJobs(r.ctx, &stintv1.ParkJobsRequest{
			Filter: a.filter, All: a.all, DryRun: a.dry, ContinueToken: a.token, PageSize: a.size, RequestId: a.name,
		})
		return r.resultLines(answer.GetResults()), answer.GetContinueToken(), err
	},
	"delete": func(r *rig, a ask) ([]string, string, error) {
		answer, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{
			Filter: a.filter, All: a.all, DryRun: a.dry, ContinueToken: a.token, PageSize: a.size,
		})
		return r.resultLines(answer.GetResults()), answer.GetContinueToken(), err
	},
}

func (r *rig) interruptPage(level stintv1.InterruptLevel, a ask) (lines []string, token string, err error) {
	answer, err := r.jobs.InterruptJobs(r.ctx, &stintv1.InterruptJobsRequest{
		Level: level, Filter: a.filter, All: a.all, DryRun: a.dry, ContinueToken: a.token, PageSize: a.size, RequestId: a.name,
	})
	for _, result := range answer.GetResults() {
		what := short(result.GetStatus().String(), "INTERRUPT_STATUS_")
		lines = append(lines, r.cast.jobs[result.GetId()]+" "+effect(result.GetState(), what, result.GetError()))
	}
	return lines, answer.GetContinueToken(), err
}

func (r *rig) resultLines(results []*stintv1.JobResult) (lines []string) {
	for _, result := range results {
		lines = append(lines, r.cast.jobs[result.GetId()]+effect(result.GetState(), "", result.GetError()))
	}
	return lines
}

// sweep asks for all pages, and returns the names of their jobs, with a bar between pages.
func (r *rig) sweep(verb string, a ask) string {
	r.t.Helper()
	var pages []string
	for len(pages) == 0 || a.token != "" {
		page, token, err := verbs[verb](r, a)
		if err != nil {
			r.t.Fatal(err)
		}
		for i, line := range page {
			page[i], _, _ = strings.Cut(line, " ")
		}
		pages, a.token = append(pages, strings.Join(page, " ")), token
	}
	return strings.Join(pages, " | ")
}

// everyJob is every job there is, as it is shown.
func (r *rig) everyJob() []*stintv1.Job {
	r.t.Helper()
	page, err := r.jobs.ListJobs(r.ctx, &stintv1.ListJobsRequest{View: stintv1.JobView_JOB_VIEW_FULL})
	if err != nil {
		r.t.Fatal(err)
	}
	return page.GetJobs()
}

// TestChangesByFilter: each request acts on the jobs that match and that it can act on, and passes over the others. A dry
// run says the same and changes nothing.
func TestChangesByFilter(t *testing.T) {
	for verb, want := range map[string][]string{
		"interrupt RETRY": {"scheduled NO_RUN scheduled", "backoff NO_RUN backoff", "parked NO_RUN parked", "ready NO_RUN ready", "running REQUESTED running"},
		"interrupt CANCEL": {
			"scheduled CANCELLED cancelled", "backoff CANCELLED cancelled", "parked CANCELLED cancelled", "ready CANCELLED cancelled",
			"running REQUESTED running",
		},
		"retry": {"expired ready", "scheduled ready", "backoff ready", "parked ready", "failed ready", "cancelled ready"},
		"park":  {"scheduled parked", "backoff parked", "parked parked", "ready parked", "running running"},
		"delete": {
			"expired unspecified", "scheduled unspecified", "backoff unspecified", "parked unspecified", "succeeded unspecified",
			"failed unspecified", "cancelled unspecified", "ready unspecified",
		},
	} {
		t.Run(verb, func(t *testing.T) {
			inBubble(t, rigConfig{}, func(r *rig) {
				r.addStates()
				r.add("other", "other")
				before := r.everyJob()
				for _, dry := range []bool{true, false} {
					got, token, err := verbs[verb](r, ask{filter: &stintv1.JobFilter{Queue: "s/*"}, dry: dry})
					if diff := cmp.Diff(want, got); err != nil || token != "" || diff != "" {
						t.Errorf("dry run %t: %v, token %q: %s", dry, err, token, diff)
					}
					if same := cmp.Equal(before, r.everyJob(), protocmp.Transform()); same != dry {
						t.Errorf("dry run %t: the jobs stayed as they were: %t", dry, same)
					}
				}
				if got := r.job(r.id("other")); !cmp.Equal(before[len(before)-1], got, protocmp.Transform()) {
					t.Errorf("a job that does not match became %v", got)
				}
			})
		})
	}
}

// TestDryRunByID: a dry run with ids says what would happen to each, item errors and repeats too, and changes nothing.
func TestDryRunByID(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		before := r.everyJob()
		m := &stintv1.InterruptJobsRequest{Ids: []string{r.id("a"), "x", r.id("a")}, Level: cancel, DryRun: true}
		dry, err := r.jobs.InterruptJobs(r.ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, r.everyJob(), protocmp.Transform()); diff != "" {
			t.Errorf("the dry run changed a job: %s", diff)
		}
		m.DryRun = false
		real, err := r.jobs.InterruptJobs(r.ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(real, dry, protocmp.Transform()); diff != "" || real.GetResults()[0].GetState() != cancelled {
			t.Errorf("the dry run says something else than the call: %s", diff)
		}
	})
}

// TestChangePages: the pages hold each job once, in the order of submission, and no more than was asked for. Jobs that
// are passed over take no room.
func TestChangePages(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b", "c", "d", "e")
		q := &stintv1.JobFilter{Queue: "q"}
		for _, verb := range []string{"interrupt CANCEL", "retry", "delete"} {
			want := "a b | c d | e"
			if got := r.sweep(verb, ask{filter: q, size: 2, dry: true}); verb != "retry" && got != want {
				t.Errorf("a dry %s: %q, want %q", verb, got, want)
			}
			if got := r.sweep(verb, ask{filter: q, size: 2}); got != want {
				t.Errorf("%s: %q, want %q", verb, got, want)
			}
		}
		r.add("q", "a", "b", "c", "d")
		r.interrupt("b", cancel, "")
		if got := r.sweep("interrupt CANCEL", ask{filter: q, size: 2}); got != "a c | d" {
			t.Errorf("with a job that has ended: %q", got)
		}
		r.sweep("delete", ask{filter: q})
		if got := r.sweep("delete", ask{filter: q}); got != "" {
			t.Errorf("deleted %q, and nothing was left", got)
		}
	})
}

// TestChangePageSizes: without a size a page has 1,000 jobs, and never more.
func TestChangePageSizes(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.submit(slices.Repeat([]*stintv1.JobSpec{{Queue: "q"}}, 600)...)
		r.submit(slices.Repeat([]*stintv1.JobSpec{{Queue: "q"}}, 600)...)
		for size, want := range map[uint32]int{0: 1000, 999: 999, 1000: 1000, 1001: 1000} {
			page, token, err := verbs["delete"](r, ask{all: true, filter: &stintv1.JobFilter{}, size: size, dry: true})
			if err != nil || len(page) != want || token == "" {
				t.Errorf("page size %d: %d jobs, token %q, %v; want %d", size, len(page), token, err, want)
			}
		}
	})
}

// TestChangePageBudget: a page passes over so many jobs only, and may be empty and have a next one.
func TestChangePageBudget(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for range 10 {
			r.submit(slices.Repeat([]*stintv1.JobSpec{{Queue: "q"}}, 1000)...)
		}
		r.addSpec("last", &stintv1.JobSpec{Queue: "q", Subject: "needle"})
		if got := r.sweep("interrupt CANCEL", ask{filter: &stintv1.JobFilter{Subject: "needle"}}); got != " | last" {
			t.Errorf("interrupted %q, want an empty page and the last job", got)
		}
	})
}

// TestChangeEnds: a request by filter meets each job once, also one that comes back before the last page, and leaves jobs
// alone that are submitted after its first page.
func TestChangeEnds(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		q := &stintv1.JobFilter{Queue: "q"}
		r.add("q", "a", "b", "c")
		run := r.claim("q")
		r.accept(run)
		got, token, err := verbs["interrupt RETRY"](r, ask{filter: q, size: 1})
		if diff := cmp.Diff([]string{"a REQUESTED running"}, got); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
		now := durationpb.New(0)
		r.end(&stintv1.Finish{LeaseToken: run.GetLeaseToken(), Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Delay: now}}})
		r.add("q", "d")
		for range 4 {
			r.accept(r.claim("q")) // a again, too
			time.Sleep(time.Millisecond)
		}
		if got := r.sweep("interrupt RETRY", ask{filter: q, token: token}); got != "b c" {
			t.Errorf("the rest was %q", got)
		}
		if a, d := r.job(r.id("a")), r.job(r.id("d")); a.GetInterrupt() != nil || d.GetInterrupt() != nil || a.GetState() != runningS {
			t.Errorf("jobs that came back or were new: %v, %v", a, d)
		}
	})
}

// TestChangeJudgesAgain: a job that has moved on after the page was looked for is judged by what it is then.
func TestChangeJudgesAgain(t *testing.T) {
	faults := &faulty{}
	inBubble(t, withFaults(faults), func(r *rig) {
		r.add("q", "a", "b", "c", "d")
		r.add("p", "e")
		between := func() error {
			r.claim("p") // could be interrupted still, but does not match
			r.interrupt("a", cancel, "")
			r.interrupt("b", cancel, "")
			r.retry(r.id("b"))
			_, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("c")}})
			return err
		}
		look := func() error {
			faults.fault.Store(&between) // the next call is the transaction
			return nil
		}
		faults.view.Store(&look)
		got, token, err := verbs["interrupt CANCEL"](r, ask{filter: &stintv1.JobFilter{States: []stintv1.JobState{ready}}})
		if diff := cmp.Diff([]string{"b CANCELLED cancelled", "d CANCELLED cancelled"}, got); err != nil || token != "" || diff != "" {
			t.Errorf("%v, token %q: %s", err, token, diff)
		}
		if b := r.job(r.id("b")); b.GetState() != cancelled || b.GetEpoch() != 2 {
			t.Errorf("the job that was retried meanwhile is %v", b)
		}
	})
}

// TestContinueTokens: a token serves the request that it was given for and no other.
func TestContinueTokens(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b", "c")
		filter := &stintv1.JobFilter{Queue: "q"}
		_, token, err := verbs["interrupt CANCEL"](r, ask{filter: filter, size: 1, dry: true})
		if err != nil {
			t.Fatal(err)
		}
		page := func(verb string, f *stintv1.JobFilter, token string) error {
			_, _, err := verbs[verb](r, ask{filter: f, token: token, dry: true})
			return err
		}
		list, err := r.jobs.ListJobs(r.ctx, &stintv1.ListJobsRequest{Filter: filter, PageSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.sweep("interrupt CANCEL", ask{filter: filter, token: token}); got != "b c" {
			t.Errorf("another size, and no dry run any more: %q", got)
		}
		for name, err := range map[string]error{
			"another level":   page("interrupt RETRY", filter, token),
			"another request": page("delete", filter, token),
			"another filter":  page("interrupt CANCEL", &stintv1.JobFilter{Queue: "p"}, token),
			"a list's":        page("interrupt CANCEL", filter, list.GetNextPageToken()),
			"changed":         page("interrupt CANCEL", filter, flip(token)),
			"made up":         page("interrupt CANCEL", filter, "AAAA"),
		} {
			want := said{stintv1.Reason_REASON_PAGE_TOKEN_INVALID, 3, "continue_token", false}
			if got := ofCall(err); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	})
}
