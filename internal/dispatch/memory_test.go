package dispatch_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// TestSessionThatNeverSaysSeen: a finish implies it, so such a worker is in order, and may go on for years.
func TestSessionThatNeverSaysSeen(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 500)
		s := r.open(hello(1))
		s.demand(room(5, "q"))
		for range 100 {
			s.succeed(s.takes(5)...)
		}
		if got := s.Unseen(); got > 10 {
			t.Errorf("%d assignments are remembered", got)
		}
	})
}

// TestNothingIsLeftBehind: names of queues, workers and claims that are over are forgotten.
func TestNothingIsLeftBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range byte(50) {
			queue := fmt.Sprint("q", i)
			r.plain(queue, 2)
			s := r.open(hello(i))
			s.demand(room(1, queue, "none"))
			s.demand(room(1, "none", queue))
			held := s.accepts(1)
			s.demand()
			s.succeed(held...)
			s.Close()
			c := claim(100+i, 2, queue)
			c.Request = "r"
			runs, err := r.d.Claim(r.ctx, c)
			if err != nil || len(runs) == 0 {
				t.Fatal(runs, err)
			}
			acks, err := r.d.Finish(r.ctx, finishes(success(), runs))
			if err != nil {
				t.Fatal(err)
			}
			r.recorded(acks)
		}
		r.pass(2 * time.Minute)
		queues, workers, claims := r.d.Known()
		if queues+workers+claims > 0 {
			t.Errorf("%d queues, %d workers and %d claims are remembered", queues, workers, claims)
		}
		if got, want := r.d.Stats(), (dispatch.Stats{Matched: 100}); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
	})
}

// TestWorkersThatHoldRunsAreKnown for as long as they do.
func TestWorkersThatHoldRunsAreKnown(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.spec("q")
		s.Lease = time.Hour
		r.submit(s)
		runs := r.claims(1, "q")
		r.pass(10 * time.Minute)
		if workers := r.d.Workers(job.ID{}, 9); len(workers) != 1 || workers[0].Runs != len(runs) {
			t.Errorf("workers %+v", workers)
		}
	})
}
