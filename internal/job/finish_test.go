package job

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func status(t *testing.T, j *Job, fence uint64, o Outcome) FinishStatus {
	t.Helper()
	next, s, err := j.Finish(t0, fence, o, Policy{}, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	if (next == j) == (s == FinishRecorded) {
		t.Errorf("status %d, but the same pointer: %v", s, next == j)
	}
	return s
}

// TestFinishRepeated: the first recorded outcome of a run stands, whatever its job did next.
func TestFinishRepeated(t *testing.T) {
	m := made{t}
	for name, c := range map[string]struct {
		job  *Job
		same Outcome
	}{
		"succeeded":                 {m.finish(m.running(), success()), success()},
		"failed, in backoff":        {m.finish(m.running(), application()), malformed()},
		"failed, running again":     {m.run(m.finish(m.running(), application())), application()},
		"interrupted":               {m.finish(m.running(), stopped()), stopped()},
		"interrupted by timeout":    {m.finish(must(t)(m.running().Timeout(t0)), stopped()), stopped()},
		"released":                  {m.finish(m.running(), released()), notMe()},
		"failed under CANCEL":       {m.finish(m.interrupted(m.running(), LevelCancel), application()), application()},
		"failed for good, reopened": {must(t)(m.finish(m.running(), final(Application)).Retry(t0)), application()},
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range []Outcome{success(), application(), stopped(), released()} {
				want := FinishConflict
				recorded, _ := c.same.ending()
				if sent, _ := o.ending(); sent.state == recorded.state {
					want = FinishDuplicate
				}
				if got := status(t, c.job, 100, o); got != want {
					t.Errorf("%+v: status %d, want %d", o, got, want)
				}
			}
			if got := status(t, c.job, 77, c.same); got != FinishSuperseded {
				t.Errorf("another token: status %d", got)
			}
		})
	}
}

// TestFinishNeedsOneOutcome: no outcome and two outcomes are refused, and the run stays live.
func TestFinishNeedsOneOutcome(t *testing.T) {
	j := made{t}.running()
	for _, o := range []Outcome{{}, {Success: &Success{}, Failure: &Failure{}}} {
		next, s, err := j.Finish(t0, j.Run.Fence, o, Policy{}, 0)
		if !errors.Is(err, ErrNoOutcome) || s != 0 || next != j {
			t.Errorf("%+v: %v, %v", o, s, err)
		}
	}
}

// TestFinishAccepts: a finish before `seen` implies acceptance.
func TestFinishAccepts(t *testing.T) {
	m := made{t}
	j := m.dispatch(edited(m.ready(), func(j *Job) { j.StartBy = at(time.Hour) }))
	j = m.finish(j, released())
	if !j.StartBy.IsZero() || j.History[0].AcceptTime != t0 {
		t.Errorf("start_by %v, accepted %v", j.StartBy, j.History[0].AcceptTime)
	}
}

