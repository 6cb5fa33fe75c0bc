package server_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestSessionLife is a worker's whole life: a slot that a finish frees goes to the next job at once, and what is said
// twice is answered by what the first one did.
func TestSessionLife(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 2))
		w.step("submit a, b, c", func() { r.add("q", "a", "b", "c") })
		w.say(seen(2))
		w.say(report(r.tokens("a/1", "b/1")...))
		w.say(finish(success(r.token("a/1")), failure(r.token("b/1"))))
		w.say(finish(success(r.token("a/1")), success(r.token("b/1"))))
		w.say(finish(released(r.token("c/1")), success("never assigned")))
		w.pass(2 * time.Second)
		w.say(finish(success(r.token("c/1"))))
		w.say(&stintv1.WorkRequest{Seen: 5, Report: &stintv1.Report{Held: r.tokens("b/2", "c/2")}})
		w.say(&stintv1.WorkRequest{Demand: &stintv1.Demand{Version: 2}, Drain: &stintv1.Drain{}})
		w.step("submit d", func() { r.add("q", "d") })
		w.say(finish(success(r.token("b/2")), success(r.token("c/2"))))
		w.step("close", func() { w.close() })
		w.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, demand 1 q×2
			< demand 1
			- submit a, b, c
			< report 0, next in ~3s
			< assignment 1: a/1 of q in pool 0
			< assignment 2: b/1 of q in pool 0
			> 3, seen 2
			> 4, report a/1 b/1
			< report 4; a/1 CONTINUE 30s; b/1 CONTINUE 30s, next in ~3s
			> 5, finish a/1 success, finish b/1 failure
			< ack a/1 RECORDED, job SUCCEEDED, recorded 5
			< ack b/1 RECORDED, job BACKOFF, recorded 5
			< assignment 3: c/1 of q in pool 0
			> 6, finish a/1 success, finish b/1 success
			< ack a/1 DUPLICATE, job SUCCEEDED, recorded 6
			< ack b/1 CONFLICT, job BACKOFF, recorded 6
			> 7, finish c/1 released, finish never assigned success
			< ack c/1 RECORDED, job SCHEDULED, recorded 7
			< ack never assigned UNKNOWN, [1] TOKEN_UNKNOWN lease_token, recorded 7
			- 2s pass
			< assignment 4: b/2 of q in pool 0
			< assignment 5: c/2 of q in pool 0
			> 8, finish c/1 success
			< ack c/1 CONFLICT, job RUNNING, recorded 8
			> 9, seen 5, report b/2 c/2
			< report 9; b/2 CONTINUE 30s; c/2 CONTINUE 30s, next in ~3s
			> 10, demand 2, drain
			< demand 2
			< drained
			- submit d
			> 11, finish b/2 success, finish c/2 success
			< ack b/2 RECORDED, job SUCCEEDED, recorded 11
			< ack c/2 RECORDED, job SUCCEEDED, recorded 11
			- close
			< end OK`)
	})
}

// TestSessionOrder: hello comes first, once, within ten seconds. What comes in its place ends the stream.
func TestSessionOrder(t *testing.T) {
	t.Run("something else first", func(t *testing.T) {
		inBubble(t, rigConfig{}, func(r *rig) {
			w := r.work()
			w.say(demand(1, "q", 1))
			w.expect(`
				> 1, demand 1 q×1
				< end SESSION_ORDER, FailedPrecondition`)
		})
	})
	t.Run("nothing", func(t *testing.T) {
		inBubble(t, rigConfig{}, func(r *rig) {
			w := r.work()
			w.pass(10*time.Second - 1)
			w.pass(1)
			w.expect(`
				- 9.999999999s pass
				- 1ns pass
				< end SESSION_ORDER, FailedPrecondition`)
		})
	})
	t.Run("the end", func(t *testing.T) {
		inBubble(t, rigConfig{}, func(r *rig) {
			w := r.work()
			w.step("close", func() { w.close() })
			w.expect(`
				- close
				< end SESSION_ORDER, FailedPrecondition`)
		})
	})
	t.Run("hello twice", func(t *testing.T) {
		inBubble(t, rigConfig{}, func(r *rig) {
			r.add("q", "a")
			w := r.work()
			instance := newInstance()
			w.say(hello(instance))
			again := hello(instance)
			again.Demand = demand(1, "q", 1).GetDemand()
			w.say(again)
			w.expect(`
				> 1, hello
				< welcome, report in ~15s
				> 2, hello, demand 1 q×1
				< refused 2 hello[0]: SESSION_ORDER
				< report 0, next in ~3s
				< assignment 1: a/1 of q in pool 0
				< demand 1`)
		})
	})
}

// TestSessionFirstMessage: what comes with hello counts like what comes after it.
func TestSessionFirstMessage(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		first := hello(newInstance(), "x")
		first.Demand = demand(7, "q", 1).GetDemand()
		first.Finishes = []*stintv1.Finish{success("y")}
		first.Report = &stintv1.Report{}
		w := r.work()
		w.say(first)
		w.expect(`
			> 1, hello x, demand 7 q×1, finish y success, report
			< welcome; x STOP UNKNOWN, report in ~15s
			< ack y UNKNOWN, [0] TOKEN_UNKNOWN lease_token, recorded 1
			< report 1, next in ~3s
			< assignment 1: a/1 of q in pool 0
			< demand 7`)
		if first := w.all[0]; first.GetWelcome() == nil {
			t.Errorf("the first message is no welcome: %v", first)
		}
	})
}

// TestSessionInstanceInUse: a live session is only taken over by who has its resume token.
func TestSessionInstanceInUse(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		instance := newInstance()
		old := r.work()
		old.say(hello(instance))
		old.say(demand(1, "q", 1))
		other := r.work()
		other.say(hello(instance))
		other.expect(`
			> 1, hello
			< end INSTANCE_IN_USE, AlreadyExists, hello.instance_id`)

		r.add("q", "a")
		old.say(seen(1))
		newer := r.work()
		again := hello(instance, r.token("a/1"))
		again.Hello.ResumeToken = old.resume
		newer.say(again)
		newer.say(finish(success(r.token("a/1"))))
		newer.expect(`
			> 1, hello a/1
			< welcome; a/1 CONTINUE 30s, report in ~3s
			> 2, finish a/1 success
			< ack a/1 RECORDED, job SUCCEEDED, recorded 2`)
		old.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, demand 1 q×1
			< demand 1
			< report 0, next in ~3s
			< assignment 1: a/1 of q in pool 0
			> 3, seen 1
			< end SESSION_REPLACED, Aborted`)
	})
}

