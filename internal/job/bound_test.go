package job

import (
	"testing"
	"time"
)

// TestBounds drives each counter to its bound by the ordinary way and finds the job set aside there, not before.
func TestBounds(t *testing.T) {
	m := made{t}
	for name, c := range map[string]struct {
		end   func(*Job) *Job
		times int
		want  string
	}{
		"attempts": {func(j *Job) *Job { return m.finish(m.run(j), application()) }, DefaultAttempts, "FAILED attempts=10 run FAILED"},
		"crashes":  {func(j *Job) *Job { return m.lost(m.run(j)) }, MaxCrashes, "PARKED(CRASHES) crashes=3 run LOST"},
		"interrupts": {
			func(j *Job) *Job { return m.finish(m.run(j), stopped()) }, MaxInterrupts,
			"PARKED(INTERRUPTS) interrupts=100 run INTERRUPTED",
		},
		"withdrawn": {func(j *Job) *Job {
			if j.State == Scheduled {
				j = must(t)(j.Wake(j.DueTime))
			}
			return m.interrupted(m.dispatch(j), LevelRetry)
		}, MaxInterrupts, "PARKED(INTERRUPTS) interrupts=100 run WITHDRAWN"},
		"snoozes": {func(j *Job) *Job { return m.finish(m.run(j), notMe()) }, MaxSnoozes, "PARKED(SNOOZES) snoozes=1000 run RELEASED"},
		"deliveries": {
			func(j *Job) *Job { return must(t)(m.dispatch(j).Undeliver(t0, "gone")) }, MaxDeliveries,
			"PARKED(UNDELIVERABLE) deliveries=100 run UNDELIVERED",
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := m.ready()
			for i := range c.times {
				if !j.State.Waiting() || j.State == Parked {
					t.Fatalf("%s after %d", describe(j), i)
				}
				j = c.end(j)
			}
			if got := describe(j); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestOneAttempt: max_attempts 1 means no second try, in the job's policy as in the queue's; the job's goes first.
func TestOneAttempt(t *testing.T) {
	one, two := RetryPolicy{MaxAttempts: 1}, RetryPolicy{MaxAttempts: 2}
	for _, c := range []struct {
		job, queue RetryPolicy
		want       State
	}{{one, RetryPolicy{}, Failed}, {RetryPolicy{}, one, Failed}, {two, one, Backoff}} {
		s := spec()
		s.Retry = &c.job
		m := made{t}
		j := m.run(New(s, t0))
		next, _, err := j.Finish(t0, j.Run.Fence, application(), Policy{Retry: c.queue}, 0)
		if err != nil || next.State != c.want {
			t.Errorf("%+v: %s, %v", c, next.State, err)
		}
	}
}

// TestHistoryBound: of a long life the history keeps the first and the last runs, in order.
func TestHistoryBound(t *testing.T) {
	m := made{t}
	j := m.ready()
	const runs = 3 * HistoryEdge
	for range runs {
		before, old := snapshot(t, j), j
		j = m.finish(m.run(j), notMe())
		if snapshot(t, old) != before {
			t.Fatal("an older version was modified")
		}
		if len(j.History) != min(int(j.RunCount), 2*HistoryEdge) {
			t.Fatalf("%d of %d runs are kept", len(j.History), j.RunCount)
		}
	}
	for i, run := range j.History {
		want := uint32(i + 1)
		if i >= HistoryEdge {
			want = uint32(runs - 2*HistoryEdge + i + 1)
		}
		if run.Number != want || run.Fence != uint64(want)+99 {
			t.Fatalf("place %d holds run %d, fence %d; want %d", i, run.Number, run.Fence, want)
		}
	}
}

// TestHistoryIsCopied: two next versions of one job do not share a history.
func TestHistoryIsCopied(t *testing.T) {
	m := made{t}
	j := m.run(m.finish(m.running(), application()))
	a := m.finish(j, success())
	b := m.lost(j)
	if a.History[1].State != RunSucceeded || b.History[1].State != RunLost {
		t.Errorf("%v and %v", a.History[1].State, b.History[1].State)
	}
}

// TestUndeliverKeepsPlace: an undelivered job goes back to the head of its lane, any other way back to its end.
func TestUndeliverKeepsPlace(t *testing.T) {
	m := made{t}
	j := edited(m.ready(), func(j *Job) { j.ReadySeq = 7 })
	back := must(t)(m.dispatch(j).Undeliver(at(time.Minute), "gone"))
	if back.ReadySeq != 7 || back.ReadyTime != t0 || back.History[0].Note != "gone" {
		t.Errorf("undelivered: place %d since %v, run %+v", back.ReadySeq, back.ReadyTime, back.History[0])
	}
	running := m.run(j)
	next, _, _ := running.Finish(at(time.Minute), running.Run.Fence, notMe(), Policy{}, 0)
	if next.ReadySeq != 0 || next.ReadyTime != at(time.Minute) || next.AvoidUntil != at(time.Minute+NotMePeriod) {
		t.Errorf("not me: place %d since %v, avoids until %v", next.ReadySeq, next.ReadyTime, next.AvoidUntil)
	}
}
