package dispatch_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// TestRestartInterruptsNothing: whoever comes back within a lease goes on with the same run, the same token, and under
// the same demand; so do its waiting jobs.
func TestRestartInterruptsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 6)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		s.demand(room(2, "q"))
		held = append(held, s.takes(1)...) // not acknowledged
		unary := r.claims(2, "q")
		r.heartbeat(unary[0]) // the other one has given no sign of life
		silent := r.claims(1, "q")
		r.heartbeat(silent...)

		r.pass(job.DefaultLease - 21*time.Second)
		r.restart()
		r.pass(job.DefaultLease - 1)
		s = r.open(hello(1, held...))
		s.demand(room(3, "q"))
		for _, v := range append(s.welcome.Verdicts, r.heartbeat(unary...)...) {
			if v.Action != dispatch.Continue {
				t.Errorf("verdict %+v", v)
			}
		}
		held = append(held, s.accepts(1)...)
		r.pass(1)
		r.expectEnd(silent[0].Job.Seq, job.RunLost) // a lease after the start
		s.succeed(held...)
		s.succeed(unary...)
		for _, a := range append(held, unary...) {
			if j := r.expect(a.Job.Seq, job.Succeeded); j.RunCount != 1 || j.Counters != (job.Counters{}) {
				t.Errorf("job %d: %d runs, counters %+v", j.Seq, j.RunCount, j.Counters)
			}
		}
	})
}

// TestRestartKnowsWhatWaits: ready jobs are handed out, due ones wake, start_by expires, without another word.
func TestRestartKnowsWhatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		now := time.Now().UTC()
		ready, due, expires := r.spec("q"), r.spec("q"), r.spec("p")
		due.RunAt = now.Add(10 * time.Second)
		expires.StartBy = now.Add(20 * time.Second)
		seqs := r.submit(ready, due, expires)
		r.restart()
		s := r.open(hello(1))
		s.demand(room(5, "q"))
		got := seqsOf(s.accepts(1))
		r.pass(10 * time.Second)
		got = append(got, seqsOf(s.accepts(1))...)
		if !slices.Equal(got, seqs[:2]) {
			t.Errorf("got the jobs %v, want %v", got, seqs[:2])
		}
		r.pass(10 * time.Second)
		r.expect(seqs[2], job.Expired)
	})
}

// TestHelloAfterARestart ends what the instance had been assigned on a stream and no longer lists, and nothing else.
func TestHelloAfterARestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 4)
		s := r.open(hello(1))
		s.demand(room(2, "q"))
		held := s.accepts(2)
		unary, err := r.d.Claim(r.ctx, claim(1, 1, "q"))
		if err != nil {
			t.Fatal(err)
		}
		others := r.claims(1, "q")
		r.restart()
		r.open(hello(1, held[0]))
		r.expectEnd(held[1].Job.Seq, job.RunLost)
		for _, a := range slices.Concat(held[:1], unary, others) {
			r.expect(a.Job.Seq, job.Running)
		}
	})
}

// TestFinishAfterARestart: a token outlives the process that made it.
func TestFinishAfterARestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		runs := r.claims(1, "q")
		r.restart()
		acks, err := r.d.Finish(r.ctx, finishes(success(), runs))
		if err != nil {
			t.Fatal(err)
		}
		r.recorded(acks)
		r.expect(seq, job.Succeeded)
		if got := r.d.Stats().Runs; got != 0 {
			t.Errorf("%d runs are left", got)
		}
	})
}

// TestStalls: when the store stood still, whoever waits for an answer of its must not pay for that, nor whoever could
// not be heard: every run gets a full lease from the end of the stall, whether it would have ended in the stall or soon
// after it.
func TestStalls(t *testing.T) {
	for what, length := range map[string]time.Duration{
		"the leases end in the stall": 60 * time.Second,
		"and soon after it":           26 * time.Second,
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.plain("q", 4)
				s := r.open(hello(1))
				s.demand(room(1, "q"))
				held := s.accepts(1)
				s.demand(room(2, "q"))
				unseen := s.takes(1)
				unary := r.claims(2, "q")
				r.heartbeat(unary[0])
				s.report(held...)

				r.pass(2 * time.Second)
				begin := time.Now()
				resume := r.hang("other")
				waits := make(chan []dispatch.Verdict, 1)
				go func() { waits <- r.heartbeat(unary[0]) }()
				r.pass(length)
				resume()
				end := time.Now()
				if v := <-waits; v[0].Action != dispatch.Continue {
					t.Errorf("%v later the heartbeat is answered with %+v", end.Sub(begin), v[0])
				}
				if err := s.Err(); err != nil {
					t.Fatal("the session ended:", err)
				}
				r.pass(dispatch.DeliveryTimeout - time.Second)
				r.expect(unseen[0].Job.Seq, job.Running)
				s.see() // and so renews none of the others
				r.pass(job.DefaultLease - dispatch.DeliveryTimeout)
				for _, a := range append(unary, held...) {
					r.expect(a.Job.Seq, job.Running)
				}
				r.pass(time.Second)
				for _, a := range append(unary, held...) {
					r.expectEnd(a.Job.Seq, map[bool]job.RunState{true: job.RunUndelivered, false: job.RunLost}[a == unary[1]])
				}
				r.expect(unseen[0].Job.Seq, job.Running)
				if got := r.d.Stats().Stalls; got == 0 {
					t.Error("no stall is counted")
				}
			})
		})
	}
}

// TestNoStall: a busy hour with sleeping sessions, due jobs and sweeps is not taken for one.
func TestNoStall(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range 50 {
			s := r.spec("q")
			s.RunAt = time.Now().UTC().Add(time.Duration(i) * time.Minute)
			r.submit(s)
		}
		for range 60 {
			r.claiming(r.ctx, claim(1, 1, "q"))
			r.pass(time.Minute)
		}
		if got := r.d.Stats().Stalls; got != 0 {
			t.Errorf("%d stalls", got)
		}
	})
}
