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
	"github.com/stintrun/stint/internal/store"
)

// choose claims chosen jobs by worker n.
func (r *rig) choose(n byte, seqs ...uint64) []dispatch.Choice {
	r.t.Helper()
	choices, err := r.d.Choose(r.ctx, claim(n, 0), idsOf(seqs), explained)
	if err != nil {
		r.t.Fatal("choose:", err)
	}
	return choices
}

func idsOf(seqs []uint64) []job.ID {
	ids := make([]job.ID, len(seqs))
	for i, seq := range seqs {
		ids[i] = idOf(uint32(seq)) //nolint:gosec // small
	}
	return ids
}

// taken checks that exactly these of the choices are runs, and returns them.
func (r *rig) taken(choices []dispatch.Choice, want ...uint64) (runs []dispatch.Assignment) {
	r.t.Helper()
	for _, c := range choices {
		if c.Run != nil {
			runs = append(runs, *c.Run)
		} else if c.Err == nil {
			r.t.Errorf("a choice without a run and without an error: %+v", c)
		}
	}
	if !slices.Equal(seqsOf(runs), want) {
		r.t.Fatalf("claimed %v, want %v; %+v", seqsOf(runs), want, choices)
	}
	return runs
}

// TestChosenJobPassesOthers: from the middle of its lane, and those that are left come in their order.
func TestChosenJobPassesOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 6)
		runs := r.taken(r.choose(1, seqs[3], seqs[1]), seqs[3], seqs[1])
		s := r.worker(2, "q")
		if got := seqsOf(s.accepts(4)); !slices.Equal(got, []uint64{seqs[0], seqs[2], seqs[4], seqs[5]}) {
			t.Errorf("the others came as %v", got)
		}
		if v := r.heartbeat(runs...); v[0].Action != dispatch.Continue || v[1].Action != dispatch.Continue {
			t.Errorf("verdicts %+v", v)
		}
		r.pass(job.DefaultLease)
		for _, run := range runs {
			r.expectEnd(run.Job.Seq, job.RunLost)
		}
	})
}

// TestChosenJobsObeyLimits: their units are taken, also within one request; what others are waiting for longer is kept.
func TestChosenJobsObeyLimits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 3})
		seqs := r.submitMany(5, "q", use("l", "", 1))
		choices := r.choose(1, seqs[4], seqs[2], seqs[0], seqs[1])
		runs := r.taken(choices, seqs[4], seqs[2], seqs[0])
		if c := choices[3]; !errors.Is(c.Err, dispatch.ErrBlocked) || c.State != job.Ready {
			t.Errorf("the one too many: %+v", c)
		}
		other := r.submitMany(1, "other", use("l", "", 1))
		r.taken(r.choose(2, other...))
		s := r.worker(3, "q") // the key is given back to those that hang on it
		s.takes(0)
		r.recordedBy(runs[0])
		if got := seqsOf(s.accepts(1)); !slices.Equal(got, seqs[1:2]) {
			t.Errorf("after one has ended came %v", got)
		}
		r.taken(r.choose(2, other...))
	})
}

// recordedBy ends claimed runs well.
func (r *rig) recordedBy(runs ...dispatch.Assignment) {
	r.t.Helper()
	acks, err := r.d.Finish(r.ctx, finishes(success(), runs))
	if err != nil {
		r.t.Fatal(err)
	}
	r.recorded(acks)
}

// TestChosenJobTakesNothingReserved: what is given back is kept for the job that has waited for too long.
func TestChosenJobTakesNothingReserved(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 2})
		s := r.worker(1, "q")
		r.submitMany(2, "q", use("l", "", 1))
		held := s.accepts(2)
		wide := r.submitMany(1, "q", use("l", "", 2))
		s.keep(job.AgingStep+time.Minute, held...)
		s.demand() // nobody takes what comes free
		small := r.submitMany(1, "q", use("l", "", 1))
		s.demand(room(2, "q"))
		s.succeed(held[0])
		r.taken(r.choose(2, small...))
		s.succeed(held[1])
		s.accepts(1)
		r.expect(wide[0], job.Running)
	})
}

// TestChosenJobsObeyGates: they take permits, and try what a breaker has closed.
func TestChosenJobsObeyGates(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.policed("q", job.Policy{Rate: job.Rate{Permits: 1, Period: time.Minute, Burst: 1}})
		r.pass(time.Minute)
		seqs := r.plain("q", 3)
		r.taken(r.choose(1, seqs[2], seqs[1]), seqs[2])
		r.taken(r.choose(1, seqs[1]))
		r.pass(time.Minute)
		r.taken(r.choose(1, seqs[1]), seqs[1])

		r.policed("b", job.Policy{Breaker: job.Breaker{Failures: 1, RetryIn: time.Minute}})
		seqs = r.plain("b", 3)
		runs := r.taken(r.choose(1, seqs[0]), seqs[0])
		if _, err := r.d.Finish(r.ctx, finishes(failure(), runs)); err != nil {
			r.t.Fatal(err)
		}
		r.taken(r.choose(1, seqs[1]))
		r.pass(time.Minute)
		r.taken(r.choose(1, seqs[1], seqs[2]), seqs[1]) // one tries
	})
}

