package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// after is a time so many seconds after noon.
func after(seconds int) *timestamppb.Timestamp {
	return timestamppb.New(noon.Add(time.Duration(seconds) * time.Second))
}

// hostile is text that would move a terminal's cursor.
const hostile = "\x1b[2J\r\n\ta"

// All that people may have put into a job is shown, and none of it as control characters.
func TestDrawJob(t *testing.T) {
	failure := &stintv1.Failure{
		Class: stintv1.FailureClass_FAILURE_CLASS_APPLICATION, Type: "exit" + hostile, Message: "exit status 3" + hostile,
		Causes:  []*stintv1.FailureCause{{Type: "io" + hostile, Message: "broken" + hostile}},
		Stack:   []*stintv1.StackFrame{{Function: "main" + hostile, File: "main.go" + hostile, Line: 7}},
		Process: &stintv1.ProcessExit{ExitCode: 3, StderrTail: "first\n\tsecond\x1b[31m\n"},
	}
	ofRun := &stintv1.Interrupt{
		Level: stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL, Source: stintv1.InterruptSource_INTERRUPT_SOURCE_DRAIN, Requester: hostile,
		RequestTime: after(12), DeliverTime: after(13), AcknowledgeTime: after(14), EndTime: after(20),
		End: stintv1.InterruptEnd_INTERRUPT_END_FAILED,
	}
	job := &stintv1.Job{
		Id: someID, Queue: "media/video", State: stintv1.JobState_JOB_STATE_PARKED, ParkReason: stintv1.ParkReason_PARK_REASON_CRASHES,
		Priority: stintv1.Priority_PRIORITY_HIGH, Subject: "order" + hostile, Labels: map[string]string{"b": hostile, "a": "1"},
		SubmitTime: after(0), DueTime: after(1), StartBy: after(3600), EndTime: after(40), Epoch: 2, RunCount: 5,
		Counters: &stintv1.JobCounters{Attempts: 2, Deliveries: 1},
		Policy:   &stintv1.JobPolicy{Lease: durationpb.New(30 * time.Second), Retry: &stintv1.RetryPolicy{MaxAttempts: 3}},
		Interrupt: &stintv1.Interrupt{
			Level: stintv1.InterruptLevel_INTERRUPT_LEVEL_RETRY, Source: stintv1.InterruptSource_INTERRUPT_SOURCE_USER,
			Requester: "eve" + hostile, Reason: "why" + hostile, RequestTime: after(2), GraceTime: after(12), HardDeadlineTime: after(62),
		},
		Timeout: durationpb.New(90 * time.Second),
		Actions: []*stintv1.Action{
			{Kind: stintv1.ActionKind_ACTION_KIND_INTERRUPT_RETRY, Requester: "eve" + hostile, Reason: "why" + hostile, Time: after(2)},
			{Kind: stintv1.ActionKind_ACTION_KIND_PARK, Time: after(3)},
		},
		Payload:      &stintv1.Payload{Content: &stintv1.Payload_Data{Data: []byte("in" + hostile)}, ContentType: "text/plain" + hostile},
		Result:       &stintv1.Payload{Content: &stintv1.Payload_Data{Data: []byte{0xff, 0}}},
		TraceContext: &stintv1.TraceContext{Traceparent: "00-1-2-01"},
		History: []*stintv1.Run{
			{Number: 1, Fence: 11, State: stintv1.RunState_RUN_STATE_FAILED, Worker: "w" + hostile, DispatchTime: after(0), AcceptTime: after(10), EndTime: after(20), Failure: failure, Interrupt: ofRun},
			{Number: 4, Fence: 17, State: stintv1.RunState_RUN_STATE_UNDELIVERED, DispatchTime: after(20), EndTime: after(30), Note: "not acknowledged" + hostile},
			{Number: 5, Fence: 18, State: stintv1.RunState_RUN_STATE_LOST, Worker: "w", DispatchTime: after(30), AcceptTime: after(30), EndTime: after(40), Interrupt: ofRun},
		},
	}
	want := `Job        018f4e7a-1c2d-4000-8000-000000000001
Queue      media/video
State      PARKED (CRASHES)
Priority   HIGH
Subject    order·[2J···a
Labels     a=1 b=·[2J···a
Submitted  2026-11-24T12:00:00.000Z
Due        2026-11-24T12:00:01.000Z
Start by   2026-11-24T13:00:00.000Z
Timeout    1m30s
Ended      2026-11-24T12:00:40.000Z
Epoch      2
Counters   attempts 2, deliveries 1
Policy     lease 30s, retry attempts=3
Interrupt  RETRY by USER eve·[2J···a at 2026-11-24T12:00:02.000Z: why·[2J···a
           grace 10s, hard deadline 1m0s
Trace      00-1-2-01
Payload    10 bytes, text/plain·[2J···a: in·[2J···a
Result     2 bytes

Runs (5)
  RUN  FENCE  STATE   WORKER     HANDED OUT                TOOK  FROM SUBMIT TO END
  1    11     FAILED  w·[2J···a  2026-11-24T12:00:00.000Z  20s   |..........##########                    |
  … 2 runs are not kept
  4  17  UNDELIVERED  -  2026-11-24T12:00:20.000Z  10s  |                    ..........          |
  5  18  LOST         w  2026-11-24T12:00:30.000Z  10s  |                              ##########|

Run 1: APPLICATION failure, exit·[2J···a: exit status 3·[2J···a
  caused by io·[2J···a: broken·[2J···a
  at main·[2J···a (main.go·[2J···a:7)
  interrupted: CANCEL by DRAIN ·[2J···a
  delivered after 1s, acknowledged after 2s, FAILED after 8s
  |     first
  |     second·[31m

Run 4: not acknowledged·[2J···a

Run 5: LOST
  interrupted: CANCEL by DRAIN ·[2J···a
  delivered after 1s, acknowledged after 2s, FAILED after 8s

Actions
  WHEN                      WHAT             WHO          WHY
  2026-11-24T12:00:02.000Z  INTERRUPT_RETRY  eve·[2J···a  why·[2J···a
  2026-11-24T12:00:03.000Z  PARK             -            -
`
	want = strings.Replace(want, "  |     first\n", "  | first\n", 1)
	var got bytes.Buffer
	w := newTable(&got)
	drawJob(w, job, noon.Add(time.Hour))
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A job that nothing happened to yet shows what there is, without empty lines and headings.
func TestDrawFreshJob(t *testing.T) {
	var got bytes.Buffer
	w := newTable(&got)
	drawJob(w, &stintv1.Job{
		Id: someID, Queue: "q", State: stintv1.JobState_JOB_STATE_READY, Priority: stintv1.Priority_PRIORITY_NORMAL,
		SubmitTime: after(0), Epoch: 1, Counters: &stintv1.JobCounters{}, Interrupt: &stintv1.Interrupt{},
	}, noon)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	want := `Job        018f4e7a-1c2d-4000-8000-000000000001
Queue      q
State      READY
Priority   NORMAL
Submitted  2026-11-24T12:00:00.000Z
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A bar begins and ends where its run does, is one column wide at least, and never leaves its frame.
func TestWaterfall(t *testing.T) {
	for _, test := range []struct {
		name string
		run  *stintv1.Run
		to   int
		want string
	}{
		{"the whole time", &stintv1.Run{DispatchTime: after(0), AcceptTime: after(0), EndTime: after(40)}, 40, strings.Repeat("#", 40)},
		{"accepted late", &stintv1.Run{DispatchTime: after(10), AcceptTime: after(12), EndTime: after(14)}, 40, strings.Repeat(" ", 10) + "..##"},
		{"never accepted", &stintv1.Run{DispatchTime: after(0), EndTime: after(4)}, 40, "...."},
		{"still running", &stintv1.Run{DispatchTime: after(30), AcceptTime: after(30)}, 40, strings.Repeat(" ", 30) + strings.Repeat("#", 10)},
		{"at once over", &stintv1.Run{DispatchTime: after(20), AcceptTime: after(20), EndTime: after(20)}, 40, strings.Repeat(" ", 20) + "#"},
		{"at the very end", &stintv1.Run{DispatchTime: after(40), AcceptTime: after(40), EndTime: after(40)}, 40, strings.Repeat(" ", 39) + "#"},
		{"after the end, by another clock", &stintv1.Run{DispatchTime: after(50), AcceptTime: after(55), EndTime: after(60)}, 40, strings.Repeat(" ", 39) + "#"},
		{"before the submit, by another clock", &stintv1.Run{DispatchTime: after(-9), AcceptTime: after(-5), EndTime: after(-1)}, 40, "#"},
		{"no time at all", &stintv1.Run{DispatchTime: after(0), AcceptTime: after(0), EndTime: after(0)}, 0, strings.Repeat(".", 39) + "#"},
	} {
		got := waterfall(test.run, noon, noon.Add(time.Duration(test.to)*time.Second))
		want := "|" + test.want + strings.Repeat(" ", 40-len(test.want)) + "|"
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, want)
		}
	}
}

func TestPayloadText(t *testing.T) {
	data := func(s, contentType string) *stintv1.Payload {
		return &stintv1.Payload{Content: &stintv1.Payload_Data{Data: []byte(s)}, ContentType: contentType}
	}
	for _, test := range []struct {
		payload *stintv1.Payload
		want    string
	}{
		{nil, ""},
		{data("", ""), "0 bytes"},
		{data("HELLO\n", "text/plain"), "6 bytes, text/plain: HELLO"},
		{&stintv1.Payload{Content: &stintv1.Payload_Text{Text: "hello"}}, "5 bytes: hello"},
		{data("\xff\xfe", "image/png"), "2 bytes, image/png"},
		{data(strings.Repeat("x", 400), ""), "400 bytes: " + strings.Repeat("x", 400)},
		{data(strings.Repeat("x", 401), ""), "401 bytes: " + strings.Repeat("x", 400) + "…"},
		{data(strings.Repeat("x", 399)+"é", ""), "401 bytes: " + strings.Repeat("x", 399) + "…"},
	} {
		if got := payloadText(test.payload); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestPolicyText(t *testing.T) {
	curve := func(e *stintv1.ExponentialBackoff) *stintv1.RetryPolicy {
		return &stintv1.RetryPolicy{Backoff: &stintv1.RetryPolicy_Exponential{Exponential: e}}
	}
	for _, test := range []struct {
		policy *stintv1.QueuePolicy
		want   string
	}{
		{nil, ""},
		{&stintv1.QueuePolicy{}, ""},
		{&stintv1.QueuePolicy{Lease: durationpb.New(90 * time.Second)}, "lease 1m30s"},
		{&stintv1.QueuePolicy{Retry: &stintv1.RetryPolicy{MaxAttempts: 3}}, "retry attempts=3"},
		{&stintv1.QueuePolicy{LostContact: stintv1.LostContact_LOST_CONTACT_CONTINUE}, "on lost contact continue"},
		{&stintv1.QueuePolicy{MaxRunning: 3, OnZombie: stintv1.OnZombie_ON_ZOMBIE_RELEASE}, "at most 3 running, on zombie release"},
		{&stintv1.QueuePolicy{Retry: curve(&stintv1.ExponentialBackoff{Initial: durationpb.New(0)})}, "retry exponential:0s"},
		{
			&stintv1.QueuePolicy{Retry: curve(&stintv1.ExponentialBackoff{
				Initial: durationpb.New(time.Second), Multiplier: 1.5, Max: durationpb.New(time.Hour),
			})},
			"retry exponential:1sx1.5..1h",
		},
	} {
		if got := policyText(test.policy); got != test.want {
			t.Errorf("%v: got %q, want %q", test.policy, got, test.want)
		}
	}
}

func TestProgressLine(t *testing.T) {
	for _, test := range []struct {
		p    *progress
		took time.Duration
		want string
	}{
		{&progress{}, 0, "0 jobs  0/s"},
		{&progress{count: 500}, 2 * time.Second, "500 jobs  250/s"},
		{&progress{count: 5, size: 200, bytes: 100}, time.Second, "[===============               ]  50%  5 jobs  5/s"},
		{&progress{count: 5, size: 200, bytes: 999}, time.Second, "[==============================] 100%  5 jobs  5/s"},
	} {
		if got := test.p.line(test.took); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
