package server_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// helloWith is a good hello that fn changes with a value.
func helloWith[T any](fn func(*stintv1.Hello, T)) func(T) try {
	return func(v T) try {
		return func(r *rig) said {
			w := r.work()
			m := hello(newInstance())
			fn(m.GetHello(), v)
			w.say(m)
			defer w.cancel()
			return ofCall(w.err)
		}
	}
}

// onSession is a message of a session, and the error of an item of it.
func onSession(m *stintv1.WorkRequest) try {
	return func(r *rig) said {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(m)
		defer w.cancel()
		for _, m := range w.all {
			for _, e := range m.GetItemErrors() {
				return ofItem(e.GetError())
			}
		}
		return ofCall(w.err)
	}
}

func claimJobs(r *rig) func(*stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
	return func(m *stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
		return r.workers.ClaimJobs(r.ctx, m)
	}
}

func heartbeatRuns(r *rig) func(*stintv1.HeartbeatRunsRequest) (*stintv1.HeartbeatRunsResponse, error) {
	return func(m *stintv1.HeartbeatRunsRequest) (*stintv1.HeartbeatRunsResponse, error) {
		return r.workers.HeartbeatRuns(r.ctx, m)
	}
}

func finishRuns(r *rig) func(*stintv1.FinishRunsRequest) (*stintv1.FinishRunsResponse, error) {
	return func(m *stintv1.FinishRunsRequest) (*stintv1.FinishRunsResponse, error) {
		return r.workers.FinishRuns(r.ctx, m)
	}
}

func drainWorkers(r *rig) func(*stintv1.DrainWorkersRequest) (*stintv1.DrainWorkersResponse, error) {
	return func(m *stintv1.DrainWorkersRequest) (*stintv1.DrainWorkersResponse, error) {
		return r.workers.DrainWorkers(r.ctx, m)
	}
}

const sessionLimit = stintv1.Reason_REASON_SESSION_LIMIT

// queueNames is n names.
func queueNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("q", i)
	}
	return names
}

// TestHelloLimits is every bound of a hello.
func TestHelloLimits(t *testing.T) {
	worker := helloWith(func(h *stintv1.Hello, n int) { h.Worker = letters(n) })
	instance := helloWith(func(h *stintv1.Hello, s string) { h.InstanceId = s })
	token := helloWith(func(h *stintv1.Hello, n int) { h.ResumeToken = letters(n) })
	host := helloWith(func(h *stintv1.Hello, n int) { h.Host = letters(n) })
	build := helloWith(func(h *stintv1.Hello, n int) { h.BuildId = letters(n) })
	sdk := helloWith(func(h *stintv1.Hello, n int) { h.Sdk = letters(n) })
	features := helloWith(func(h *stintv1.Hello, n int) { h.Features = many(n, "f") })
	feature := helloWith(func(h *stintv1.Hello, n int) { h.Features = []string{"f", letters(n)} })
	labelled := helloWith(func(h *stintv1.Hello, n int) { h.Labels = labels(n) })
	label := helloWith(func(h *stintv1.Hello, v [2]string) { h.Labels = map[string]string{v[0]: v[1]} })
	silence := helloWith(func(h *stintv1.Hello, d *durationpb.Duration) { h.MaxSilence = d })
	held := helloWith(func(h *stintv1.Hello, n int) { h.Held = many(n, "x") })
	expectLimits(t, []limit{
		{field: "hello.worker", at: tries(worker, 1, 200), beyond: tries(worker, 0, 201)},
		{field: "hello.instance_id", beyond: tries(instance, "", "host-1", strings.ToUpper(newInstance()))},
		{field: "hello.resume_token", at: tries(token, 64), beyond: tries(token, 65)},
		{field: "hello.host", at: tries(host, 255), beyond: tries(host, 256)},
		{field: "hello.build_id", at: tries(build, 200), beyond: tries(build, 201)},
		{field: "hello.sdk", at: tries(sdk, 200), beyond: tries(sdk, 201)},
		{field: "hello.features", at: append(tries(features, 64), feature(63)), beyond: append(tries(features, 65), feature(64))},
		{field: "hello.labels", reason: tooLarge, at: tries(labelled, 64), beyond: tries(labelled, 65)},
		{
			field: "hello.labels", at: tries(label, [2]string{letters(63), letters(256)}),
			beyond: tries(label, [2]string{"", "v"}, [2]string{letters(64), "v"}, [2]string{"k", letters(257)}),
		},
		{field: "hello.max_silence", at: tries(silence, durations(1, day)...), beyond: tries(silence, badDurations(0, -1, day+1)...)},
		{field: "hello.held", reason: sessionLimit, at: tries(held, 4096), beyond: tries(held, 4097)},
	})
}

