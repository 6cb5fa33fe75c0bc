package server_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// The states of jobs, for short.
const (
	scheduled = stintv1.JobState_JOB_STATE_SCHEDULED
	ready     = stintv1.JobState_JOB_STATE_READY
	runningS  = stintv1.JobState_JOB_STATE_RUNNING
	backoff   = stintv1.JobState_JOB_STATE_BACKOFF
	parked    = stintv1.JobState_JOB_STATE_PARKED
	succeeded = stintv1.JobState_JOB_STATE_SUCCEEDED
	failed    = stintv1.JobState_JOB_STATE_FAILED
	cancelled = stintv1.JobState_JOB_STATE_CANCELLED
	expired   = stintv1.JobState_JOB_STATE_EXPIRED
)

// addStates makes one job in each state, named after it, in queues under "s/". None changes by itself within an hour,
// if the running one is accepted.
func (r *rig) addStates() {
	r.t.Helper()
	hour := durationpb.New(time.Hour)
	r.addSpec("expired", &stintv1.JobSpec{Queue: "s/expired", StartBy: timestamppb.New(time.Now().Add(time.Second))})
	time.Sleep(2 * time.Second)
	r.addSpec("scheduled", &stintv1.JobSpec{Queue: "s/scheduled", Start: &stintv1.JobSpec_Delay{Delay: hour}})
	ends := map[string]*stintv1.Finish{
		"backoff":   {Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{RetryDelay: hour}}},
		"parked":    {Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Park: true}}},
		"succeeded": success(""),
		"failed":    {Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Final: true}}},
	}
	for _, name := range []string{"backoff", "parked", "succeeded", "failed"} {
		r.add("s/"+name, name)
		f := ends[name]
		f.LeaseToken = r.claim("s/" + name).GetLeaseToken()
		r.end(f)
	}
	r.add("s/cancelled", "cancelled")
	r.interrupt("cancelled", cancel, "")
	r.add("s/ready", "ready")
	r.addSpec("running", &stintv1.JobSpec{Queue: "s/running", Lease: durationpb.New(24 * time.Hour)})
	r.accept(r.claim("s/running"))
	for _, name := range states {
		if got := stateName(r.job(r.id(name)).GetState()); got != name {
			r.t.Fatalf("the job %s is %s", name, got)
		}
	}
}

// states are the names of the jobs of addStates, in the order of their numbers.
var states = []string{"scheduled", "ready", "running", "backoff", "parked", "succeeded", "failed", "cancelled", "expired"}

func stateName(s stintv1.JobState) string { return strings.ToLower(short(s.String(), "JOB_STATE_")) }

// effect is what a request did to a job in a line: the state it left, and what it said.
func effect(state stintv1.JobState, what string, e *stintv1.ItemError) string {
	if e != nil {
		what = short(e.GetReason().String(), "REASON_")
	}
	return what + " " + stateName(state)
}

