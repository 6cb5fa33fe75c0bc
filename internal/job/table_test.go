package job

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// act is one way for an event to happen. It answers the job and what refused it.
type act struct {
	event Event
	do    func(*Job) (*Job, error)
}

func actInterrupt(l Level) func(*Job) (*Job, error) {
	return func(j *Job) (*Job, error) {
		next, _, err := j.RequestInterrupt(at(time.Hour), InterruptRequest{Level: l, Source: SourceUser})
		return next, err
	}
}

// errSuperseded stands for a finish that was answered without being recorded.
var errSuperseded = errors.New("not recorded")

// actFinish reports o for the live run, or else for the last one.
func actFinish(o Outcome) func(*Job) (*Job, error) {
	return func(j *Job) (*Job, error) {
		fence := j.Run.Fence
		if n := len(j.History); fence == 0 && n > 0 {
			fence = j.History[n-1].Fence
		}
		next, status, err := j.Finish(at(time.Hour), fence, o, Policy{}, 0.5)
		if status != FinishRecorded {
			if next != j {
				return next, errors.New("another pointer without being recorded")
			}
			return nil, errors.Join(errSuperseded, err)
		}
		return next, err
	}
}

// acts are all events in all their forms.
func acts() []act {
	hour := at(time.Hour)
	list := []act{
		{EventDue, func(j *Job) (*Job, error) {
			j = edited(j, func(j *Job) { j.StartBy = time.Time{} })
			return j.Wake(hour)
		}},
		{EventStartBy, func(j *Job) (*Job, error) {
			return edited(j, func(j *Job) { j.StartBy, j.DueTime = at(time.Minute), at(24*time.Hour) }).Wake(hour)
		}},
		{EventUnblock, func(j *Job) (*Job, error) { return j.Unblock(hour) }},
		{EventUnblock, func(j *Job) (*Job, error) {
			s := *j.Spec
			s.RunAt = at(2 * time.Hour)
			return edited(j, func(j *Job) { j.Spec = &s }).Unblock(hour)
		}},
		{EventDispatch, func(j *Job) (*Job, error) { return j.Dispatch(hour, Dispatch{Fence: 999}) }},
		{EventAccept, func(j *Job) (*Job, error) { return j.Accept(hour) }},
		{EventUndeliver, func(j *Job) (*Job, error) { return j.Undeliver(hour, "gone") }},
		{EventUndeliver, func(j *Job) (*Job, error) {
			return edited(j, func(j *Job) { j.StartBy = at(time.Minute) }).Undeliver(hour, "gone")
		}},
		{EventLose, func(j *Job) (*Job, error) { return j.Lose(hour, Policy{}, 0.5, "silent") }},
		{EventTimeout, func(j *Job) (*Job, error) { return j.Timeout(hour) }},
		{EventHardDeadline, func(j *Job) (*Job, error) { return j.HardDeadline(hour, Policy{}, 0.5) }},
		{EventInterruptRetry, actInterrupt(LevelRetry)},
		{EventInterruptCancel, actInterrupt(LevelCancel)},
		{EventDeliver, func(j *Job) (*Job, error) { return j.Deliver(hour, j.Run.Fence, j.Interrupted().Generation) }},
		{EventAcknowledge, func(j *Job) (*Job, error) { return j.Acknowledge(hour, j.Run.Fence, j.Interrupted().Generation) }},
		{EventPark, func(j *Job) (*Job, error) { return j.Park(hour, By{Reason: "look", Requester: "ops"}) }},
		{EventRetry, func(j *Job) (*Job, error) { return j.Retry(hour) }},
		{EventBuild, func(j *Job) (*Job, error) { return j.ReleaseByBuild(hour, "b2") }},
		{EventReplace, func(j *Job) (*Job, error) { return j.Replace(hour, spec()) }},
		{EventReplace, func(j *Job) (*Job, error) {
			s := spec()
			s.RunAt = at(2 * time.Hour)
			return j.Replace(hour, s)
		}},
		{EventUpdate, actUpdate(FieldLabels, Spec{Labels: map[string]string{"a": "c"}})},
		{EventUpdate, actUpdate(FieldStart, Spec{})},
		{EventUpdate, actUpdate(FieldStart, Spec{RunAt: at(2 * time.Hour)})},
		{EventUpdate, actUpdate(FieldLimits|FieldTimeout, Spec{Timeout: time.Minute, Limits: []LimitUse{{Limit: "l", Units: 1}}})},
	}
	for event, outcomes := range map[Event][]Outcome{
		EventSuccess:     {success()},
		EventFailure:     {application(), infrastructure(), malformed(), final(Application), parking(Infrastructure)},
		EventInterrupted: {stopped()}, EventReleased: {released(), notMe()},
	} {
		for _, o := range outcomes {
			list = append(list, act{event, actFinish(o)})
		}
	}
	return list
}

