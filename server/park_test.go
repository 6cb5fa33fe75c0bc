package server_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// park parks jobs.
func (r *rig) park(ids ...string) []*stintv1.JobResult {
	r.t.Helper()
	answer, err := r.jobs.ParkJobs(r.ctx, &stintv1.ParkJobsRequest{Ids: ids, Reason: "look at it", Requester: "ada"})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetResults()
}

// expectParked checks that a job is parked by an operator, who, why and when.
func (r *rig) expectParked(name string, at *timestamppb.Timestamp) {
	r.t.Helper()
	j := r.job(r.id(name))
	want := &stintv1.Interrupt{Source: stintv1.InterruptSource_INTERRUPT_SOURCE_USER, Reason: "look at it", Requester: "ada", RequestTime: at}
	if j.GetParkReason() != stintv1.ParkReason_PARK_REASON_OPERATOR {
		r.t.Errorf("%s is %s for %s", name, j.GetState(), j.GetParkReason())
	}
	if diff := cmp.Diff(want, j.GetInterrupt(), protocmp.Transform()); diff != "" {
		r.t.Errorf("%s: %s", name, diff)
	}
}

// TestParkJobs: answers come in order, a bad item is an error of its own, and a repeat changes nothing.
func TestParkJobs(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b")
		at := timestamppb.Now()
		got := r.park(r.id("b"), newID(), r.id("a"), r.id("b"))
		if len(got) != 4 || got[1].GetError().GetReason() != stintv1.Reason_REASON_JOB_NOT_FOUND || got[1].GetError().GetIndex() != 1 {
			t.Fatalf("answers %v", got)
		}
		for i, name := range map[int]string{0: "b", 2: "a", 3: "b"} {
			if got[i].GetId() != r.id(name) || stateName(got[i].GetState()) != "parked" || got[i].GetError() != nil {
				t.Errorf("answer %d: %v", i, got[i])
			}
		}
		time.Sleep(time.Second)
		etag := r.job(r.id("a")).GetEtag()
		r.park(r.id("a"))
		if again := r.job(r.id("a")).GetEtag(); again != etag {
			t.Errorf("parked again, the job changed from %s to %s", etag, again)
		}
		r.expectParked("a", at)
		if got := r.retry(r.id("a"))[0]; stateName(got.GetState()) != "ready" || r.job(r.id("a")).GetInterrupt() != nil {
			t.Errorf("retried: %v, interrupt %v", got, r.job(r.id("a")).GetInterrupt())
		}
	})
}

// TestParkRunningJob: its worker is told to stop with RETRY, and however the run ends short of the job's end, it is parked.
func TestParkRunningJob(t *testing.T) {
	for name, test := range map[string]struct {
		finish *stintv1.Finish // nil: the lease is lost
		want   stintv1.JobState
	}{
		"failure":     {&stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{}}}, stintv1.JobState_JOB_STATE_PARKED},
		"interrupted": {&stintv1.Finish{Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{}}}, stintv1.JobState_JOB_STATE_PARKED},
		"released":    {&stintv1.Finish{Outcome: &stintv1.Finish_Released{Released: &stintv1.Released{}}}, stintv1.JobState_JOB_STATE_PARKED},
		"lost":        {nil, stintv1.JobState_JOB_STATE_PARKED},
		"success":     {success(""), succeeded},
		"final":       {&stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Final: true}}}, failed},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, rigConfig{}, func(r *rig) {
				r.add("q", "a")
				a := r.claim("q")
				r.accept(a)
				at := timestamppb.Now()
				if got := r.park(r.id("a"))[0]; stateName(got.GetState()) != "running" || got.GetError() != nil {
					t.Errorf("parking a running job: %v", got)
				}
				told, err := r.workers.HeartbeatRuns(r.ctx, &stintv1.HeartbeatRunsRequest{LeaseTokens: []string{a.GetLeaseToken()}})
				if err != nil {
					t.Fatal(err)
				}
				if i := told.GetVerdicts()[0].GetInterrupt(); i.GetLevel() != retry || i.GetReason() != "look at it" || i.GetRequester() != "ada" {
					t.Errorf("its worker is told %v", i)
				}
				if test.finish == nil {
					time.Sleep(time.Minute)
				} else {
					test.finish.LeaseToken = a.GetLeaseToken()
					r.end(test.finish)
				}
				if got := r.job(r.id("a")).GetState(); got != test.want {
					t.Fatalf("the job is %s", got)
				}
				if test.want == stintv1.JobState_JOB_STATE_PARKED {
					r.expectParked("a", at)
				}
			})
		})
	}
}
