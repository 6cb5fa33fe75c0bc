package dispatch_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// TestDrainWithoutGrace: the worker gets nothing more, is told once, and keeps what it has.
func TestDrainWithoutGrace(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 3)
		s := r.open(hello(1))
		s.demand(room(2, "q"))
		held := s.accepts(2)
		got := r.d.Drain([]job.ID{{1}, {77}}, dispatch.DrainNotice{Reason: "deploy"})
		if len(got) != 2 || got[0] != (dispatch.Drained{Runs: 2}) || !errors.Is(got[1].Err, dispatch.ErrWorkerUnknown) {
			t.Errorf("drained %+v", got)
		}
		s.takes(0)
		if diff := cmp.Diff([]*dispatch.DrainNotice{{Reason: "deploy"}}, s.drains()); diff != "" {
			t.Errorf("notices (-want +got):\n%s", diff)
		}
		s.succeed(held[0])
		s.keep(10*time.Minute, held[1])
		s.takes(0)
		if j := r.job(held[1].Job.Seq); j.Interrupted().Level != job.LevelNone {
			t.Errorf("interrupted: %+v", j.Interrupted())
		}
		s.succeed(held[1])
		s.takes(0)
		if n := len(s.drains()); n != 1 {
			t.Errorf("told %d times", n)
		}
		if drain := r.d.Workers(job.ID{}, 1)[0].Drain; drain == nil || drain.Reason != "deploy" {
			t.Errorf("it is listed with the drain %v", drain)
		}
		if runs, err := r.d.Claim(r.ctx, claim(1, 1, "q")); !errors.Is(err, dispatch.ErrDraining) || len(runs) > 0 {
			t.Errorf("a claim of the draining worker: %v, %v", runs, err)
		}
		r.claims(1, "q")
	})
}

// drains are the notices that the stream has brought.
func (s *stream) drains() (notices []*dispatch.DrainNotice) {
	for _, out := range s.out {
		if out.Drain != nil {
			notices = append(notices, out.Drain)
		}
	}
	return notices
}

// TestDrainWithGrace: what the worker still holds after it is interrupted with RETRY.
func TestDrainWithGrace(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 3)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		unary, err := r.d.Claim(r.ctx, claim(1, 1, "q"))
		if err != nil {
			t.Fatal(err)
		}
		r.heartbeat(unary...)
		other := r.claims(1, "q")
		r.heartbeat(other...)

		grace, longer := 20*time.Second, time.Hour
		r.d.Drain([]job.ID{{1}}, dispatch.DrainNotice{Reason: "first", Grace: &grace})
		r.d.Drain([]job.ID{{1}}, dispatch.DrainNotice{Reason: "deploy", Requester: "ops", Grace: &longer})
		s.keep(grace-time.Millisecond, held...)
		if got := r.job(held[0].Job.Seq).Interrupted().Level; got != job.LevelNone {
			t.Errorf("too early: level %d", got)
		}
		r.pass(time.Millisecond)
		want := job.Interrupt{
			Level: job.LevelRetry, Generation: 1, Source: job.SourceDrain, Reason: "deploy", Requester: "ops", RequestTime: time.Now().UTC(),
			GraceTime: time.Now().UTC().Add(job.RetryGrace),
		}
		for _, v := range append(s.report(held...).Verdicts, r.heartbeat(unary...)...) {
			v.Interrupt.DeliverTime = time.Time{}
			if diff := cmp.Diff(want, v.Interrupt); diff != "" {
				t.Errorf("interrupt (-want +got):\n%s", diff)
			}
		}
		if got := r.heartbeat(other...)[0].Interrupt.Level; got != job.LevelNone {
			t.Errorf("another worker's run is interrupted with level %d", got)
		}
	})
}

// TestDrainWithdraws: what had not reached the worker yet comes back when its queue says.
func TestDrainWithdraws(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		r.policy("q", job.Policy{Retry: job.RetryPolicy{InterruptDelay: time.Hour}})
		r.claims(1, "q")
		r.d.Drain([]job.ID{{9}}, dispatch.DrainNotice{Grace: new(time.Duration)})
		synctest.Wait()
		r.expectEnd(seq, job.RunWithdrawn)
		if got := time.Until(r.expect(seq, job.Scheduled).DueTime); got != time.Hour {
			t.Errorf("it comes back in %v", got)
		}
	})
}

