package server_test

import (
	"bytes"
	"context"
	"fmt"
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

// claimAll claims runs and learns their names.
func (r *rig) claimAll(m *stintv1.ClaimJobsRequest) []*stintv1.Assignment {
	r.t.Helper()
	if m.GetWorker() == "" {
		m.Worker = "w"
	}
	answer, err := r.workers.ClaimJobs(r.ctx, m)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, a := range answer.GetAssignments() {
		r.cast.meet(a)
	}
	return answer.GetAssignments()
}

// claimed is the names of the runs that a claim brings.
func (r *rig) claimed(m *stintv1.ClaimJobsRequest) string {
	r.t.Helper()
	var names []string
	for _, a := range r.claimAll(m) {
		names = append(names, r.cast.run(a.GetLeaseToken()))
	}
	return strings.Join(names, " ")
}

// beat sends a heartbeat for runs and returns the verdicts in a line.
func (r *rig) beat(runs ...string) string {
	r.t.Helper()
	answer, err := r.workers.HeartbeatRuns(r.ctx, &stintv1.HeartbeatRunsRequest{LeaseTokens: r.tokens(runs...)})
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimPrefix(r.cast.verdicts(answer.GetVerdicts()), "; ")
}

// end finishes runs by calls and returns the acknowledgements in a line.
func (r *rig) end(finishes ...*stintv1.Finish) string {
	r.t.Helper()
	answer, err := r.workers.FinishRuns(r.ctx, &stintv1.FinishRunsRequest{Finishes: finishes})
	if err != nil {
		r.t.Fatal(err)
	}
	var acks []string
	for _, a := range answer.GetAcks() {
		acks = append(acks, r.cast.ack(a))
	}
	return strings.Join(acks, "; ")
}

// TestClaimAssignment: an assignment carries everything a worker needs to know of the job.
func TestClaimAssignment(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		spec := &stintv1.JobSpec{
			Queue: "media/thumbnails", Payload: text(strings.Repeat("é", 1000)), Priority: stintv1.Priority_PRIORITY_LOW,
			Lease: durationpb.New(time.Minute), Labels: map[string]string{"customer": "42"}, Subject: "order/4711",
			TraceContext: &stintv1.TraceContext{
				Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Tracestate: "a=b",
			},
		}
		r.addSpec("a", spec)
		submitted := timestamppb.Now()
		r.claim("media/thumbnails")
		time.Sleep(61 * time.Second) // nobody names the first run: it is undelivered
		got := r.claim("media/thumbnails")
		want := &stintv1.Assignment{
			LeaseToken: got.GetLeaseToken(), JobId: spec.GetId(), Queue: spec.GetQueue(), RunNumber: 2, Fence: 2,
			Payload: &stintv1.Payload{
				Content: &stintv1.Payload_Data{Data: []byte(spec.GetPayload().GetText())}, ContentType: "text/plain",
			},
			Priority: spec.GetPriority(), Labels: spec.GetLabels(), Subject: spec.GetSubject(), Lease: spec.GetLease(),
			Counters: &stintv1.JobCounters{Deliveries: 1}, TraceContext: spec.GetTraceContext(), SubmitTime: submitted,
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestClaimWait: a claim waits for the first run as long as asked, and ends before its caller's own deadline.
func TestClaimWait(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		claim := func(ctx context.Context, wait time.Duration) (int, time.Duration, error) {
			began := time.Now()
			answer, err := r.workers.ClaimJobs(ctx, &stintv1.ClaimJobsRequest{
				Worker: "w", Queues: []string{"q"}, Wait: durationpb.New(wait), MaxRuns: 10,
			})
			return len(answer.GetAssignments()), time.Since(began), err
		}
		check := func(what string, wantRuns int, wantTime time.Duration, runs int, took time.Duration, err error) {
			t.Helper()
			if runs != wantRuns || took != wantTime || err != nil {
				t.Errorf("%s: %d runs after %s, %v; want %d after %s", what, runs, took, err, wantRuns, wantTime)
			}
		}
		runs, took, err := claim(r.ctx, 0)
		check("without a wait", 0, 0, runs, took, err)
		runs, took, err = claim(r.ctx, 5*time.Minute)
		check("in vain", 0, 5*time.Minute, runs, took, err)
		short, stop := context.WithTimeout(r.ctx, 10*time.Second)
		defer stop()
		runs, took, err = claim(short, time.Minute)
		check("with a deadline", 0, 9500*time.Millisecond, runs, took, err)
		submitted := make(chan struct{})
		time.AfterFunc(3*time.Second, func() {
			defer close(submitted)
			r.submit(&stintv1.JobSpec{Queue: "q"})
		})
		runs, took, err = claim(r.ctx, time.Minute)
		check("for a job", 1, 3*time.Second, runs, took, err)
		<-submitted
	})
}

// TestClaimShutdown: a claim that waits is answered when the server stops.
func TestClaimShutdown(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		runs := make(chan string)
		go func() {
			runs <- r.claimed(&stintv1.ClaimJobsRequest{Queues: []string{"q"}, Wait: durationpb.New(time.Minute)})
		}()
		synctest.Wait()
		done := r.shutdown(time.Minute)
		if got := <-runs; got != "" {
			t.Errorf("it was given %s", got)
		}
		if took := <-done; took != 0 {
			t.Errorf("the shutdown took %s", took)
		}
	})
}

