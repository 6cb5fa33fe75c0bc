package dispatch_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stintrun/stint/internal/job"
)

// TestDueJobsWake at their moment, and reach a worker that waits without anybody's doing.
func TestDueJobsWake(t *testing.T) {
	for what, make := range map[string]func(*rig) (seq uint64, due time.Time){
		"run_at": func(r *rig) (uint64, time.Time) {
			s := r.spec("q")
			s.RunAt = time.Now().UTC().Add(90 * time.Second)
			return r.submit(s)[0], s.RunAt
		},
		"backoff": func(r *rig) (uint64, time.Time) {
			seq := r.plain("q", 1)[0]
			return seq, r.ends(seq, failure()).DueTime
		},
		"release": func(r *rig) (uint64, time.Time) {
			seq := r.plain("q", 1)[0]
			delay := 20 * time.Minute
			return seq, r.ends(seq, released(job.Released{Delay: &delay})).DueTime
		},
		"interrupt": func(r *rig) (uint64, time.Time) {
			seq := r.plain("q", 1)[0]
			return seq, r.ends(seq, job.Outcome{Stopped: &job.Stopped{}}).DueTime
		},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				far := r.spec("q")
				far.RunAt = time.Now().UTC().Add(24 * time.Hour)
				r.submit(far)
				seq, due := make(r)
				if !due.After(time.Now()) {
					t.Fatalf("due at %v, which is not later than %v", due, time.Now())
				}
				waiting := claim(1, 1, "q")
				waiting.Wait = time.Hour
				c := <-r.claiming(r.ctx, waiting)
				if len(c.runs) != 1 || c.runs[0].Job.Seq != seq || c.at.Before(due) || c.at.After(due.Add(time.Millisecond)) {
					t.Errorf("claim %+v, want job %d at %v", c, seq, due)
				}
			})
		})
	}
}

// ends runs the job to this outcome.
func (r *rig) ends(seq uint64, o job.Outcome) *job.Job {
	r.t.Helper()
	acks, err := r.d.Finish(r.ctx, finishes(o, r.claims(1, "q")))
	if err != nil {
		r.t.Fatal(err)
	}
	r.recorded(acks)
	return r.job(seq)
}

// TestManyDueJobs wakes more jobs than one transaction takes, while later ones stay.
func TestManyDueJobs(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		soon, later := time.Now().UTC().Add(time.Minute), time.Now().UTC().Add(time.Hour)
		for range 700 {
			s, l := r.spec("q"), r.spec("q")
			s.RunAt, l.RunAt = soon, later
			r.submit(s, l)
		}
		for _, step := range []struct {
			at    time.Time
			ready uint64
		}{{soon.Add(-1), 0}, {soon, 700}, {later.Add(-1), 700}, {later, 1400}} {
			r.pass(time.Until(step.at))
			if got := r.queue("q").Counts[job.Ready]; got != step.ready {
				t.Errorf("at %v %d jobs are ready, want %d", step.at, got, step.ready)
			}
		}
	})
}

// TestStartByExpires a job that nobody took, wherever it waits, and nothing that has started.
func TestStartByExpires(t *testing.T) {
	for what, test := range map[string]struct {
		wait  func(*rig, *job.Spec)
		after job.State
	}{
		"ready":     {func(*rig, *job.Spec) {}, job.Expired},
		"scheduled": {func(_ *rig, s *job.Spec) { s.RunAt = s.StartBy.Add(time.Minute) }, job.Expired},
		"running":   {func(r *rig, s *job.Spec) { s.Lease = time.Hour }, job.Running},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				s := r.spec("q")
				s.StartBy = time.Now().UTC().Add(time.Minute)
				test.wait(r, s)
				seq := r.submit(s)[0]
				if test.after == job.Running {
					r.heartbeat(r.claims(1, "q")...)
				}
				before := r.job(seq).State
				r.pass(time.Minute - 1)
				r.expect(seq, before)
				r.pass(1)
				r.expect(seq, test.after)
			})
		})
	}
}

// TestStartByOfADelivery: a run that was not accepted in time does not count as started.
func TestStartByOfADelivery(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.spec("q")
		s.StartBy = time.Now().UTC().Add(5 * time.Second)
		seq := r.submit(s)[0]
		r.claims(1, "q")
		r.pass(job.DefaultLease - 1)
		r.expect(seq, job.Running)
		r.pass(1)
		r.expectEnd(seq, job.RunUndelivered)
		r.expect(seq, job.Expired)
	})
}

// TestStartByIsLookedAtAgainAtDispatch: a job whose start_by has passed goes to nobody, also when room comes before its
// turn to expire.
func TestStartByIsLookedAtAgainAtDispatch(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		specs := []*job.Spec{r.spec("q"), r.spec("q")}
		specs[0].StartBy = time.Now().UTC().Add(time.Minute)
		seqs := r.submit(specs...)
		r.skew.Store(int64(time.Minute)) // by the clock that the dispatcher sleeps by it is too early
		if got := r.claims(1, "q")[0].Job.Seq; got != seqs[1] {
			t.Errorf("job %d was handed out, want %d", got, seqs[1])
		}
		r.expect(seqs[0], job.Expired)
	})
}

// TestDueInTheSameBatch: what comes due while it is still on its way to the disk is woken too.
func TestDueInTheSameBatch(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		runs := r.claims(1, "q")
		resume := r.hang("other")
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			if _, err := r.d.Finish(r.ctx, finishes(released(job.Released{Delay: new(time.Duration)}), runs)); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		resume()
		<-finished
		r.pass(time.Second)
		r.expect(seq, job.Ready)
	})
}

// TestDueByAClockThatIsBehind: due times are the store's, whatever another clock says.
func TestDueByAClockThatIsBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.skew.Store(int64(-time.Minute))
		seq := r.plain("q", 1)[0]
		due := r.ends(seq, released(job.Released{})).DueTime
		r.pass(job.ReleaseDelay - 1)
		r.expect(seq, job.Scheduled)
		r.pass(2 * time.Second)
		if j := r.expect(seq, job.Ready); j.ReadyTime.Before(due) {
			t.Errorf("it was ready at %v, before %v", j.ReadyTime, due)
		}
	})
}
