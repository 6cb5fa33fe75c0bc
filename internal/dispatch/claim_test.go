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

// TestClaimWithoutWait answers at once, with as much as there is.
func TestClaimWithoutWait(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		begin := time.Now()
		if runs, err := r.d.Claim(r.ctx, claim(1, 5, "q")); err != nil || len(runs) != 0 {
			t.Errorf("an empty queue gave %v, %v", runs, err)
		}
		seqs := r.plain("q", 3)
		if runs, err := r.d.Claim(r.ctx, claim(1, 2, "q")); err != nil || !slices.Equal(seqsOf(runs), seqs[:2]) {
			t.Errorf("a claim of two of three gave %v, %v", runs, err)
		}
		if runs, err := r.d.Claim(r.ctx, claim(1, 2, "q")); err != nil || !slices.Equal(seqsOf(runs), seqs[2:]) {
			t.Errorf("a claim of two of one gave %v, %v", runs, err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("it took %v", took)
		}
		if q := r.queue("q"); q == nil {
			t.Error("the queue did not come into being with the claim")
		}
	})
}

// TestLongPoll is answered when work comes, and takes what one batch gives it.
func TestLongPoll(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		waiting := claim(1, 5, "p", "q")
		waiting.Wait = time.Minute
		begin := time.Now()
		claiming := r.claiming(r.ctx, waiting)
		r.pass(7 * time.Second)
		seqs := r.plain("q", 2)
		c := <-claiming
		if c.err != nil || !slices.Equal(seqsOf(c.runs), seqs) || c.at.Sub(begin) != 7*time.Second {
			t.Errorf("claim: %+v after %v", c, c.at.Sub(begin))
		}
		r.plain("q", 1)
		if stats := r.d.Stats(); stats.Runs != 2 || stats.Waiting != 0 {
			t.Errorf("an answered claim goes on: %+v", stats)
		}
	})
}

// TestLongPollEnds without runs when its wait is over, half a second before its caller gives up, when it is told to
// quit, or when its worker drains.
func TestLongPollEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("other", 1)
		begin := time.Now()
		check := func(what string, c claimed, err error, after time.Duration) {
			t.Helper()
			if !errors.Is(c.err, err) || len(c.runs) > 0 || c.at.Sub(begin) != after {
				t.Errorf("%s: %+v after %v, want %v after %v", what, c, c.at.Sub(begin), err, after)
			}
			if got := r.d.Stats().Waiting; got != 0 {
				t.Errorf("%s: it still stands in line", what)
			}
			begin = time.Now()
		}
		waiting := claim(1, 1, "q")
		waiting.Wait = 10 * time.Second
		check("its wait", <-r.claiming(r.ctx, waiting), nil, 10*time.Second)

		ctx, cancel := context.WithTimeout(r.ctx, 4*time.Second)
		defer cancel()
		check("its caller's deadline", <-r.claiming(ctx, waiting), nil, 3500*time.Millisecond)

		ctx, cancel = context.WithTimeout(r.ctx, 100*time.Millisecond)
		defer cancel()
		check("a caller in a hurry", <-r.claiming(ctx, waiting), nil, 0)

		quit := make(chan struct{})
		waiting.Quit = quit
		claiming := r.claiming(r.ctx, waiting)
		r.pass(time.Second)
		close(quit)
		check("quit", <-claiming, nil, time.Second)
		waiting.Quit = nil

		claiming = r.claiming(r.ctx, waiting)
		r.pass(2 * time.Second)
		r.d.Drain([]job.ID{{1}}, dispatch.DrainNotice{})
		check("a drain", <-claiming, dispatch.ErrDraining, 2*time.Second)
	})
}

// TestClaimWithoutASignOfLife is undelivered a lease after its answer, which is not a crash.
func TestClaimWithoutASignOfLife(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		r.claims(1, "q")
		r.pass(job.DefaultLease - 1)
		r.expect(seq, job.Running)
		r.pass(1)
		j := r.expectEnd(seq, job.RunUndelivered)
		if j.State != job.Ready || j.Counters != (job.Counters{Deliveries: 1}) {
			t.Errorf("the job is %s with the counters %+v", j.State, j.Counters)
		}
	})
}