// TestClaimOrder: claims take the highest band first, and of a band who came first, over all queues asked for.
func TestClaimOrder(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("p", "a")
		r.add("q", "b")
		r.addSpec("c", &stintv1.JobSpec{Queue: "q", Priority: stintv1.Priority_PRIORITY_HIGH})
		r.addSpec("d", &stintv1.JobSpec{Queue: "p", Priority: stintv1.Priority_PRIORITY_VERY_LOW})
		r.add("other", "e")
		claim := &stintv1.ClaimJobsRequest{Queues: []string{"p", "q"}}
		if got := r.claimed(claim); got != "c/1" {
			t.Errorf("a claim of one run brought %s, want c/1", got)
		}
		claim.MaxRuns = 10
		if got := r.claimed(claim); got != "a/1 b/1 d/1" {
			t.Errorf("a claim of ten runs brought %s, want a/1 b/1 d/1", got)
		}
	})
}

// TestClaimRepeat: within the lease, the same request of the same instance is answered with the same runs. Callers without
// an instance are each their own.
func TestClaimRepeat(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b", "c", "d", "e", "f")
		claim := func(instance, request string) *stintv1.ClaimJobsRequest {
			return &stintv1.ClaimJobsRequest{Queues: []string{"q"}, InstanceId: instance, RequestId: request}
		}
		one, two := newInstance(), newInstance()
		var got []string
		for _, m := range []*stintv1.ClaimJobsRequest{
			claim(one, "r"), claim(one, "r"), claim(one, "s"), claim(two, "r"), claim(one, ""), claim("", "r"), claim("", "r"),
		} {
			got = append(got, r.claimed(m))
		}
		if diff := cmp.Diff([]string{"a/1", "a/1", "b/1", "c/1", "d/1", "e/1", "f/1"}, got); diff != "" {
			t.Error(diff)
		}
		time.Sleep(31 * time.Second)
		if got := r.claimed(claim(one, "r")); got != "a/2" {
			t.Errorf("after the lease the same request brought %q, want a/2", got)
		}
	})
}