// TestJobChanges asks for an interrupt, a retry and a deletion of a job in each state.
func TestJobChanges(t *testing.T) {
	interrupted := func(level stintv1.InterruptLevel) func(*rig, string) string {
		return func(r *rig, name string) string {
			got := r.interrupt(name, level, "")
			return effect(got.GetState(), short(got.GetStatus().String(), "INTERRUPT_STATUS_"), got.GetError()) + " at " +
				short(got.GetLevel().String(), "INTERRUPT_LEVEL_")
		}
	}
	requests := []struct {
		name string
		do   func(*rig, string) string
		want []string // by the state's place in states
	}{
		{"interrupt RETRY", interrupted(retry), []string{
			"NO_RUN scheduled at NONE", "NO_RUN ready at NONE", "REQUESTED running at RETRY", "NO_RUN backoff at NONE", "NO_RUN parked at NONE",
			"INTERRUPT_TOO_LATE succeeded at NONE", "INTERRUPT_TOO_LATE failed at NONE", "INTERRUPT_TOO_LATE cancelled at CANCEL",
			"INTERRUPT_TOO_LATE expired at NONE",
		}},
		{"interrupt CANCEL", interrupted(cancel), []string{
			"CANCELLED cancelled at CANCEL", "CANCELLED cancelled at CANCEL", "REQUESTED running at CANCEL", "CANCELLED cancelled at CANCEL",
			"CANCELLED cancelled at CANCEL", "INTERRUPT_TOO_LATE succeeded at NONE", "INTERRUPT_TOO_LATE failed at NONE",
			"INTERRUPT_TOO_LATE cancelled at CANCEL", "INTERRUPT_TOO_LATE expired at NONE",
		}},
		{"retry", func(r *rig, name string) string {
			got := r.retry(r.id(name))[0]
			return effect(got.GetState(), "", got.GetError())
		}, []string{
			" ready", "INVALID_STATE ready", "RUN_ACTIVE running", " ready", " ready", "INVALID_STATE succeeded", " ready", " ready", " ready",
		}},
		{"park", func(r *rig, name string) string {
			got := r.park(r.id(name))[0]
			return effect(got.GetState(), "", got.GetError())
		}, []string{
			" parked", " parked", " running", " parked", " parked", "INVALID_STATE succeeded", "INVALID_STATE failed", "INVALID_STATE cancelled",
			"INVALID_STATE expired",
		}},
		{"delete", func(r *rig, name string) string {
			answer, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id(name)}})
			if err != nil {
				r.t.Fatal(err)
			}
			got := answer.GetResults()[0]
			_, err = r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: r.id(name)})
			if gone := ofCall(err).reason == stintv1.Reason_REASON_JOB_NOT_FOUND; gone != (got.GetError() == nil) {
				r.t.Errorf("delete of %s: %v; then read: %v", name, got, err)
			}
			return effect(got.GetState(), "", got.GetError())
		}, []string{
			" unspecified", " unspecified", "RUN_ACTIVE running", " unspecified", " unspecified", " unspecified", " unspecified",
			" unspecified", " unspecified",
		}},
	}
	for _, request := range requests {
		t.Run(request.name, func(t *testing.T) {
			inBubble(t, rigConfig{}, func(r *rig) {
				r.addStates()
				var got []string
				for _, name := range states {
					got = append(got, request.do(r, name))
				}
				if diff := cmp.Diff(request.want, got); diff != "" {
					r.t.Error(diff)
				}
			})
		})
	}
}

// TestJobChangesOfOneRequest: items are answered in their places and as if they had come one after another; a bad one is
// its own error.
func TestJobChangesOfOneRequest(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b")
		unknown := newID()
		answer, err := r.jobs.InterruptJobs(r.ctx, &stintv1.InterruptJobsRequest{
			Ids: []string{r.id("a"), unknown, "x", r.id("b"), r.id("a")}, Level: cancel, Reason: "why", Requester: "who",
		})
		if err != nil {
			t.Fatal(err)
		}
		want := []*stintv1.InterruptResult{
			{Id: r.id("a"), Status: stintv1.InterruptStatus_INTERRUPT_STATUS_CANCELLED, State: cancelled, Level: cancel},
			{Id: unknown, Error: &stintv1.ItemError{Index: 1, Code: 5, Reason: stintv1.Reason_REASON_JOB_NOT_FOUND}},
			{Id: "x", Error: &stintv1.ItemError{Index: 2, Code: 3, Reason: stintv1.Reason_REASON_INVALID_FIELD, Field: "id"}},
			{Id: r.id("b"), Status: stintv1.InterruptStatus_INTERRUPT_STATUS_CANCELLED, State: cancelled, Level: cancel},
			{Id: r.id("a"), State: cancelled, Level: cancel, Error: &stintv1.ItemError{Index: 4, Code: 9, Reason: stintv1.Reason_REASON_INTERRUPT_TOO_LATE}},
		}
		ignore := protocmp.IgnoreFields(&stintv1.ItemError{}, "message")
		if diff := cmp.Diff(want, answer.GetResults(), protocmp.Transform(), ignore); diff != "" {
			t.Error(diff)
		}
		i := r.job(r.id("a")).GetInterrupt()
		if diff := cmp.Diff(&stintv1.Interrupt{
			Id: "1.0", Level: cancel, Generation: 1, Reason: "why", Requester: "who", Source: stintv1.InterruptSource_INTERRUPT_SOURCE_USER,
			RequestTime: timestamppb.Now(), End: stintv1.InterruptEnd_INTERRUPT_END_NO_RUN, EndTime: timestamppb.Now(),
		}, i, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		removed, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("a"), r.id("a")}})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(ofItem(removed.GetResults()[0].GetError()), ", ", ofItem(removed.GetResults()[1].GetError())); got != "taken, JOB_NOT_FOUND NotFound" {
			t.Errorf("a job deleted twice: %s", got)
		}
	})
}

