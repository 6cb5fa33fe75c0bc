package server_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func text(s string) *stintv1.Payload {
	return &stintv1.Payload{Content: &stintv1.Payload_Text{Text: s}}
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// TestSubmitAnswers covers what becomes of one item, and that items of a message behave as if sent one after another.
func TestSubmitAnswers(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		a, b := newID(), newID()
		r.submit(&stintv1.JobSpec{Id: a, Queue: "q", Payload: text("one")})
		answer, err := r.jobs.SubmitJobs(r.ctx, &stintv1.SubmitJobsRequest{Jobs: []*stintv1.JobSpec{
			{Id: a, Queue: "q", Payload: text("one")}, // known
			{Id: a, Queue: "q", Payload: text("two")}, // known, other content
			{Id: b, Queue: "q", StartBy: timestamppb.New(time.Now().Add(time.Hour))},
			{Id: b, Queue: "q", StartBy: timestamppb.New(time.Now().Add(time.Hour))}, // repeats the one before
			{Id: b, Queue: "p"}, // conflicts with it
			{Queue: "q"},        // the id is made
			{Queue: "q", Start: &stintv1.JobSpec_Delay{Delay: durationpb.New(time.Minute)}},
			{Queue: "Q"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, result := range answer.GetResults() {
			if e := result.GetError(); e != nil {
				if int(e.GetIndex()) != i {
					t.Errorf("item %d: error has index %d", i, e.GetIndex())
				}
				got = append(got, fmt.Sprint(e.GetReason(), " ", e.GetField()))
				continue
			}
			got = append(got, fmt.Sprint(result.GetStatus(), " ", result.GetState()))
		}
		want := []string{
			"SUBMIT_STATUS_EXISTING JOB_STATE_READY",
			"REASON_ID_CONFLICT id",
			"SUBMIT_STATUS_CREATED JOB_STATE_READY",
			"SUBMIT_STATUS_EXISTING JOB_STATE_READY",
			"REASON_ID_CONFLICT id",
			"SUBMIT_STATUS_CREATED JOB_STATE_READY",
			"SUBMIT_STATUS_CREATED JOB_STATE_SCHEDULED",
			"REASON_INVALID_FIELD queue",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if made, err := uuid.Parse(answer.GetResults()[5].GetId()); err != nil || made.Version() != 7 {
			t.Errorf("made id %q: %v", answer.GetResults()[5].GetId(), err)
		}
		if due := r.job(answer.GetResults()[6].GetId()).GetDueTime(); !due.AsTime().Equal(time.Now().Add(time.Minute)) {
			t.Errorf("due at %v, want a minute from %v", due.AsTime(), time.Now())
		}
	})
}

// TestJobRoundTrip submits every field and reads it back.
func TestJobRoundTrip(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		startBy := timestamppb.New(time.Now().Add(time.Hour))
		trace := &stintv1.TraceContext{
			Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Tracestate: "a=b",
		}
		retry := &stintv1.RetryPolicy{MaxAttempts: 4, Backoff: &stintv1.RetryPolicy_Exponential{
			Exponential: &stintv1.ExponentialBackoff{
				Initial: durationpb.New(0), Max: durationpb.New(time.Minute), Multiplier: 3,
			},
		}, Deadline: durationpb.New(time.Hour), OnFailure: stintv1.OnFailure_ON_FAILURE_PARK, InterruptDelay: durationpb.New(0)}
		spec := &stintv1.JobSpec{
			Id:           newID(),
			Queue:        "media/thumbnails",
			Payload:      &stintv1.Payload{Content: &stintv1.Payload_Json{Json: structpb.NewStringValue("<é>")}},
			Priority:     stintv1.Priority_PRIORITY_HIGH,
			StartBy:      startBy,
			Lease:        durationpb.New(time.Minute),
			Retry:        retry,
			Labels:       map[string]string{"customer": "42"},
			Subject:      "order/4711",
			TraceContext: trace,
			Unique:       &stintv1.Unique{Key: "4711", Ttl: durationpb.New(time.Hour)},
		}
		policy := r.submit(spec)[0].GetPolicy()
		got := r.job(spec.GetId())
		want := &stintv1.Job{
			Id:           spec.GetId(),
			Queue:        spec.GetQueue(),
			State:        stintv1.JobState_JOB_STATE_READY,
			Priority:     stintv1.Priority_PRIORITY_HIGH,
			Sequence:     1,
			Payload:      &stintv1.Payload{Content: &stintv1.Payload_Data{Data: []byte(`"<é>"`)}, ContentType: "application/json"},
			SubmitTime:   timestamppb.Now(),
			StartBy:      startBy,
			Epoch:        1,
			Counters:     &stintv1.JobCounters{},
			Labels:       spec.GetLabels(),
			Subject:      spec.GetSubject(),
			Policy:       &stintv1.JobPolicy{Lease: durationpb.New(time.Minute), Retry: retry},
			TraceContext: trace,
			Etag:         got.GetEtag(),
			Unique: &stintv1.UniqueKey{
				Key: "4711", Until: stintv1.UniqueUntil_UNIQUE_UNTIL_FINISH, Ttl: durationpb.New(time.Hour),
				OnConflict: stintv1.OnConflict_ON_CONFLICT_RETURN_EXISTING, Held: true,
			},
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want.GetPolicy(), policy, protocmp.Transform()); diff != "" {
			t.Error("policy of the answer:", diff)
		}
	})
}

// TestSubmitCurves: what a job says of how it is tried again is what holds, with the rest filled in.
func TestSubmitCurves(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for i, p := range everyRetry() {
			want := proto.CloneOf(p)
			s, m := durationpb.New(time.Second), durationpb.New(10*time.Minute)
			switch i {
			case 3:
				want.Backoff = &stintv1.RetryPolicy_Exponential{Exponential: &stintv1.ExponentialBackoff{Initial: s, Max: m, Multiplier: 2}}
			case 4:
				want.Backoff = &stintv1.RetryPolicy_Linear{Linear: &stintv1.LinearBackoff{Initial: s, Increment: s, Max: m}}
			case 5:
				want.Backoff = &stintv1.RetryPolicy_Constant{Constant: &stintv1.ConstantBackoff{Delay: s}}
			}
			if i >= 3 {
				want.MaxAttempts, want.OnFailure, want.InterruptDelay = 10, stintv1.OnFailure_ON_FAILURE_RETRY, durationpb.New(10*time.Second)
			}
			got := r.submit(&stintv1.JobSpec{Queue: "q", Retry: p})[0].GetPolicy().GetRetry()
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("number %d: %s", i, diff)
			}
		}
	})
}

