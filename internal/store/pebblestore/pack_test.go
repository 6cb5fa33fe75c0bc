package pebblestore

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
)

// drawEvent draws an event that resembles the one before in some parts.
func drawEvent(t *rapid.T, last event.Event) event.Event {
	name := rapid.SampledFrom([]string{"", "a", "queue", "ü"})
	number := rapid.Uint8Range(0, 3)
	e := event.Event{
		Shape: event.Shape{
			Kind: event.Kind(rapid.Uint8().Draw(t, "kind")), Queue: name.Draw(t, "queue"), State: job.State(number.Draw(t, "state")),
			Run: uint32(number.Draw(t, "run")), RunState: job.RunState(number.Draw(t, "runState")), Worker: name.Draw(t, "worker"),
			Level: job.Level(number.Draw(t, "level")), Source: job.Source(number.Draw(t, "source")),
			Limit: name.Draw(t, "limit"), Key: name.Draw(t, "key"),
		},
		Reason: name.Draw(t, "reason"), Who: name.Draw(t, "who"),
		Time: time.Unix(0, rapid.Int64Range(-5, 1<<60).Draw(t, "time")).UTC(),
	}
	e.Instance[3] = number.Draw(t, "instance")
	if rapid.Bool().Draw(t, "until") {
		e.Until = e.Time.Add(time.Duration(rapid.Int32().Draw(t, "later")))
	}
	if e.Job[0] = number.Draw(t, "job"); e.Job != (job.ID{}) {
		e.Labels = rapid.SampledFrom([][]uint64{nil, {7}, {1, 1 << 63}}).Draw(t, "labels")
	}
	if rapid.Bool().Draw(t, "as before") {
		e.Kind, e.Time, e.Queue, e.Job = last.Kind, last.Time, last.Queue, last.Job
		if e.Labels = last.Labels; e.Job != (job.ID{}) && rapid.Bool().Draw(t, "others") {
			e.Labels = []uint64{9}
		}
	}
	return e
}

// TestPack: what is packed comes out again, in records of any number of events.
func TestPack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p packer
		for range rapid.IntRange(1, 3).Draw(t, "records") {
			var want, got []event.Event
			last := event.Event{Time: time.Unix(0, 7).UTC()}
			for range rapid.IntRange(1, 20).Draw(t, "events") {
				last = drawEvent(t, last)
				want = append(want, last)
				p.add(&last)
			}
			u, err := unpack(p.b)
			if err != nil {
				t.Fatal(err)
			}
			for e, ok := u.next(); ok; e, ok = u.next() {
				got = append(got, *e)
			}
			if diff := cmp.Diff(want, got); diff != "" || u.bad {
				t.Fatalf("bad %t: %s", u.bad, diff)
			}
			p.reset()
		}
	})
}

// FuzzUnpack: no bytes make the reader panic or loop, and what it reads can be packed and read again.
func FuzzUnpack(f *testing.F) {
	var p packer
	now := time.Unix(1_700_000_000, 5)
	p.add(&event.Event{Shape: event.Shape{Kind: event.JobSubmitted, Queue: "q"}, Time: now, Job: job.ID{1}, Labels: []uint64{1, 2}})
	p.add(&event.Event{Shape: event.Shape{Kind: event.RunEnded, Queue: "q", Worker: "w", Instance: job.ID{2}}, Time: now, Job: job.ID{1}, Labels: []uint64{1, 2}, Reason: "r"})
	p.add(&event.Event{Shape: event.Shape{Kind: event.GateClosed, Limit: "l", Key: "k"}, Time: now, Until: now, Who: "ops"})
	f.Add(p.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := unpack(b)
		if err != nil {
			return
		}
		var again packer
		n := 0
		for e, ok := u.next(); ok; e, ok = u.next() {
			again.add(e)
			n++
		}
		if n == 0 {
			return
		}
		v, err := unpack(again.b)
		if err != nil {
			t.Fatal(err)
		}
		for _, ok := v.next(); ok; _, ok = v.next() {
			n--
		}
		if v.bad || n != 0 {
			t.Fatalf("its own record is refused, or short by %d", n)
		}
	})
}