// TestHeartbeat: every way a run can stand is told, and runs that are not named are left alone.
func TestHeartbeat(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b", "c", "d", "e", "f")
		if got := r.claimed(&stintv1.ClaimJobsRequest{Queues: []string{"q"}, MaxRuns: 10}); got != "a/1 b/1 c/1 d/1 e/1 f/1" {
			t.Fatal(got)
		}
		r.interrupt("c", cancel, "") // not named yet: withdrawn
		if got, want := r.beat("a/1", "b/1", "d/1", "e/1", "f/1"),
			"a/1 CONTINUE 30s; b/1 CONTINUE 30s; d/1 CONTINUE 30s; e/1 CONTINUE 30s; f/1 CONTINUE 30s"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		r.interrupt("a", cancel, "")
		r.end(success(r.token("b/1")), success(r.token("d/1")), failure(r.token("f/1")))
		if _, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("d")}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // f is ready again
		if got := r.claimed(&stintv1.ClaimJobsRequest{Queues: []string{"q"}}); got != "f/2" {
			t.Fatal(got)
		}
		r.beat("a/1", "f/2")
		time.Sleep(20 * time.Second) // e, which the last two heartbeats did not name, has lost its lease
		got := strings.ReplaceAll(r.beat("a/1", "b/1", "c/1", "d/1", "e/1", "f/1", "f/2", "x"), "; ", "\n")
		want := trimLines(`
			a/1 CONTINUE 30s under CANCEL 1 of USER ""
			b/1 FINISHED
			c/1 STOP WITHDRAWN
			d/1 STOP DELETED
			e/1 STOP LOST
			f/1 FINISHED
			f/2 CONTINUE 30s
			x STOP UNKNOWN`)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		next, err := r.workers.HeartbeatRuns(r.ctx, &stintv1.HeartbeatRunsRequest{LeaseTokens: r.tokens("f/2")})
		if err != nil {
			t.Fatal(err)
		}
		if in := next.GetNextHeartbeatIn().AsDuration(); in < 9*time.Second || in > 10*time.Second {
			t.Errorf("the next heartbeat is due in %s, want a third of the lease at most", in)
		}
	})
}

// TestUnaryRunLeases: a claimed run that its worker never names is undelivered at the end of its lease; one that was
// named is lost.
func TestUnaryRunLeases(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b")
		r.claimed(&stintv1.ClaimJobsRequest{Queues: []string{"q"}, MaxRuns: 2})
		r.beat("b/1")
		time.Sleep(31 * time.Second)
		for name, want := range map[string]*stintv1.JobCounters{"a": {Deliveries: 1}, "b": {Crashes: 1}} {
			if diff := cmp.Diff(want, r.job(r.id(name)).GetCounters(), protocmp.Transform()); diff != "" {
				t.Error(name, diff)
			}
		}
	})
}

// TestFinishRuns: each finish has its answer, in its place.
func TestFinishRuns(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.addSpec("a", &stintv1.JobSpec{Queue: "q", Lease: durationpb.New(5 * time.Second)})
		r.add("q", "b", "c")
		r.claimed(&stintv1.ClaimJobsRequest{Queues: []string{"q"}, MaxRuns: 3})
		r.beat("a/1", "b/1")
		time.Sleep(8 * time.Second) // a is lost and ready again
		if got := r.claimed(&stintv1.ClaimJobsRequest{Queues: []string{"q"}}); got != "a/2" {
			t.Fatal(got)
		}
		got := strings.ReplaceAll(r.end(
			success("x"), &stintv1.Finish{LeaseToken: r.token("b/1")},
			success(r.token("b/1")), success(r.token("b/1")), failure(r.token("b/1")), success(r.token("a/1")),
			released(r.token("c/1")),
		), "; ", "\n")
		want := trimLines(`
			x UNKNOWN, [0] TOKEN_UNKNOWN lease_token
			b/1 REJECTED, [1] OUTCOME_MISSING outcome
			b/1 RECORDED, job SUCCEEDED
			b/1 DUPLICATE, job SUCCEEDED
			b/1 CONFLICT, job SUCCEEDED
			a/1 SUPERSEDED, job RUNNING, [5] TOKEN_STALE lease_token
			c/1 RECORDED, job SCHEDULED`)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestFinishLate: a success that comes after its run was lost, while the job still waits, is the job's outcome, and the
// crash is taken back.
func TestFinishLate(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.addSpec("a", &stintv1.JobSpec{Queue: "q", Retry: &stintv1.RetryPolicy{
			Backoff: &stintv1.RetryPolicy_Exponential{Exponential: &stintv1.ExponentialBackoff{Initial: durationpb.New(time.Hour), Max: durationpb.New(time.Hour)}},
		}})
		r.claimed(&stintv1.ClaimJobsRequest{Queues: []string{"q"}})
		r.beat("a/1")
		time.Sleep(31 * time.Second)
		if got := r.job(r.id("a")); got.GetState() != stintv1.JobState_JOB_STATE_BACKOFF || got.GetCounters().GetCrashes() != 1 {
			t.Fatalf("the job is %s with %v", got.GetState(), got.GetCounters())
		}
		if got := r.end(success(r.token("a/1"))); got != "a/1 RECORDED, job SUCCEEDED" {
			t.Error(got)
		}
		if got := r.job(r.id("a")).GetCounters().GetCrashes(); got != 0 {
			t.Errorf("%d crashes are left", got)
		}
	})
}