// TestSubmitPolicy: the answer's policy is the job's own, then its queue's, then the defaults.
func TestSubmitPolicy(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		_, err := r.queues.UpdateQueue(r.ctx, &stintv1.UpdateQueueRequest{Name: "q", Policy: &stintv1.QueuePolicy{
			Lease: durationpb.New(time.Minute), Retry: &stintv1.RetryPolicy{MaxAttempts: 7},
		}})
		if err != nil {
			t.Fatal(err)
		}
		results := r.submit(
			&stintv1.JobSpec{Queue: "q", Retry: &stintv1.RetryPolicy{MaxAttempts: 2}},
			&stintv1.JobSpec{Queue: "q"},
			&stintv1.JobSpec{Queue: "other"},
		)
		policy := func(lease time.Duration, attempts uint32) *stintv1.JobPolicy {
			return &stintv1.JobPolicy{Lease: durationpb.New(lease), Retry: &stintv1.RetryPolicy{
				MaxAttempts: attempts, Backoff: &stintv1.RetryPolicy_Exponential{Exponential: &stintv1.ExponentialBackoff{
					Initial: durationpb.New(time.Second), Max: durationpb.New(10 * time.Minute), Multiplier: 2,
				}}, OnFailure: stintv1.OnFailure_ON_FAILURE_RETRY, InterruptDelay: durationpb.New(10 * time.Second),
			}}
		}
		want := []*stintv1.JobPolicy{policy(time.Minute, 2), policy(time.Minute, 7), policy(30*time.Second, 10)}
		for i, result := range results {
			if diff := cmp.Diff(want[i], result.GetPolicy(), protocmp.Transform()); diff != "" {
				t.Errorf("job %d: %s", i, diff)
			}
		}
	})
}

// TestSubmitTraceFromMetadata: jobs without a trace of their own get the call's; a malformed one is nobody's.
func TestSubmitTraceFromMetadata(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		const call = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		const own = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
		r.ctx = metadata.AppendToOutgoingContext(r.ctx, "traceparent", call, "tracestate", "v=1")
		results := r.submit(
			&stintv1.JobSpec{Queue: "q"},
			&stintv1.JobSpec{Queue: "q", TraceContext: &stintv1.TraceContext{Traceparent: own}},
			&stintv1.JobSpec{Queue: "q", TraceContext: &stintv1.TraceContext{Traceparent: "nonsense"}},
		)
		want := []*stintv1.TraceContext{{Traceparent: call, Tracestate: "v=1"}, {Traceparent: own}, nil}
		for i, result := range results {
			if diff := cmp.Diff(want[i], r.job(result.GetId()).GetTraceContext(), protocmp.Transform()); diff != "" {
				t.Errorf("job %d: %s", i, diff)
			}
		}
	})
}