// TestNotes: a history says why each run ended.
func TestNotes(t *testing.T) {
	m := made{t}
	interrupted := m.interrupted(m.running(), LevelRetry)
	for want, j := range map[string]*Job{
		"shutdown":             m.finish(interrupted, stopped()),
		"deploy":               m.finish(interrupted, Outcome{Stopped: &Stopped{}}),
		"busy":                 m.finish(interrupted, released()),
		"lease lost":           m.lost(interrupted),
		"hard deadline passed": must(t)(interrupted.HardDeadline(t0, Policy{}, 0)),
	} {
		if got := j.History[0].Note; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestLateFinish: what a finish of a lost or undelivered run does while its job waits, by what the loss had cost.
func TestLateFinish(t *testing.T) {
	m := made{t}
	parkedOnce := m.crashedOut()
	lostByRetry := m.lost(m.interrupted(m.running(), LevelRetry))
	lostByTimeout := m.lost(must(t)(m.running().Timeout(t0)))
	undelivered := must(t)(m.dispatch(edited(m.ready(), func(j *Job) { j.StartBy = at(time.Hour) })).Undeliver(t0, "gone"))
	undeliverable := must(t)(m.dispatch(edited(m.ready(), func(j *Job) { j.Counters.Deliveries = 99 })).Undeliver(t0, "gone"))
	interruptedOut := m.lost(m.interrupted(edited(m.running(), func(j *Job) { j.Counters.Interrupts = 99 }), LevelRetry))
	timedOut := must(t)(must(t)(m.running().Timeout(t0)).Lose(t0, Policy{Retry: RetryPolicy{OnFailure: OnFailurePark}}, 0, "gone"))
	for _, c := range []struct {
		name string
		job  *Job
		with Outcome
		want string
	}{
		{"success after crash", m.lost(m.running()), success(), "SUCCEEDED run SUCCEEDED"},
		{"failure after crash", m.lost(m.running()), application(), "BACKOFF attempts 1s run FAILED"},
		{"infrastructure after crash", m.lost(m.running()), infrastructure(), "BACKOFF snoozes 1s run FAILED"},
		{"final after crash", m.lost(m.running()), final(Application), "FAILED attempts run FAILED"},
		{"malformed after crash", m.lost(m.running()), malformed(), "PARKED(MALFORMED) attempts run FAILED"},
		{"success at the last crash", parkedOnce, success(), "SUCCEEDED crashes=2 run SUCCEEDED"},
		{"failure at the last crash", parkedOnce, application(), "BACKOFF attempts crashes=2 1s run FAILED"},
		{"success after woken", must(t)(m.lost(m.running()).Wake(at(time.Hour))), success(), "SUCCEEDED run SUCCEEDED"},
		{"success after retried", must(t)(m.lost(m.running()).Retry(t0)), success(), "SUCCEEDED run SUCCEEDED"},
		{"success after lost by RETRY", lostByRetry, success(), "SUCCEEDED run SUCCEEDED"},
		{"failure after lost by RETRY", lostByRetry, application(), "SCHEDULED interrupts 10s run FAILED"},
		{"final after lost by RETRY", lostByRetry, final(Application), "FAILED attempts run FAILED"},
		{"failure after lost by TIMEOUT", lostByTimeout, infrastructure(), "BACKOFF attempts 1s run FAILED"},
		{"success after undelivered", undelivered, success(), "SUCCEEDED run SUCCEEDED"},
		{"failure after undelivered", undelivered, application(), "BACKOFF attempts 1s run FAILED"},
		{"success when undeliverable", undeliverable, success(), "SUCCEEDED deliveries=99 run SUCCEEDED"},
		{"success when interrupted out", interruptedOut, success(), "SUCCEEDED interrupts=99 run SUCCEEDED"},
		{"failure when interrupted out", interruptedOut, application(), "PARKED(INTERRUPTS) interrupts=100 run FAILED"},
		{"success when parked by policy", timedOut, success(), "SUCCEEDED run SUCCEEDED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := snapshot(t, c.job)
			runs := len(c.job.History)
			fence := c.job.History[runs-1].Fence
			next, s, err := c.job.Finish(t0, fence, c.with, Policy{}, 0.5)
			if err != nil || s != FinishRecorded {
				t.Fatalf("status %d, %v", s, err)
			}
			if got := describe(next); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if len(next.History) != runs || next.History[runs-1].AcceptTime.IsZero() || !next.StartBy.IsZero() {
				t.Errorf("%d runs, start_by %v, run %+v", len(next.History), next.StartBy, next.History[runs-1])
			}
			if note := next.History[runs-1].Note; !strings.HasPrefix(note, "came late: ") {
				t.Errorf("the run's note %q does not say that its end came late", note)
			}
			if snapshot(t, c.job) != before {
				t.Error("the receiver was modified")
			}
			if got := status(t, next, fence, c.with); got != FinishDuplicate {
				t.Errorf("again: status %d", got)
			}
			if got := status(t, next, fence, stopped()); got != FinishConflict {
				t.Errorf("otherwise: status %d", got)
			}
		})
	}
}

// TestLateFinishSuperseded: when a run's finish comes too late to count.
func TestLateFinishSuperseded(t *testing.T) {
	m := made{t}
	lost := m.lost(m.running())
	abandoned := must(t)(m.interrupted(m.running(), LevelRetry).HardDeadline(t0, Policy{}, 0.5))
	withdrawn := m.interrupted(m.dispatch(m.ready()), LevelRetry)
	for name, j := range map[string]*Job{
		"a newer run is live":       m.run(lost),
		"a newer run was lost":      m.lost(m.run(lost)),
		"cancelled while waiting":   m.interrupted(lost, LevelCancel),
		"cancelled by the loss":     m.lost(m.interrupted(m.running(), LevelCancel)),
		"parked by an operator":     must(t)(lost.Park(t0, By{Reason: "look", Requester: "ops"})),
		"parked by the loss":        m.lost(must(t)(m.running().Park(t0, By{Reason: "look", Requester: "ops"}))),
		"reopened":                  must(t)(m.crashedOut().Retry(t0)),
		"released by another build": must(t)(m.crashedOut().ReleaseByBuild(t0, "b2")),
		"abandoned":                 abandoned,
		"withdrawn":                 withdrawn,
	} {
		fence := j.History[0].Fence
		if len(j.History) == MaxCrashes {
			fence = j.History[MaxCrashes-1].Fence
		}
		for _, o := range []Outcome{success(), application(), stopped(), released()} {
			if got := status(t, j, fence, o); got != FinishSuperseded {
				t.Errorf("%s: status %d for %+v", name, got, o)
			}
		}
	}
	for _, o := range []Outcome{stopped(), released(), notMe()} {
		if got := status(t, lost, 100, o); got != FinishSuperseded {
			t.Errorf("late %+v: status %d", o, got)
		}
	}
}
