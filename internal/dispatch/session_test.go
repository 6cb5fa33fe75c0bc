package dispatch_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// TestInstanceInUse: while an instance's session is alive, only its own resume token takes it over.
func TestInstanceInUse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		old := r.open(hello(1))
		old.report()
		thief := hello(1)
		for _, token := range []string{"", "x", r.open(hello(2)).welcome.ResumeToken} {
			thief.ResumeToken = token
			if _, err := r.tryOpen(thief); !errors.Is(err, dispatch.ErrInstanceInUse) {
				t.Errorf("a hello with the token %q: %v", token, err)
			}
		}
		if err := old.Err(); err != nil {
			t.Fatal("the session ended:", err)
		}
		own := hello(1)
		own.ResumeToken = old.welcome.ResumeToken
		next := r.open(own)
		old.ended(dispatch.ErrReplaced)
		if next.welcome.ResumeToken == own.ResumeToken {
			t.Error("two sessions have one resume token")
		}
		next.report()
		if _, err := r.tryOpen(own); !errors.Is(err, dispatch.ErrInstanceInUse) {
			t.Errorf("a hello with the token of the session before: %v", err)
		}
	})
}

// TestInstanceOfAQuietSession: after two cadences without a word nobody needs a token, nor if nothing came after the
// welcome, for the worker may have missed it.
func TestInstanceOfAQuietSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.open(hello(1))
		first := demandOf(1, room(1, "q"))
		first.First = true
		r.open(hello(1)).say(first)
		r.open(hello(1)).report()
		r.pass(2*dispatch.IdleCadence - 2*time.Second) // the sweep has not ended it yet
		if _, err := r.tryOpen(hello(1)); !errors.Is(err, dispatch.ErrInstanceInUse) {
			t.Errorf("before two cadences: %v", err)
		}

		r.plain("q", 1)
		s := r.open(hello(2))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		s.report(held...)
		r.pass(2 * dispatch.Cadence)
		r.open(hello(2, held...))
		s.ended(dispatch.ErrReplaced)
	})
}

// TestReplacedSession: of what comes on it only the finishes count.
func TestReplacedSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 5)
		old := r.open(hello(1))
		old.demand(room(3, "q"))
		held := old.accepts(3)
		own := hello(1, held...)
		own.ResumeToken = old.welcome.ResumeToken
		next := r.open(own)
		next.demand(room(3, "q"))

		a := old.say(dispatch.Message{
			Demand:   &dispatch.Demand{Version: 2, Pools: []dispatch.Pool{room(9, "q", "made")}},
			Finishes: finishes(success(), held[:1]),
			Report:   true, // and lists nothing
			Drain:    true,
		})
		want := dispatch.Answer{Seq: a.Seq, Acks: []dispatch.Ack{{Token: held[0].Token, Status: dispatch.AckRecorded, State: job.Succeeded}}}
		if diff := cmp.Diff(want, a); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
		if got := old.Take(1 << 20).Assignments; len(got) > 0 {
			t.Errorf("it hands out %v", got)
		}
		r.expect(seqs[0], job.Succeeded)
		r.expect(seqs[1], job.Running)
		r.expect(seqs[2], job.Running)
		next.accepts(1) // the slot that the finish freed

		r.pass(20 * time.Second)
		old.report(held[1]) // renews nothing
		r.pass(10 * time.Second)
		r.expectEnd(seqs[1], job.RunLost)
	})
}

// TestReplacedWhileOnItsWay hands a message in before the session is replaced, and has it applied after.
func TestReplacedWhileOnItsWay(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 3)
		old := r.open(hello(1))
		old.demand(room(2, "q"))
		held := old.accepts(2)
		old.demand(room(3, "q"))
		held = append(held, old.takes(1)...)
		r.occupy()
		answer := old.post(dispatch.Message{Seen: old.last, Finishes: finishes(success(), held[:1]), Report: true})
		own := hello(1, held[:2]...)
		own.ResumeToken = old.welcome.ResumeToken
		opening := make(chan *stream, 1)
		go func() { opening <- r.open(own) }()
		synctest.Wait()
		r.goOn()
		if a := <-answer; a.Reported || len(a.Acks) != 1 || a.Acks[0].Status != dispatch.AckRecorded {
			t.Errorf("answer %+v", a)
		}
		next := <-opening
		if got := next.welcome.Verdicts; got[0].Action != dispatch.Finished || got[1].Action != dispatch.Continue {
			t.Errorf("verdicts %+v", got)
		}
		r.expect(seqs[0], job.Succeeded)
		r.expect(seqs[1], job.Running)
		r.expectEnd(seqs[2], job.RunUndelivered) // its seen did not count
	})
}

