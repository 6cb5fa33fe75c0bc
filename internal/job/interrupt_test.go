package job

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func request(j *Job, now time.Time, r InterruptRequest) (*Job, InterruptEffect, error) {
	r.Source = SourceUser
	return j.RequestInterrupt(now, r)
}

// TestInterruptDeadlines: grace and hard deadline count from the request, by the level unless it says otherwise; of two
// requests the earlier deadlines hold.
func TestInterruptDeadlines(t *testing.T) {
	m := made{t}
	second, minute, hour := time.Second, time.Minute, time.Hour
	zero := time.Duration(0)
	retry, cancel := InterruptRequest{Level: LevelRetry}, InterruptRequest{Level: LevelCancel}
	with := func(r InterruptRequest, grace, hard *time.Duration) InterruptRequest {
		r.Grace, r.HardDeadline = grace, hard
		return r
	}
	for name, c := range map[string]struct {
		requests    []InterruptRequest // ten seconds apart
		grace, hard time.Duration      // after the first; 0: no hard deadline
		generation  uint32
	}{
		"RETRY":                       {[]InterruptRequest{retry}, RetryGrace, 0, 1},
		"CANCEL":                      {[]InterruptRequest{cancel}, CancelGrace, CancelHard, 1},
		"as asked":                    {[]InterruptRequest{with(retry, &minute, &hour)}, minute, hour, 1},
		"CANCEL with a long grace":    {[]InterruptRequest{with(cancel, &hour, nil)}, hour, hour, 1},
		"no grace":                    {[]InterruptRequest{with(cancel, &zero, &second)}, 0, second, 1},
		"RETRY again":                 {[]InterruptRequest{retry, retry}, RetryGrace, 0, 1},
		"RETRY again, sooner":         {[]InterruptRequest{retry, with(retry, &second, nil)}, 11 * second, 0, 2},
		"RETRY again, bounded":        {[]InterruptRequest{retry, with(retry, &hour, &hour)}, RetryGrace, hour + 10*second, 2},
		"CANCEL after RETRY":          {[]InterruptRequest{retry, cancel}, 20 * second, 70 * second, 2},
		"CANCEL after a strict RETRY": {[]InterruptRequest{with(retry, &second, &minute), cancel}, second, minute, 2},
		"CANCEL again, later":         {[]InterruptRequest{cancel, cancel}, CancelGrace, CancelHard, 1},
	} {
		j := m.running()
		for i, r := range c.requests {
			next, _, err := request(j, at(time.Duration(i)*10*second), r)
			j = must(t)(next, err)
		}
		i := j.Interrupt
		if !i.GraceTime.Equal(at(c.grace)) || i.HardTime.IsZero() != (c.hard == 0) || c.hard > 0 && !i.HardTime.Equal(at(c.hard)) ||
			i.Generation != c.generation {
			t.Errorf("%s: %+v", name, i)
		}
	}
	timedOut := must(t)(m.interrupted(m.running(), LevelRetry).Timeout(at(second))).Interrupted()
	if !timedOut.GraceTime.Equal(at(second+TimeoutGrace)) || !timedOut.HardTime.Equal(at(second+TimeoutHard)) {
		t.Errorf("timeout: %+v", timedOut)
	}
	if again := must(t)(m.running().Timeout(t0)); true {
		next, effect, err := request(again, at(second), with(retry, &second, nil))
		if err != nil || effect != EffectRequested || next.Interrupted().Source != SourceTimeout {
			t.Errorf("a RETRY makes another thing of a timeout: %+v, %v", next.Interrupted(), err)
		}
	}
}