// TestSessionLimits is every bound of what is said on a session.
func TestSessionLimits(t *testing.T) {
	pools := func(pools ...*stintv1.Pool) try {
		return onSession(&stintv1.WorkRequest{Demand: &stintv1.Demand{Version: 1, Pools: pools}})
	}
	pool := func(runs uint32, names ...string) *stintv1.Pool { return &stintv1.Pool{Queues: names, MaxRuns: runs} }
	var single []*stintv1.Pool
	for _, name := range queueNames(65) {
		single = append(single, pool(1, name))
	}
	held := func(n int) try { return onSession(report(many(n, "x")...)) }
	finishes := func(n int) try {
		return onSession(&stintv1.WorkRequest{Finishes: make([]*stintv1.Finish, n)})
	}
	expectLimits(t, []limit{
		{field: "version", beyond: []try{onSession(demand(0, "q", 1))}},
		{
			field: "pools[0].queues", reason: sessionLimit,
			at: []try{pools(pool(1, queueNames(64)...)), pools(pool(1, "one"), pool(1, "other"))}, beyond: []try{pools(pool(1, queueNames(65)...))},
		},
		{field: "pools[64].queues", reason: sessionLimit, at: []try{pools(single[:64]...)}, beyond: []try{pools(single...)}},
		{
			field: "pools[1].queues[0]", at: []try{pools(pool(1, "q"), pool(1, "r"))}, // a queue stands in one pool
			beyond: []try{pools(pool(1, "q"), pool(1, "q"))},
		},
		{field: "pools[1].queues", at: []try{pools()}, beyond: []try{pools(pool(1, "q"), pool(1))}},
		{
			field: "pools[0].max_runs", reason: sessionLimit,
			at: []try{pools(pool(0, "q")), pools(pool(4096, "q"))}, beyond: []try{pools(pool(4097, "q")), pools(pool(math.MaxUint32, "q"))},
		},
		{
			field: "pools[2].max_runs", reason: sessionLimit,
			at:     []try{pools(pool(4000, "q"), pool(95, "r"), pool(1, "s"))},
			beyond: []try{pools(pool(4000, "q"), pool(95, "r"), pool(2, "s")), pools(pool(1, "q"), pool(1, "r"), pool(math.MaxUint32, "s"))},
		},
		{
			field: "pools[0].queues[1]", at: []try{pools(pool(1, "q", letters(200)))},
			beyond: []try{
				pools(pool(1, "q", letters(201))), pools(pool(1, "q", "")), pools(pool(1, "q", "q")), pools(pool(1, "q", "media/*")),
				pools(pool(1, "q", "_stint/q")),
			},
		},
		{field: "held", reason: sessionLimit, at: tries(held, 0, 4096), beyond: tries(held, 4097)},
		{field: "", reason: sessionLimit, at: tries(finishes, 0, 4096), beyond: tries(finishes, 4097)},
		{field: "seen", at: []try{onSession(seen(0))}, beyond: []try{onSession(seen(1)), onSession(seen(math.MaxUint64))}},
	})
}

