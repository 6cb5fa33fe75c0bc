package dispatch_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// rounds lets so many times two seconds pass, ends what comes but what keep is true of, and tells how many runs came and which
// were kept.
func (s *stream) rounds(n int, keep func(dispatch.Assignment) bool) (came int, held []dispatch.Assignment) {
	s.r.t.Helper()
	for range n {
		s.r.pass(2 * time.Second)
		for _, a := range s.accepted() {
			if came++; keep(a) {
				held = append(held, a)
			} else {
				s.succeed(a)
			}
		}
		s.report(held...)
	}
	return came, held
}

// accepted takes what there is, and says that it was seen.
func (s *stream) accepted() []dispatch.Assignment {
	runs := s.take()
	s.see()
	return runs
}

func never(dispatch.Assignment) bool { return false }

func (r *rig) tripped(queue string) bool {
	g := r.d.Gate(store.GateName{Name: queue}, job.Rate{}, 1)
	return !g.TripTime.IsZero()
}

// TestReservedPermit: a lane that has reserved a permit and waits for another key keeps it from nobody meanwhile.
func TestReservedPermit(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("api", job.LimitPolicy{Rate: job.Rate{Permits: 1, Period: time.Second}})
		r.bound("tenant", job.LimitPolicy{Max: 1})
		s := r.worker(1, "q")
		r.submitMany(1500, "q", use("api", "", 1))
		r.submitMany(2, "q", use("api", "", 1), use("tenant", "x", 1))
		n, held := s.rounds(600, func(a dispatch.Assignment) bool { return len(a.Job.Spec.Limits) == 2 })
		if n < 1190 || len(held) != 1 {
			t.Errorf("%d runs came in twenty minutes, at one a second", n)
		}
	})
}

// TestSlowWideJob: a job whose permits take longer to gather than what is kept may be idle starts all the same.
func TestSlowWideJob(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Rate: job.Rate{Permits: 6, Period: time.Minute, Burst: 5}})
		s := r.worker(1, "q", "other")
		r.submitMany(300, "q", use("l", "", 1))
		wide := r.submitMany(1, "other", use("l", "", 5))[0]
		s.rounds(int(2*job.AgingStep/(2*time.Second)), never)
		r.expect(wide, job.Succeeded)
	})
}

// TestManyGates: a rate holds for more keys than are remembered when nobody waits, and all of them come to their turn.
func TestManyGates(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector would take minutes; make test runs it")
	}
	inBubble(t, func(t *testing.T, r *rig) {
		const keys = 102_000
		r.bound("l", job.LimitPolicy{Rate: job.Rate{Permits: 1, Period: time.Minute}})
		specs := make([]*job.Spec, keys)
		for i := range specs {
			specs[i] = r.uses("q", use("l", fmt.Sprint(i), 1))
		}
		r.submit(specs...)
		s := r.open(hello(1))
		s.demand(room(4000, "q"))
		r.pass(30 * time.Second)
		s.report()
		if n := len(s.accepted()); n != 0 {
			t.Fatalf("%d runs before there was a permit", n)
		}
		came := 0
		for range 60 {
			r.pass(time.Second)
			s.report()
			for runs := s.accepted(); len(runs) > 0; runs = s.accepted() {
				came += len(runs)
				s.succeed(runs...)
			}
		}
		if came != keys {
			t.Errorf("%d of %d started", came, keys)
		}
	})
}

// TestBreakerOfForgottenQueue: a run of a queue that nobody else serves, and of which none began for a while, counts.
func TestBreakerOfForgottenQueue(t *testing.T) {
	for _, lost := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.policed("q", job.Policy{Breaker: job.Breaker{Failures: 1, RetryIn: time.Hour}})
			r.plain("q", 1)
			runs := r.claims(1, "q")
			for range 14 {
				r.heartbeat(runs...)
				r.pass(10 * time.Second)
			}
			if lost {
				r.pass(job.DefaultLease)
			} else if _, err := r.d.Finish(r.ctx, finishes(failure(), runs)); err != nil {
				t.Fatal(err)
			}
			if !r.tripped("q") {
				t.Errorf("lost: %t: the gate is open", lost)
			}
		})
	}
}