// TestInterruptPhases: each generation is delivered and acknowledged on its own; a word about another generation or
// another run is no news.
func TestInterruptPhases(t *testing.T) {
	m := made{t}
	j := m.interrupted(m.running(), LevelRetry)
	fence := j.Run.Fence
	for name, same := range map[string]*Job{
		"deliver of another generation":     must(t)(j.Deliver(t0, fence, 2)),
		"deliver of another run":            must(t)(j.Deliver(t0, fence+1, 1)),
		"acknowledge of another generation": must(t)(j.Acknowledge(t0, fence, 0)),
		"acknowledge of another run":        must(t)(j.Acknowledge(t0, fence-1, 1)),
	} {
		if same != j {
			t.Errorf("%s changed it", name)
		}
	}
	if got := m.running(); must(t)(got.Acknowledge(t0, fence, 0)) != got {
		t.Error("no interrupt was acknowledged")
	}
	delivered := must(t)(j.Deliver(at(time.Second), fence, 1))
	if must(t)(delivered.Deliver(at(time.Minute), fence, 1)) != delivered {
		t.Error("delivered twice")
	}
	acked := must(t)(delivered.Acknowledge(at(2*time.Second), fence, 1))
	if must(t)(acked.Acknowledge(at(time.Minute), fence, 1)) != acked {
		t.Error("acknowledged twice")
	}
	if i := acked.Interrupt; !i.DeliverTime.Equal(at(time.Second)) || !i.AckTime.Equal(at(2*time.Second)) || i.End != EndNone {
		t.Errorf("%+v", i)
	}
	if i := must(t)(j.Acknowledge(at(time.Second), fence, 1)).Interrupted(); !i.DeliverTime.Equal(at(time.Second)) {
		t.Errorf("acknowledged, so it was delivered: %+v", i)
	}
	raised := m.interrupted(acked, LevelCancel)
	if i := raised.Interrupt; i.Generation != 2 || !i.DeliverTime.IsZero() || !i.AckTime.IsZero() {
		t.Errorf("a higher level is news: %+v", i)
	}
}

// TestInterruptEnds: every end of a run ends its interrupt, and the history tells how.
func TestInterruptEnds(t *testing.T) {
	m := made{t}
	ends := map[string]struct {
		do   func(*Job) *Job
		want InterruptEnd
	}{
		"success":       {func(j *Job) *Job { return m.finish(j, success()) }, EndCompleted},
		"failure":       {func(j *Job) *Job { return m.finish(j, application()) }, EndFailed},
		"interrupted":   {func(j *Job) *Job { return m.finish(j, stopped()) }, EndStopped},
		"released":      {func(j *Job) *Job { return m.finish(j, released()) }, EndStopped},
		"lost":          {m.lost, EndLost},
		"hard deadline": {func(j *Job) *Job { return must(t)(j.HardDeadline(t0, Policy{}, 0)) }, EndAbandoned},
	}
	for name, end := range ends {
		for _, level := range []Level{LevelRetry, LevelCancel} {
			under := m.interrupted(m.running(), level)
			after := end.do(under)
			got, want := after.History[0].Interrupt, under.Interrupted().ended(t0, end.want)
			if got == nil || *got != want {
				t.Errorf("%s under %d: %+v, want %+v", name, level, got, want)
			}
			kept := Interrupt{}
			if level == LevelCancel {
				kept = want
			}
			if after.Interrupted() != kept {
				t.Errorf("%s under %d leaves %+v, want %+v", name, level, after.Interrupted(), kept)
			}
		}
	}
	withdrawn := m.interrupted(m.dispatch(m.ready()), LevelCancel)
	if withdrawn.Interrupted().End != EndWithdrawn || withdrawn.History[0].Interrupt.End != EndWithdrawn {
		t.Errorf("withdrawn: %+v", withdrawn.Interrupted())
	}
	if i := m.interrupted(m.ready(), LevelCancel).Interrupted(); i.End != EndNoRun || i.EndTime.IsZero() || !i.GraceTime.IsZero() || !i.HardTime.IsZero() {
		t.Errorf("cancelled while waiting: %+v", i)
	}
	lost := m.lost(m.interrupted(m.running(), LevelRetry))
	late, status, err := lost.Finish(at(time.Minute), lost.History[0].Fence, success(), Policy{}, 0)
	if err != nil || status != FinishRecorded || late.History[0].Interrupt.End != EndCompleted || lost.History[0].Interrupt.End != EndLost {
		t.Errorf("late success: %v, %+v", err, cmp.Diff(lost, late))
	}
}
