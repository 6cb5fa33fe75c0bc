package dispatch_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// bound sets a limit, as an operator does.
func (r *rig) bound(name string, p job.LimitPolicy) {
	r.t.Helper()
	r.update(func(tx store.Tx) error { return tx.PutLimit(&store.Limit{Name: name, Policy: p}) })
	r.d.WakeLimit(name)
}

// uses is a plain job that takes something.
func (r *rig) uses(queue string, uses ...job.LimitUse) *job.Spec {
	s := r.spec(queue)
	s.Limits = uses
	return s
}

func (r *rig) submitMany(n int, queue string, uses ...job.LimitUse) []uint64 {
	r.t.Helper()
	specs := make([]*job.Spec, n)
	for i := range specs {
		specs[i] = r.uses(queue, uses...)
	}
	return r.submit(specs...)
}

func use(limit, key string, units uint32) job.LimitUse {
	return job.LimitUse{Limit: limit, Key: key, Units: units}
}

// worker opens a session with room for many runs of the queues.
func (r *rig) worker(n byte, queues ...string) *stream {
	r.t.Helper()
	s := r.open(hello(n))
	s.demand(room(1000, queues...))
	return s
}

// idle checks that nothing of a limit is taken or waited for, and that nothing hangs on it.
func (r *rig) idle(limits ...string) {
	r.t.Helper()
	r.update(func(tx store.Tx) error {
		for _, name := range limits {
			tx.EachKey(name, func(k *store.Key) { r.t.Errorf("key %q of %s is still there: %+v", k.Name, name, k) })
		}
		return nil
	})
}

// TestLimit: the runs of all queues and workers together take no more of a key than there is; what is given back goes to
// the job that waits longest; a change acts at once; other keys are not concerned.
func TestLimit(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("db", job.LimitPolicy{Max: 2, Keys: []job.KeyMax{{Key: "big", Max: 3}}})
		one, two := r.worker(1, "q0"), r.worker(2, "q1")
		var seqs []uint64
		for i := range 4 {
			seqs = append(seqs, r.submitMany(1, fmt.Sprint("q", i%2), use("db", "k", 1))...)
		}
		r.submitMany(5, "q1", use("db", "big", 1))
		first := one.accepts(1)
		other := two.accepts(1 + 3)
		one.takes(0)
		two.takes(0)
		one.succeed(first...)
		second := one.accepts(1)
		if second[0].Job.Seq != seqs[2] {
			t.Errorf("job %d came after job %d; want the one that waits longest", second[0].Job.Seq, first[0].Job.Seq)
		}
		r.bound("db", job.LimitPolicy{Max: 3, Keys: []job.KeyMax{{Key: "big", Max: 1}}})
		last := two.accepts(1)
		if last[0].Job.Seq != seqs[3] {
			t.Errorf("raised, job %d came; want %d", last[0].Job.Seq, seqs[3])
		}
		two.succeed(other...) // three of "big", of which there is one now
		rest := two.accepts(1)
		two.succeed(rest...)
		rest = two.accepts(1)
		one.succeed(second...)
		two.succeed(append(rest, last...)...)
		r.idle("db")
	})
}

// TestLimitsAllOrNothing: a job takes all that it needs or none of it, whatever the order in which it names them.
func TestLimitsAllOrNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("a", job.LimitPolicy{Max: 2})
		r.bound("b", job.LimitPolicy{Max: 1})
		s := r.worker(1, "q")
		r.submitMany(1, "q", use("b", "", 1))
		holder := s.accepts(1)
		r.submitMany(2, "q", use("a", "", 1), use("b", "", 1))
		s.takes(0)
		r.submitMany(1, "q", use("a", "", 2)) // what the two wait for is free
		wide := s.accepts(1)
		s.succeed(holder...)
		s.takes(0)
		s.succeed(wide...)
		got := s.accepts(1)
		s.succeed(got...)
		s.succeed(s.accepts(1)...)
		r.idle("a", "b")
	})
}

// TestManyLanesOnOneKey: of lanes that differ in another key, one starts for each unit that is given back, the oldest
// first, and the last leaves nothing behind. One whose other key is full does not stand in the way of the rest.
func TestManyLanesOnOneKey(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const lanes = 50
		r.bound("all", job.LimitPolicy{Max: 1})
		r.bound("one", job.LimitPolicy{Max: 1})
		s := r.worker(1, "q", "other")
		r.submitMany(1, "other", use("one", "k3", 1))
		blocker := s.accepts(1)
		var want []uint64
		for i := range lanes {
			want = append(want, r.submitMany(1, "q", use("all", "", 1), use("one", fmt.Sprint("k", i), 1))...)
		}
		held := s.accepts(1)
		var got []uint64
		for range lanes - 2 {
			got = append(got, held[0].Job.Seq)
			s.succeed(held...)
			held = s.accepts(1)
		}
		got = append(got, held[0].Job.Seq)
		if left := slices.Delete(slices.Clone(want), 3, 4); !slices.Equal(got, left) {
			t.Errorf("started %v; want %v", got, left)
		}
		s.succeed(held...)
		s.takes(0)
		s.succeed(blocker...)
		if held = s.accepts(1); held[0].Job.Seq != want[3] {
			t.Errorf("last came job %d; want %d", held[0].Job.Seq, want[3])
		}
		s.succeed(held...)
		r.idle("all", "one")
	})
}

