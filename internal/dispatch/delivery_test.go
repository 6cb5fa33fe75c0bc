package dispatch_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// TestDeliveryTimeout: a worker that does not acknowledge an assignment for ten seconds loses its stream, and the job is
// the first of its lane again.
func TestDeliveryTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 3)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		s.takes(1)
		r.pass(dispatch.DeliveryTimeout - 1)
		r.expect(seqs[0], job.Running)
		if err := s.Err(); err != nil {
			t.Fatal("too early:", err)
		}
		r.pass(1)
		j := r.expectEnd(seqs[0], job.RunUndelivered)
		if j.State != job.Ready || j.Counters != (job.Counters{Deliveries: 1}) {
			t.Errorf("the job is %s with the counters %+v", j.State, j.Counters)
		}
		s.ended(dispatch.ErrDelivery)
		if got := seqsOf(r.claims(3, "q")); !slices.Equal(got, seqs) {
			t.Errorf("order after it: %v, want %v", got, seqs)
		}
	})
}

// TestDeliveryTimeoutCountsFromSending: a run that waits for a slow sender is not late.
func TestDeliveryTimeoutCountsFromSending(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		r.pass(20 * time.Second)
		s.takes(1)
		r.pass(dispatch.DeliveryTimeout - 1)
		r.expect(seq, job.Running)
		r.pass(1)
		r.expectEnd(seq, job.RunUndelivered)
	})
}

// TestAcceptance: whatever names a run accepts it, and its lease begins.
func TestAcceptance(t *testing.T) {
	for name, accept := range map[string]func(*rig, *stream, dispatch.Assignment){
		"seen":      func(_ *rig, s *stream, _ dispatch.Assignment) { s.see() },
		"report":    func(_ *rig, s *stream, a dispatch.Assignment) { s.report(a) },
		"hello":     func(r *rig, s *stream, a dispatch.Assignment) { s.Close(); r.open(hello(1, a)) },
		"heartbeat": func(r *rig, _ *stream, a dispatch.Assignment) { r.heartbeat(a) },
		"rejected finish": func(_ *rig, s *stream, a dispatch.Assignment) {
			s.say(dispatch.Message{Finishes: []dispatch.Finish{{Token: a.Token, Invalid: errors.New("no arm")}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				s := r.open(hello(1))
				s.demand(room(1, "q"))
				seq := r.plain("q", 1)[0]
				a := s.takes(1)[0]
				r.pass(dispatch.DeliveryTimeout - time.Second)
				accept(r, s, a)
				if j := r.expect(seq, job.Running); j.Run.State != job.RunRunning || !j.Run.AcceptTime.Equal(time.Now()) {
					t.Errorf("run %+v, want one that was accepted at %v", j.Run, time.Now())
				}
				r.pass(job.DefaultLease - 1)
				r.expect(seq, job.Running)
				r.pass(1)
				r.expectEnd(seq, job.RunLost)
			})
		})
	}
}

// TestSeenCoversWhatCameBefore: seen is a number, and everything up to it has arrived.
func TestSeenCoversWhatCameBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 4)
		s := r.open(hello(1))
		s.demand(room(4, "q"))
		s.takes(4)
		s.say(dispatch.Message{Seen: 3})
		s.say(dispatch.Message{Seen: 1})
		r.pass(dispatch.DeliveryTimeout)
		for i, seq := range seqs {
			if i < 3 {
				r.expect(seq, job.Running)
			} else {
				r.expectEnd(seq, job.RunUndelivered)
			}
		}
	})
}

// TestSeenOfWhatWasNotSent is refused, and accepts what was.
func TestSeenOfWhatWasNotSent(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		s := r.open(hello(1))
		s.demand(room(2, "q"))
		s.takes(1)
		a := s.say(dispatch.Message{Seen: 2})
		if len(a.Errors) != 1 || a.Errors[0].Part != "seen" || !errors.Is(a.Errors[0].Err, dispatch.ErrSeen) {
			t.Errorf("errors %v", a.Errors)
		}
		if j := r.job(seq); j.Run.State != job.RunRunning {
			t.Errorf("run %+v", j.Run)
		}
	})
}