// TestOutcomes submits every part of an outcome and reads it back.
func TestOutcomes(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b", "c", "d", "e")
		r.claimed(&stintv1.ClaimJobsRequest{Queues: []string{"q"}, MaxRuns: 5})
		result := &stintv1.Payload{Content: &stintv1.Payload_Data{Data: bytes.Repeat([]byte{0, 255}, 1000)}, ContentType: "image/png"}
		fail := &stintv1.Failure{
			Class: stintv1.FailureClass_FAILURE_CLASS_INFRASTRUCTURE, Type: "exit", Message: "no é",
			Stack:      []*stintv1.StackFrame{{Function: "f", File: "x.go", Line: 7}, {Function: "g"}},
			Causes:     []*stintv1.FailureCause{{Type: "t", Message: "m"}},
			RetryDelay: durationpb.New(time.Hour),
			Process:    &stintv1.ProcessExit{ExitCode: -7, Signal: "KILL", StderrTail: "oops"},
		}
		long := &stintv1.Failure{Final: true, Type: "T", Message: strings.Repeat("m", 80<<10), Causes: []*stintv1.FailureCause{{Message: "short"}}}
		r.end(
			&stintv1.Finish{LeaseToken: r.token("a/1"), Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{Result: result}}},
			&stintv1.Finish{LeaseToken: r.token("b/1"), Outcome: &stintv1.Finish_Failure{Failure: fail}},
			&stintv1.Finish{LeaseToken: r.token("c/1"), Outcome: &stintv1.Finish_Failure{Failure: long}},
			&stintv1.Finish{LeaseToken: r.token("d/1"), Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Reason: "host goes"}}},
			&stintv1.Finish{LeaseToken: r.token("e/1"), Outcome: &stintv1.Finish_Released{Released: &stintv1.Released{Reason: "busy", Delay: durationpb.New(time.Hour)}}},
		)
		if diff := cmp.Diff(result, r.job(r.id("a")).GetResult(), protocmp.Transform()); diff != "" {
			t.Error("result:", diff)
		}
		b := r.job(r.id("b"))
		if diff := cmp.Diff(fail, b.GetFailure(), protocmp.Transform()); diff != "" {
			t.Error("failure:", diff)
		}
		if diff := cmp.Diff(fail, b.GetHistory()[0].GetFailure(), protocmp.Transform()); diff != "" {
			t.Error("failure in the history:", diff)
		}
		cut := r.job(r.id("c"))
		if got := len(cut.GetFailure().GetMessage()); got != 64<<10-len("T")-len("short") {
			t.Errorf("a long message was cut to %d bytes", got)
		}
		if got := cut.GetFailure().GetCauses()[0].GetMessage(); got != "short" {
			t.Errorf("a short text beside it became %q", got)
		}
		due := func(name string) time.Duration { return time.Until(r.job(r.id(name)).GetDueTime().AsTime()) }
		got := fmt.Sprintln(b.GetState(), due("b"), b.GetCounters().GetSnoozes(), cut.GetState(), due("d"), due("e"))
		if want := fmt.Sprintln("JOB_STATE_BACKOFF", time.Hour, 1, "JOB_STATE_FAILED", 10*time.Second, time.Hour); got != want {
			t.Errorf("got  %swant %s", got, want)
		}
		for name, note := range map[string]string{"d": "host goes", "e": "busy"} {
			if got := r.job(r.id(name)).GetHistory()[0].GetNote(); got != note {
				t.Errorf("the run of %s ended with the note %q, want %q", name, got, note)
			}
		}
	})
}