// TestWorkerLimits is every bound of the calls of workers.
func TestWorkerLimits(t *testing.T) {
	good := func(m *stintv1.ClaimJobsRequest) *stintv1.ClaimJobsRequest {
		m.Worker, m.Queues = "w", []string{"q"}
		return m
	}
	worker := call(claimJobs, func(m *stintv1.ClaimJobsRequest, n int) { good(m).Worker = letters(n) })
	instance := call(claimJobs, func(m *stintv1.ClaimJobsRequest, s string) { good(m).InstanceId = s })
	queues := call(claimJobs, func(m *stintv1.ClaimJobsRequest, n int) { good(m).Queues = queueNames(n) })
	queue := call(claimJobs, func(m *stintv1.ClaimJobsRequest, s string) { good(m).Queues = []string{"q", s} })
	runs := call(claimJobs, func(m *stintv1.ClaimJobsRequest, n uint32) { good(m).MaxRuns = n })
	wait := call(claimJobs, func(m *stintv1.ClaimJobsRequest, d *durationpb.Duration) { good(m).Wait = d })
	request := call(claimJobs, func(m *stintv1.ClaimJobsRequest, n int) { good(m).RequestId = letters(n) })
	beats := call(heartbeatRuns, func(m *stintv1.HeartbeatRunsRequest, n int) { m.LeaseTokens = many(n, "x") })
	finishes := call(finishRuns, func(m *stintv1.FinishRunsRequest, n int) { m.Finishes = make([]*stintv1.Finish, n) })
	drains := call(drainWorkers, func(m *stintv1.DrainWorkersRequest, n int) { m.InstanceIds = many(n, newInstance()) })
	grace := call(drainWorkers, func(m *stintv1.DrainWorkersRequest, d *durationpb.Duration) {
		m.InstanceIds, m.Grace = []string{newInstance()}, d
	})
	reason := call(drainWorkers, func(m *stintv1.DrainWorkersRequest, n int) {
		m.InstanceIds, m.Reason = []string{newInstance()}, letters(n)
	})
	check := func(id string) try {
		return func(r *rig) said {
			_, err := r.workers.CheckLease(r.ctx, &stintv1.CheckLeaseRequest{JobId: id})
			return ofCall(err)
		}
	}
	expectLimits(t, []limit{
		{field: "worker", at: tries(worker, 1, 200), beyond: tries(worker, 0, 201)},
		{field: "instance_id", at: tries(instance, "", newInstance()), beyond: tries(instance, "x", strings.ToUpper(newInstance()))},
		{field: "queues", at: tries(queues, 1, 64), beyond: tries(queues, 0, 65)},
		{field: "queues[1]", at: tries(queue, "p"), beyond: tries(queue, "", "q", "*", "_stint/q", letters(201))},
		{field: "max_runs", at: tries(runs, 0, 1, 1000), beyond: tries(runs, 1001, math.MaxUint32)},
		{field: "wait", at: tries(wait, durations(0, 5*time.Minute)...), beyond: tries(wait, badDurations(-1, 5*time.Minute+1)...)},
		{field: "request_id", at: tries(request, 64), beyond: tries(request, 65)},
		{field: "lease_tokens", at: tries(beats, 1, 4096), beyond: tries(beats, 0, 4097)},
		{field: "finishes", at: tries(finishes, 1, 1000), beyond: tries(finishes, 0, 1001)},
		{field: "instance_ids", at: tries(drains, 1, 1000), beyond: tries(drains, 0, 1001)},
		{field: "grace", at: tries(grace, durations(0, 10*year)...), beyond: tries(grace, badDurations(-1, 10*year+1)...)},
		{field: "reason", at: tries(reason, 1024), beyond: tries(reason, 1025)},
		{field: "job_id", beyond: tries(check, "", "x")},
	})
}