func actUpdate(f Fields, s Spec) func(*Job) (*Job, error) {
	return func(j *Job) (*Job, error) { return j.Update(at(time.Hour), Update{Fields: f, Spec: s}, By{}) }
}

func edited(j *Job, edit func(*Job)) *Job {
	next := *j
	edit(&next)
	return &next
}

// nearBounds has every counter one short of its bound.
func nearBounds(j *Job) *Job {
	return edited(j, func(j *Job) {
		j.Counters = Counters{DefaultAttempts - 1, MaxCrashes - 1, MaxInterrupts - 1, MaxSnoozes - 1, MaxDeliveries - 1}
	})
}

// fixtures are jobs in every phase, with what the answer may depend on: interrupts, full counters, a lost last run.
func fixtures(t *testing.T) []*Job {
	m := made{t}
	later := spec()
	later.RunAt = at(time.Minute)
	undelivered := must(t)(m.dispatch(m.ready()).Undeliver(t0, "gone"))
	timedOut := must(t)(m.running().Timeout(t0))
	lostByRetry := m.lost(m.interrupted(m.running(), LevelRetry))
	list := []*Job{
		New(later, t0), m.ready(), edited(m.ready(), func(j *Job) { j.enter(t0, Blocked) }),
		m.dispatch(m.ready()), m.running(),
		m.interrupted(m.running(), LevelRetry), m.interrupted(m.running(), LevelCancel), timedOut,
		must(t)(m.running().Park(t0, By{Reason: "look", Requester: "ops"})),
		m.finish(m.running(), application()), m.finish(m.running(), released()), m.finish(m.running(), notMe()),
		m.finish(m.running(), malformed()), m.lost(m.running()), m.lost(timedOut), undelivered, lostByRetry,
		must(t)(lostByRetry.Wake(lostByRetry.DueTime)), m.crashedOut(), must(t)(m.ready().Park(t0, By{Reason: "look", Requester: "ops"})),
		must(t)(m.lost(m.running()).Wake(at(time.Minute))), must(t)(undelivered.Update(t0, Update{Fields: FieldStart, Spec: Spec{RunAt: at(time.Minute)}}, By{})),
		m.finish(m.running(), success()), m.finish(m.running(), final(Application)),
		m.interrupted(m.ready(), LevelCancel), must(t)(edited(m.ready(), func(j *Job) { j.StartBy = t0 }).Wake(t0)),
	}
	for _, j := range list {
		if j.State == Running {
			list = append(list, nearBounds(j))
		}
	}
	return list
}

// legalNow is the event that an act is for this job: a finish of a run that is not live is late.
func (a act) legalNow(j *Job) Event {
	if j.State != Running {
		switch a.event {
		case EventSuccess:
			return EventLateSuccess
		case EventFailure:
			return EventLateFailure
		}
	}
	if a.event == EventLose && j.phase() == dispatched {
		return EventUndeliver
	}
	return a.event
}

// TestEveryPair crosses every phase with every event. A pair that the table has leads where the table says, and each
// of its targets is reached by some job; a pair that it has not is refused and leaves the job untouched.
func TestEveryPair(t *testing.T) {
	var reached [numberOfPhases][numberOfEvents]phases
	reached[none][EventSubmit] = to(scheduled, ready)
	for _, j := range fixtures(t) {
		before := snapshot(t, j)
		for _, a := range acts() {
			event := a.legalNow(j)
			next, err := a.do(j)
			if snapshot(t, j) != before {
				t.Fatalf("%s modified its receiver in %s", event, j.phase())
			}
			legal := table[j.phase()][event]
			switch {
			case next == nil && err == nil:
				t.Errorf("%s in %s answers nothing", event, j.phase())
			case err != nil && next != nil:
				t.Errorf("%s in %s answers a job and %v", event, j.phase(), err)
			case err != nil && legal != 0 && !errors.Is(err, errSuperseded) && !errors.Is(err, ErrLevel) &&
				!errors.Is(err, ErrDowngrade) && !errors.Is(err, ErrHadRun) && !errors.Is(err, ErrReplaceParked) &&
				!errors.Is(err, ErrUpdateStart):
				t.Errorf("%s in %s: %v", event, j.phase(), err)
			case err == nil && legal == 0 && next.Version != j.Version:
				t.Errorf("%s in %s leads to %s", event, j.phase(), next.phase())
			case err == nil && legal != 0:
				reached[j.phase()][event] |= to(next.phase())
				checkStep(t, j, event, next)
			}
		}
		if j.CanDelete() == nil {
			reached[j.phase()][EventDelete] = to(none)
		}
	}
	for p := range numberOfPhases {
		for e := range numberOfEvents {
			if diff := cmp.Diff(cell(table[p][e]), cell(reached[p][e])); diff != "" {
				t.Errorf("%s in %s (-table +reached)\n%s", e, p, diff)
			}
		}
	}
}