// TestSilentSession ends after SessionLease without a word, and not before.
func TestSilentSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		spec := r.spec("q")
		spec.Lease = time.Hour
		seq := r.submit(spec)[0]
		s, talker := r.open(hello(1)), r.open(hello(2))
		s.demand(room(1, "q"))
		s.accepts(1)
		for range 10 {
			r.pass(dispatch.SessionLease / 10)
			talker.say(dispatch.Message{}) // any word will do
		}
		if err := s.Err(); err != nil {
			t.Error("too early:", err)
		}
		r.pass(2 * time.Second)
		s.ended(dispatch.ErrSilent)
		if err := talker.Err(); err != nil {
			t.Error("the other one ended:", err)
		}
		r.expect(seq, job.Running) // a run lives by its lease
	})
}

// TestFirstReasonCounts: how a session ended does not change.
func TestFirstReasonCounts(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		s.Close()
		s.ended(dispatch.ErrClosed)
		r.open(hello(1)) // which would replace it
		s.Close()
		r.pass(time.Minute)
		s.ended(dispatch.ErrClosed)
	})
}

// TestCloseOfTheDispatcher ends everybody who waits.
func TestCloseOfTheDispatcher(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		waiting := claim(2, 1, "q")
		waiting.Wait = time.Minute
		claiming := r.claiming(r.ctx, waiting)
		begin := time.Now()
		r.d.Close()
		s.ended(dispatch.ErrClosed)
		if c := <-claiming; !errors.Is(c.err, dispatch.ErrClosed) || !c.at.Equal(begin) {
			t.Errorf("the claim ended with %v after %v", c.err, c.at.Sub(begin))
		}
		if _, err := r.tryOpen(hello(3)); !errors.Is(err, dispatch.ErrClosed) {
			t.Errorf("a hello after it: %v", err)
		}
		if _, err := r.d.Claim(r.ctx, waiting); !errors.Is(err, dispatch.ErrClosed) {
			t.Errorf("a claim after it: %v", err)
		}
	})
}

// TestQuietSession is one of a stopping server: it gets nothing more, and goes on with what it has.
func TestQuietSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 3)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		s.Quiet()
		s.demand(room(3, "q"))
		s.takes(0)
		s.report(held...)
		s.succeed(held...)
		s.takes(0)
	})
}

// TestMessagesAreAnsweredInOrder although several are on their way at once.
func TestMessagesAreAnsweredInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 3)
		s := r.open(hello(1))
		s.demand(room(3, "q"))
		held := s.accepts(3)
		resume := r.hang("other")
		var got []uint64
		done := make(chan struct{})
		for i, m := range []dispatch.Message{
			{Report: true, Held: tokensOf(held)},
			{Finishes: finishes(success(), held[:1])},
			{Report: true, Held: tokensOf(held[1:])},
			{Finishes: finishes(failure(), held[1:2]), Report: true, Held: tokensOf(held[2:])},
			{},
		} {
			m.Seq = uint64(100 + i)
			s.Receive(r.ctx, m, func(a dispatch.Answer, err error) {
				if err != nil {
					t.Error(err)
				}
				if got = append(got, a.Seq); len(got) == 5 {
					close(done)
				}
			})
		}
		synctest.Wait()
		resume()
		<-done
		if !slices.Equal(got, []uint64{100, 101, 102, 103, 104}) {
			t.Errorf("answers to %v", got)
		}
		if got := r.d.Stats().Lost; got != 0 {
			t.Errorf("%d runs were lost", got)
		}
	})
}

// TestWorkers lists who has a session or holds runs, page by page.
func TestWorkers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 4)
		who := hello(3)
		who.Host, who.PID, who.Build, who.ResumeToken = "h", 7, "b", "secret"
		s := r.open(who)
		s.demand(room(2, "q", "p"), room(0, "o"))
		s.accepts(2)
		r.claims(1, "q")                        // worker 9
		r.claiming(r.ctx, claim(5, 1, "other")) // holds nothing and is gone
		begin := time.Now()
		r.pass(5 * time.Second)
		s.report() // loses both, and gets the last one
		who.ResumeToken, who.Held = "", nil
		want := []dispatch.Worker{
			{
				Hello: who, Connected: true, Since: begin.UTC(), Heard: begin.UTC().Add(5 * time.Second),
				Runs: 1, Pools: []dispatch.Pool{room(2, "q", "p"), room(0, "o")},
			},
			{Hello: dispatch.Hello{Worker: "w", Instance: job.ID{9}}, Since: begin.UTC(), Heard: begin.UTC(), Runs: 1},
		}
		synctest.Wait()
		if diff := cmp.Diff(want, r.d.Workers(job.ID{}, 10)); diff != "" {
			t.Errorf("workers (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want[:1], r.d.Workers(job.ID{}, 1)); diff != "" {
			t.Errorf("the first page (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want[1:], r.d.Workers(job.ID{3}, 1)); diff != "" {
			t.Errorf("the next page (-want +got):\n%s", diff)
		}
	})
}