// TestCheckLease: a third party learns whether a run still owns its job, and which is the newest.
func TestCheckLease(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		check := func(fence uint64) *stintv1.CheckLeaseResponse {
			t.Helper()
			answer, err := r.workers.CheckLease(r.ctx, &stintv1.CheckLeaseRequest{JobId: r.id("a"), Fence: fence})
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		expect := func(fence uint64, want *stintv1.CheckLeaseResponse) {
			t.Helper()
			if diff := cmp.Diff(want, check(fence), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		}
		expect(1, &stintv1.CheckLeaseResponse{})
		first := r.claim("q")
		expect(first.GetFence(), &stintv1.CheckLeaseResponse{Live: true, NewestFence: first.GetFence()})
		time.Sleep(31 * time.Second)
		expect(first.GetFence(), &stintv1.CheckLeaseResponse{NewestFence: first.GetFence()})
		second := r.claim("q")
		if second.GetFence() <= first.GetFence() {
			t.Errorf("the second run has the fence %d, the first %d", second.GetFence(), first.GetFence())
		}
		r.accept(second)
		r.interrupt("a", cancel, "")
		expect(first.GetFence(), &stintv1.CheckLeaseResponse{Level: cancel, NewestFence: second.GetFence()})
		expect(second.GetFence(), &stintv1.CheckLeaseResponse{Live: true, Level: cancel, NewestFence: second.GetFence()})
	})
}

// TestListWorkers: sessions and callers are listed, page by page, with what is known of them.
func TestListWorkers(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		start := timestamppb.Now()
		instances := []string{newInstance(), newInstance(), newInstance()}
		slices.Sort(instances)
		w := r.work()
		m := hello(instances[1])
		m.Hello.Host, m.Hello.Pid, m.Hello.BuildId, m.Hello.Sdk = "host", 7, "build", "sdk/1"
		m.Hello.Labels = map[string]string{"a": "b"}
		w.say(m)
		w.say(&stintv1.WorkRequest{Demand: &stintv1.Demand{Version: 1, Pools: []*stintv1.Pool{
			{Queues: []string{"p", "q"}, MaxRuns: 3, MaxPayloadBytes: 9},
		}}})
		r.add("q", "a", "b")
		w.say(seen(2))
		r.add("unary", "c")
		r.claimed(&stintv1.ClaimJobsRequest{Worker: "caller", InstanceId: instances[0], Queues: []string{"unary"}})
		r.work().say(hello(instances[2]))
		time.Sleep(time.Second)
		heard := timestamppb.Now()
		w.say(report(r.tokens("a/1", "b/1")...))
		if _, err := r.workers.DrainWorkers(r.ctx, &stintv1.DrainWorkersRequest{InstanceIds: instances[2:], Reason: "move"}); err != nil {
			t.Fatal(err)
		}
		want := []*stintv1.Worker{
			{InstanceId: instances[0], Worker: "caller", Since: start, HeardTime: start, Runs: 1},
			{
				InstanceId: instances[1], Worker: "w", Host: "host", Pid: 7, Labels: m.GetHello().GetLabels(), BuildId: "build",
				Sdk: "sdk/1", Connected: true, Since: start, HeardTime: heard, Runs: 2,
				Pools: []*stintv1.Pool{{Queues: []string{"p", "q"}, MaxRuns: 3, MaxPayloadBytes: 9}},
			},
			{InstanceId: instances[2], Worker: "w", Connected: true, Since: start, HeardTime: start, Draining: true, DrainReason: "move"},
		}
		for _, size := range []uint32{0, 1, 2, 3} {
			pages := 0
			var got []*stintv1.Worker
			for token := ""; pages == 0 || token != ""; pages++ {
				page, err := r.workers.ListWorkers(r.ctx, &stintv1.ListWorkersRequest{PageSize: size, PageToken: token})
				if err != nil {
					t.Fatal(err)
				}
				got, token = append(got, page.GetWorkers()...), page.GetNextPageToken()
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("pages of %d: %s", size, diff)
			}
			if want := map[uint32]int{0: 1, 1: 3, 2: 2, 3: 1}[size]; pages != want {
				t.Errorf("pages of %d: %d of them, want %d", size, pages, want)
			}
		}
	})
}

