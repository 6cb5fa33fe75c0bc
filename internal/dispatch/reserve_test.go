package dispatch_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// churn ends the oldest of the runs every ten seconds, with plenty of small jobs waiting, until one of the wanted jobs has
// started, and returns its run and how long that took.
func (r *rig) churn(s *stream, held []dispatch.Assignment, wanted ...uint64) (dispatch.Assignment, time.Duration) {
	r.t.Helper()
	const turn = 10 * time.Second
	begin := time.Now()
	for range int(4 * job.AgingStep / turn) {
		if len(held) > 0 {
			s.succeed(held[0])
			held = held[1:]
		}
		got := s.take()
		s.see()
		held = append(held, got...)
		for _, a := range got {
			if slices.Contains(wanted, a.Job.Seq) {
				return a, time.Since(begin)
			}
		}
		s.report(held...)
		r.pass(turn)
	}
	r.t.Fatal("none of the wanted jobs has started")
	return dispatch.Assignment{}, 0
}

// TestWideJobStarts: a job that takes all of a key starts within two aging steps though small ones would never leave it
// free, and then they go on.
func TestWideJobStarts(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 5})
		s := r.worker(1, "q")
		r.submitMany(200, "q", use("l", "", 1))
		held := s.accepts(5)
		wide := r.submitMany(1, "q", use("l", "", 5))
		run, took := r.churn(s, held, wide...)
		if took < job.AgingStep || took > 2*job.AgingStep {
			r.t.Errorf("it started after %s; want between one and two aging steps", took)
		}
		s.succeed(run)
		s.takes(5)
	})
}

// TestJobsOfTwoKeysStart: jobs that need A and B, in whatever order they name them, start within two aging steps though
// jobs of one of them would never leave both free.
func TestJobsOfTwoKeysStart(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.bound("a", job.LimitPolicy{Max: 1})
		r.bound("b", job.LimitPolicy{Max: 1})
		s := r.worker(1, "q", "p")
		for range 100 {
			r.submitMany(1, "q", use("a", "", 1))
			r.submitMany(1, "q", use("b", "", 1))
		}
		held := s.accepts(2)
		both := append(r.submitMany(1, "q", use("a", "", 1), use("b", "", 1)), r.submitMany(1, "p", use("a", "", 1), use("b", "", 1))...)
		if _, took := r.churn(s, held, both...); took > 2*job.AgingStep {
			r.t.Errorf("the first started after %s", took)
		}
	})
}

// TestReservationEnds: what is kept for a job goes to others when it is cancelled, when it cannot fit any more, and is not
// kept while its queue is paused or nobody serves it.
func TestReservationEnds(t *testing.T) {
	for name, c := range map[string]struct {
		queue string
		end   func(r *rig, wide uint64)
	}{
		"paused":    {"wide", func(r *rig, _ uint64) { r.pause("wide", true) }},
		"cancelled": {"wide", func(r *rig, wide uint64) { r.interrupt(wide, job.LevelCancel) }},
		"lowered":   {"wide", func(r *rig, _ uint64) { r.bound("l", job.LimitPolicy{Max: 4}) }},
		"unserved":  {"nobody", func(*rig, uint64) {}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(_ *testing.T, r *rig) {
				r.bound("l", job.LimitPolicy{Max: 5})
				s := r.worker(1, "q", "wide")
				r.submitMany(20, "q", use("l", "", 1))
				held := s.accepts(5)
				wide := r.submitMany(1, c.queue, use("l", "", 5))[0]
				for range 40 { // over an aging step
					s.report(held...)
					r.pass(8 * time.Second)
				}
				s.succeed(held[0])
				if kept := len(s.take()) == 0; kept != (c.queue == "wide") {
					r.t.Fatalf("the unit that was given back is kept: %v", kept)
				}
				c.end(r, wide)
				s.see()
				s.succeed(held[1:]...)
				r.pass(2 * time.Second) // a sweep sees to it
				if got := s.take(); len(got) < 3 {
					r.t.Errorf("%d small jobs started", len(got))
				}
			})
		})
	}
}

// wait lets time pass while everybody reports what it holds.
func (r *rig) wait(d time.Duration, holding map[*stream][]dispatch.Assignment) {
	r.t.Helper()
	for ; d > 0; d -= 8 * time.Second {
		for s, held := range holding {
			s.report(held...)
		}
		r.pass(8 * time.Second)
	}
}

// TestReservedBehindAnOlder: a lane whose reservation is older than that of a lane which stands before it, on the same
// hook, is not kept by that one from what is kept for it.
func TestReservedBehindAnOlder(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("j", job.LimitPolicy{Max: 2})
		r.bound("k", job.LimitPolicy{Max: 3})
		s := r.worker(1, "q")
		r.submitMany(2, "q", use("j", "", 1))
		ofJ := s.accepts(2)
		r.submitMany(3, "q", use("k", "", 1))
		ofK := s.accepts(3)
		r.submitMany(2, "q", use("j", "", 1), use("k", "", 2)) // both of a lane
		r.submitMany(1, "q", use("k", "", 2))                  // another lane, later
		s.takes(0)
		r.wait(time.Minute, map[*stream][]dispatch.Assignment{s: slices.Concat(ofJ, ofK)})
		s.succeed(ofJ[0])
		s.takes(0)
		s.succeed(ofK[0], ofK[1])
		both := s.accepts(1) // the first lane has a run, and is younger now
		r.wait(job.AgingStep-40*time.Second, map[*stream][]dispatch.Assignment{s: {ofJ[1], ofK[2], both[0]}})
		s.succeed(ofK[2]) // a unit of k is kept for the other lane
		s.takes(0)
		s.succeed(ofJ[1]) // the first lane is tried, and hangs on k before the other one
		s.takes(0)
		s.succeed(both[0])
		if got := s.take(); len(got) == 0 {
			t.Error("all of k is free, and nothing starts")
		}
	})
}

