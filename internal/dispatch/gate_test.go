package dispatch_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// policed sets a queue's policy, as an operator does.
func (r *rig) policed(queue string, p job.Policy) {
	r.t.Helper()
	r.update(func(tx store.Tx) error {
		_, err := tx.MakeQueue(queue)
		return err
	})
	r.policy(queue, p)
	r.d.Wake(queue)
}

// comes takes exactly n runs as soon as there are, and ends them; it tells how long that took.
func (s *stream) comes(n int) time.Duration {
	s.r.t.Helper()
	began := time.Now()
	for taken := 0; taken < n; {
		runs := s.take()
		if len(runs) == 0 {
			if time.Since(began) > 3*time.Hour {
				s.r.t.Fatalf("only %d of %d runs came", taken, n)
			}
			s.r.pass(time.Millisecond)
			if time.Since(began) > 3*time.Second {
				s.r.pass(99 * time.Millisecond)
				s.report()
			}
			continue
		}
		s.see()
		s.succeed(runs...)
		taken += len(runs)
	}
	return time.Since(began)
}

func within(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s took %v; want %v to %v", what, got, least, most)
	}
}

// TestRates: a bucket begins empty, at a start and when its rate is set; permits come evenly and gather up to the burst; what is
// taken is not given back; keys have buckets of their own, which are full where nobody took from them for long enough.
func TestRates(t *testing.T) {
	for name, set := range map[string]func(r *rig, rate job.Rate){
		"queue": func(r *rig, rate job.Rate) { r.policed("q", job.Policy{Rate: rate}) },
		"limit": func(r *rig, rate job.Rate) { r.bound("l", job.LimitPolicy{Rate: rate}) },
		"key": func(r *rig, rate job.Rate) {
			r.bound("l", job.LimitPolicy{Max: 1000, Rates: []job.KeyRate{{Key: "k", Rate: rate}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.bound("l", job.LimitPolicy{Max: 1000})
				set(r, job.Rate{Permits: 10, Period: time.Second, Burst: 5})
				r.submitMany(300, "q", use("l", "k", 1))
				s := r.worker(1, "q")
				within(t, "one of an empty bucket", s.comes(1), 100*time.Millisecond, 110*time.Millisecond)
				within(t, "twenty more", s.comes(20), 1990*time.Millisecond, 2100*time.Millisecond)
				s.demand()
				s.keep(time.Minute)
				s.demand(room(1000, "q"))
				within(t, "five of a full bucket", s.comes(5), 0, 10*time.Millisecond)
				within(t, "ten after them", s.comes(10), 990*time.Millisecond, 1010*time.Millisecond)
				set(r, job.Rate{Permits: 100, Period: time.Second})
				within(t, "a hundred at the new rate", s.comes(100), 990*time.Millisecond, 1100*time.Millisecond)
				r.restart()
				s = r.worker(2, "q")
				within(t, "one after a restart", s.comes(1), 10*time.Millisecond, 20*time.Millisecond)
				set(r, job.Rate{})
				if name == "limit" {
					r.bound("l", job.LimitPolicy{Max: 1000})
				}
				within(t, "the rest without a rate", s.comes(163), 0, 10*time.Millisecond)
			})
		})
	}
}

// TestRateOfManyKeys: each key has its own bucket; one that was not used is full, and is not remembered.
func TestRateOfManyKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Rate: job.Rate{Permits: 1, Period: time.Second, Burst: 2}})
		s := r.worker(1, "q")
		s.keep(3 * time.Second)
		for _, key := range []string{"a", "b", "c"} {
			r.submitMany(3, "q", use("l", key, 1))
		}
		within(t, "two of each", s.comes(6), 0, 10*time.Millisecond)
		within(t, "a third of each", s.comes(3), 900*time.Millisecond, 1100*time.Millisecond)
		s.keep(65 * time.Second)
		if n := r.d.Gates(); n != 0 {
			t.Errorf("%d gates are remembered", n)
		}
		r.idle("l")
	})
}

// TestRateOfWideJobs: a job that takes several permits at once starts although others take one each; one that takes more than
// ever gather does not stand in the way.
func TestRateOfWideJobs(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Rate: job.Rate{Permits: 1, Period: time.Second, Burst: 5}})
		s := r.worker(1, "q", "other")
		r.submitMany(2000, "q", use("l", "", 1))
		wide := r.submitMany(1, "other", use("l", "", 5))[0]
		began := time.Now()
		for r.job(wide).State != job.Succeeded {
			if time.Since(began) > 2*job.AgingStep {
				t.Fatal("it has not started within two aging steps")
			}
			s.comes(1)
		}
	})
}

func throttled(limit, key string, cooldown time.Duration) job.Outcome {
	return released(job.Released{Reason: "429", Throttle: &job.Throttle{Limit: limit, Key: key, Cooldown: cooldown}})
}

