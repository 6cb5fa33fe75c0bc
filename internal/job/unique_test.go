package job

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// accepted reports whether a worker has named a run of j.
func accepted(j *Job) bool {
	for _, r := range append(slices.Clip(j.History), j.Run) {
		if !r.AcceptTime.IsZero() {
			return true
		}
	}
	return false
}

// TestKeyTerm crosses every phase with every event, for each way to hold a key: a key until START is held by a job that is
// not terminal and whose runs no worker has named; one until FINISH by a job that is not terminal, and for its ttl.
func TestKeyTerm(t *testing.T) {
	for _, c := range []struct {
		name   string
		unique Unique
		held   func(*Job) bool
	}{
		{"START", Unique{Key: "k", Until: UntilStart}, func(j *Job) bool { return !j.State.Terminal() && !accepted(j) }},
		{"FINISH", Unique{Key: "k", Until: UntilFinish}, func(j *Job) bool { return !j.State.Terminal() }},
		{"FINISH and a ttl", Unique{Key: "k", Until: UntilFinish, TTL: time.Hour}, func(*Job) bool { return true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(j *Job, after string) {
				t.Helper()
				until, held := j.KeyTerm()
				if held != c.held(j) {
					t.Errorf("%s after %s, accepted %v: held %v", j.phase(), after, accepted(j), held)
				}
				want := time.Time{}
				if held && j.State.Terminal() {
					want = j.EndTime.Add(time.Hour)
				}
				if !until.Equal(want) {
					t.Errorf("%s after %s: until %v, want %v", j.phase(), after, until, want)
				}
				for at, holds := range map[time.Time]bool{t0: held, want: held && want.IsZero(), want.Add(-1): held && !want.IsZero()} {
					if at.Before(t0) {
						continue
					}
					if j.HoldsKey(at) != holds {
						t.Errorf("%s after %s at %v: holds %v", j.phase(), after, at, !holds)
					}
				}
			}
			for _, j := range fixtures(t) {
				s := *j.Spec
				s.Unique = &c.unique
				j = edited(j, func(n *Job) { n.Spec, n.KeyFree = &s, c.unique.Until == UntilStart && accepted(j) })
				check(j, "nothing")
				for _, a := range acts() {
					if next, err := a.do(j); err == nil && next.Spec == &s {
						check(next, a.event.String())
					}
				}
			}
		})
	}
	if _, held := (made{t}).ready().KeyTerm(); held {
		t.Error("a job without a key holds one")
	}
}

// TestReopenedKey: a job that is reopened holds its key anew, but not one that its start has freed.
func TestReopenedKey(t *testing.T) {
	m := made{t}
	for _, c := range []struct {
		until UniqueUntil
		end   func(*Job) *Job
		held  bool
	}{
		{UntilFinish, func(j *Job) *Job { return m.finish(m.run(j), final(Application)) }, true},
		{UntilStart, func(j *Job) *Job { return m.finish(m.run(j), final(Application)) }, false},
		{UntilStart, func(j *Job) *Job { return m.interrupted(j, LevelCancel) }, true},
		{UntilStart, func(j *Job) *Job { return m.interrupted(m.dispatch(j), LevelCancel) }, true}, // never accepted
	} {
		s := spec()
		s.Unique = &Unique{Key: "k", Until: c.until}
		ended := c.end(New(s, t0))
		if _, held := ended.KeyTerm(); held {
			t.Errorf("until %d: held after %s", c.until, ended.State)
		}
		if _, held := must(t)(ended.Retry(t0)).KeyTerm(); held != c.held {
			t.Errorf("until %d: held %v once reopened from %s", c.until, held, ended.State)
		}
	}
	if _, err := m.finish(m.running(), success()).Retry(t0); !errors.Is(err, ErrIllegal) {
		t.Errorf("a success is reopened: %v", err)
	}
}