// TestReservationOfTheBusy: what is all free is not kept for ever for a job whose worker is busy.
func TestReservationOfTheBusy(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("k", job.LimitPolicy{Max: 2})
		s := r.worker(1, "q")
		w := r.open(hello(2))
		w.demand(room(1, "wide"))
		r.submitMany(20, "q", use("k", "", 1))
		held := s.accepts(2)
		r.submitMany(1, "wide", use("k", "", 2))
		r.wait(6*time.Minute, map[*stream][]dispatch.Assignment{s: held, w: nil})
		s.succeed(held[0])
		s.takes(0)
		r.plain("wide", 1)
		busy := w.accepts(1)
		s.succeed(held[1])
		s.takes(0)
		r.wait(24*time.Second, map[*stream][]dispatch.Assignment{s: nil, w: busy})
		if got := s.take(); len(got) != 2 {
			t.Errorf("%d small jobs start while the worker of the wide one is busy; want 2", len(got))
		}
	})
}

// TestWideJobOfABusyWorker: a wide job starts though its worker is busy whenever a unit is given back, and free only in
// between.
func TestWideJobOfABusyWorker(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("k", job.LimitPolicy{Max: 2})
		s := r.worker(1, "q")
		w := r.open(hello(2))
		w.demand(room(1, "wide"))
		r.submitMany(200, "q", use("k", "", 1))
		held := s.accepts(2)
		wide := r.submitMany(1, "wide", use("k", "", 2))[0]
		r.plain("wide", 200)
		busy := w.accepts(1)
		for begin := time.Now(); time.Since(begin) < 2*job.AgingStep; {
			if len(held) > 0 {
				s.succeed(held[0])
				held = held[1:]
			}
			held = append(held, s.take()...)
			s.see()
			s.report(held...)
			w.report(busy...)
			r.pass(5 * time.Second)
			w.succeed(busy...)
			if busy = w.accepts(1); busy[0].Job.Seq == wide {
				return
			}
			s.report(held...)
			r.pass(5 * time.Second)
		}
		t.Error("it has not started within two aging steps")
	})
}

// TestReservationAfterMaxRunning: a queue that was full, and whose jobs all hang since, is not taken for full any more.
func TestReservationAfterMaxRunning(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("k", job.LimitPolicy{Max: 2})
		s := r.worker(1, "q", "wide")
		r.policy("wide", job.Policy{MaxRunning: 1})
		r.submitMany(200, "q", use("k", "", 1))
		held := s.accepts(2)
		wide := r.submitMany(1, "wide", use("k", "", 2))[0]
		s.takes(0)
		r.plain("wide", 1)
		plain := s.accepts(1)
		waits := r.plain("wide", 1)[0]
		s.takes(0)
		r.pass(2 * time.Second)
		r.interrupt(waits, job.LevelCancel)
		s.succeed(plain[0])
		if _, took := r.churn(s, held, wide); took > 2*job.AgingStep {
			t.Errorf("it started after %s", took)
		}
	})
}

// TestNotMeKeepsItsPlace: a job that was given back as not for a worker goes to that worker again as soon as its time has
// come, though others of its lane and of other lanes wait.
func TestNotMeKeepsItsPlace(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("k", job.LimitPolicy{Max: 1000})
		w := r.open(hello(1))
		w.demand(room(1, "q"))
		first := r.plain("q", 1)[0]
		w.finish(released(job.Released{NotMe: true}), w.accepts(1)...)
		r.submitMany(150, "q", use("k", "", 1))
		r.plain("q", 10)
		for begin := time.Now(); time.Since(begin) < 2*job.NotMePeriod; {
			got := w.accepts(1)
			if got[0].Job.Seq == first {
				if took := time.Since(begin); took < job.NotMePeriod || took > job.NotMePeriod+3*time.Second {
					t.Errorf("it came back after %s", took)
				}
				return
			}
			w.report(got...)
			r.pass(time.Second)
			w.succeed(got...)
		}
		t.Error("it did not come back when its time had come")
	})
}

// TestOlderTakesOver: a lane that takes over what is kept for a younger one does not wait for it to be given back once more.
func TestOlderTakesOver(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		for _, name := range []string{"a", "b", "k"} {
			r.bound(name, job.LimitPolicy{Max: 1})
		}
		long := func(queue string, uses ...job.LimitUse) uint64 {
			s := r.uses(queue, uses...)
			s.Lease = time.Hour
			return r.submit(s)[0]
		}
		long("a", use("a", "", 1))
		long("b", use("b", "", 1))
		hasA, hasB := r.claims(1, "a"), r.claims(1, "b")
		older := long("older", use("a", "", 1), use("k", "", 1))
		gone := r.worker(1, "older")
		gone.takes(0)
		gone.Close()
		r.pass(time.Second)

		long("younger")
		younger := r.open(hello(2))
		younger.demand(room(2, "younger"))
		held := younger.accepts(1)
		long("younger", use("b", "", 1), use("k", "", 1))
		younger.takes(0)
		younger.demand(room(1, "younger")) // which it has
		younger.keep(job.AgingStep+time.Minute, held...)
		r.d.WakeLimit("b") // it is looked at again, and has b and k kept for it
		r.pass(0)
		for _, runs := range [][]dispatch.Assignment{hasB, hasA} {
			if _, err := r.d.Finish(r.ctx, finishes(success(), runs)); err != nil {
				r.t.Fatal(err)
			}
		}
		if got := r.worker(3, "older").accepts(1); got[0].Job.Seq != older {
			r.t.Errorf("job %d started, want %d", got[0].Job.Seq, older)
		}
	})
}