// TestRetryReopens: a retried job begins a new epoch; run numbers and history go on.
func TestRetryReopens(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		r.end(&stintv1.Finish{
			LeaseToken: r.claim("q").GetLeaseToken(), Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Final: true, Type: "T"}},
		})
		before := r.job(r.id("a"))
		if before.GetState() != failed || before.GetFailure().GetType() != "T" || before.GetCounters().GetAttempts() != 1 || !before.GetEndTime().IsValid() {
			t.Fatalf("the job is %v", before)
		}
		if _, err := r.jobs.RetryJobs(r.ctx, &stintv1.RetryJobsRequest{Ids: []string{r.id("a")}, Reason: "why", Requester: "who"}); err != nil {
			t.Fatal(err)
		}
		after := r.job(r.id("a"))
		if diff := cmp.Diff([]*stintv1.Action{
			{Kind: stintv1.ActionKind_ACTION_KIND_RETRY, Reason: "why", Requester: "who", Time: timestamppb.Now()},
		}, after.GetActions(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if after.GetEpoch() != 2 || after.GetFailure() != nil || after.GetCounters().GetAttempts() != 0 || after.GetEndTime() != nil ||
			len(after.GetHistory()) != 1 || after.GetEtag() == before.GetEtag() {
			t.Errorf("the job became %v", after)
		}
		if got := r.claim("q").GetRunNumber(); got != 2 {
			t.Errorf("the next run is number %d", got)
		}
	})
}

// TestDeletedID: a deleted job's id is free again, for other content too.
func TestDeletedID(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		if _, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("a")}}); err != nil {
			t.Fatal(err)
		}
		if got := r.submit(&stintv1.JobSpec{Id: r.id("a"), Queue: "other"})[0]; got.GetStatus() != stintv1.SubmitStatus_SUBMIT_STATUS_CREATED {
			t.Errorf("it was answered %s", got.GetStatus())
		}
	})
}

// TestGetJobViews: BASIC holds all but payload, result and history, and it is the default.
func TestGetJobViews(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.addSpec("a", &stintv1.JobSpec{Queue: "q", Payload: blob("payload", 600)})
		result := blob("result", 700)
		r.end(&stintv1.Finish{LeaseToken: r.claim("q").GetLeaseToken(), Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{Result: result}}})
		full := r.job(r.id("a"))
		if len(full.GetPayload().GetData()) != 600 || len(full.GetResult().GetData()) != 700 || len(full.GetHistory()) != 1 {
			t.Errorf("FULL: %v", full)
		}
		full.Payload, full.Result, full.History, full.Actions = nil, nil, nil, nil
		for _, view := range []stintv1.JobView{0, stintv1.JobView_JOB_VIEW_BASIC} {
			got, err := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: r.id("a"), View: view})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(full, got.GetJob(), protocmp.Transform()); diff != "" {
				t.Error(view, diff)
			}
		}
	})
}