// TestSubmitStream sends far more than the window holds before it reads, and finds every answer, in order.
func TestSubmitStream(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		stream, err := r.jobs.Submit(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		const messages = 1000
		ids := make([]string, messages)
		sent := make(chan error, 1)
		for i := range ids {
			ids[i] = newID()
		}
		go func() {
			for i, id := range ids {
				m := &stintv1.SubmitRequest{Jobs: []*stintv1.JobSpec{{Id: id, Queue: "q", Payload: text(strings.Repeat("x", i*100))}}}
				if err := stream.Send(m); err != nil {
					sent <- err
					return
				}
			}
			sent <- stream.CloseSend()
		}()
		for _, id := range ids {
			answer, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got := answer.GetResults()[0]; got.GetId() != id || got.GetStatus() != stintv1.SubmitStatus_SUBMIT_STATUS_CREATED {
				t.Fatalf("answer %v, want CREATED of %s", got, id)
			}
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("after the last answer: %v, want the end", err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if ready := r.queue("q").GetCounts().GetReady(); ready != messages {
			t.Errorf("%d jobs are ready, want %d", ready, messages)
		}
	})
}

// TestSubmitStreamBadMessages: empty and oversized messages are answered, and the stream goes on.
func TestSubmitStreamBadMessages(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		stream, err := r.jobs.Submit(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		tooMany := &stintv1.SubmitRequest{}
		for range 1001 {
			tooMany.Jobs = append(tooMany.Jobs, &stintv1.JobSpec{Queue: "q"})
		}
		good := &stintv1.SubmitRequest{Jobs: []*stintv1.JobSpec{{Queue: "q"}}}
		var counts []int
		for _, m := range []*stintv1.SubmitRequest{{}, tooMany, good} {
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
			answer, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			refused := 0
			for _, result := range answer.GetResults() {
				if result.GetError().GetReason() == stintv1.Reason_REASON_INVALID_FIELD && result.GetError().GetField() == "jobs" {
					refused++
				}
			}
			counts = append(counts, len(answer.GetResults()), refused)
		}
		if diff := cmp.Diff([]int{0, 0, 1001, 1001, 1, 0}, counts); diff != "" {
			t.Error("results and refusals of each message:", diff)
		}
	})
}

// TestSubmitInvalidText: a string that is not UTF-8 is the error of its item; the stream and the other items go on.
func TestSubmitInvalidText(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		stream, err := r.jobs.Submit(r.ctx, grpc.ForceCodecV2(newRawCodec()))
		if err != nil {
			t.Fatal(err)
		}
		const bad = "a\xffb"
		structure := structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"k": structpb.NewStringValue(bad)}})
		items := []struct {
			field string
			spec  *stintv1.JobSpec
		}{
			{"", &stintv1.JobSpec{Queue: "q"}},
			{"id", &stintv1.JobSpec{Id: bad, Queue: "q"}},
			{"queue", &stintv1.JobSpec{Queue: bad}},
			{"labels", &stintv1.JobSpec{Queue: "q", Labels: map[string]string{"k": bad}}},
			{"labels", &stintv1.JobSpec{Queue: "q", Labels: map[string]string{bad: "v", "k": "v"}}},
			{"subject", &stintv1.JobSpec{Queue: "q", Subject: bad}},
			{"unique.key", &stintv1.JobSpec{Queue: "q", Unique: &stintv1.Unique{Key: bad}}},
			{"payload.text", &stintv1.JobSpec{Queue: "q", Payload: text(bad)}},
			{"payload.content_type", &stintv1.JobSpec{Queue: "q", Payload: &stintv1.Payload{Content: &stintv1.Payload_Data{}, ContentType: bad}}},
			{"payload.json", &stintv1.JobSpec{Queue: "q", Payload: &stintv1.Payload{Content: &stintv1.Payload_Json{Json: structure}}}},
			{"", &stintv1.JobSpec{Queue: "q", Payload: text("good"), Labels: map[string]string{"k": "v"}}},
		}
		m := &stintv1.SubmitRequest{}
		for _, item := range items {
			m.Jobs = append(m.Jobs, item.spec)
		}
		if err := stream.SendMsg(rawMessage{t, m}); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for i, result := range answer.GetResults() {
			if got := result.GetError().GetField(); got != items[i].field {
				t.Errorf("item %d: field %q is blamed, want %q", i, got, items[i].field)
			}
		}
		good := answer.GetResults()[len(items)-1]
		if got := r.job(good.GetId()); string(got.GetPayload().GetData()) != "good" || got.GetLabels()["k"] != "v" {
			t.Errorf("the last job was stored as %v", got)
		}
		if got := answer.GetResults()[1].GetId(); got != "a�b" {
			t.Errorf("the bad id is quoted as %q", got)
		}
		if err := stream.Send(&stintv1.SubmitRequest{Jobs: []*stintv1.JobSpec{{Queue: "q"}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Error("the stream does not go on:", err)
		}
	})
}

// TestSubmitAfterEnd: a repeat of a finished job is answered with its end and never run again.
func TestSubmitAfterEnd(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		spec := &stintv1.JobSpec{Id: newID(), Queue: "q"}
		r.submit(spec)
		r.succeed(r.claim("q"))
		got := r.submit(spec)[0]
		if got.GetStatus() != stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING || got.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED {
			t.Errorf("answered %v, want EXISTING, SUCCEEDED", got)
		}
	})
}
