package dispatch_test

import (
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// TestLeaseExpiry: a run is lost a lease after its worker was last heard to have it, and its job backs off.
func TestLeaseExpiry(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		spec := r.spec("q")
		spec.Lease = 7 * time.Second
		seq := r.submit(spec)[0]
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		s.keep(time.Minute, held...)
		r.pass(spec.Lease - 1)
		r.expect(seq, job.Running)
		r.pass(1)
		j := r.expectEnd(seq, job.RunLost)
		if j.State != job.Backoff || j.Counters != (job.Counters{Crashes: 1}) {
			t.Errorf("the job is %s with the counters %+v", j.State, j.Counters)
		}
		if got := r.d.Stats().Lost; got != 1 {
			t.Errorf("%d runs are counted as lost", got)
		}
	})
}

// TestLeaseOfTheQueue: a job without a lease of its own has its queue's.
func TestLeaseOfTheQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		r.policy("q", job.Policy{Lease: time.Minute})
		if a := r.claims(1, "q")[0]; a.Job.Run.Lease != time.Minute {
			t.Errorf("lease %v", a.Job.Run.Lease)
		}
		r.pass(time.Minute - 1)
		r.expect(seq, job.Running)
		r.pass(1)
		r.expectEnd(seq, job.RunUndelivered)
	})
}

// TestLeaseIsRenewedAtReceipt: a slow disk costs nobody a lease.
func TestLeaseIsRenewedAtReceipt(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		spec := r.spec("q")
		spec.Lease = 5 * time.Second
		seq := r.submit(spec)[0]
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		r.pass(spec.Lease - time.Second)
		resume := r.hang("other")
		answer := s.post(dispatch.Message{Report: true, Held: tokensOf(held)})
		r.pass(2 * time.Second)
		select {
		case <-answer:
			t.Fatal("the report was answered before its sync")
		default:
		}
		resume()
		if a := <-answer; a.Verdicts[0].Action != dispatch.Continue {
			t.Errorf("verdict %+v", a.Verdicts[0])
		}
		r.expect(seq, job.Running)
	})
}

// TestHeardBeforeJudged: a run that is named between its deadline and the transaction that would end it goes on.
func TestHeardBeforeJudged(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		runs := r.claims(1, "q")
		r.pass(time.Second / 2) // so that the deadline comes between two sweeps
		r.heartbeat(runs...)
		r.pass(job.DefaultLease - 1)
		r.occupy()
		r.pass(1)
		verdict := make(chan dispatch.Verdict, 1)
		go func() { verdict <- r.heartbeat(runs...)[0] }()
		r.pass(time.Millisecond)
		r.goOn()
		if v := <-verdict; v.Action != dispatch.Continue {
			t.Errorf("verdict %+v", v)
		}
		r.pass(job.DefaultLease - 2*time.Millisecond)
		r.expect(seq, job.Running)
		r.pass(2 * time.Millisecond)
		r.expectEnd(seq, job.RunLost)
	})
}

// TestReportWithoutARun: what the worker knows to have and no longer lists is lost, and its slot is free.
func TestReportWithoutARun(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 3)
		s := r.open(hello(1))
		s.demand(room(2, "q"))
		held := s.accepts(2)
		s.report(held[0])
		j := r.expectEnd(seqs[1], job.RunLost)
		if j.State != job.Backoff || j.Counters != (job.Counters{Crashes: 1}) {
			t.Errorf("the job is %s with the counters %+v", j.State, j.Counters)
		}
		r.expect(seqs[0], job.Running)
		s.accepts(1)
	})
}

// TestReportCoversWhatWasSeen: a report that was on its way when an assignment was sent says nothing about it. The
// acknowledgement is judged before the report of the same message.
func TestReportCoversWhatWasSeen(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		s.demand(room(2, "q"))
		s.takes(1)
		s.report(held...)
		r.expect(seqs[1], job.Running)
		s.say(dispatch.Message{Seen: s.last, Report: true, Held: tokensOf(held)})
		r.expectEnd(seqs[1], job.RunLost)
		r.expect(seqs[0], job.Running)
	})
}

// TestReportIsJudgedAfterItsFinishes: a worker may stop listing a run in the message that finishes it.
func TestReportIsJudgedAfterItsFinishes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		a := s.say(dispatch.Message{Finishes: finishes(released(job.Released{}), held), Report: true})
		r.recorded(a.Acks)
		r.expectEnd(seqs[0], job.RunReleased)
		s.accepts(1)
	})
}

// TestReportIsAboutItsOwnSession: a unary run of the same instance, and runs of others, are not missing from it.
func TestReportIsAboutItsOwnSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 3)
		unary, err := r.d.Claim(r.ctx, claim(1, 1, "q"))
		if err != nil {
			t.Fatal(err)
		}
		r.heartbeat(unary...)
		other := r.open(hello(2))
		other.demand(room(1, "q"))
		others := other.accepts(1)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		s.accepts(1)
		s.report()
		for _, a := range append(unary, others...) {
			r.expect(a.Job.Seq, job.Running)
		}
		if got := r.d.Stats().Lost; got != 1 {
			t.Errorf("%d runs were lost, want one", got)
		}
	})
}

