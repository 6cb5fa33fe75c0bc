package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

const chooser = "c0000000-0000-4000-8000-000000000000"

// choose claims chosen jobs.
func (r *rig) choose(ids ...string) *stintv1.ClaimJobsResponse {
	r.t.Helper()
	return r.chooseBy(&stintv1.ClaimJobsRequest{Worker: "chooser", InstanceId: chooser, JobIds: ids})
}

func (r *rig) chooseBy(m *stintv1.ClaimJobsRequest) *stintv1.ClaimJobsResponse {
	r.t.Helper()
	answer, err := r.workers.ClaimJobs(r.ctx, m)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(answer.GetResults()) != len(m.GetJobIds()) {
		r.t.Fatalf("%d results for %d jobs", len(answer.GetResults()), len(m.GetJobIds()))
	}
	return answer
}

// toldOf is an answer in a line: a result each, and how many runs came.
func toldOf(answer *stintv1.ClaimJobsResponse) string {
	var words []string
	for _, res := range answer.GetResults() {
		parts := []string{short(res.GetState().String(), "JOB_STATE_")}
		if e := res.GetError(); e != nil {
			parts[0] += "/" + short(e.GetReason().String(), "REASON_")
		}
		if res.GetWorker() != "" {
			parts = append(parts, "by", res.GetWorker())
		}
		for _, b := range res.GetBlockers() {
			parts = append(parts, short(b.GetKind().String(), "BLOCKER_KIND_"))
		}
		words = append(words, strings.Join(parts, " "))
	}
	return fmt.Sprintf("%s; %d runs", strings.Join(words, ", "), len(answer.GetAssignments()))
}

// TestBrowseAndClaim: chosen jobs are claimed past those that stand before them; each of the others is told why it is not.
func TestBrowseAndClaim(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		ids := make([]string, 4)
		for i, res := range r.submit(&stintv1.JobSpec{Queue: "a"}, &stintv1.JobSpec{Queue: "a"}, &stintv1.JobSpec{Queue: "a"},
			&stintv1.JobSpec{Queue: "b", Start: &stintv1.JobSpec_Delay{Delay: durationpb.New(time.Hour)}}) {
			ids[i] = res.GetId()
		}
		r.accept(r.claim("a"))
		answer := r.choose(ids[2], ids[0], ids[3], newInstance(), "x", ids[2])
		if got, want := toldOf(answer), "RUNNING, RUNNING/RUN_ACTIVE by test, SCHEDULED/INVALID_STATE, UNSPECIFIED/JOB_NOT_FOUND, "+
			"UNSPECIFIED/INVALID_FIELD, UNSPECIFIED/INVALID_FIELD; 1 runs"; got != want {
			t.Errorf("told %s\nwant %s", got, want)
		}
		if a := answer.GetAssignments()[0]; a.GetJobId() != ids[2] || a.GetRunNumber() != 1 {
			t.Errorf("assignment %v", a)
		}
		if e := answer.GetResults()[1].GetError(); e.GetIndex() != 1 || e.GetMessage() != "the job is running on worker test" {
			t.Errorf("of the running one: %v", e)
		}
		if answer.GetResults()[1].GetInstanceId() == "" {
			t.Error("the owner's process is not told")
		}
		r.succeed(answer.GetAssignments()[0])
		if got, want := toldOf(r.choose(ids[2], ids[1])), "SUCCEEDED/INVALID_STATE, RUNNING; 1 runs"; got != want {
			t.Errorf("then told %s, want %s", got, want)
		}
	})
}

// TestChosenJobsThatMayNotStart: what keeps a job from being dispatched keeps it from being claimed by its id.
func TestChosenJobsThatMayNotStart(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*rig)
		spec    *stintv1.JobSpec
		want    string
	}{
		"paused": {prepare: func(r *rig) {
			r.add("q", "a")
			_, err := r.queues.PauseQueue(r.ctx, &stintv1.PauseQueueRequest{Name: "q", Reason: "night"})
			r.must(err)
		}, want: "PAUSED"},
		"max_running": {prepare: func(r *rig) {
			_, err := r.queues.UpdateQueue(r.ctx, &stintv1.UpdateQueueRequest{Name: "q", Policy: &stintv1.QueuePolicy{MaxRunning: 1}})
			r.must(err)
			r.add("q", "holder")
			r.accept(r.claim("q"))
		}, want: "MAX_RUNNING"},
		"limit": {prepare: func(r *rig) {
			_, err := r.queues.PutLimit(r.ctx, &stintv1.PutLimitRequest{Name: "gpu", Policy: &stintv1.LimitPolicy{MaxUnits: 1}})
			r.must(err)
			r.submit(&stintv1.JobSpec{Queue: "q", Limits: []*stintv1.LimitUse{{Name: "gpu"}}})
			r.accept(r.claim("q"))
		}, spec: &stintv1.JobSpec{Queue: "q", Limits: []*stintv1.LimitUse{{Name: "gpu"}}}, want: "LIMIT"},
		"rate": {prepare: func(r *rig) {
			_, err := r.queues.UpdateQueue(r.ctx, &stintv1.UpdateQueueRequest{Name: "q", Policy: &stintv1.QueuePolicy{
				Rate: &stintv1.Rate{Permits: 1, Period: durationpb.New(time.Hour)},
			}})
			r.must(err)
		}, want: "RATE"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, rigConfig{}, func(r *rig) {
				test.prepare(r)
				spec := test.spec
				if spec == nil {
					spec = &stintv1.JobSpec{Queue: "q"}
				}
				id := r.submit(spec)[0].GetId()
				answer := r.choose(id)
				if got, want := toldOf(answer), "READY/JOB_BLOCKED "+test.want+"; 0 runs"; got != want {
					t.Fatalf("told %s, want %s", got, want)
				}
				result := answer.GetResults()[0]
				if text := result.GetBlockers()[0].GetText(); result.GetError().GetMessage() != text || text == "" {
					t.Errorf("%v", result)
				}
			})
		})
	}
}

