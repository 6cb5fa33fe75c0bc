package dispatch_test

import (
	"testing"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// change updates a job, as an operator does.
func (r *rig) change(seq uint64, f job.Fields, s job.Spec) {
	r.t.Helper()
	r.step(seq, func(j *job.Job, now time.Time) (*job.Job, error) {
		return j.Update(now, job.Update{Fields: f, Spec: s}, job.By{})
	})
}

// TestUpdateKeepsTheRun: a live run has the timeout that it began with, also after a restart; what it leaves behind at its
// hard deadline takes what it took; the next run is under the new words.
func TestUpdateKeepsTheRun(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 2})
		r.bound("m", job.LimitPolicy{Max: 2})
		spec := r.uses("q", use("l", "", 2))
		spec.Timeout = 10 * time.Minute
		s, held := r.holding(2, spec, r.spec("q"))
		seq, free := held[0].Job.Seq, held[1].Job.Seq
		r.change(seq, job.FieldTimeout|job.FieldLimits, job.Spec{Timeout: time.Minute, Limits: []job.LimitUse{use("m", "", 1)}})
		r.change(free, job.FieldTimeout, job.Spec{Timeout: time.Minute})
		s.keep(5*time.Minute, held...)
		if i := r.job(free).Interrupted(); i.Level != job.LevelNone {
			t.Fatalf("a run that had no timeout: %+v", i)
		}
		s.succeed(held[1])
		held = held[:1]
		r.restart()
		s = r.open(hello(1, held...))
		s.keep(4*time.Minute, held...)
		if i := r.job(seq).Interrupted(); i.Level != job.LevelNone {
			t.Fatalf("a minute before its time is over: %+v", i)
		}
		s.keep(time.Minute+time.Second, held...)
		if i := r.job(seq).Interrupted(); i.Source != job.SourceTimeout {
			t.Fatalf("when its time is over: %+v", i)
		}
		s.keep(job.TimeoutHard-3*time.Second, held...)
		r.pass(3 * time.Second)
		r.expectEnd(seq, job.RunAbandoned)
		r.update(func(tx store.Tx) error {
			if l, m := tx.Key("l", ""), tx.Key("m", ""); l.Live != 0 || l.Zombies != 2 || m.Zombies != 0 {
				t.Errorf("what it left behind takes %+v and %+v", l, m)
			}
			return nil
		})
		r.pass(2 * time.Second) // its backoff
		next := r.worker(2, "q").accepts(1)
		if got := next[0].Job; got.Seq != seq || got.RunTimeout() != time.Minute || got.Taken()[0] != use("m", "", 1) {
			t.Errorf("the next run is of %+v", got)
		}
	})
}

// TestUpdateWhileHung: jobs that hang on a full key go on as soon as they take something else, or nothing; a lane that
// they leave empty keeps nothing.
func TestUpdateWhileHung(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.bound("l", job.LimitPolicy{Max: 1})
		r.bound("m", job.LimitPolicy{Max: 1})
		s := r.worker(1, "q")
		r.submitMany(1, "q", use("l", "", 1))
		first := s.accepts(1)
		waiting := r.submitMany(3, "q", use("l", "", 1))
		s.takes(0)
		r.change(waiting[1], job.FieldLimits, job.Spec{})
		if got := s.accepts(1); got[0].Job.Seq != waiting[1] {
			t.Errorf("job %d started, want %d", got[0].Job.Seq, waiting[1])
		}
		r.change(waiting[0], job.FieldLimits, job.Spec{Limits: []job.LimitUse{use("m", "", 1)}})
		if got := s.accepts(1); got[0].Job.Seq != waiting[0] {
			t.Errorf("job %d started, want %d", got[0].Job.Seq, waiting[0])
		}
		r.change(waiting[2], job.FieldStart, job.Spec{RunAt: r.job(waiting[2]).SubmitTime.Add(time.Hour)})
		late := r.submitMany(1, "q", use("l", "", 1))
		s.takes(0)
		s.succeed(first...)
		if got := s.accepts(1); got[0].Job.Seq != late[0] {
			t.Errorf("job %d started, want %d", got[0].Job.Seq, late[0])
		}
	})
}