// TestReportCoversAdoptedRuns from the welcome on.
func TestReportCoversAdoptedRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 2)
		unary, err := r.d.Claim(r.ctx, claim(1, 1, "q"))
		if err != nil {
			t.Fatal(err)
		}
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		s.Close()
		held = append(held, unary...)
		s = r.open(hello(1, held...))
		s.report(held...)
		s.report()
		for _, a := range held {
			r.expectEnd(a.Job.Seq, job.RunLost)
		}
	})
}

// TestHelloWithoutARun: a new session of the instance says what is left of the old one.
func TestHelloWithoutARun(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 3)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		accepted := s.accepts(1)[0]
		s.demand(room(3, "q"))
		unseen := s.takes(2)
		s.Close()
		r.open(hello(1, unseen[0]))
		r.expectEnd(accepted.Job.Seq, job.RunLost)
		r.expectEnd(unseen[1].Job.Seq, job.RunUndelivered)
		r.expect(unseen[0].Job.Seq, job.Running)
	})
}

// TestUnaryRunLivesByItsLease, whatever a hello of its instance does not say.
func TestUnaryRunLivesByItsLease(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		runs, err := r.d.Claim(r.ctx, claim(1, 1, "q"))
		if err != nil {
			t.Fatal(err)
		}
		r.heartbeat(runs...)
		r.open(hello(1)).Close()
		r.open(hello(1))
		r.pass(job.DefaultLease - 1)
		r.expect(seq, job.Running)
		r.pass(1)
		r.expectEnd(seq, job.RunLost)
	})
}

// TestLostUnderALevel follows what the interrupt asked for.
func TestLostUnderALevel(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		runs := r.claims(2, "q")
		r.heartbeat(runs...)
		r.interrupt(seqs[0], job.LevelRetry)
		r.interrupt(seqs[1], job.LevelCancel)
		r.pass(job.DefaultLease)
		if j := r.expect(seqs[0], job.Scheduled); j.Counters != (job.Counters{Interrupts: 1}) {
			t.Errorf("counters %+v", j.Counters)
		}
		r.expect(seqs[1], job.Cancelled)
	})
}

// TestCadence: a worker reports every 15 s while it holds nothing, every 3 s while it does, or at a third of the shortest
// lease, and is told when an assignment makes that sooner.
func TestCadence(t *testing.T) {
	about := func(t *testing.T, got, want time.Duration) {
		t.Helper()
		if got < want*9/10 || got > want*11/10 {
			t.Errorf("report after %v, want %v ± 10 %%", got, want)
		}
	}
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		about(t, s.welcome.NextReport, dispatch.IdleCadence)
		about(t, s.report().NextReport, dispatch.IdleCadence)
		s.demand(room(9, "q"))
		r.plain("q", 1)
		held := s.accepts(1)
		last := s.out[len(s.out)-1]
		about(t, last.Hurry, dispatch.Cadence)
		if last.LastReport != 1 {
			t.Errorf("it is to go with the answer of message %d, want 1", last.LastReport)
		}
		about(t, s.report(held...).NextReport, dispatch.Cadence)

		short := r.spec("q")
		short.Lease = 6 * time.Second
		r.submit(short)
		held = append(held, s.accepts(1)...)
		if got := s.out[len(s.out)-1].Hurry; got > short.Lease/3 || got < short.Lease/3*9/10 {
			t.Errorf("report after %v, want at most a third of the lease, %v", got, short.Lease/3)
		}
		s.succeed(held[1])
		about(t, s.report(held[0]).NextReport, dispatch.Cadence)
		s.succeed(held[0])
		about(t, s.report().NextReport, dispatch.IdleCadence)

		eager := hello(2)
		eager.MaxSilence = 2 * time.Second
		about(t, r.open(eager).welcome.NextReport, eager.MaxSilence)
		eager = hello(3)
		eager.MaxSilence = time.Millisecond
		about(t, r.open(eager).welcome.NextReport, dispatch.CadenceMin)
	})
}

// TestHeartbeatCadence: a claimed run is kept by a third of its lease.
func TestHeartbeatCadence(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 1)
		spec := r.spec("q")
		spec.Lease = 6 * time.Second
		r.submit(spec)
		runs := r.claims(2, "q")
		for n, lease := range map[int]time.Duration{1: job.DefaultLease, 2: spec.Lease} {
			_, next, err := r.d.Heartbeat(r.ctx, tokensOf(runs[:n]), nil)
			if err != nil || next > lease/3 || next < lease/3*9/10 {
				t.Errorf("%d runs: again after %v, want %v; error %v", n, next, lease/3, err)
			}
		}
	})
}

// TestLeasesThatEndTogether: the end of more leases than one transaction takes spares the one that was renewed just
// before.
func TestLeasesThatEndTogether(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 600)
		runs := r.claims(600, "q")
		r.heartbeat(runs...)
		r.pass(job.DefaultLease - 1)
		r.heartbeat(runs[300])
		r.pass(1)
		for i, a := range runs {
			if i != 300 {
				r.expectEnd(a.Job.Seq, job.RunLost)
			}
		}
		r.expect(runs[300].Job.Seq, job.Running)
	})
}