// TestLeaseOfAClaimBeginsWithItsAnswer: what the disk takes is not the worker's.
func TestLeaseOfAClaimBeginsWithItsAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		waiting := claim(1, 1, "q")
		waiting.Wait = time.Minute
		claiming := r.claiming(r.ctx, waiting)
		resume := r.hang("q")
		r.pass(2 * time.Second)
		resume()
		c := <-claiming
		seq := c.runs[0].Job.Seq
		r.pass(job.DefaultLease - 1)
		r.expect(seq, job.Running)
		r.pass(1)
		r.expectEnd(seq, job.RunUndelivered)
	})
}

// TestHeartbeatKeepsAClaim for as long as it comes.
func TestHeartbeatKeepsAClaim(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		runs := r.claims(1, "q")
		for range 10 {
			r.pass(job.DefaultLease - 1)
			if v := r.heartbeat(runs...); v[0].Action != dispatch.Continue {
				t.Fatalf("verdict %+v", v[0])
			}
		}
		r.pass(job.DefaultLease)
		if j := r.expectEnd(seq, job.RunLost); j.Counters != (job.Counters{Crashes: 1}) {
			t.Errorf("counters %+v", j.Counters)
		}
	})
}

// TestRepeatedClaim: the same request_id answers the same runs within their lease, also to one that asks while the
// first waits; another id, or another instance, does not.
func TestRepeatedClaim(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 9)
		c := claim(1, 2, "q")
		c.Request = "r"
		take := func(c dispatch.ClaimRequest, want ...uint64) {
			t.Helper()
			runs, err := r.d.Claim(r.ctx, c)
			if err != nil || !slices.Equal(seqsOf(runs), want) {
				t.Errorf("claim %q of worker %d: %v, %v; want %v", c.Request, c.Instance[0], seqsOf(runs), err, want)
			}
		}
		take(c, seqs[0], seqs[1])
		take(c, seqs[0], seqs[1])
		r.pass(job.DefaultLease - time.Second)
		r.d.Drain([]job.ID{{1}}, dispatch.DrainNotice{}) // it holds them already
		take(c, seqs[0], seqs[1])

		c.Instance = job.ID{2}
		take(c, seqs[2], seqs[3])
		c.Request = "s"
		take(c, seqs[4], seqs[5])
		c.Request = ""
		take(c, seqs[6], seqs[7])
		take(c, seqs[8])
	})
}

func TestRepeatedClaimAfterTheLease(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		c := claim(1, 1, "q")
		c.Request = "r"
		first, err := r.d.Claim(r.ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		r.heartbeat(first...)
		r.pass(job.DefaultLease - 1)
		r.heartbeat(first...)
		r.pass(1)
		if runs, err := r.d.Claim(r.ctx, c); err != nil || !slices.Equal(seqsOf(runs), seqs[1:]) {
			t.Errorf("a lease later: %v, %v; want the next job", seqsOf(runs), err)
		}
	})
}

// TestRepeatedClaimWhileItWaits: both callers get the same runs, and one that gives up takes nothing from the other.
func TestRepeatedClaimWhileItWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := claim(1, 1, "q")
		c.Request, c.Wait = "r", time.Minute
		ctx, cancel := context.WithCancel(r.ctx)
		defer cancel()
		impatient := r.claiming(ctx, c)
		first, second := r.claiming(r.ctx, c), r.claiming(r.ctx, c)
		short := c
		short.Wait = time.Second
		if got := <-r.claiming(r.ctx, short); got.err != nil || len(got.runs) > 0 {
			t.Errorf("the one with the short wait got %+v", got)
		}
		cancel()
		if got := <-impatient; !errors.Is(got.err, context.Canceled) {
			t.Errorf("the cancelled one got %+v", got)
		}
		seq := r.plain("q", 2)[0]
		for _, got := range []claimed{<-first, <-second} {
			if got.err != nil || !slices.Equal(seqsOf(got.runs), []uint64{seq}) {
				t.Errorf("got %+v, want job %d", got, seq)
			}
		}
	})
}