// TestListWorkersLarge: a page of workers fits into a message, whatever they say of themselves.
func TestListWorkersLarge(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		labels, queues := map[string]string{}, make([]string, 64)
		for i := range 64 {
			labels[fmt.Sprintf("%063d", i)] = strings.Repeat("v", 256)
			queues[i] = fmt.Sprintf("%0200d", i)
		}
		const workers = 140
		for range workers {
			m := hello(newInstance())
			m.Hello.Labels, m.Demand = labels, &stintv1.Demand{Version: 1, Pools: []*stintv1.Pool{{Queues: queues, MaxRuns: 1}}}
			w := r.unread()
			if err := w.stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		listed, token := 0, ""
		for listed == 0 || token != "" {
			page, err := r.workers.ListWorkers(r.ctx, &stintv1.ListWorkersRequest{PageSize: 1000, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			listed, token = listed+len(page.GetWorkers()), page.GetNextPageToken()
		}
		if listed != workers {
			t.Errorf("%d workers are listed, want %d", listed, workers)
		}
	})
}

// TestHistoryLarge: a job of full size with a long history of large failures is still one message: the newest failures
// are shown in whole, older ones in short.
func TestHistoryLarge(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.addSpec("a", &stintv1.JobSpec{Queue: "q", Payload: blob("payload", 1<<20), Retry: &stintv1.RetryPolicy{MaxAttempts: 1000}})
		long := &stintv1.Failure{
			Class: stintv1.FailureClass_FAILURE_CLASS_APPLICATION, RetryDelay: durationpb.New(0), Type: letters(300), Message: letters(300), Causes: []*stintv1.FailureCause{{Message: letters(300)}},
			Stack: []*stintv1.StackFrame{{Function: letters(300)}}, Process: &stintv1.ProcessExit{Signal: letters(60 << 10), StderrTail: letters(300)},
		}
		const runs = 38
		for range runs {
			r.end(&stintv1.Finish{LeaseToken: r.claim("q").GetLeaseToken(), Outcome: &stintv1.Finish_Failure{Failure: long}})
			synctest.Wait()
		}
		r.end(&stintv1.Finish{LeaseToken: r.claim("q").GetLeaseToken(), Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{Result: blob("result", 1<<20)}}})
		got := r.job(r.id("a"))
		history := got.GetHistory()
		if len(history) != runs+1 {
			t.Fatalf("the history has %d runs", len(history))
		}
		newest, oldest := history[runs-1].GetFailure(), history[0].GetFailure()
		if diff := cmp.Diff(long, newest, protocmp.Transform()); diff != "" {
			t.Error("the newest failure:", diff)
		}
		if size := proto.Size(oldest); size < 500 || size > 1000 {
			t.Errorf("the oldest failure has %d bytes", size)
		}
	})
}
