package server

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

var (
	drawName   = rapid.SampledFrom([]string{"", "a", "queue", "ü", string(make([]byte, 200))})
	drawNumber = rapid.SampledFrom([]uint32{0, 1, 2, 300, 1 << 31})
	drawSpan   = rapid.SampledFrom([]time.Duration{0, 1, time.Second, 90 * time.Minute, 1500 * time.Millisecond})
)

func drawSlice[T any](t *rapid.T, label string, draw func(int) T) (all []T) {
	for i := range rapid.IntRange(0, 3).Draw(t, label) {
		all = append(all, draw(i))
	}
	return all
}

func drawAssignment(t *rapid.T) dispatch.Assignment {
	number := func(label string) uint32 { return drawNumber.Draw(t, label) }
	name := func(label string) string { return drawName.Draw(t, label) }
	spec := &job.Spec{
		Queue: name("queue"), Priority: job.Priority(rapid.Uint8Range(0, 5).Draw(t, "priority")),
		Payload: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload"), ContentType: name("content type"),
		Timeout: drawSpan.Draw(t, "timeout"), FairnessKey: name("fairness key"), Subject: name("subject"),
		Traceparent: name("traceparent"), Tracestate: name("tracestate"), Labels: map[string]string{},
		Limits: drawSlice(t, "limits", func(int) job.LimitUse {
			return job.LimitUse{Limit: name("limit"), Key: name("key"), Units: number("units")}
		}),
	}
	spec.PayloadSize = len(spec.Payload)
	spec.ID[5] = byte(number("id"))
	for range rapid.IntRange(0, 3).Draw(t, "labels") {
		spec.Labels[name("label")] = name("value")
	}
	j := &job.Job{Spec: spec, SubmitTime: time.Unix(int64(number("seconds")), int64(number("nanos"))%1e9).UTC()}
	j.Run.Number, j.Run.Fence, j.Run.Lease = number("run"), uint64(number("fence")), drawSpan.Draw(t, "lease")
	if rapid.Bool().Draw(t, "updated") {
		j.Run.Kept = &job.Kept{Timeout: drawSpan.Draw(t, "kept timeout")}
	}
	j.Run.LostContact = job.LostContact(rapid.Uint8Range(0, 2).Draw(t, "lost contact"))
	j.Counters = job.Counters{
		Attempts: number("attempts"), Crashes: number("crashes"), Interrupts: number("interrupts"),
		Snoozes: number("snoozes"), Deliveries: number("deliveries"),
	}
	return dispatch.Assignment{Number: uint64(number("number")), Token: name("token"), Job: j, Pool: int(number("pool"))}
}

// checkSent compares what was encoded with what protobuf makes of the message.
func checkSent(t *rapid.T, sent encoded, want, got proto.Message) {
	t.Helper()
	data, err := newCodec().Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(data.Materialize(), got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Fatal(diff)
	}
	if n := proto.Size(want); n != data.Len() {
		t.Fatalf("%d bytes, not %d", data.Len(), n)
	}
}

// saidFields collects the fields that messages of a kind had.
type saidFields map[protoreflect.Name]bool

func (s saidFields) see(m proto.Message) {
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		s[f.Name()] = true
		return true
	})
}

// check demands that every field was there.
func (s saidFields) check(t *testing.T, m proto.Message) {
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if name := fields.Get(i).Name(); !s[name] {
			t.Errorf("no %s had a %s", m.ProtoReflect().Descriptor().Name(), name)
		}
	}
}

