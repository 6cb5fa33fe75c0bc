package server_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// pairState is a state that a job can be in, and how one comes there. reach returns the lease token of the job's last
// run, empty if it had none.
type pairState struct {
	name  string
	reach func(r *rig) string
}

// pairStates are all states, and those that differ in what may follow. Their job is "j" of queue "q", which may have a
// unique key.
func pairStates(unique *stintv1.Unique) []pairState {
	submit := func(r *rig, spec *stintv1.JobSpec) {
		spec.Queue, spec.Unique = "q", unique
		r.addSpec("j", spec)
	}
	claimed := func(r *rig) string {
		submit(r, &stintv1.JobSpec{Retry: &stintv1.RetryPolicy{Backoff: &stintv1.RetryPolicy_Constant{
			Constant: &stintv1.ConstantBackoff{Delay: durationpb.New(time.Hour)},
		}}})
		return r.claim("q").GetLeaseToken()
	}
	running := func(r *rig) string {
		token := claimed(r)
		r.accept(&stintv1.Assignment{LeaseToken: token})
		return token
	}
	then := func(before func(*rig) string, do func(*rig)) func(*rig) string {
		return func(r *rig) string {
			token := before(r)
			do(r)
			return token
		}
	}
	ended := func(f *stintv1.Finish) func(*rig) string {
		return func(r *rig) string {
			f.LeaseToken = running(r)
			r.end(f)
			return f.GetLeaseToken()
		}
	}
	fresh := func(spec *stintv1.JobSpec) func(*rig) string {
		return func(r *rig) string { submit(r, spec); return "" }
	}
	leaseOver := func(*rig) { time.Sleep(31 * time.Second) }
	failure := func(f *stintv1.Failure) *stintv1.Finish {
		return &stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: f}}
	}
	return []pairState{
		{"scheduled", fresh(&stintv1.JobSpec{Start: &stintv1.JobSpec_Delay{Delay: durationpb.New(time.Hour)}})},
		{"ready", fresh(&stintv1.JobSpec{})},
		{"ready, undelivered", then(claimed, leaseOver)},
		{"dispatched", claimed},
		{"running", running},
		{"running, RETRY", then(running, func(r *rig) { r.interrupt("j", retry, "") })},
		{"running, CANCEL", then(running, func(r *rig) { r.interrupt("j", cancel, "") })},
		{"running, to be parked", then(running, func(r *rig) { r.park(r.id("j")) })},
		{"scheduled, interrupted", ended(&stintv1.Finish{Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{}}})},
		{"backoff, failed", ended(failure(&stintv1.Failure{}))},
		{"backoff, lost", then(running, leaseOver)},
		{"parked, malformed", ended(failure(&stintv1.Failure{Class: stintv1.FailureClass_FAILURE_CLASS_MALFORMED}))},
		{"parked, by somebody", then(fresh(&stintv1.JobSpec{}), func(r *rig) { r.park(r.id("j")) })},
		{"succeeded", ended(success(""))},
		{"failed", ended(failure(&stintv1.Failure{Final: true}))},
		{"cancelled", then(fresh(&stintv1.JobSpec{}), func(r *rig) { r.interrupt("j", cancel, "") })},
		{"cancelled, abandoned", then(running, func(r *rig) {
			_, err := r.jobs.InterruptJobs(r.ctx, &stintv1.InterruptJobsRequest{
				Ids: []string{r.id("j")}, Level: cancel, Grace: durationpb.New(time.Second), HardDeadline: durationpb.New(time.Second),
			})
			if err != nil {
				r.t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		})},
		{"expired", func(r *rig) string {
			submit(r, &stintv1.JobSpec{StartBy: timestamppb.New(time.Now().Add(time.Second))})
			time.Sleep(2 * time.Second)
			return ""
		}},
	}
}