// TestSessionWelcomeLost: a worker whose welcome was lost has no resume token. As long as it has said nothing after
// its hello, or nothing for two cadences, it may come again without one.
func TestSessionWelcomeLost(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		instance := newInstance()
		first, second, third := r.work(), r.work(), r.work()
		withDemand := hello(instance)
		withDemand.Demand = demand(1, "q", 1).GetDemand()
		first.say(withDemand)
		second.say(hello(instance))
		first.expect(`
			> 1, hello, demand 1 q×1
			< welcome, report in ~15s
			< demand 1
			< end SESSION_REPLACED, Aborted`)
		second.say(report())
		third.say(hello(instance))
		third.expect(`
			> 1, hello
			< end INSTANCE_IN_USE, AlreadyExists, hello.instance_id`)
		second.pass(30 * time.Second)
		fourth := r.work()
		fourth.say(hello(instance))
		fourth.expect(`
			> 1, hello
			< welcome, report in ~15s`)
		second.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, report
			< report 2, next in ~15s
			- 30s pass
			< end SESSION_REPLACED, Aborted`)
	})
}

// TestSessionReconnect: a worker whose stream broke lists what it holds, and keeps it. What it does not list is lost.
func TestSessionReconnect(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		instance := newInstance()
		w := r.work()
		w.say(hello(instance))
		w.say(demand(1, "q", 3))
		r.add("q", "a", "b", "c")
		w.say(seen(3))
		w.say(finish(success(r.token("c/1"))))
		w.step("break", func() { w.cancel() })
		w.skip()

		again := r.work()
		m := hello(instance, r.tokens("a/1", "c/1")...)
		m.Hello.ResumeToken = w.resume
		again.say(m)
		again.say(finish(success(r.token("c/1"))))
		again.say(report(r.token("a/1")))
		again.expect(`
			> 1, hello a/1 c/1
			< welcome; a/1 CONTINUE 30s; c/1 FINISHED, report in ~3s
			> 2, finish c/1 success
			< ack c/1 DUPLICATE, job SUCCEEDED, recorded 2
			> 3, report a/1
			< report 3; a/1 CONTINUE 30s, next in ~3s`)
		b := r.job(r.id("b"))
		if b.GetState() != stintv1.JobState_JOB_STATE_BACKOFF || b.GetCounters().GetCrashes() != 1 {
			t.Errorf("b, which was not listed, is %s with %v", b.GetState(), b.GetCounters())
		}
		if got := b.GetHistory()[0].GetState(); got != stintv1.RunState_RUN_STATE_LOST {
			t.Errorf("its run is %s, want LOST", got)
		}
	})
}

// TestSessionGone: when a stream breaks, what it had not acknowledged goes to somebody else within seconds, what it had
// lives by its lease, and its worker is no longer connected.
func TestSessionGone(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 2))
		r.add("q", "a")
		w.say(seen(1))
		r.add("q", "b")
		w.step("break", func() { w.cancel() })
		listed, err := r.workers.ListWorkers(r.ctx, &stintv1.ListWorkersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got := listed.GetWorkers()[0]; got.GetConnected() || got.GetRuns() != 2 {
			t.Errorf("the worker is listed as %v", got)
		}
		v := r.work()
		v.say(hello(newInstance()))
		v.say(demand(1, "q", 2))
		v.pass(5*time.Second - 1)
		v.pass(1)
		v.say(finish(success(r.token("b/2")), success(r.token("a/1"))))
		v.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, demand 1 q×2
			< demand 1
			- 4.999999999s pass
			- 1ns pass
			< report 0, next in ~3s
			< assignment 1: b/2 of q in pool 0
			> 3, finish b/2 success, finish a/1 success
			< ack b/2 RECORDED, job SUCCEEDED, recorded 3
			< ack a/1 RECORDED, job SUCCEEDED, recorded 3`)
	})
}