// TestFinishLimits is every bound of an outcome. Nothing of a failure is refused for its length.
func TestFinishLimits(t *testing.T) {
	end := func(f *stintv1.Finish) try {
		return func(r *rig) said {
			answer, err := r.workers.FinishRuns(r.ctx, &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{f}})
			if err != nil {
				return ofCall(err)
			}
			if ack := answer.GetAcks()[0]; ack.GetStatus() == stintv1.FinishStatus_FINISH_STATUS_REJECTED {
				return ofItem(ack.GetError())
			}
			return said{} // it is valid; the token is nobody's
		}
	}
	succeed := func(p *stintv1.Payload) try {
		return end(&stintv1.Finish{Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{Result: p}}})
	}
	fail := func(f *stintv1.Failure) try {
		return end(&stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: f}})
	}
	stop := func(i *stintv1.Interrupted) try {
		return end(&stintv1.Finish{Outcome: &stintv1.Finish_Interrupted{Interrupted: i}})
	}
	give := func(m *stintv1.Released) try {
		return end(&stintv1.Finish{Outcome: &stintv1.Finish_Released{Released: m}})
	}
	class := func(c stintv1.FailureClass) try { return fail(&stintv1.Failure{Class: c}) }
	retryIn := func(d *durationpb.Duration) try { return fail(&stintv1.Failure{RetryDelay: d}) }
	stopIn := func(d *durationpb.Duration) try { return stop(&stintv1.Interrupted{Delay: d}) }
	giveIn := func(d *durationpb.Duration) try { return give(&stintv1.Released{Delay: d}) }
	throttle := func(limit, key string, cooldown *durationpb.Duration) try {
		return give(&stintv1.Released{Kind: &stintv1.Released_Throttled{Throttled: &stintv1.Throttled{Limit: limit, Key: key, Cooldown: cooldown}}})
	}
	cool := func(d *durationpb.Duration) try { return throttle("", "", d) }
	stopWhy := func(n int) try { return stop(&stintv1.Interrupted{Reason: letters(n)}) }
	giveWhy := func(n int) try { return give(&stintv1.Released{Reason: letters(n)}) }
	long := &stintv1.Failure{
		Type: letters(1 << 20), Message: letters(1 << 20), Stack: make([]*stintv1.StackFrame, 5000), Causes: make([]*stintv1.FailureCause, 5000),
		Process: &stintv1.ProcessExit{StderrTail: letters(1 << 20)},
	}
	expectLimits(t, []limit{
		{field: "outcome", reason: stintv1.Reason_REASON_OUTCOME_MISSING, beyond: []try{end(&stintv1.Finish{})}},
		{
			field: "success.result", reason: tooLarge, at: tries(succeed, nil, blob("x", 1<<20)),
			beyond: tries(succeed, blob("x", 1<<20+1), text(letters(1<<20+1))),
		},
		{field: "success.result", beyond: []try{succeed(&stintv1.Payload{}), succeed(&stintv1.Payload{ContentType: "text/plain"})}},
		{
			field: "success.result.content_type", at: []try{succeed(&stintv1.Payload{Content: &stintv1.Payload_Data{}, ContentType: letters(255)})},
			beyond: []try{succeed(&stintv1.Payload{Content: &stintv1.Payload_Data{}, ContentType: letters(256)})},
		},
		{field: "failure.class", at: append(tries(class, 0, 1, 2, 3, 4), fail(nil), fail(long)), beyond: tries(class, 5, -1, 257)},
		{field: "failure.retry_delay", at: tries(retryIn, durations(0, 10*year)...), beyond: tries(retryIn, badDurations(-1, 10*year+1)...)},
		{field: "interrupted.delay", at: tries(stopIn, durations(0, 10*year)...), beyond: tries(stopIn, badDurations(-1, 10*year+1)...)},
		{field: "released.delay", at: tries(giveIn, durations(0, 10*year)...), beyond: tries(giveIn, badDurations(-1, 10*year+1)...)},
		{field: "released.throttled.cooldown", at: tries(cool, durations(0, time.Hour)...), beyond: tries(cool, badDurations(-1, time.Hour+1)...)},
		{field: "released.throttled.limit", beyond: []try{throttle("L", "", nil), throttle("", "k", nil)}},
		{field: "released.throttled.key", beyond: []try{throttle("l", letters(201), nil)}},
		{field: "interrupted.reason", at: tries(stopWhy, 1024), beyond: tries(stopWhy, 1025)},
		{field: "released.reason", at: tries(giveWhy, 1024), beyond: tries(giveWhy, 1025)},
	})
}