func TestChosenJobsOfAPausedOrFullQueue(t *testing.T) {
	inBubble(t, func(_ *testing.T, r *rig) {
		r.policed("q", job.Policy{MaxRunning: 2})
		seqs := r.plain("q", 3)
		r.pause("q", true)
		r.taken(r.choose(1, seqs...))
		r.pause("q", false)
		r.taken(r.choose(1, seqs...), seqs[:2]...)
		r.taken(r.choose(1, seqs[2]))
	})
}

// TestChosenJobThatIsNotForThisWorker, or whose start_by has passed, or that is no longer READY.
func TestChosenJobThatIsNotToBeHad(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		runs := r.taken(r.choose(1, seqs[0]), seqs[0])
		if _, err := r.d.Finish(r.ctx, finishes(released(job.Released{NotMe: true}), runs)); err != nil {
			t.Fatal(err)
		}
		r.taken(r.choose(1, seqs[0]))
		r.taken(r.choose(2, seqs[0]), seqs[0])
		c := r.choose(3, seqs[0])[0]
		if !errors.Is(c.Err, job.ErrRunActive) || c.Worker != "w" || c.Instance != (job.ID{2}) {
			t.Errorf("a running job: %+v", c)
		}
		r.interrupt(seqs[1], job.LevelCancel)
		if c := r.choose(1, seqs[1])[0]; !errors.Is(c.Err, job.ErrIllegal) || c.State != job.Cancelled {
			t.Errorf("a cancelled job: %+v", c)
		}
		if c := r.choose(1, 77)[0]; !errors.Is(c.Err, dispatch.ErrJobUnknown) || c.State != job.StateNone {
			t.Errorf("an unknown job: %+v", c)
		}
		spec := r.spec("late")
		spec.StartBy = time.Now().Add(time.Hour)
		late := r.submit(spec)[0]
		r.skew.Store(int64(2 * time.Hour))
		if c := r.choose(1, late)[0]; !errors.Is(c.Err, job.ErrIllegal) || c.State != job.Expired {
			t.Errorf("an expired job: %+v", c)
		}
	})
}

// TestChosenJobsOfACancelledCall go back at once, and a repeat that came before has them.
func TestChosenJobsOfACancelledCall(t *testing.T) {
	for name, repeated := range map[string]bool{"alone": false, "repeated": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				seqs := r.plain("q", 1)
				request := claim(1, 0)
				request.Request = "r"
				resume := r.hang("other")
				choosing := func(ctx context.Context) <-chan []dispatch.Choice {
					answer := make(chan []dispatch.Choice, 1)
					go func() {
						choices, err := r.d.Choose(ctx, request, idsOf(seqs), explained)
						if err != nil && ctx.Err() == nil {
							t.Error(err)
						}
						answer <- choices
					}()
					synctest.Wait()
					return answer
				}
				ctx, cancel := context.WithCancel(r.ctx)
				first := choosing(ctx)
				var second <-chan []dispatch.Choice
				if repeated {
					second = choosing(r.ctx)
				}
				cancel()
				if choices := <-first; choices != nil {
					t.Errorf("the cancelled call answers %+v", choices)
				}
				resume()
				if repeated {
					r.taken(<-second, seqs...)
					return
				}
				synctest.Wait()
				r.expect(seqs[0], job.Ready)
			})
		})
	}
}

// TestChooseWhileDraining is refused, as any claim is.
func TestChooseWhileDraining(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		r.taken(r.choose(1, seqs[0]), seqs[0])
		r.d.Drain([]job.ID{{1}}, dispatch.DrainNotice{})
		if _, err := r.d.Choose(r.ctx, claim(1, 0), idsOf(seqs), explained); !errors.Is(err, dispatch.ErrDraining) {
			t.Errorf("got %v", err)
		}
	})
}

// TestChoiceThatIsNotExplained claims nothing: its transaction fails as a whole.
func TestChoiceThatIsNotExplained(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 1})
		seqs := r.submitMany(2, "q", use("l", "", 1))
		broken := errors.New("broken")
		_, err := r.d.Choose(r.ctx, claim(1, 0), idsOf(seqs), func(store.Tx, *job.Job) (any, error) { return nil, broken })
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		s := r.worker(2, "q")
		s.succeed(s.accepts(1)...)
		s.succeed(s.accepts(1)...)
		r.idle("l")
		if stats := r.d.Stats(); stats.Runs != 0 || stats.Waiting != 1 {
			t.Errorf("something is left: %+v", stats)
		}
	})
}