// TestThrottled: what a worker says of a key closes it for all, for as long as it said and no less than was said before, also
// over a restart; other keys and queues go on. The job comes back with the others.
func TestThrottled(t *testing.T) {
	for _, restart := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.bound("l", job.LimitPolicy{Max: 2})
			one, two := r.worker(1, "q"), r.worker(2, "p")
			seq := r.submitMany(3, "q", use("l", "k", 1))[0]
			held := one.accepts(2)
			r.submitMany(1, "p", use("l", "k", 1))
			r.recorded(one.finish(throttled("l", "k", time.Minute), held[0]))
			r.recorded(one.finish(throttled("l", "k", time.Second), held[1]))
			if j := r.job(seq); j.Counters != (job.Counters{Snoozes: 1}) || !j.DueTime.Equal(j.History[0].EndTime.Add(time.Minute)) {
				t.Errorf("the job is %v, due at %v, counters %+v", j.State, j.DueTime, j.Counters)
			}
			r.submitMany(1, "q", use("l", "other", 1))
			r.submitMany(1, "q")
			one.succeed(one.accepts(2)...)
			for range 29 {
				r.pass(2 * time.Second)
				one.report()
				two.report()
			}
			one.takes(0)
			two.takes(0)
			if restart {
				r.restart()
				one, two = r.worker(1, "q"), r.worker(2, "p")
			}
			within(t, "the first", one.comes(1), time.Second, 2100*time.Millisecond)
			r.pass(time.Second)
			one.comes(2)
			two.comes(1)
			r.idle("l")
			if n := r.d.Gates(); n != 0 {
				r.pass(2 * time.Second)
				if n := r.d.Gates(); n != 0 {
					t.Errorf("%d gates are remembered", n)
				}
			}
		})
	}
}

// TestThrottledQueue: without a limit it is the queue that is closed. A key that the run does not hold is refused, and the run
// stays live.
func TestThrottledQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 2})
		s := r.worker(1, "q", "p")
		r.submitMany(2, "q", use("l", "k", 1))
		held := s.accepts(2)
		for _, key := range []string{"", "j"} {
			acks := s.finish(throttled("l", key, time.Minute), held[0])
			if acks[0].Status != dispatch.AckRejected || !errors.Is(acks[0].Err, dispatch.ErrNotHeld) {
				t.Errorf("answered %+v", acks[0])
			}
		}
		r.recorded(s.finish(throttled("", "", time.Hour), held[0]))
		r.submitMany(1, "q")
		r.submitMany(1, "p")
		s.succeed(append(s.accepts(1), held[1])...)
		s.keep(30 * time.Minute)
		s.takes(0)
		r.d.OpenGate(store.GateName{Name: "q"})
		r.update(func(store.Tx) error { return nil })
		s.comes(1)
		r.restart()
		s = r.worker(1, "q")
		r.submitMany(1, "q")
		s.comes(1)
	})
}

// fails ends a run badly.
func (s *stream) fails(runs ...dispatch.Assignment) {
	s.r.t.Helper()
	s.r.recorded(s.finish(failure(), runs...))
}

// TestBreaker: failures in a row close the gate; then one run at a time tries, and by its end the gate opens or stays closed. What
// began before it closed says nothing, nor does what was given back. A restart changes nothing, whether a run tries or not.
func TestBreaker(t *testing.T) {
	breaker := job.Breaker{Failures: 3, RetryIn: time.Minute}
	for name, set := range map[string]func(r *rig){
		"queue": func(r *rig) { r.policed("q", job.Policy{Breaker: breaker}) },
		"limit": func(r *rig) { r.bound("l", job.LimitPolicy{Breaker: breaker}) },
	} {
		for _, restart := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					r.bound("l", job.LimitPolicy{Max: 100})
					set(r)
					specs := make([]*job.Spec, 40)
					for i := range specs {
						specs[i] = r.uses("q", use("l", "k", 1))
						specs[i].Retry = &job.RetryPolicy{MaxAttempts: 1}
					}
					r.submit(specs...)
					s := r.open(hello(1))
					again := func() {
						if restart {
							r.restart()
							s = r.open(hello(1))
						}
						s.demand(room(10, "q"))
					}
					again()
					held := s.accepts(10)
					r.pass(time.Millisecond)
					s.fails(held[0], held[1])
					s.succeed(held[2]) // not in a row
					held = append(held[3:], s.accepts(3)...)
					s.fails(held[0], held[1])
					r.recorded(s.finish(released(job.Released{}), held[2]))
					held = append(held[3:], s.accepts(3)...)
					r.pass(time.Millisecond)
					s.fails(held[0])
					s.takes(0)
					s.fails(held[1])
					s.succeed(held[2:]...)
					s.takes(0)
					s.keep(59 * time.Second)
					again()
					s.takes(0)
					r.pass(2 * time.Second)
					s.report()
					try := s.accepts(1)
					if restart {
						r.restart()
						s = r.open(hello(1, try...))
						s.demand(room(10, "q"))
					}
					s.takes(0)
					r.recorded(s.finish(released(job.Released{Delay: new(time.Hour)}), try...))
					try = s.accepts(1)
					s.fails(try...)
					s.takes(0)
					s.keep(61 * time.Second)
					again()
					s.succeed(s.accepts(1)...)
					s.succeed(s.accepts(10)...)
					again()
					s.accepts(10)
				})
			})
		}
	}
}

// TestBreakerOpens: an operator opens the gate, and so does a policy without a breaker. A worker that is lost is a failure.
func TestBreakerOpens(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		lost := func() {
			t.Helper()
			r.heartbeat(r.claims(1, "q")...)
			r.pass(job.DefaultLease + 2*time.Second)
			r.claims(0, "q")
		}
		r.bound("l", job.LimitPolicy{Breaker: job.Breaker{Failures: 1}})
		r.submitMany(5, "q", use("l", "", 1))
		lost()
		r.d.OpenGate(store.GateName{Limit: "l"})
		lost()
		r.bound("l", job.LimitPolicy{Max: 5})
		r.claims(1, "q")
		r.bound("l", job.LimitPolicy{Max: 5, Breaker: job.Breaker{Failures: 1}})
		r.claims(1, "q")
	})
}
