package dispatch_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// TestReadyOrder drains the same jobs by a stream, by claims, and by both in turns, one by one and several at once:
// there is one order for all, by band with its age and then by the time of readiness, over all queues.
func TestReadyOrder(t *testing.T) {
	assign := func(_ *rig, s *stream, n int) []dispatch.Assignment { return s.next(n) }
	call := func(r *rig, _ *stream, n int) []dispatch.Assignment { return r.next(n) }
	for name, drain := range map[string][]func(*rig, *stream, int) []dispatch.Assignment{
		"stream": {assign}, "calls": {call}, "both": {assign, call, call},
	} {
		for _, n := range []int{1, 3, 12} {
			t.Run(fmt.Sprintf("%s, %d at once", name, n), func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					want := r.mixed()
					s := r.open(hello(1))
					var got []string
					for i := 0; len(got) < len(want); i++ {
						runs := drain[i%len(drain)](r, s, n)
						if len(runs) != n {
							t.Fatalf("got %d runs after %v", len(runs), got)
						}
						for _, a := range runs {
							got = append(got, a.Job.Spec.Subject)
						}
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("order (-want +got):\n%s", diff)
					}
				})
			})
		}
	}
}

// mixed submits jobs of all bands and of two queues, over 16 minutes, and tells in which order they are to go: a band
// rises by one in five minutes.
func (r *rig) mixed() []string {
	r.t.Helper()
	submit := func(subject, queue string, p job.Priority) {
		s := r.spec(queue)
		s.Subject, s.Priority = subject, p
		r.submit(s)
	}
	submit("low, 16 min", "a", job.Low) // counts as 2+3
	submit("very low, 16 min", "b", job.VeryLow)
	r.pass(10 * time.Minute)
	submit("normal, 6 min", "b", job.Normal)
	submit("normal, 6 min, second", "a", job.Normal)
	submit("normal, 6 min, third", "b", job.Normal)
	r.pass(2 * time.Minute)
	submit("high, 4 min", "a", job.High)
	r.pass(4 * time.Minute)
	submit("very high", "b", job.VeryHigh)
	submit("very low", "a", job.VeryLow)
	submit("high", "b", job.High)
	submit("very high, second", "a", job.VeryHigh)
	submit("very high, third", "a", job.VeryHigh)
	submit("very high, fourth", "b", job.VeryHigh)
	return []string{
		"low, 16 min", "very high", "very high, second", "very high, third", "very high, fourth", // 5
		"very low, 16 min", "normal, 6 min", "normal, 6 min, second", "normal, 6 min, third", "high, 4 min", "high", // 4
		"very low",
	}
}

// next lets the stream have n runs more.
func (s *stream) next(n int) []dispatch.Assignment {
	s.demand(room(int(s.last)+n, "a", "b"))
	return s.take()
}

// next claims n runs of both queues.
func (r *rig) next(n int) []dispatch.Assignment {
	r.t.Helper()
	runs, err := r.d.Claim(r.ctx, claim(2, n, "b", "a"))
	if err != nil {
		r.t.Fatal(err)
	}
	return runs
}

// TestRoomIdleLongestGoesFirst: streams and waiting claims stand in one line, and whoever gets a run goes to its end.
func TestRoomIdleLongestGoesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		first, second := r.open(hello(1)), r.open(hello(2))
		first.demand(room(3, "q", "other"))
		waiting := claim(3, 1, "q")
		waiting.Wait = time.Minute
		third := r.claiming(r.ctx, waiting)
		second.demand(room(3, "q"))

		var got []string
		for range 5 {
			seq := r.plain("q", 1)[0]
			switch {
			case slices.Contains(seqsOf(first.take()), seq):
				got = append(got, "first")
			case slices.Contains(seqsOf(second.take()), seq):
				got = append(got, "second")
			default:
				synctest.Wait()
				select {
				case c := <-third:
					got = append(got, "claim")
					if !slices.Equal(seqsOf(c.runs), []uint64{seq}) || c.err != nil {
						t.Errorf("the claim got %+v", c)
					}
				default:
					t.Fatalf("job %d went to nobody", seq)
				}
			}
		}
		if diff := cmp.Diff([]string{"first", "claim", "second", "first", "second"}, got); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