// checkStep holds for every legal pair: the table's word, the version, and exactly one counter for a way back.
func checkStep(t *testing.T, j *Job, event Event, next *Job) {
	t.Helper()
	if !table[j.phase()][event].has(next.phase()) {
		t.Errorf("%s leads from %s to %s", event, j.phase(), next.phase())
	}
	if next.Version != j.Version+1 && (next.Version != j.Version || next.State != j.State) {
		t.Errorf("%s in %s: version %d after %d", event, j.phase(), next.Version, j.Version)
	}
	rose, fell := compare(j.Counters, next.Counters)
	ended := j.State == Running && next.State != Running
	switch {
	case ended && next.State.Waiting() && (rose != 1 || fell != 0):
		t.Errorf("%s from %s to %s: %d counters rose, %d fell", event, j.phase(), next.phase(), rose, fell)
	case !ended && event != EventRetry && event != EventBuild && event != EventLateFailure && event != EventLateSuccess &&
		rose+fell != 0:
		t.Errorf("%s from %s to %s changes counters", event, j.phase(), next.phase())
	case event == EventLateSuccess && (rose != 0 || fell != 1):
		t.Errorf("a late success from %s: %d counters rose, %d fell", j.phase(), rose, fell)
	case rose > 1:
		t.Errorf("%s from %s counts %d", event, j.phase(), rose)
	}
}

// compare says how many counters rose and fell, and counts one that moved by more than one as many.
func compare(a, b Counters) (rose, fell int) {
	for c := CountAttempts; c <= CountDeliveries; c++ {
		if d := int(*b.of(c)) - int(*a.of(c)); d > 0 {
			rose += d
		} else {
			fell -= d
		}
	}
	return rose, fell
}

// TestRefusals: what is refused says why in a way that callers can tell apart.
func TestRefusals(t *testing.T) {
	m := made{t}
	done := m.finish(m.running(), success())
	for name, c := range map[string]struct {
		do   func() error
		want error
	}{
		"retry while running": {func() error { _, err := m.running().Retry(t0); return err }, ErrRunActive},
		"retry when ready":    {func() error { _, err := m.ready().Retry(t0); return err }, ErrIllegal},
		"retry a success":     {func() error { _, err := done.Retry(t0); return err }, ErrIllegal},
		"update a success":    {func() error { _, err := actUpdate(FieldStart, Spec{})(done); return err }, ErrIllegal},
		"postpone while running": {func() error {
			_, err := actUpdate(FieldStart, Spec{RunAt: at(2 * time.Hour)})(m.running())
			return err
		}, ErrUpdateStart},
		"delete while running": {m.running().CanDelete, ErrRunActive},
		"delete nothing":       {new(Job).CanDelete, ErrIllegal},
		"interrupt the end":    {func() error { _, err := actInterrupt(LevelRetry)(done); return err }, ErrTooLate},
		"interrupt at none":    {func() error { _, err := actInterrupt(LevelNone)(m.ready()); return err }, ErrLevel},
		"interrupt at a lower level": {func() error {
			_, err := actInterrupt(LevelRetry)(m.interrupted(m.running(), LevelCancel))
			return err
		}, ErrDowngrade},
		"interrupt at 3": {func() error { _, err := actInterrupt(3)(m.running()); return err }, ErrLevel},
		"deadline of nothing": {func() error {
			_, err := m.running().HardDeadline(t0, Policy{}, 0)
			return err
		}, ErrLevel},
		"dispatch too late": {func() error {
			j := edited(m.ready(), func(j *Job) { j.StartBy = t0 })
			_, err := j.Dispatch(t0, Dispatch{})
			return err
		}, ErrStartBy},
		"unknown state": {func() error { _, err := (&Job{Spec: spec(), State: 77}).Accept(t0); return err }, ErrIllegal},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	var illegal *IllegalError
	if _, err := done.Accept(t0); !errors.As(err, &illegal) || illegal.State != Succeeded || illegal.Event != EventAccept {
		t.Errorf("accepting a success: %#v", illegal)
	}
	if got, want := illegal.Error(), "job: accept is not possible in state SUCCEEDED"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestResultIsChecked: a step to where the table does not lead is a bug, and refused rather than stored.
func TestResultIsChecked(t *testing.T) {
	_, err := made{t}.ready().change(EventDispatch, func(n *Job) { n.enter(t0, Succeeded) })
	if want := "job: dispatch must not lead from READY to SUCCEEDED"; err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
}