// pairEvents are the events that come over the wire, each with what was said of it.
func pairEvents() []struct {
	name string
	do   func(r *rig, token string) string
} {
	interrupt := func(level stintv1.InterruptLevel) func(*rig, string) string {
		return func(r *rig, _ string) string {
			got := r.interrupt("j", level, "")
			return replied(short(got.GetStatus().String(), "INTERRUPT_STATUS_"), got.GetError())
		}
	}
	finish := func(f *stintv1.Finish) func(*rig, string) string {
		return func(r *rig, token string) string {
			if token == "" {
				return "-"
			}
			f.LeaseToken = token
			answer, err := r.workers.FinishRuns(r.ctx, &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{f}})
			if err != nil {
				r.t.Fatal(err)
			}
			return short(answer.GetAcks()[0].GetStatus().String(), "FINISH_STATUS_")
		}
	}
	update := func(path string) func(*rig, string) string {
		return func(r *rig, _ string) string {
			_, err := r.jobs.UpdateJob(r.ctx, &stintv1.UpdateJobRequest{Id: r.id("j"), UpdateMask: mask(path), Update: &stintv1.JobUpdate{
				Subject: "s", Start: &stintv1.JobUpdate_Delay{Delay: durationpb.New(time.Hour)},
			}})
			if err == nil {
				return "ok"
			}
			reason, _, _ := refusalOf(err)
			return short(reason.String(), "REASON_")
		}
	}
	return []struct {
		name string
		do   func(r *rig, token string) string
	}{
		{"RETRY", interrupt(retry)},
		{"CANCEL", interrupt(cancel)},
		{"retry", func(r *rig, _ string) string { return replied("ok", r.retry(r.id("j"))[0].GetError()) }},
		{"park", func(r *rig, _ string) string { return replied("ok", r.park(r.id("j"))[0].GetError()) }},
		{"update", update("subject")},
		{"postpone", update("delay")},
		{"delete", func(r *rig, _ string) string {
			answer, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("j")}})
			if err != nil {
				r.t.Fatal(err)
			}
			return replied("ok", answer.GetResults()[0].GetError())
		}},
		{"heartbeat", func(r *rig, token string) string {
			if token == "" {
				return "-"
			}
			answer, err := r.workers.HeartbeatRuns(r.ctx, &stintv1.HeartbeatRunsRequest{LeaseTokens: []string{token}})
			if err != nil {
				r.t.Fatal(err)
			}
			v := answer.GetVerdicts()[0]
			what := short(v.GetAction().String(), "VERDICT_ACTION_")
			if v.GetStopReason() != 0 {
				what += " " + short(v.GetStopReason().String(), "STOP_REASON_")
			}
			return what
		}},
		{"success", finish(success(""))},
		{"failure", finish(&stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Message: "no"}}})},
		{"interrupted", finish(&stintv1.Finish{Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{}}})},
		{"released", finish(&stintv1.Finish{Outcome: &stintv1.Finish_Released{Released: &stintv1.Released{}}})},
	}
}

// replied is what was answered to a request: that it was refused and why, or what it did.
func replied(what string, e *stintv1.ItemError) string {
	if e != nil {
		return short(e.GetReason().String(), "REASON_")
	}
	return what
}

// TestEveryPair crosses the states with the events that come over the wire: what was said, and where the job stands then.
func TestEveryPair(t *testing.T) {
	var got strings.Builder
	for _, state := range pairStates(nil) {
		fmt.Fprintf(&got, "%s\n", state.name)
		for _, event := range pairEvents() {
			inBubble(t, rigConfig{}, func(r *rig) {
				token := state.reach(r)
				what := event.do(r, token)
				if what == "-" {
					return
				}
				now := "(deleted)"
				if answer, err := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: r.id("j")}); err == nil {
					now = stateName(answer.GetJob().GetState())
				}
				fmt.Fprintf(&got, "  %-11s %s: %s\n", event.name, what, now)
			})
		}
	}
	want, err := os.ReadFile("testdata/pairs.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("%s\nall of it:\n%s", diff, &got)
	}
}