// TestPoolKeepsItsPlaceWhileItHasRoom: a report or a finish makes nobody wait longer; a pool that was full goes to the
// end.
func TestPoolKeepsItsPlaceWhileItHasRoom(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		first, second := r.open(hello(1)), r.open(hello(2))
		first.demand(room(2, "q"))
		second.demand(room(2, "q"))
		r.plain("q", 1)
		held := first.accepts(1)
		r.plain("q", 1)
		more := second.accepts(1)

		first.succeed(held...) // it has had room all the time
		first.demand(room(3, "q"))
		first.demand(room(2, "q"))
		r.plain("q", 1)
		held = first.accepts(1)

		r.plain("q", 2)
		more = append(more, second.accepts(1)...) // full
		held = append(held, first.accepts(1)...)  // full
		second.succeed(more...)
		first.succeed(held...)
		r.plain("q", 1)
		second.accepts(1)
	})
}

// TestManyJobsAtOnce goes through several batches of matching and several pages of a lane.
func TestManyJobsAtOnce(t *testing.T) {
	const n = 6_000
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", n)
		s := r.open(hello(1))
		s.demand(room(n, "q"))
		if diff := cmp.Diff(seqs, seqsOf(s.accepts(n))); diff != "" {
			t.Errorf("jobs, in the order of assignment (-want +got):\n%s", diff)
		}
	})
}

// TestNotMeGoesToAnotherInstance: the job goes past the instance that does not want it, and the jobs behind it do not
// wait for that.
func TestNotMeGoesToAnotherInstance(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		picky := r.open(hello(1))
		picky.demand(room(1, "q"))
		r.recorded(picky.finish(released(job.Released{NotMe: true}), picky.accepts(1)...))
		held := picky.accepts(1)
		if !slices.Equal(seqsOf(held), seqs[1:]) {
			t.Fatalf("the picky worker got job %v, want the second one, %v", seqsOf(held), seqs[1:])
		}
		if j := r.expect(seqs[0], job.Ready); j.Counters != (job.Counters{Snoozes: 1}) {
			t.Errorf("counters %+v", j.Counters)
		}
		behind := r.plain("q", 1)
		picky.demand(room(3, "q"))
		more := picky.accepts(1)
		if !slices.Equal(seqsOf(more), behind) {
			t.Fatalf("the picky worker got job %v, want the one behind, %v", seqsOf(more), behind)
		}
		picky.keep(50*time.Second, append(held, more...)...)
		picky.takes(0)

		other := r.open(hello(2))
		other.demand(room(1, "q"))
		back := other.accepts(1)
		if !slices.Equal(seqsOf(back), seqs[:1]) {
			t.Fatalf("another worker got %v", seqsOf(back))
		}
		r.recorded(other.finish(released(job.Released{NotMe: true}), back...))
		other.demand()
		picky.accepts(1) // it was the other one that did not want it last
	})
}

// TestNotMeEnds: after a minute the job is anybody's, and nobody has to ask for it to be looked at.
func TestNotMeEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		runs := r.claims(1, "q")
		acks, err := r.d.Finish(r.ctx, finishes(released(job.Released{NotMe: true}), runs))
		if err != nil {
			t.Fatal(err)
		}
		r.recorded(acks)
		end := time.Now().Add(job.NotMePeriod)
		waiting := claim(9, 1, "q")
		waiting.Wait = 5 * time.Minute
		c := <-r.claiming(r.ctx, waiting)
		if c.err != nil || !slices.Equal(seqsOf(c.runs), []uint64{seq}) || c.at.Before(end) || c.at.After(end.Add(2*time.Second)) {
			t.Errorf("claim: %+v, want job %d within two seconds after %v", c, seq, end)
		}
	})
}

// TestPausedQueue gives nothing until it is resumed, and holds up no other queue.
func TestPausedQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("paused", 2)
		r.plain("q", 1)
		r.pause("paused", true)
		s := r.open(hello(1))
		s.demand(room(5, "paused", "q"))
		if got := s.accepts(1)[0].Job.Spec.Queue; got != "q" {
			t.Errorf("got a run of queue %q", got)
		}
		if runs, err := r.d.Claim(r.ctx, claim(2, 1, "paused")); err != nil || len(runs) != 0 {
			t.Errorf("a claim of the paused queue: %v, %v", runs, err)
		}
		r.pass(20 * time.Second)
		s.takes(0)
		r.pause("paused", false)
		r.d.Wake("paused")
		s.takes(2)
	})
}

// TestResumeIsSeenWithoutWake: whoever changes a queue behind the dispatcher's back waits for the next sweep.
func TestResumeIsSeenWithoutWake(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 1)
		r.pause("q", true)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		r.pause("q", false)
		r.pass(time.Second)
		s.takes(1)
	})
}