// TestGetJobRun: a running job shows its run.
func TestGetJobRun(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		instance := newInstance()
		a := r.claimAll(&stintv1.ClaimJobsRequest{Worker: "worker", InstanceId: instance, Queues: []string{"q"}})[0]
		want := &stintv1.Run{
			Number: 1, Fence: a.GetFence(), State: stintv1.RunState_RUN_STATE_DISPATCHED, Worker: "worker", InstanceId: instance,
			DispatchTime: timestamppb.Now(),
		}
		if diff := cmp.Diff(want, r.job(r.id("a")).GetRun(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		time.Sleep(time.Second)
		r.accept(a)
		want.State, want.AcceptTime = stintv1.RunState_RUN_STATE_RUNNING, timestamppb.Now()
		got := r.job(r.id("a"))
		if diff := cmp.Diff(want, got.GetRun(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if got.GetRunCount() != 1 {
			t.Errorf("%d runs", got.GetRunCount())
		}
	})
}

// list reads all pages and returns the names of their jobs, with a bar between pages.
func (r *rig) list(m *stintv1.ListJobsRequest) string {
	r.t.Helper()
	var pages []string
	for token := ""; len(pages) == 0 || token != ""; {
		m = proto.CloneOf(m)
		m.PageToken = token
		page, err := r.jobs.ListJobs(r.ctx, m)
		if err != nil {
			r.t.Fatal(err)
		}
		var names []string
		for _, j := range page.GetJobs() {
			names = append(names, r.cast.jobs[j.GetId()])
		}
		pages, token = append(pages, strings.Join(names, " ")), page.GetNextPageToken()
	}
	return strings.Join(pages, " | ")
}

// TestFilters: what ListJobs shows and CountJobs counts is what every part of the filter admits.
func TestFilters(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		start := time.Now()
		for i, s := range []*stintv1.JobSpec{
			{Queue: "media"},
			{Queue: "media/a", Labels: map[string]string{"x": "1", "y": "1"}, Subject: "order/1", Unique: &stintv1.Unique{Key: "k"}},
			{Queue: "media/a/b", Labels: map[string]string{"x": "1"}, Subject: "order/2"},
			{Queue: "media2", Labels: map[string]string{"x": "2", "empty": ""}, Subject: "order", Unique: &stintv1.Unique{Key: "k"}},
			{Queue: "p", Start: &stintv1.JobSpec_Delay{Delay: durationpb.New(time.Hour)}},
		} {
			r.addSpec(string(rune('a'+i)), s)
			time.Sleep(time.Second)
		}
		r.interrupt("e", cancel, "")
		r.accept(r.claim("media"))
		after := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(start.Add(d)) }
		for _, row := range []struct {
			want string
			f    *stintv1.JobFilter
		}{
			{"a b c d e", nil},
			{"a b c d e", &stintv1.JobFilter{Queue: "*"}},
			{"a", &stintv1.JobFilter{Queue: "media"}},
			{"b c", &stintv1.JobFilter{Queue: "media/*"}},
			{"", &stintv1.JobFilter{Queue: "med"}},
			{"e", &stintv1.JobFilter{States: []stintv1.JobState{cancelled}}},
			{"a e", &stintv1.JobFilter{States: []stintv1.JobState{cancelled, runningS}}},
			{"b c", &stintv1.JobFilter{Queue: "media/*", States: []stintv1.JobState{ready}}},
			{"b c", &stintv1.JobFilter{Labels: map[string]string{"x": "1"}}},
			{"b d", &stintv1.JobFilter{UniqueKey: "k"}},
			{"b", &stintv1.JobFilter{UniqueKey: "k", Queue: "media/*"}},
			{"", &stintv1.JobFilter{UniqueKey: "kk"}},
			{"b", &stintv1.JobFilter{Labels: map[string]string{"x": "1", "y": "1"}}},
			{"d", &stintv1.JobFilter{Labels: map[string]string{"empty": ""}}},
			{"", &stintv1.JobFilter{Labels: map[string]string{"z": ""}}},
			{"d", &stintv1.JobFilter{Subject: "order"}},
			{"c d e", &stintv1.JobFilter{SubmittedFrom: after(2 * time.Second)}},
			{"d e", &stintv1.JobFilter{SubmittedFrom: after(2*time.Second + 1)}},
			{"a b", &stintv1.JobFilter{SubmittedBefore: after(2 * time.Second)}},
			{"b c", &stintv1.JobFilter{SubmittedFrom: after(time.Second), SubmittedBefore: after(3 * time.Second)}},
			{"c", &stintv1.JobFilter{
				Queue: "media/*", States: []stintv1.JobState{ready}, Labels: map[string]string{"x": "1"}, Subject: "order/2",
				SubmittedFrom: after(time.Second), SubmittedBefore: after(3 * time.Second),
			}},
		} {
			if got := r.list(&stintv1.ListJobsRequest{Filter: row.f}); got != row.want {
				t.Errorf("%v: listed %q, want %q", row.f, got, row.want)
			}
			counted, err := r.jobs.CountJobs(r.ctx, &stintv1.CountJobsRequest{Filter: row.f})
			if err != nil {
				t.Fatal(err)
			}
			c, n := counted.GetCounts(), uint64(0)
			for _, one := range []uint64{c.GetReady(), c.GetRunning(), c.GetCancelled()} {
				n += one
			}
			if want := len(strings.Fields(row.want)); int(n) != want || counted.GetAtLeast() {
				t.Errorf("%v: counted %v, want %d in all", row.f, counted, want)
			}
		}
	})
}

