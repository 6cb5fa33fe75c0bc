package server

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// wireEvent is the event as protobuf has it.
func wireEvent(k cursors, next store.Cursor, e *event.Event) *stintv1.Event {
	m := &stintv1.Event{
		Cursor: k.write(next), Time: timestamppb.New(e.Time), Kind: stintv1.EventKind(e.Kind), Queue: e.Queue,
		JobState: stintv1.JobState(e.State), Run: e.Run, RunState: stintv1.RunState(e.RunState), Worker: e.Worker,
		Level: stintv1.InterruptLevel(e.Level), Source: stintv1.InterruptSource(e.Source),
		Reason: e.Reason, Requester: e.Who, Limit: e.Limit, Key: e.Key, Until: wireTime(e.Until),
	}
	if e.Job != (job.ID{}) {
		m.JobId = e.Job.String()
	}
	if e.Instance != (job.ID{}) {
		m.InstanceId = e.Instance.String()
	}
	return m
}

// TestEventEncoder: what is sent of events is what protobuf would send of them, one behind the other and of any size.
func TestEventEncoder(t *testing.T) {
	k := newCursors([32]byte{1})
	said := saidFields{}
	rapid.Check(t, func(t *rapid.T) {
		x := &eventEncoder{cursors: k}
		want := &stintv1.WatchEventsResponse{}
		var sent []byte
		for range rapid.IntRange(1, 10).Draw(t, "events") {
			e, next := drawEvent(t), store.Cursor{Batch: rapid.Uint64().Draw(t, "batch"), Index: rapid.Uint32().Draw(t, "index")}
			m := wireEvent(k, next, &e)
			said.see(m)
			want.Events = append(want.Events, m)
			sent = x.append(sent, next, &e)
		}
		checkSent(t, encoded{parts: [][]byte{sent}}, want, &stintv1.WatchEventsResponse{})
	})
	said.check(t, &stintv1.Event{})
}

func drawEvent(t *rapid.T) event.Event {
	name := rapid.SampledFrom([]string{"", "a", "queue", "ü", string(make([]byte, 200))})
	number := rapid.Uint8Range(0, 3)
	at := func(label string) time.Time {
		return time.Unix(rapid.Int64Range(-5, 1<<33).Draw(t, label), rapid.Int64Range(0, 2).Draw(t, label)).UTC()
	}
	e := event.Event{
		Shape: event.Shape{
			Kind: event.Kind(number.Draw(t, "kind")), Queue: name.Draw(t, "queue"), State: job.State(number.Draw(t, "state")),
			Run: uint32(rapid.SampledFrom([]int{0, 1, 300}).Draw(t, "run")), RunState: job.RunState(number.Draw(t, "run state")),
			Worker: name.Draw(t, "worker"), Level: job.Level(number.Draw(t, "level")), Source: job.Source(number.Draw(t, "source")),
			Limit: name.Draw(t, "limit"), Key: name.Draw(t, "key"),
		},
		Time: at("time"), Reason: name.Draw(t, "reason"), Who: name.Draw(t, "who"),
	}
	e.Job[0], e.Instance[3] = number.Draw(t, "job"), number.Draw(t, "instance")
	if rapid.Bool().Draw(t, "until") {
		e.Until = at("until")
	}
	return e
}

// TestInvalidEventText: text that is not UTF-8 does not make a message unreadable.
func TestInvalidEventText(t *testing.T) {
	x := &eventEncoder{cursors: newCursors([32]byte{1})}
	sent := x.append(nil, store.Cursor{}, &event.Event{Shape: event.Shape{Worker: "a\xffb"}, Time: time.Unix(1, 0), Reason: "\xc3"})
	var got stintv1.WatchEventsResponse
	if err := proto.Unmarshal(sent, &got); err != nil {
		t.Fatal(err)
	}
	if e := got.GetEvents()[0]; e.GetWorker() != "a�b" || e.GetReason() != "�" {
		t.Errorf("got %q and %q", e.GetWorker(), e.GetReason())
	}
}

// TestCursor: a cursor says where it is, and what is none is refused.
func TestCursor(t *testing.T) {
	k, other := newCursors([32]byte{1}), newCursors([32]byte{2})
	rapid.Check(t, func(t *rapid.T) {
		want := store.Cursor{Batch: rapid.Uint64().Draw(t, "batch"), Index: rapid.Uint32().Draw(t, "index")}
		text := k.write(want)
		if got, known, err := k.read(text); got != want || !known || err != nil {
			t.Fatalf("%q is %v, known %t, %v", text, got, known, err)
		}
		if _, known, err := other.read(text); known || err != nil {
			t.Fatalf("another store: known %t, %v", known, err)
		}
		cut := text[:rapid.IntRange(0, len(text)-1).Draw(t, "cut")]
		if _, _, err := k.read(cut); err == nil {
			t.Fatalf("%q is taken for a cursor", cut)
		}
		if _, _, err := k.read(text + "AAAA"); err == nil {
			t.Fatal("more than a cursor is taken for one")
		}
	})
}