// TestReplace: what a replaced job keeps, and what it gets.
func TestReplace(t *testing.T) {
	m := made{t}
	hour := at(time.Hour)
	now := spec()
	now.ID, now.Digest, now.Payload, now.StartBy, now.Subject = ID{7}, [16]byte{7}, []byte("new"), at(2*time.Hour), "new"
	urgent, later, limited := *now, *now, *now
	urgent.Priority = High
	later.RunAt = at(3 * time.Hour)
	limited.Limits = []LimitUse{{Limit: "l", Units: 1}}
	whenever, past := *now, *now
	whenever.StartBy, past.StartBy, past.RunAt = time.Time{}, time.Time{}, hour
	parked := must(t)(m.ready().Park(t0, By{Reason: "look"}))
	scheduled := *spec()
	scheduled.RunAt = at(9 * time.Hour)
	placed := func(j *Job) *Job { return edited(j, func(j *Job) { j.Seq, j.ReadySeq = 3, 5 }) }
	cancelled := must(t)(m.interrupted(m.ready(), LevelCancel).Retry(t0))
	for _, c := range []struct {
		name  string
		job   *Job
		by    *Spec
		state State
		place uint64
		ready time.Time
	}{
		{"READY stays in its lane", placed(m.ready()), now, Ready, 5, t0},
		{"READY leaves its lane by priority", placed(m.ready()), &urgent, Ready, 0, t0},
		{"READY leaves its lane by limits", placed(m.ready()), &limited, Ready, 0, t0},
		{"READY until later", placed(m.ready()), &later, Scheduled, 0, time.Time{}},
		{"SCHEDULED at once", New(&scheduled, t0), now, Ready, 0, hour},
		{"SCHEDULED until another time", New(&scheduled, t0), &later, Scheduled, 0, time.Time{}},
		{"PARKED", parked, &whenever, Parked, 0, time.Time{}},
		{"PARKED, a start that has passed", parked, &past, Parked, 0, time.Time{}},
		{"reopened and never run", placed(cancelled), now, Ready, 5, t0},
		{"withdrawn", m.interrupted(m.dispatch(m.ready()), LevelRetry), now, Ready, 0, hour},
		{"withdrawn, until another time", m.interrupted(m.dispatch(m.ready()), LevelRetry), &later, Scheduled, 0, time.Time{}},
		{"withdrawn and reopened", placed(must(t)(m.interrupted(m.dispatch(m.ready()), LevelCancel).Retry(t0))), now, Ready, 5, t0},
	} {
		next, err := c.job.Replace(hour, c.by)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := *c.by
		want.ID, want.Digest = c.job.Spec.ID, c.job.Spec.Digest
		if diff := cmp.Diff(&want, next.Spec); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if next.State != c.state || next.ReadySeq != c.place || !next.ReadyTime.Equal(c.ready) || next.Version != c.job.Version+1 {
			t.Errorf("%s: %s, version %d, place %d, ready since %v", c.name, next.State, next.Version, next.ReadySeq, next.ReadyTime)
		}
		due := time.Time{}
		if c.state == Scheduled {
			due = c.by.RunAt
		}
		if next.Seq != c.job.Seq || !next.SubmitTime.Equal(c.job.SubmitTime) || !next.StartBy.Equal(c.by.StartBy) || !next.DueTime.Equal(due) {
			t.Errorf("%s: number %d, submitted %v, start by %v, due %v", c.name, next.Seq, next.SubmitTime, next.StartBy, next.DueTime)
		}
		if next.ParkReason != c.job.ParkReason || !next.EpochTime.Equal(hour) {
			t.Errorf("%s: parked %d, its age counts from %v", c.name, next.ParkReason, next.EpochTime)
		}
	}
}

// TestReplaceRefused: whom a submit leaves alone.
func TestReplaceRefused(t *testing.T) {
	m := made{t}
	hour := at(time.Hour)
	parked := must(t)(m.ready().Park(t0, By{Reason: "look"}))
	by, later := spec(), spec()
	by.StartBy, later.RunAt = at(2*time.Hour), at(3*time.Hour)
	for _, s := range []*Spec{by, later} {
		if _, err := parked.Replace(hour, s); !errors.Is(err, ErrReplaceParked) {
			t.Errorf("a PARKED job by one with start_by %v and start %v: %v", s.StartBy, s.RunAt, err)
		}
	}
	undelivered := must(t)(m.dispatch(m.ready()).Undeliver(t0, "gone"))
	failed := must(t)(m.finish(m.running(), failure(Failure{})).Wake(hour))
	for name, j := range map[string]*Job{
		"handed out": undelivered, "handed out and then withdrawn": m.interrupted(m.dispatch(undelivered), LevelRetry),
		"run": failed, "run and then withdrawn": m.interrupted(m.dispatch(failed), LevelRetry),
	} {
		if _, err := j.Replace(hour, spec()); !errors.Is(err, ErrHadRun) {
			t.Errorf("a job that was %s: %v", name, err)
		}
	}
	if _, err := m.interrupted(m.ready(), LevelCancel).Replace(hour, spec()); !errors.Is(err, ErrIllegal) {
		t.Errorf("a job that has ended: %v", err)
	}
}