// TestCountJobs: every state is counted under its name, by the store's counts and by a scan.
func TestCountJobs(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.addStates()
		one := &stintv1.JobCounts{
			Scheduled: 1, Ready: 1, Running: 1, Backoff: 1, Parked: 1, Succeeded: 1, Failed: 1, Cancelled: 1, Expired: 1,
		}
		for _, f := range []*stintv1.JobFilter{nil, {Queue: "s/*"}, {SubmittedFrom: timestamppb.New(time.Unix(0, 0))}} {
			answer, err := r.jobs.CountJobs(r.ctx, &stintv1.CountJobsRequest{Filter: f})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(one, answer.GetCounts(), protocmp.Transform()); diff != "" {
				t.Errorf("%v: %s", f, diff)
			}
		}
	})
}

// TestListJobsPages: pages of every size hold all jobs once, in the order of submission or against it, also when jobs
// come and go between them.
func TestListJobsPages(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b", "c", "d", "e")
		for _, row := range []struct {
			want string
			m    *stintv1.ListJobsRequest
		}{
			{"a b c d e", &stintv1.ListJobsRequest{}},
			{"e d c b a", &stintv1.ListJobsRequest{NewestFirst: true}},
			{"a b | c d | e", &stintv1.ListJobsRequest{PageSize: 2}},
			{"e d | c b | a", &stintv1.ListJobsRequest{PageSize: 2, NewestFirst: true}},
			{"a | b | c | d | e", &stintv1.ListJobsRequest{PageSize: 1}},
			{"a b c d e", &stintv1.ListJobsRequest{PageSize: 5}},
			{"a b c d e", &stintv1.ListJobsRequest{PageSize: 4_000_000_000}},
		} {
			if got := r.list(row.m); got != row.want {
				t.Errorf("%v: %q, want %q", row.m, got, row.want)
			}
		}
		first, err := r.jobs.ListJobs(r.ctx, &stintv1.ListJobsRequest{PageSize: 2})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("a"), r.id("c")}}); err != nil {
			t.Fatal(err)
		}
		r.add("q", "f")
		rest, err := r.jobs.ListJobs(r.ctx, &stintv1.ListJobsRequest{PageToken: first.GetNextPageToken()})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, j := range rest.GetJobs() {
			names = append(names, r.cast.jobs[j.GetId()])
		}
		if diff := cmp.Diff([]string{"d", "e", "f"}, names); diff != "" {
			t.Error(diff)
		}
	})
}

// TestPageSizes: without a size a page has 100 jobs, and never more than 1,000.
func TestPageSizes(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		var specs []*stintv1.JobSpec
		for range 501 {
			specs = append(specs, &stintv1.JobSpec{Queue: "q"})
		}
		r.submit(specs...)
		r.submit(specs...)
		for size, want := range map[uint32]int{0: 100, 999: 999, 1000: 1000, 1001: 1000} {
			page, err := r.jobs.ListJobs(r.ctx, &stintv1.ListJobsRequest{PageSize: size})
			if err != nil {
				t.Fatal(err)
			}
			if got := len(page.GetJobs()); got != want {
				t.Errorf("page size %d: %d jobs, want %d", size, got, want)
			}
		}
	})
}

// TestListJobsLarge: pages of large jobs end before they are too large for a message, and none is left out.
func TestListJobsLarge(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.addBlobs("q", 1<<20, "a", "b", "c", "d", "e")
		for want, m := range map[string]*stintv1.ListJobsRequest{
			"a b | c d | e": {View: stintv1.JobView_JOB_VIEW_FULL},
			"e d | c b | a": {View: stintv1.JobView_JOB_VIEW_FULL, NewestFirst: true},
			"a b c d e":     {},
		} {
			if got := r.list(m); got != want {
				t.Errorf("%v: %q, want %q", m, got, want)
			}
		}
	})
}

// TestScanBudget: a look passes over so many jobs only. A page may be empty therefore and have a next one; a count goes on.
func TestScanBudget(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		specs := make([]*stintv1.JobSpec, 1000)
		for i := range specs {
			specs[i] = &stintv1.JobSpec{Queue: "q"}
		}
		for range 10 {
			r.submit(specs...)
		}
		r.addSpec("last", &stintv1.JobSpec{Queue: "q", Subject: "needle"})
		needle := &stintv1.JobFilter{Subject: "needle"}
		if got := r.list(&stintv1.ListJobsRequest{Filter: needle}); got != " | last" {
			t.Errorf("listed %q, want an empty page and the last job", got)
		}
		if got := r.list(&stintv1.ListJobsRequest{Filter: needle, NewestFirst: true}); got != "last | " {
			t.Errorf("newest first: %q, want the last job and an empty page", got)
		}
		counted, err := r.jobs.CountJobs(r.ctx, &stintv1.CountJobsRequest{Filter: needle})
		if err != nil || counted.GetCounts().GetReady() != 1 || counted.GetAtLeast() {
			t.Errorf("counted %v, %v", counted, err)
		}
	})
}