// TestSessionMissing: a report is complete over what was seen, and says nothing of what was not.
func TestSessionMissing(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 3))
		r.add("q", "a", "b", "c")
		w.say(&stintv1.WorkRequest{Seen: 2, Report: &stintv1.Report{Held: r.tokens("a/1")}})
		w.say(&stintv1.WorkRequest{Seen: 3, Report: &stintv1.Report{Held: r.tokens("a/1", "b/1", "c/1")}})
		w.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, demand 1 q×3
			< demand 1
			< report 0, next in ~3s
			< assignment 1: a/1 of q in pool 0
			< assignment 2: b/1 of q in pool 0
			< assignment 3: c/1 of q in pool 0
			> 3, seen 2, report a/1
			< report 3; a/1 CONTINUE 30s, next in ~3s
			< told b/1 STOP LOST
			> 4, seen 3, report a/1 b/1 c/1
			< report 4; a/1 CONTINUE 30s; b/1 STOP LOST; c/1 CONTINUE 30s, next in ~3s`)
	})
}

// TestSessionTimes: a stream on which an assignment is not acknowledged, or nothing is said, is ended; the job goes to
// somebody else at no cost but a delivery.
func TestSessionTimes(t *testing.T) {
	t.Run("not acknowledged", func(t *testing.T) {
		inBubble(t, rigConfig{}, func(r *rig) {
			w := r.work()
			w.say(hello(newInstance()))
			w.say(demand(1, "q", 1))
			w.step("submit a", func() { r.add("q", "a") })
			w.pass(10*time.Second - 1)
			w.pass(1)
			w.expect(`
				> 1, hello
				< welcome, report in ~15s
				> 2, demand 1 q×1
				< demand 1
				- submit a
				< report 0, next in ~3s
				< assignment 1: a/1 of q in pool 0
				- 9.999999999s pass
				- 1ns pass
				< end DELIVERY_TIMEOUT, Aborted`)
			got := r.job(r.id("a"))
			if got.GetState() != stintv1.JobState_JOB_STATE_READY || got.GetCounters().GetDeliveries() != 1 {
				t.Errorf("the job is %s with %v, want READY and one delivery", got.GetState(), got.GetCounters())
			}
		})
	})
	t.Run("silent", func(t *testing.T) {
		inBubble(t, rigConfig{}, func(r *rig) {
			w := r.work()
			w.say(hello(newInstance()))
			w.pass(29 * time.Second)
			w.say(report())
			w.pass(30 * time.Second)
			w.pass(time.Second)
			w.expect(`
				> 1, hello
				< welcome, report in ~15s
				- 29s pass
				> 2, report
				< report 2, next in ~15s
				- 30s pass
				- 1s pass
				< end SESSION_SILENT, Aborted`)
		})
	})
	t.Run("cadence", func(t *testing.T) {
		inBubble(t, rigConfig{}, func(r *rig) {
			w := r.work()
			m := hello(newInstance())
			m.Hello.MaxSilence = durationpb.New(time.Millisecond)
			w.say(m)
			w.say(demand(1, "q", 1))
			w.step("submit a", func() { r.addSpec("a", &stintv1.JobSpec{Queue: "q"}) })
			v := r.work()
			v.say(hello(newInstance()))
			v.say(demand(1, "short", 1))
			v.step("submit b", func() { r.addSpec("b", &stintv1.JobSpec{Queue: "short", Lease: durationpb.New(6 * time.Second)}) })
			v.say(&stintv1.WorkRequest{Seen: 1, Report: &stintv1.Report{Held: r.tokens("b/1")}})
			w.expect(`
				> 1, hello
				< welcome, report in ~1s
				> 2, demand 1 q×1
				< demand 1
				- submit a
				< assignment 1: a/1 of q in pool 0`)
			v.expect(`
				> 1, hello
				< welcome, report in ~15s
				> 2, demand 1 short×1
				< demand 1
				- submit b
				< report 0, next in 2s
				< assignment 1: b/1 of short in pool 0
				> 3, seen 1, report b/1
				< report 3; b/1 CONTINUE 6s, next in 2s`)
		})
	})
}
