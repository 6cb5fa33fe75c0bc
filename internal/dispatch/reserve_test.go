package dispatch_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// churn ends the oldest of the runs every ten seconds, with plenty of small jobs waiting, until one of the wanted jobs has
// started, and returns its run and how long that took.
func (r *rig) churn(s *stream, held []dispatch.Assignment, wanted ...uint64) (dispatch.Assignment, time.Duration) {
	r.t.Helper()
	const turn = 10 * time.Second
	begin := time.Now()
	for range int(4 * job.AgingStep / turn) {
		if len(held) > 0 {
			s.succeed(held[0])
			held = held[1:]
		}
		got := s.take()
		s.see()
		held = append(held, got...)
		for _, a := range got {
			if slices.Contains(wanted, a.Job.Seq) {
				return a, time.Since(begin)
			}
		}
		s.report(held...)
		r.pass(turn)
	}
	r.t.Fatal("none of the wanted jobs has started")
	return dispatch.Assignment{}, 0
}

// TestWideJobStarts: a job that takes all of a key starts within two aging steps though small ones would never leave it
// free, and then they go on.
func TestWideJobStarts(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 5})
		s := r.worker(1, "q")
		r.submitMany(200, "q", use("l", "", 1))
		held := s.accepts(5)
		wide := r.submitMany(1, "q", use("l", "", 5))
		run, took := r.churn(s, held, wide...)
		if took < job.AgingStep || took > 2*job.AgingStep {
			r.t.Errorf("it started after %s; want between one and two aging steps", took)
		}
		s.succeed(run)
		s.takes(5)
	})
}

// TestJobsOfTwoKeysStart: jobs that need A and B, in whatever order they name them, start within two aging steps though
// jobs of one of them would never leave both free.
func TestJobsOfTwoKeysStart(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.bound("a", job.LimitPolicy{Max: 1})
		r.bound("b", job.LimitPolicy{Max: 1})
		s := r.worker(1, "q", "p")
		for range 100 {
			r.submitMany(1, "q", use("a", "", 1))
			r.submitMany(1, "q", use("b", "", 1))
		}
		held := s.accepts(2)
		both := append(r.submitMany(1, "q", use("a", "", 1), use("b", "", 1)), r.submitMany(1, "p", use("a", "", 1), use("b", "", 1))...)
		if _, took := r.churn(s, held, both...); took > 2*job.AgingStep {
			r.t.Errorf("the first started after %s", took)
		}
	})
}

// TestReservationEnds: what is kept for a job goes to others when it is cancelled, when it cannot fit any more, and is not
// kept while its queue is paused or nobody serves it.
func TestReservationEnds(t *testing.T) {
	for name, c := range map[string]struct {
		queue string
		end   func(r *rig, wide uint64)
	}{
		"paused":    {"wide", func(r *rig, _ uint64) { r.pause("wide", true) }},
		"cancelled": {"wide", func(r *rig, wide uint64) { r.interrupt(wide, job.LevelCancel) }},
		"lowered":   {"wide", func(r *rig, _ uint64) { r.bound("l", job.LimitPolicy{Max: 4}) }},
		"unserved":  {"nobody", func(*rig, uint64) {}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(_ *testing.T, r *rig) {
				r.bound("l", job.LimitPolicy{Max: 5})
				s := r.worker(1, "q", "wide")
				r.submitMany(20, "q", use("l", "", 1))
				held := s.accepts(5)
				wide := r.submitMany(1, c.queue, use("l", "", 5))[0]
				for range 40 { // over an aging step
					s.report(held...)
					r.pass(8 * time.Second)
				}
				s.succeed(held[0])
				if kept := len(s.take()) == 0; kept != (c.queue == "wide") {
					r.t.Fatalf("the unit that was given back is kept: %v", kept)
				}
				c.end(r, wide)
				s.see()
				s.succeed(held[1:]...)
				if got := s.take(); len(got) < 3 {
					r.t.Errorf("%d small jobs started", len(got))
				}
			})
		})
	}
}