// TestBreakerCounts: timeouts count, however their runs end; failures under somebody's interrupt do not.
func TestBreakerCounts(t *testing.T) {
	for name, c := range map[string]struct {
		interrupt job.Level
		outcome   job.Outcome
		want      bool
	}{
		"failed after RETRY":    {job.LevelRetry, failure(), false},
		"failed after CANCEL":   {job.LevelCancel, failure(), false},
		"stopped by a timeout":  {job.LevelNone, job.Outcome{Stopped: &job.Stopped{}}, true},
		"released by a timeout": {job.LevelNone, released(job.Released{}), true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.policed("q", job.Policy{Breaker: job.Breaker{Failures: 1, RetryIn: time.Hour}})
				spec := r.spec("q")
				if c.interrupt == job.LevelNone {
					spec.Timeout = 5 * time.Second
				}
				seq := r.submit(spec)[0]
				s := r.worker(1, "q")
				held := s.accepts(1)
				if c.interrupt != job.LevelNone {
					r.interrupt(seq, c.interrupt)
				}
				s.keep(7*time.Second, held...)
				r.recorded(s.finish(c.outcome, held...))
				if got := r.tripped("q"); got != c.want {
					t.Errorf("tripped: %t, want %t", got, c.want)
				}
			})
		})
	}
}

// TestBreakerSetLate: a breaker that is set while no match looks at the queue counts at once.
func TestBreakerSetLate(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 2)
		s := r.open(hello(1))
		s.demand(room(2, "q"))
		held := s.accepts(2)
		r.policed("q", job.Policy{Breaker: job.Breaker{Failures: 2}})
		r.pass(time.Millisecond)
		s.fails(held...)
		if !r.tripped("q") {
			t.Error("the gate is open")
		}
	})
}

// TestDeletedLimitHasNoGate: what a worker said of a key binds nobody once its limit is deleted.
func TestDeletedLimitHasNoGate(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 5})
		r.submitMany(4, "q", use("l", "", 1))
		s := r.worker(1, "q")
		held := s.accepts(4)
		r.recorded(s.finish(throttled("l", "", time.Hour), held[0]))
		r.update(func(tx store.Tx) error { return tx.DeleteLimit("l") })
		r.d.WakeLimit("l")
		r.recorded(s.finish(throttled("l", "", time.Hour), held[1]))
		r.plain("q", 1)
		s.succeed(s.accepts(1)...)
		r.update(func(tx store.Tx) error {
			tx.Gates(func(g store.Gate) { t.Errorf("kept: %+v", g) })
			return nil
		})
	})
}

// TestSamePolicyAgain: a policy that is written again without a change leaves the bucket as it is, and an operator's word lasts.
func TestSamePolicyAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.policed("q", job.Policy{Rate: job.Rate{Permits: 6, Period: time.Minute}})
		s := r.worker(1, "q")
		r.plain("q", 100)
		came := 0
		for range 60 {
			r.d.Wake("q")
			n, _ := s.rounds(2, never)
			came += n
		}
		if came < 23 || came > 25 {
			t.Errorf("%d came in four minutes, at six a minute", came)
		}
		r.policed("p", job.Policy{Rate: job.Rate{Permits: 1, Period: time.Hour, Burst: 5}})
		s.demand(room(9, "p"))
		r.d.OpenGate(store.GateName{Name: "p"})
		r.pass(5 * time.Second)
		r.plain("p", 6)
		s.accepts(5)
	})
}

// TestTriedLaneStepsBack: a lane that its hook has let into its band does not stand before another key's there, once its own
// key has had its turns elsewhere.
func TestTriedLaneStepsBack(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 1})
		s := r.open(hello(1))
		s.demand(room(6, "q"))
		r.of("h", 1, "q", use("l", "k", 1))
		holder := s.accepts(1)
		r.of("a", 1, "q", use("l", "k", 1))
		b := r.of("b", 1, "q", use("l", "k", 1))[0]
		r.of("c", 300, "q")
		short := s.accepts(5)
		high := make([]*job.Spec, 5)
		for i := range high {
			high[i] = r.spec("q")
			high[i].FairnessKey, high[i].Priority = "a", job.High
		}
		r.submit(high...)
		s.succeed(holder...)
		s.accepts(1)
		s.succeed(short...)
		for _, a := range s.accepts(5) {
			if a.Job.Seq == b {
				return
			}
		}
		t.Errorf("b waits, with nothing running and the key free: %v", r.job(b).State)
	})
}