// TestLimitOfQueueWithoutWorkers: a job that nobody serves is first in line for a key and keeps it from nobody.
func TestLimitOfQueueWithoutWorkers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 1})
		s := r.worker(1, "served")
		r.submitMany(1, "served", use("l", "", 1))
		held := s.accepts(1)
		r.submitMany(3, "lonely", use("l", "", 1))
		r.submitMany(3, "served", use("l", "", 1))
		r.pass(time.Second)
		for range 3 {
			s.succeed(held...)
			held = s.accepts(1)
		}
		late := r.worker(2, "lonely")
		late.takes(0)
		s.succeed(held...)
		for range 3 {
			late.succeed(late.accepts(1)...)
		}
		r.idle("l")
	})
}

// TestLanesThatEmptyWhileTheyHang: jobs that are cancelled while they wait for a key leave nothing behind.
func TestLanesThatEmptyWhileTheyHang(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 1})
		s := r.worker(1, "q")
		r.submitMany(1, "q", use("l", "", 1))
		held := s.accepts(1)
		for range 3 {
			for _, seq := range append(r.submitMany(2, "q", use("l", "", 1)), r.submitMany(2, "p", use("l", "", 1))...) {
				r.interrupt(seq, job.LevelCancel)
			}
		}
		s.succeed(held...)
		s.takes(0)
		r.idle("l")
		r.submitMany(2, "q", use("l", "", 1))
		s.succeed(s.accepts(1)...)
		s.succeed(s.accepts(1)...)
		if queues, _, _ := r.d.Known(); queues != 1 {
			r.t.Errorf("%d queues are known; want that of the worker", queues)
		}
	})
}

// TestLimitAfterRestart: what runs still takes its units, jobs that wait for them go on waiting, and start.
func TestLimitAfterRestart(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 3})
		r.submitMany(3, "q", use("l", "k", 2))
		r.submitMany(3, "q", use("l", "k", 1))
		s := r.worker(1, "q")
		held := s.accepts(2)
		r.restart()
		s = r.open(hello(1, held...))
		s.demand(room(1000, "q"))
		s.takes(0)
		s.succeed(held...)
		for range 2 {
			s.succeed(s.accepts(2)...)
		}
		r.idle("l")
	})
}

// TestZombieHoldsItsLimits: a run that was left behind keeps its units until a sign that it is gone, unless the limit says
// otherwise; also over a restart.
func TestZombieHoldsItsLimits(t *testing.T) {
	for name, sign := range map[string]func(r *rig, one, two *stream, left []dispatch.Assignment) *stream{
		"its finish": func(_ *rig, one, two *stream, left []dispatch.Assignment) *stream {
			one.finish(success(), left...)
			return two
		},
		"a report without it": func(_ *rig, one, two *stream, _ []dispatch.Assignment) *stream {
			one.report()
			return two
		},
		"an operator": func(r *rig, _, two *stream, _ []dispatch.Assignment) *stream {
			r.bound("l", job.LimitPolicy{Max: 1, OnZombie: job.OnZombieRelease})
			return two
		},
		"a lease after a restart": func(r *rig, _, _ *stream, _ []dispatch.Assignment) *stream {
			r.restart()
			two := r.worker(2, "q")
			two.keep(job.DefaultLease - time.Second)
			two.takes(0)
			r.pass(time.Second)
			return two
		},
		"the end of the limit": func(r *rig, _, two *stream, _ []dispatch.Assignment) *stream {
			r.update(func(tx store.Tx) error { return tx.DeleteLimit("l") })
			r.d.WakeLimit("l")
			return two
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(_ *testing.T, r *rig) {
				r.bound("l", job.LimitPolicy{Max: 1})
				one, left := r.holding(1, r.uses("q", use("l", "", 1)))
				waits := r.submitMany(1, "q", use("l", "", 1))
				r.interrupt(left[0].Job.Seq, job.LevelCancel)
				one.news()
				one.keep(job.CancelHard-time.Second, left...)
				r.pass(time.Second)
				r.expectEnd(left[0].Job.Seq, job.RunAbandoned)
				two := r.worker(2, "q")
				two.takes(0)
				two = sign(r, one, two, left)
				if got := two.accepts(1); got[0].Job.Seq != waits[0] {
					r.t.Errorf("job %d came", got[0].Job.Seq)
				}
			})
		})
	}
}