// TestEncodeWork: what a session sends is what protobuf would send.
func TestEncodeWork(t *testing.T) {
	s, assignments, acks := &Server{}, saidFields{}, saidFields{}
	rapid.Check(t, func(t *rapid.T) {
		runs := drawSlice(t, "runs", func(int) dispatch.Assignment { return drawAssignment(t) })
		items, err := s.appendAssignments(context.Background(), runs)
		if err != nil {
			t.Fatal(err)
		}
		want := &stintv1.WorkResponse{DemandVersion: 3}
		for i := range runs {
			a := wireAssignment(&runs[i], runs[i].Job.Spec.Payload)
			assignments.see(a)
			want.Assignments = append(want.Assignments, a)
		}
		want.FinishAcks = drawSlice(t, "acks", func(int) *stintv1.FinishAck {
			a := &stintv1.FinishAck{
				LeaseToken: drawName.Draw(t, "token"), Status: stintv1.FinishStatus(drawNumber.Draw(t, "status")),
				JobState: stintv1.JobState(drawNumber.Draw(t, "state")),
			}
			if rapid.IntRange(0, 9).Draw(t, "refused") == 0 {
				a.Error = &stintv1.ItemError{Reason: stintv1.Reason_REASON_INVALID_FIELD, Index: 1}
			}
			acks.see(a)
			return a
		})
		rest := &stintv1.WorkResponse{DemandVersion: 3}
		items, rest.FinishAcks = appendAcks(items, want.FinishAcks)
		checkSent(t, encoded{[][]byte{items}, rest}, want, &stintv1.WorkResponse{})
	})
	assignments.check(t, &stintv1.Assignment{})
	acks.check(t, &stintv1.FinishAck{})
}

// TestEncodeResults: what a submit answers is what protobuf would answer.
func TestEncodeResults(t *testing.T) {
	said := saidFields{}
	policies := []*stintv1.JobPolicy{
		nil, {}, wirePolicy(job.Effective(&job.Spec{}, job.Policy{})), wirePolicy(job.Effective(&job.Spec{Lease: time.Hour}, job.Policy{})),
	}
	rapid.Check(t, func(t *rapid.T) {
		want := &stintv1.SubmitResponse{Results: drawSlice(t, "results", func(int) *stintv1.SubmitResult {
			r := &stintv1.SubmitResult{
				Id: drawName.Draw(t, "id"), Status: stintv1.SubmitStatus(drawNumber.Draw(t, "status")),
				State: stintv1.JobState(drawNumber.Draw(t, "state")), Policy: rapid.SampledFrom(policies).Draw(t, "policy"),
				HolderId: drawName.Draw(t, "holder"),
			}
			if rapid.IntRange(0, 9).Draw(t, "refused") == 0 {
				r.Error = &stintv1.ItemError{Reason: stintv1.Reason_REASON_INVALID_FIELD, Index: 1}
			}
			said.see(r)
			return r
		})}
		sent, ok := encodeResults(want.GetResults()).(encoded)
		if !ok {
			sent.rest = encodeResults(want.GetResults()).(proto.Message)
		}
		checkSent(t, sent, want, &stintv1.SubmitResponse{})
	})
	said.check(t, &stintv1.SubmitResult{})
}

// TestUnreadableAnswer: texts that are not UTF-8 do not make an answer unreadable.
func TestUnreadableAnswer(t *testing.T) {
	items, rest := appendAcks(nil, []*stintv1.FinishAck{{LeaseToken: "a\xff"}})
	if len(rest) > 0 {
		t.Fatal("acknowledgements without errors were left")
	}
	refused := &stintv1.SubmitResult{Id: "a\xff", Error: &stintv1.ItemError{Message: "a\xff"}}
	var work stintv1.WorkResponse
	var plain, mixed stintv1.SubmitResponse
	for _, sent := range []struct {
		m    any
		into proto.Message
	}{
		{encoded{parts: [][]byte{items}}, &work},
		{encodeResults([]*stintv1.SubmitResult{{Id: "a\xff"}}), &plain},
		{encodeResults([]*stintv1.SubmitResult{refused}), &mixed},
	} {
		data, err := newCodec().Marshal(sent.m)
		if err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(data.Materialize(), sent.into); err != nil {
			t.Fatal(err)
		}
	}
	for _, got := range []string{
		work.GetFinishAcks()[0].GetLeaseToken(), plain.GetResults()[0].GetId(), mixed.GetResults()[0].GetError().GetMessage(),
	} {
		if got != "a\uFFFD" {
			t.Errorf("got %q", got)
		}
	}
}

// TestSizeOnTheWire: a message that is received is as large as it was sent, whether its texts are UTF-8 or not.
func TestSizeOnTheWire(t *testing.T) {
	for _, id := range []string{"a", "\xff"} {
		sent := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), id)
		in := sized{m: &stintv1.SubmitResult{}}
		if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(sent)}, &in); err != nil {
			t.Fatal(err)
		}
		if got := in.m.(*stintv1.SubmitResult).GetId(); in.size != len(sent) || got != id {
			t.Errorf("%q came as %q with %d bytes, not %d", id, got, in.size, len(sent))
		}
	}
}