// must fails the test by an error.
func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestChosenJobsOfOneRequestShareWhatThereIs: the second of two that need the same is told so.
func TestChosenJobsOfOneRequestShareWhatThereIs(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		_, err := r.queues.UpdateQueue(r.ctx, &stintv1.UpdateQueueRequest{Name: "q", Policy: &stintv1.QueuePolicy{MaxRunning: 1}})
		r.must(err)
		jobs := r.submit(&stintv1.JobSpec{Queue: "q"}, &stintv1.JobSpec{Queue: "q"})
		answer := r.choose(jobs[1].GetId(), jobs[0].GetId())
		if got, want := toldOf(answer), "RUNNING, READY/JOB_BLOCKED; 1 runs"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
		if got := answer.GetResults()[1].GetError().GetMessage(); !strings.Contains(got, "this request") {
			t.Errorf("told %q", got)
		}
	})
}

// TestRepeatedChoice answers the same runs and results within the lease; one that claimed nothing is a new one; the request of
// other jobs is refused.
func TestRepeatedChoice(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		jobs := r.submit(&stintv1.JobSpec{Queue: "q"}, &stintv1.JobSpec{Queue: "q"}, &stintv1.JobSpec{Queue: "q"})
		r.accept(r.claim("q"))
		m := &stintv1.ClaimJobsRequest{Worker: "chooser", InstanceId: chooser, RequestId: "r", JobIds: []string{
			jobs[0].GetId(), jobs[1].GetId(),
		}}
		first := r.chooseBy(m)
		token := first.GetAssignments()[0].GetLeaseToken()
		time.Sleep(20 * time.Second)
		again := r.chooseBy(m)
		if toldOf(again) != toldOf(first) || again.GetAssignments()[0].GetLeaseToken() != token {
			t.Errorf("told %s, then %s", toldOf(first), toldOf(again))
		}
		r.succeed(again.GetAssignments()[0])
		if got, want := toldOf(r.chooseBy(m)), "RUNNING/RUN_ACTIVE by test, RUNNING/TOKEN_STALE; 0 runs"; got != want {
			t.Errorf("after its end told %s, want %s", got, want)
		}
		m.JobIds = m.JobIds[:1]
		_, err := r.workers.ClaimJobs(r.ctx, m)
		if got, want := ofCall(err), (said{stintv1.Reason_REASON_INVALID_FIELD, codes.InvalidArgument, "request_id", false}); got != want {
			t.Errorf("for other jobs told %s", got)
		}
		m.RequestId, m.JobIds = "s", []string{jobs[2].GetId()}
		_, err = r.queues.PauseQueue(r.ctx, &stintv1.PauseQueueRequest{Name: "q"})
		r.must(err)
		if got, want := toldOf(r.chooseBy(m)), "READY/JOB_BLOCKED PAUSED; 0 runs"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
		_, err = r.queues.ResumeQueue(r.ctx, &stintv1.ResumeQueueRequest{Name: "q"})
		r.must(err)
		if got, want := toldOf(r.chooseBy(m)), "RUNNING; 1 runs"; got != want {
			t.Errorf("a repeat of what claimed nothing: told %s, want %s", got, want)
		}
	})
}

// TestChosenAnswerIsBounded: what does not fit into one answer is left for another call.
func TestChosenAnswerIsBounded(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		var ids []string
		for range 4 {
			ids = append(ids, r.submit(&stintv1.JobSpec{Queue: "q", Payload: &stintv1.Payload{
				Content: &stintv1.Payload_Data{Data: make([]byte, 100<<10)},
			}})[0].GetId())
		}
		if got, want := toldOf(r.choose(ids...)), "RUNNING, RUNNING, RUNNING, READY/JOB_BLOCKED; 3 runs"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
		if got, want := toldOf(r.choose(ids[3])), "RUNNING; 1 runs"; got != want {
			t.Errorf("then told %s, want %s", got, want)
		}
	})
}

func TestChoiceIsValidated(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for field, m := range map[string]*stintv1.ClaimJobsRequest{
			"queues":      {Queues: []string{"q"}},
			"max_runs":    {MaxRuns: 1},
			"wait":        {Wait: durationpb.New(time.Second)},
			"instance_id": {InstanceId: "x"},
		} {
			m.Worker, m.JobIds = "w", []string{newInstance()}
			_, err := r.workers.ClaimJobs(r.ctx, m)
			if got := ofCall(err); got.field != field || got.reason != stintv1.Reason_REASON_INVALID_FIELD {
				t.Errorf("%s: told %s", field, got)
			}
		}
		many := &stintv1.ClaimJobsRequest{Worker: "w", JobIds: make([]string, 1001)}
		_, err := r.workers.ClaimJobs(r.ctx, many)
		if got := ofCall(err); got.field != "job_ids" {
			t.Errorf("1,001 jobs: told %s", got)
		}
	})
}