// TestPageTokens: a token serves the query that it was given for and no other, and cannot be made up.
func TestPageTokens(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b", "c")
		r.add("p", "d")
		filter := &stintv1.JobFilter{Queue: "q", Labels: nil}
		first, err := r.jobs.ListJobs(r.ctx, &stintv1.ListJobsRequest{Filter: filter, PageSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		token := first.GetNextPageToken()
		jobs := func(m *stintv1.ListJobsRequest) error {
			_, err := r.jobs.ListJobs(r.ctx, m)
			return err
		}
		if err := jobs(&stintv1.ListJobsRequest{Filter: filter, PageToken: token, PageSize: 7, View: stintv1.JobView_JOB_VIEW_FULL}); err != nil {
			t.Error("another size and view of the same query:", err)
		}
		queues, err := r.queues.ListQueues(r.ctx, &stintv1.ListQueuesRequest{PageSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		_, byQueues := r.queues.ListQueues(r.ctx, &stintv1.ListQueuesRequest{PageToken: token})
		_, otherPattern := r.queues.ListQueues(r.ctx, &stintv1.ListQueuesRequest{Queue: "*", PageToken: queues.GetNextPageToken()})
		_, byWorkers := r.workers.ListWorkers(r.ctx, &stintv1.ListWorkersRequest{PageToken: queues.GetNextPageToken()})
		for name, err := range map[string]error{
			"no filter":       jobs(&stintv1.ListJobsRequest{PageToken: token}),
			"another filter":  jobs(&stintv1.ListJobsRequest{Filter: &stintv1.JobFilter{Queue: "p"}, PageToken: token}),
			"another order":   jobs(&stintv1.ListJobsRequest{Filter: filter, NewestFirst: true, PageToken: token}),
			"another list":    byQueues,
			"another pattern": otherPattern,
			"workers":         byWorkers,
			"changed":         jobs(&stintv1.ListJobsRequest{Filter: filter, PageToken: flip(token)}),
			"cut":             jobs(&stintv1.ListJobsRequest{Filter: filter, PageToken: token[:len(token)-2]}),
			"longer":          jobs(&stintv1.ListJobsRequest{Filter: filter, PageToken: token + "AA"}),
			"made up":         jobs(&stintv1.ListJobsRequest{Filter: filter, PageToken: "AAAA"}),
		} {
			if got := ofCall(err); got.reason != stintv1.Reason_REASON_PAGE_TOKEN_INVALID {
				t.Errorf("%s: %s", name, got)
			}
		}
	})
}

// flip changes the first character of a token.
func flip(token string) string {
	if token[0] == 'A' {
		return "B" + token[1:]
	}
	return "A" + token[1:]
}

// waiter collects what a WaitJob says.
type waiter struct {
	said []string
	err  error
	done chan struct{}
}

// waitFor follows a job until it has come as far as asked.
func (r *rig) waitFor(m *stintv1.WaitJobRequest) *waiter {
	r.t.Helper()
	stream, err := r.jobs.WaitJob(r.ctx, m)
	if err != nil {
		r.t.Fatal(err)
	}
	w, start := &waiter{done: make(chan struct{})}, time.Now()
	go func() {
		defer close(w.done)
		for {
			m, err := stream.Recv()
			if err != nil {
				w.err = err
				return
			}
			line := fmt.Sprintf("%s %s", time.Since(start), stateName(m.GetJob().GetState()))
			if m.GetReached() {
				line += " reached"
			}
			w.said = append(w.said, line)
		}
	}()
	synctest.Wait()
	return w
}

func (w *waiter) expect(t *testing.T, end string, want ...string) {
	t.Helper()
	<-w.done
	if got := describeEnd(w.err); got != end {
		t.Errorf("it ended %s, want %s", got, end)
	}
	if diff := cmp.Diff(want, w.said); diff != "" {
		t.Error(diff)
	}
}

// TestWaitJob: the job is shown at once, every 15 seconds, and last when it has come as far as asked.
func TestWaitJob(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		end := r.waitFor(&stintv1.WaitJobRequest{Id: r.id("a")})
		accepted := r.waitFor(&stintv1.WaitJobRequest{Id: r.id("a"), Until: stintv1.WaitUntil_WAIT_UNTIL_ACCEPTED})
		time.Sleep(20 * time.Second)
		a := r.claim("q")
		time.Sleep(time.Second)
		r.accept(a)
		time.Sleep(10 * time.Second)
		r.succeed(a)
		accepted.expect(t, "OK", "0s ready", "15s ready", "21s running reached")
		end.expect(t, "OK", "0s ready", "15s ready", "30s running", "31s succeeded reached")
		r.waitFor(&stintv1.WaitJobRequest{Id: r.id("a")}).expect(t, "OK", "0s succeeded reached")
		r.waitFor(&stintv1.WaitJobRequest{Id: r.id("a"), Until: stintv1.WaitUntil_WAIT_UNTIL_ACCEPTED}).expect(t, "OK", "0s succeeded reached")
		r.waitFor(&stintv1.WaitJobRequest{Id: newID()}).expect(t, "JOB_NOT_FOUND, NotFound")
	})
}