// TestClaimOfACancelledCall goes back at once, wherever its runs are on their way.
func TestClaimOfACancelledCall(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		waiting := claim(1, 1, "q")
		waiting.Wait = time.Minute
		ctx, cancel := context.WithCancel(r.ctx)
		claiming := r.claiming(ctx, waiting)
		resume := r.hang("q")
		cancel()
		if c := <-claiming; !errors.Is(c.err, context.Canceled) {
			t.Errorf("the claim: %+v", c)
		}
		resume()
		synctest.Wait()
		j := r.expectEnd(r.claims(1, "q")[0].Job.Seq, job.RunUndelivered)
		if j.Counters != (job.Counters{Deliveries: 1}) {
			t.Errorf("counters %+v", j.Counters)
		}
	})
}

// TestCancelledWait gives up its place in line.
func TestCancelledWait(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		waiting := claim(1, 1, "q")
		waiting.Wait, waiting.Request = time.Minute, "r"
		ctx, cancel := context.WithCancel(r.ctx)
		claiming := r.claiming(ctx, waiting)
		cancel()
		if c := <-claiming; !errors.Is(c.err, context.Canceled) {
			t.Errorf("the claim: %+v", c)
		}
		seq := r.plain("q", 1)[0]
		r.expect(seq, job.Ready)
		if runs, err := r.d.Claim(r.ctx, waiting); err != nil || len(runs) != 1 {
			t.Errorf("the same request again: %v, %v", runs, err)
		}
	})
}

// TestCancelledRepeat takes back nothing that another caller was told.
func TestCancelledRepeat(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		c := claim(1, 1, "q")
		c.Request = "r"
		runs, err := r.d.Claim(r.ctx, c)
		if err != nil || len(runs) != 1 {
			t.Fatal(runs, err)
		}
		ctx, cancel := context.WithCancel(r.ctx)
		resume := r.hang("other")
		repeat := r.claiming(ctx, c)
		cancel()
		resume()
		if got := <-repeat; !errors.Is(got.err, context.Canceled) {
			t.Errorf("the repeat: %+v", got)
		}
		r.pass(time.Second)
		if v := r.heartbeat(runs...); v[0].Action != dispatch.Continue {
			t.Errorf("verdict %+v", v[0])
		}
		if again, err := r.d.Claim(r.ctx, c); err != nil || !slices.Equal(seqsOf(again), []uint64{seq}) {
			t.Errorf("the same request again: %v, %v", again, err)
		}
	})
}

// TestClaimByBytes: an answer has to fit into a message.
func TestClaimByBytes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for range 5 {
			s := r.spec("q")
			s.Payload, s.PayloadSize = make([]byte, 100<<10), 100<<10
			r.submit(s)
		}
		for _, want := range []int{3, 2} {
			if runs, err := r.d.Claim(r.ctx, claim(1, 9, "q")); err != nil || len(runs) != want {
				t.Errorf("%d runs, want %d; error %v", len(runs), want, err)
			}
		}
	})
}

// TestWithdrawnClaim: a run that is cancelled on its way to the claim's answer is not in it.
func TestWithdrawnClaim(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		waiting := claim(1, 2, "q")
		waiting.Wait, waiting.Request = time.Minute, "r"
		claiming := r.claiming(r.ctx, waiting)
		resume := r.hang("q")
		cancelled := make(chan struct{})
		go func() {
			defer close(cancelled)
			r.interrupt(1, job.LevelCancel)
		}()
		synctest.Wait()
		resume()
		<-cancelled
		if c := <-claiming; c.err != nil || len(c.runs) > 0 {
			t.Errorf("claim: %+v", c)
		}
		r.pass(time.Second)
		seq := r.plain("q", 1)[0]
		if runs, err := r.d.Claim(r.ctx, waiting); err != nil || !slices.Equal(seqsOf(runs), []uint64{seq}) {
			t.Errorf("the same request again: %v, %v; want job %d", seqsOf(runs), err, seq)
		}
	})
}
