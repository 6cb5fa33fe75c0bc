package server_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func (r *rig) explain(id string) *stintv1.ExplainJobResponse {
	r.t.Helper()
	answer, err := r.jobs.ExplainJob(r.ctx, &stintv1.ExplainJobRequest{Id: id})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer
}

// TestExplainReserved: what is free of a key and kept for an older, wider job is told to the others, with a command that
// lets both start.
func TestExplainReserved(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.limit("l", 2)
		take := func(units uint32) *stintv1.JobSpec {
			s := limited("q", &stintv1.LimitUse{Name: "l", Units: units})
			s.Lease = durationpb.New(time.Hour)
			return s
		}
		r.submit(take(1), take(1))
		first, second := r.claim("q"), r.claim("q")
		r.accept(first)
		r.accept(second)
		wide, small := r.submit(take(2))[0].GetId(), r.submit(take(1))[0].GetId()
		claimed := make(chan *stintv1.ClaimJobsResponse, 2)
		go func() {
			for range 2 {
				answer, err := r.workers.ClaimJobs(r.ctx, &stintv1.ClaimJobsRequest{
					Worker: "patient", Queues: []string{"q"}, Wait: durationpb.New(5 * time.Minute), MaxRuns: 2,
				})
				if err != nil {
					t.Error(err)
				}
				claimed <- answer
			}
		}()
		if got := <-claimed; len(got.GetAssignments()) > 0 {
			t.Fatalf("got %v", got)
		}
		time.Sleep(time.Minute)
		r.succeed(first)
		synctest.Wait()
		b := r.explain(small).GetBlockers()
		if len(b) != 1 || b[0].GetKind() != stintv1.BlockerKind_BLOCKER_KIND_RESERVED || len(b[0].GetJobIds()) != 1 || b[0].GetJobIds()[0] != wide ||
			b[0].GetLimit() != "l" || len(b[0].GetCommands()) != 1 || b[0].GetCommands()[0] != "stint limit put l --max 4" {
			t.Fatalf("explained as %v", b)
		}
		r.limit("l", 4)
		got := <-claimed
		if n := len(got.GetAssignments()); n == 0 || got.GetAssignments()[0].GetJobId() != wide {
			t.Fatalf("got %v, want job %s first", got, wide)
		}
		if len(got.GetAssignments()) < 2 {
			if next := r.claim("q"); next.GetJobId() != small {
				t.Errorf("then came %v", next)
			}
		}
	})
}

// TestExplainAhead: the place in a long lane is counted as far as it is looked, and estimated from above beyond; with nothing
// begun in the last minute there is no estimate of the time.
func TestExplainAhead(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		var ids []string
		for range 3 {
			var specs []*stintv1.JobSpec
			for range 500 {
				specs = append(specs, &stintv1.JobSpec{Queue: "q"})
			}
			for _, answer := range r.submit(specs...) {
				ids = append(ids, answer.GetId())
			}
		}
		for place, want := range map[int]string{0: "0 counted", 999: "999 counted", 1400: "1400 estimated"} {
			x := r.explain(ids[place])
			how := map[bool]string{false: "counted", true: "estimated"}[x.GetAheadIsEstimate()]
			if got := fmt.Sprint(x.GetAhead(), " ", how); got != want || x.GetEstimatedWait() != nil || x.GetStartedLastMinute() != 0 {
				t.Errorf("job %d: %s, want %s; %v", place, got, want, x)
			}
		}
		a := r.claim("q")
		r.succeed(a)
		x := r.explain(ids[31])
		if x.GetEstimatedWait().AsDuration() != 30*time.Minute || x.GetStartedLastMinute() != 1 {
			t.Errorf("with one begun: %v", x)
		}
		time.Sleep(61 * time.Second)
		if x := r.explain(ids[31]); x.GetEstimatedWait() != nil || !strings.HasPrefix(x.GetSummary(), "no worker is there") {
			t.Errorf("a minute later: %v", x)
		}
	})
}