// TestWaitJobStates: only PARKED and the terminal states end the wait for the end.
func TestWaitJobStates(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.addStates()
		var reached []string
		for _, name := range states {
			w := r.waitFor(&stintv1.WaitJobRequest{Id: r.id(name)})
			select {
			case <-w.done:
				reached = append(reached, name)
			default:
			}
		}
		if want := states[slices.Index(states, "parked"):]; !slices.Equal(reached, want) {
			t.Errorf("reached in %v, want %v", reached, want)
		}
	})
}

// TestWaitJobGone: who waits for a job that is deleted is told, also if its id is used again at once; so is who waits
// when the server stops.
func TestWaitJobGone(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b")
		a, b := r.waitFor(&stintv1.WaitJobRequest{Id: r.id("a")}), r.waitFor(&stintv1.WaitJobRequest{Id: r.id("b")})
		if _, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("a")}}); err != nil {
			t.Fatal(err)
		}
		r.submit(&stintv1.JobSpec{Id: r.id("a"), Queue: "other"})
		a.expect(t, "JOB_NOT_FOUND, NotFound", "0s ready")
		if took := <-r.shutdown(time.Minute); took != 0 {
			t.Errorf("the shutdown took %s", took)
		}
		b.expect(t, "SERVER_STOPPING, Unavailable", "0s ready")
	})
}

// TestWaitJobIDUsedAgain: another job under the same id is not the one that is waited for.
func TestWaitJobIDUsedAgain(t *testing.T) {
	faults := &faulty{}
	inBubble(t, withFaults(faults), func(r *rig) {
		r.add("q", "a")
		w := r.waitFor(&stintv1.WaitJobRequest{Id: r.id("a")})
		again := func() error {
			r.submit(&stintv1.JobSpec{Id: r.id("a"), Queue: "other"})
			return nil
		}
		faults.view.Store(&again) // before the change is looked at
		if _, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("a")}}); err != nil {
			t.Fatal(err)
		}
		w.expect(t, "JOB_NOT_FOUND, NotFound", "0s ready")
	})
}

// TestSubmitStreamShutdown: a producer's stream ends when the server stops, once what is under way is answered.
func TestSubmitStreamShutdown(t *testing.T) {
	faults := &faulty{}
	inBubble(t, withFaults(faults), func(r *rig) {
		stream, err := r.jobs.Submit(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		faults.hold()
		if err := stream.Send(&stintv1.SubmitRequest{Jobs: []*stintv1.JobSpec{{Queue: "q"}}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		done := r.shutdown(time.Minute)
		time.Sleep(time.Second)
		faults.release()
		if took := <-done; took != time.Second {
			t.Errorf("the shutdown took %s", took)
		}
		if answer, err := stream.Recv(); err != nil || answer.GetResults()[0].GetError() != nil {
			t.Errorf("the answer: %v, %v", answer, err)
		}
		_, err = stream.Recv()
		if errors.Is(err, io.EOF) {
			t.Fatal("the stream ended as if all had been said")
		}
		if got := ofCall(err); got.reason != stintv1.Reason_REASON_SERVER_STOPPING || !got.wait {
			t.Errorf("the stream ended with %s", got)
		}
	})
}