// TestDrainNeverLowers: a worker's going away cannot undo a CANCEL.
func TestDrainNeverLowersALevel(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		r.heartbeat(r.claims(1, "q")...)
		r.interrupt(seq, job.LevelCancel)
		r.d.Drain([]job.ID{{9}}, dispatch.DrainNotice{Grace: new(time.Duration)})
		synctest.Wait()
		if got := r.job(seq).Interrupted(); got.Level != job.LevelCancel || got.Source != job.SourceUser {
			t.Errorf("interrupt %+v", got)
		}
	})
}

// TestDrainOutlivesTheSession: reconnecting undoes nothing, and the new session is told.
func TestDrainOutlivesTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 2)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		grace := time.Minute
		r.d.Drain([]job.ID{{1}}, dispatch.DrainNotice{Reason: "deploy", Grace: &grace})
		s.Close()
		s = r.open(hello(1, held...))
		s.demand(room(2, "q"))
		s.takes(0)
		if notices := s.drains(); len(notices) != 1 || notices[0].Reason != "deploy" {
			t.Errorf("notices %v", notices)
		}
		s.keep(grace, held...)
		if got := r.job(held[0].Job.Seq).Interrupted().Source; got != job.SourceDrain {
			t.Errorf("after the grace the source is %d", got)
		}

		s.succeed(held...)
		s.Close()
		r.pass(time.Hour) // it is remembered although there is nothing to see of it
		s = r.open(hello(1))
		s.demand(room(2, "q"))
		s.takes(0)
		r.open(hello(2)).demand(room(1, "q")) // a new process is not drained
		synctest.Wait()
		if got := r.d.Stats().Runs; got != 1 {
			t.Errorf("%d runs, want one", got)
		}
	})
}

// TestDrainOfAWaitingClaim: a worker is known for as long as a call of its waits.
func TestDrainOfAWaitingClaim(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		waiting := claim(1, 1, "q")
		waiting.Wait = 5 * time.Minute
		claiming := r.claiming(r.ctx, waiting)
		r.pass(3 * time.Minute)
		if got := r.d.Drain([]job.ID{{1}}, dispatch.DrainNotice{}); got[0].Err != nil {
			t.Fatal("drain:", got[0].Err)
		}
		if c := <-claiming; !errors.Is(c.err, dispatch.ErrDraining) {
			t.Errorf("the claim ended with %+v", c)
		}
	})
}

// TestWorkerAfterALongWait: a run that came after long is its worker's like any other.
func TestWorkerAfterALongWait(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		waiting := claim(1, 1, "q")
		waiting.Wait = 5 * time.Minute
		claiming := r.claiming(r.ctx, waiting)
		r.pass(3 * time.Minute)
		r.plain("q", 1)
		held := (<-claiming).runs
		if workers := r.d.Workers(job.ID{}, 9); len(workers) != 1 || workers[0].Runs != 1 {
			t.Errorf("workers %+v", workers)
		}
		if got := r.d.Drain([]job.ID{{1}}, dispatch.DrainNotice{}); got[0].Err != nil || got[0].Runs != 1 {
			t.Errorf("drained %+v", got)
		}
		s := r.open(hello(1, held...))
		s.report()
		r.expectEnd(held[0].Job.Seq, job.RunLost)
	})
}

// TestWorkersOwnDrain: after the echo no assignment follows, and it does not come before those under way.
func TestWorkersOwnDrain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		s.demand(room(2, "q"))
		resume := r.hang("q")
		answered := s.post(dispatch.Message{Demand: &dispatch.Demand{Version: 2}, Drain: true})
		s.takes(0)
		if s.drained() > 0 {
			t.Error("the drain is echoed while a run is under way")
		}
		resume()
		<-answered
		held := s.accepts(1)
		s.take()
		if got := s.drained(); got != 1 {
			t.Fatalf("echoed %d times, want once", got)
		}
		s.version = 2
		s.demand(room(3, "q"))
		r.plain("q", 1)
		s.takes(0)
		s.report(held...)
		s.succeed(held...)
		s.takes(0)
		if got := s.drained(); got != 1 {
			t.Errorf("echoed %d times, want once", got)
		}
	})
}

// drained is how often the stream has echoed the worker's drain.
func (s *stream) drained() (n int) {
	for _, out := range s.out {
		if out.Drained {
			n++
		}
	}
	return n
}