// TestInvalidText: a string that is not UTF-8 is an error of its field, in every call that keeps or compares it.
func TestInvalidText(t *testing.T) {
	const bad = "a\xffb"
	bads := map[string]string{"k": bad}
	ids, q := []string{newID()}, []string{"q"}
	finish := func(f *stintv1.Finish) proto.Message {
		return &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{f}}
	}
	fail := func(f *stintv1.Failure) proto.Message {
		return finish(&stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: f}})
	}
	rows := []struct {
		method, field string
		m             proto.Message
	}{
		{stintv1.JobService_GetJob_FullMethodName, "id", &stintv1.GetJobRequest{Id: bad}},
		{stintv1.JobService_ListJobs_FullMethodName, "filter.queue", &stintv1.ListJobsRequest{Filter: &stintv1.JobFilter{Queue: bad}}},
		{stintv1.JobService_ListJobs_FullMethodName, "filter.subject", &stintv1.ListJobsRequest{Filter: &stintv1.JobFilter{Subject: bad}}},
		{stintv1.JobService_CountJobs_FullMethodName, "filter.labels", &stintv1.CountJobsRequest{Filter: &stintv1.JobFilter{Labels: bads}}},
		{stintv1.JobService_ListJobs_FullMethodName, "page_token", &stintv1.ListJobsRequest{PageToken: bad}},
		{stintv1.JobService_InterruptJobs_FullMethodName, "reason", &stintv1.InterruptJobsRequest{Ids: ids, Level: cancel, Reason: bad}},
		{stintv1.JobService_InterruptJobs_FullMethodName, "requester", &stintv1.InterruptJobsRequest{Ids: ids, Level: cancel, Requester: bad}},
		{stintv1.JobService_InterruptJobs_FullMethodName, "request_id", &stintv1.InterruptJobsRequest{Ids: ids, Level: cancel, RequestId: bad}},
		{stintv1.JobService_RetryJobs_FullMethodName, "request_id", &stintv1.RetryJobsRequest{Ids: ids, RequestId: bad}},
		{stintv1.JobService_ParkJobs_FullMethodName, "request_id", &stintv1.ParkJobsRequest{Ids: ids, RequestId: bad}},
		{stintv1.JobService_UpdateJob_FullMethodName, "update_mask", &stintv1.UpdateJobRequest{Id: ids[0], UpdateMask: mask(bad)}},
		{stintv1.JobService_UpdateJob_FullMethodName, "request_id", &stintv1.UpdateJobRequest{Id: ids[0], UpdateMask: mask("*"), RequestId: bad}},
		{
			stintv1.JobService_UpdateJob_FullMethodName, "update.subject",
			&stintv1.UpdateJobRequest{Id: ids[0], UpdateMask: mask("subject"), Update: &stintv1.JobUpdate{Subject: bad}},
		},
		{
			stintv1.JobService_UpdateJob_FullMethodName, "update.labels",
			&stintv1.UpdateJobRequest{Id: ids[0], UpdateMask: mask("labels"), Update: &stintv1.JobUpdate{Labels: bads}},
		},
		{stintv1.QueueService_UpdateQueue_FullMethodName, "name", &stintv1.UpdateQueueRequest{Name: bad}},
		{stintv1.QueueService_UpdateQueue_FullMethodName, "etag", &stintv1.UpdateQueueRequest{Name: "q", Etag: bad}},
		{stintv1.QueueService_PauseQueue_FullMethodName, "reason", &stintv1.PauseQueueRequest{Name: "q", Reason: bad}},
		{stintv1.QueueService_PauseQueue_FullMethodName, "requester", &stintv1.PauseQueueRequest{Name: "q", Requester: bad}},
		{stintv1.QueueService_ListQueues_FullMethodName, "queue", &stintv1.ListQueuesRequest{Queue: bad}},
		{stintv1.WorkerService_ClaimJobs_FullMethodName, "worker", &stintv1.ClaimJobsRequest{Worker: bad, Queues: q}},
		{stintv1.WorkerService_ClaimJobs_FullMethodName, "queues[0]", &stintv1.ClaimJobsRequest{Worker: "w", Queues: []string{bad}}},
		{stintv1.WorkerService_ClaimJobs_FullMethodName, "request_id", &stintv1.ClaimJobsRequest{Worker: "w", Queues: q, RequestId: bad}},
		{stintv1.WorkerService_DrainWorkers_FullMethodName, "reason", &stintv1.DrainWorkersRequest{InstanceIds: ids, Reason: bad}},
		{"finish", "failure.type", fail(&stintv1.Failure{Type: bad})},
		{"finish", "failure.message", fail(&stintv1.Failure{Message: bad})},
		{"finish", "failure.stack[0]", fail(&stintv1.Failure{Stack: []*stintv1.StackFrame{{Function: bad}}})},
		{"finish", "failure.stack[0]", fail(&stintv1.Failure{Stack: []*stintv1.StackFrame{{File: bad}}})},
		{"finish", "failure.causes[1]", fail(&stintv1.Failure{Causes: []*stintv1.FailureCause{{}, {Type: bad}}})},
		{"finish", "failure.causes[1]", fail(&stintv1.Failure{Causes: []*stintv1.FailureCause{{}, {Message: bad}}})},
		{"finish", "failure.process.signal", fail(&stintv1.Failure{Process: &stintv1.ProcessExit{Signal: bad}})},
		{"finish", "failure.process.stderr_tail", fail(&stintv1.Failure{Process: &stintv1.ProcessExit{StderrTail: bad}})},
		{"finish", "interrupted.reason", finish(&stintv1.Finish{Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Reason: bad}}})},
		{"finish", "success.result.content_type", finish(&stintv1.Finish{Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{Result: &stintv1.Payload{Content: &stintv1.Payload_Data{}, ContentType: bad}}}})},
	}
	hellos := map[string]*stintv1.Hello{
		"hello.worker": {Worker: bad}, "hello.instance_id": {Worker: "w", InstanceId: bad}, "hello.resume_token": {Worker: "w", ResumeToken: bad},
		"hello.host": {Worker: "w", Host: bad}, "hello.build_id": {Worker: "w", BuildId: bad}, "hello.sdk": {Worker: "w", Sdk: bad},
		"hello.labels": {Worker: "w", Labels: bads}, "hello.features": {Worker: "w", Features: []string{bad}},
	}
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		raw := grpc.ForceCodecV2(newRawCodec())
		for _, row := range rows {
			var got said
			if row.method == "finish" {
				answer := &stintv1.FinishRunsResponse{}
				err := r.conn.Invoke(r.ctx, stintv1.WorkerService_FinishRuns_FullMethodName, rawMessage{r.t, row.m}, answer, raw)
				if err != nil {
					r.t.Fatal(err)
				}
				got = ofItem(answer.GetAcks()[0].GetError())
			} else {
				got = ofCall(r.conn.Invoke(r.ctx, row.method, rawMessage{r.t, row.m}, &emptypb.Empty{}, raw))
			}
			if got.field != row.field || got.code != codes.InvalidArgument && got.code != codes.Aborted {
				r.t.Errorf("%s, %s: %s", row.method, row.field, got)
			}
		}
		for field, h := range hellos {
			w := r.work(raw)
			if err := w.stream.SendMsg(rawMessage{r.t, &stintv1.WorkRequest{Hello: h}}); err != nil {
				r.t.Fatal(err)
			}
			w.settle()
			if want := (said{stintv1.Reason_REASON_INVALID_FIELD, codes.InvalidArgument, field, false}); ofCall(w.err) != want {
				r.t.Errorf("%s: %s", field, ofCall(w.err))
			}
		}
	})
}