// TestGoneStream: five seconds after its stream is gone, what a worker has not acknowledged is undelivered; what it has
// lives by its lease.
func TestGoneStream(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		s.accepts(1)
		s.demand(room(2, "q"))
		s.takes(1)
		r.pass(time.Second)
		s.Close()
		r.pass(dispatch.GoneTimeout - 1)
		r.expect(seqs[1], job.Running)
		r.pass(1)
		if j := r.expectEnd(seqs[1], job.RunUndelivered); j.State != job.Ready {
			t.Errorf("the job is %s", j.State)
		}
		r.expect(seqs[0], job.Running)
		r.pass(job.DefaultLease - dispatch.GoneTimeout - time.Second)
		r.expectEnd(seqs[0], job.RunLost)
	})
}

// TestGoneStreamGrantsNothing: a stream that goes shortly before the delivery timeout does not lengthen it.
func TestGoneStreamGrantsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		s.takes(1)
		r.pass(dispatch.DeliveryTimeout - time.Second)
		s.Close()
		r.pass(time.Second)
		r.expectEnd(seq, job.RunUndelivered)
	})
}

// TestReconnectKeepsRuns: hello lists what the stream before had brought, accepted or not, and it is as if nothing had
// happened.
func TestReconnectKeepsRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 2)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		s.demand(room(2, "q"))
		held = append(held, s.takes(1)...)
		for range 5 {
			s.Close()
			r.pass(dispatch.GoneTimeout - 1)
			s = r.open(hello(1, held...))
			for i, v := range s.welcome.Verdicts {
				if v.Token != held[i].Token || v.Action != dispatch.Continue || v.Lease != job.DefaultLease {
					t.Fatalf("verdict %d is %+v", i, v)
				}
			}
			s.demand(room(2, "q"))
			s.keep(time.Minute, held...)
		}
		s.takes(0)
		s.succeed(held...)
		for _, a := range held {
			if j := r.expect(a.Job.Seq, job.Succeeded); j.RunCount != 1 {
				t.Errorf("job %d has run %d times", j.Seq, j.RunCount)
			}
		}
	})
}

// TestUnsentRunGoesBackAtOnce: a run that never left for its worker waits for nobody.
func TestUnsentRunGoesBackAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		synctest.Wait()
		r.expect(seq, job.Running)
		s.Close()
		synctest.Wait()
		r.expectEnd(seq, job.RunUndelivered)
		if got := s.Take(1 << 20).Assignments; len(got) > 0 {
			t.Errorf("a session that is over hands out %v", got)
		}
	})
}

// TestRunOfAnEndedSessionGoesBack closes the session while its run is on its way to the disk.
func TestRunOfAnEndedSessionGoesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		resume := r.hang("q")
		s.Close()
		resume()
		synctest.Wait()
		r.expectEnd(r.claims(1, "q")[0].Job.Seq, job.RunUndelivered)
	})
}

// TestUndeliverableJobIsParked: a job that never arrives does not go round for ever.
func TestUndeliverableJobIsParked(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		for range job.MaxDeliveries {
			s := r.open(hello(1))
			s.demand(room(1, "q"))
			s.takes(1)
			s.Close()
			r.pass(dispatch.GoneTimeout)
		}
		if j := r.expect(seq, job.Parked); j.ParkReason != job.ParkUndeliverable {
			t.Errorf("parked for %d", j.ParkReason)
		}
	})
}

// TestDeliveriesOfManyRuns times out more runs than one transaction takes.
func TestDeliveriesOfManyRuns(t *testing.T) {
	const n = 1000
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", n)
		s := r.open(hello(1))
		s.demand(room(n, "q"))
		s.takes(n)
		r.pass(dispatch.DeliveryTimeout)
		if stats := r.d.Stats(); stats.Undelivered != n || stats.Runs != 0 {
			t.Errorf("%+v, want %d undelivered and no run left", stats, n)
		}
	})
}

// TestFailedOpenEndsTheSession: a hello whose call is over leaves nothing behind.
func TestFailedOpenEndsTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(r.ctx)
		cancel()
		for range 20 { // the store may take it all the same
			s, _, err := r.d.Open(ctx, hello(1), func() {})
			if err == nil {
				s.Close()
			}
		}
		if got := r.d.Stats().Sessions; got != 0 {
			t.Errorf("%d sessions are left", got)
		}
	})
}
