package dispatch_test

import (
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// limit sets how many runs a queue may have, as an operator does.
func (r *rig) limit(queue string, p job.Policy) {
	r.t.Helper()
	r.policy(queue, p)
	r.d.Wake(queue)
}

// TestMaxRunning: a queue has at most so many runs over all workers and calls, a place that is free goes to whoever has
// room, and a change acts at once.
func TestMaxRunning(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 10)
		r.plain("free", 3)
		r.limit("q", job.Policy{MaxRunning: 2})
		one := r.open(hello(1))
		one.demand(room(5, "q"))
		held := one.accepts(2)
		two := r.open(hello(2))
		two.demand(room(5, "q", "free"))
		two.accepts(3)
		r.claims(0, "q")

		one.demand(room(1, "q"))
		one.succeed(held[0])
		got := two.accepts(1)
		if got[0].Job.Spec.Queue != "q" {
			t.Errorf("the free place went to a job of %q", got[0].Job.Spec.Queue)
		}
		r.limit("q", job.Policy{MaxRunning: 3})
		got = append(got, two.accepts(1)...)
		r.limit("q", job.Policy{MaxRunning: 1})
		two.demand(room(9, "q"))
		two.succeed(got[0])
		two.takes(0)
		two.succeed(got[1])
		two.takes(0)
		one.succeed(held[1])
		two.accepts(1)
		r.limit("q", job.Policy{})
		two.accepts(4)
		one.accepts(1)
	})
}

// TestMaxRunningAfterRestart: what runs is counted again.
func TestMaxRunningAfterRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 3)
		r.limit("q", job.Policy{MaxRunning: 2})
		s := r.open(hello(1))
		s.demand(room(5, "q"))
		held := s.accepts(2)
		r.restart()
		s = r.open(hello(1, held...))
		s.demand(room(5, "q"))
		s.takes(0)
		s.succeed(held...)
		s.takes(1)
	})
}

// haunted is a queue with one place, which a zombie of worker 1 takes, a session of that worker, and one of worker 2 that
// waits for the place.
func (r *rig) haunted() (one, two *stream, left []dispatch.Assignment) {
	r.t.Helper()
	one, left = r.holding(1, r.spec("q"), r.spec("q"))
	r.limit("q", job.Policy{MaxRunning: 1})
	r.interrupt(left[0].Job.Seq, job.LevelCancel)
	one.news()
	one.keep(job.CancelHard-time.Second, left...)
	r.pass(time.Second)
	r.expectEnd(left[0].Job.Seq, job.RunAbandoned)
	two = r.open(hello(2))
	two.demand(room(1, "q"))
	if q := r.queue("q"); q.Zombies != 1 {
		r.t.Fatalf("the queue has %d zombies", q.Zombies)
	}
	two.takes(0)
	return one, two, left
}

// TestZombieHolds: a run that was left behind takes a place as long as its worker lists it, and until one of these signs.
func TestZombieHolds(t *testing.T) {
	const lease = job.DefaultLease
	for name, sign := range map[string]func(r *rig, one, two *stream, left []dispatch.Assignment) *stream{
		"its finish": func(_ *rig, one, two *stream, left []dispatch.Assignment) *stream {
			one.finish(success(), left...)
			return two
		},
		"a report without it": func(_ *rig, one, two *stream, _ []dispatch.Assignment) *stream {
			one.report()
			return two
		},
		"a hello without it": func(r *rig, one, two *stream, _ []dispatch.Assignment) *stream {
			one.Close()
			two.takes(0)
			r.open(hello(1))
			return two
		},
		"its session gone a lease": func(r *rig, one, two *stream, _ []dispatch.Assignment) *stream {
			one.Close()
			two.keep(lease - time.Second)
			two.takes(0)
			r.pass(time.Second)
			return two
		},
		"a lease after a restart": func(r *rig, _, _ *stream, _ []dispatch.Assignment) *stream {
			r.restart()
			two := r.open(hello(2))
			two.demand(room(1, "q"))
			two.keep(lease - time.Second)
			two.takes(0)
			r.pass(time.Second)
			return two
		},
		"a hello without it after a restart": func(r *rig, _, _ *stream, left []dispatch.Assignment) *stream {
			r.restart()
			two := r.open(hello(2))
			two.demand(room(1, "q"))
			one := r.open(hello(1, left...))
			two.takes(0)
			one.Close()
			r.open(hello(1))
			return two
		},
		"an operator": func(r *rig, _, two *stream, _ []dispatch.Assignment) *stream {
			r.limit("q", job.Policy{MaxRunning: 1, OnZombie: job.OnZombieRelease})
			return two
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				one, two, left := r.haunted()
				for range 60 {
					r.pass(2 * time.Second)
					one.report(left...)
					two.report()
				}
				two.takes(0)
				sign(r, one, two, left).takes(1)
				if q := r.queue("q"); name != "an operator" && q.Zombies != 0 {
					t.Errorf("the queue still has %d zombies", q.Zombies)
				}
			})
		})
	}
}

// TestZombieAfterStall: a process that stood still has not heard its workers, and lets nothing go before a full lease.
func TestZombieAfterStall(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		one, two, _ := r.haunted()
		one.Close()
		two.Close()
		r.pass(time.Second)
		resume := r.hang("other")
		r.pass(2 * job.DefaultLease)
		resume()
		two = r.open(hello(2))
		two.demand(room(1, "q"))
		two.keep(job.DefaultLease - time.Second)
		two.takes(0)
		two.keep(10 * time.Second)
		two.takes(1)
	})
}

// called is a run that was claimed by a call and cancelled, in a queue with one place and another job.
func (r *rig) called() []dispatch.Assignment {
	r.t.Helper()
	r.plain("q", 2)
	r.limit("q", job.Policy{MaxRunning: 1})
	left := r.claims(1, "q")
	r.heartbeat(left...)
	r.interrupt(left[0].Job.Seq, job.LevelCancel)
	return left
}

// TestZombieOfCall: a run that was claimed by a call and left behind is known by its token alone.
func TestZombieOfCall(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		left := r.called()
		two := r.open(hello(2))
		two.demand(room(1, "q"))
		for range 20 {
			r.heartbeat(left...)
			two.report()
			r.pass(10 * time.Second)
		}
		r.expectEnd(left[0].Job.Seq, job.RunAbandoned)
		r.open(hello(9)) // a session of the same process does not answer for what it claimed by a call
		two.takes(0)
		two.keep(job.DefaultLease - 11*time.Second)
		two.takes(0)
		r.pass(time.Second)
		two.takes(1)
	})
}

// TestZombieOfCallIsListed: a hello that lists what was claimed by a call answers for it from then on.
func TestZombieOfCallIsListed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		left := r.called()
		for range 4 {
			r.pass(job.CancelHard / 4)
			r.heartbeat(left...)
		}
		r.expectEnd(left[0].Job.Seq, job.RunAbandoned)
		two := r.open(hello(2))
		two.demand(room(1, "q"))
		nine := r.open(hello(9, left...))
		two.takes(0)
		nine.report()
		two.takes(1)
	})
}
