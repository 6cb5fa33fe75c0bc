package job

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	wide  = []LimitUse{{Limit: "l", Key: "a", Units: 2}}
	small = []LimitUse{{Limit: "l", Key: "a", Units: 1}}
)

// updated names fields and gives them values.
func (m made) updated(j *Job, f Fields, s Spec) *Job {
	m.Helper()
	return must(m)(j.Update(at(time.Hour), Update{Fields: f, Spec: s}, By{Reason: "why", Requester: "ops"}))
}

// TestUpdateFields: what an update names has its values, each field alone, and nothing else changes; what has them
// already is no change, of which a job remembers nothing.
func TestUpdateFields(t *testing.T) {
	m := made{t}
	all := Spec{
		Priority: High, RunAt: at(2 * time.Hour), StartBy: at(3 * time.Hour), Timeout: time.Minute, Lease: time.Hour,
		Retry: &RetryPolicy{MaxAttempts: 2}, Labels: map[string]string{"c": "d"}, Subject: "s", Limits: wide,
	}
	for f, set := range map[Fields]func(*Spec){
		FieldPriority: func(s *Spec) { s.Priority = all.Priority },
		FieldStart:    func(s *Spec) { s.RunAt = all.RunAt },
		FieldStartBy:  func(s *Spec) { s.StartBy = all.StartBy },
		FieldTimeout:  func(s *Spec) { s.Timeout = all.Timeout },
		FieldLease:    func(s *Spec) { s.Lease = all.Lease },
		FieldRetry:    func(s *Spec) { s.Retry = all.Retry },
		FieldLabels:   func(s *Spec) { s.Labels = all.Labels },
		FieldSubject:  func(s *Spec) { s.Subject = all.Subject },
		FieldLimits:   func(s *Spec) { s.Limits = all.Limits },
	} {
		j := m.ready()
		before := snapshot(t, j)
		got, want := m.updated(j, f, all), *j.Spec
		set(&want)
		if diff := cmp.Diff(&want, got.Spec); diff != "" {
			t.Errorf("field %b (-want +got):\n%s", f, diff)
		}
		if snapshot(t, j) != before {
			t.Errorf("field %b: the receiver was modified", f)
		}
		if again := m.updated(got, f, all); again != got {
			t.Errorf("field %b: the same values make version %d of %d", f, again.Version, got.Version)
		}
		if a := got.Actions; len(a) != 1 || a[0].Kind != ActionUpdate || a[0].Reason != "why" || a[0].Requester != "ops" {
			t.Errorf("field %b: remembered as %v", f, a)
		}
		back := m.updated(got, f, *m.ready().Spec)
		if diff := cmp.Diff(m.ready().Spec, back.Spec); diff != "" {
			t.Errorf("field %b back again (-want +got):\n%s", f, diff)
		}
	}
}

// TestUpdateStart: who waits for a time or for room waits for the new one; who does not is not made to.
func TestUpdateStart(t *testing.T) {
	m := made{t}
	later := spec()
	later.RunAt = at(24 * time.Hour)
	released := m.finish(m.running(), released())
	failed := m.finish(m.running(), application())
	blocked := edited(m.ready(), func(j *Job) { j.enter(t0, Blocked) })
	ready := edited(m.ready(), func(j *Job) { j.ReadySeq = 7 })
	in2h := Spec{RunAt: at(2 * time.Hour)}
	for name, c := range map[string]struct {
		job  *Job
		to   Spec
		want string // the state and when it is due, "refused", or "same"
	}{
		"READY, later":      {ready, in2h, "SCHEDULED 2h0m0s"},
		"READY, now":        {ready, Spec{RunAt: at(time.Hour)}, "READY place 7"},
		"READY, absent":     {ready, Spec{}, "same"},
		"SCHEDULED, later":  {New(later, t0), in2h, "SCHEDULED 2h0m0s"},
		"SCHEDULED, absent": {New(later, t0), Spec{}, "READY place 0"},
		"released, later":   {released, in2h, "SCHEDULED 2h0m0s"},
		"released, absent":  {released, Spec{}, "READY place 0"},
		"BACKOFF, later":    {failed, in2h, "SCHEDULED 2h0m0s"},
		"BACKOFF, absent":   {failed, Spec{}, "READY place 0"},
		"BLOCKED, later":    {blocked, in2h, "BLOCKED"},
		"PARKED, later":     {m.crashedOut(), in2h, "refused"},
		"PARKED, absent":    {m.crashedOut(), Spec{}, "same"},
		"RUNNING, later":    {m.running(), in2h, "refused"},
		"RUNNING, absent":   {m.running(), Spec{}, "same"},
		"DISPATCHED, later": {m.dispatch(m.ready()), in2h, "refused"},
	} {
		next, err := c.job.Update(at(time.Hour), Update{Fields: FieldStart, Spec: c.to}, By{})
		var got string
		switch {
		case errors.Is(err, ErrUpdateStart):
			got = "refused"
		case err != nil:
			got = err.Error()
		case next == c.job:
			got = "same"
		case next.State == Scheduled:
			got = fmt.Sprint(next.State, " ", next.DueTime.Sub(t0))
		case next.State == Ready:
			got = fmt.Sprint(next.State, " place ", next.ReadySeq)
		default:
			got = next.State.String()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if next := m.updated(blocked, FieldStart, in2h); must(t)(next.Unblock(at(time.Hour))).State != Scheduled {
		t.Error("a BLOCKED job does not wait for its new start")
	}
	// The late failure of a lost run does not bring forward what somebody chose.
	postponed := m.updated(m.lost(m.running()), FieldStart, in2h)
	if late := m.late(postponed, application()); late.State != Backoff || !late.DueTime.Equal(in2h.RunAt) {
		t.Errorf("a late failure: %s due %s", late.State, late.DueTime)
	}
}

// late reports an outcome for j's last run.
func (m made) late(j *Job, o Outcome) *Job {
	m.Helper()
	next, status, err := j.Finish(t0, j.History[len(j.History)-1].Fence, o, Policy{}, 0.5)
	if status != FinishRecorded {
		m.Fatalf("finish: %v %v", status, err)
	}
	return next
}

// TestUpdateStartBy: it binds a job until a worker has accepted it once, and not after.
func TestUpdateStartBy(t *testing.T) {
	m := made{t}
	undelivered := must(t)(m.dispatch(m.ready()).Undeliver(t0, "gone"))
	for name, c := range map[string]struct {
		job  *Job
		want error
	}{
		"READY":           {m.ready(), nil},
		"DISPATCHED":      {m.dispatch(m.ready()), nil},
		"undelivered":     {undelivered, nil},
		"withdrawn":       {m.interrupted(m.dispatch(m.ready()), LevelRetry), nil},
		"RUNNING":         {m.running(), ErrUpdateStartBy},
		"it ran before":   {m.finish(m.running(), released()), ErrUpdateStartBy},
		"it was reopened": {must(t)(m.interrupted(m.ready(), LevelCancel).Retry(t0)), ErrUpdateStartBy},
	} {
		next, err := c.job.Update(t0, Update{Fields: FieldStartBy, Spec: Spec{StartBy: at(time.Minute)}}, By{})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err == nil && !next.StartBy.Equal(at(time.Minute)) {
			t.Errorf("%s: start_by is %v", name, next.StartBy)
		}
		if same, err := c.job.Update(t0, Update{Fields: FieldStartBy}, By{}); err != nil || same != c.job {
			t.Errorf("%s: without one as before: %v", name, err)
		}
	}
	bound := m.updated(m.ready(), FieldStartBy, Spec{StartBy: at(2 * time.Hour)})
	if free := m.updated(bound, FieldStartBy, Spec{}); !free.StartBy.IsZero() {
		t.Errorf("freed from its start_by it has %v", free.StartBy)
	}
	replacing := spec()
	replacing.StartBy = at(2 * time.Hour)
	replaced := must(t)(must(t)(m.interrupted(m.ready(), LevelCancel).Retry(t0)).Replace(t0, replacing))
	if later := m.updated(replaced, FieldStartBy, Spec{StartBy: at(3 * time.Hour)}); !later.StartBy.Equal(at(3 * time.Hour)) {
		t.Errorf("replaced after it was reopened, it has to start by %v", later.StartBy)
	}
	if free := m.updated(replaced, FieldStartBy, Spec{}); !free.StartBy.IsZero() {
		t.Errorf("replaced after it was reopened and then freed, it has to start by %v", free.StartBy)
	}
	if _, err := m.run(replaced).Update(t0, Update{Fields: FieldStartBy, Spec: Spec{StartBy: at(time.Hour)}}, By{}); !errors.Is(err, ErrUpdateStartBy) {
		t.Errorf("once that is accepted: %v", err)
	}
	expired := must(t)(m.updated(m.ready(), FieldStartBy, Spec{StartBy: t0}).Wake(at(time.Hour)))
	if expired.State != Expired {
		t.Errorf("with a start_by that has passed: %s", expired.State)
	}
}

// TestUpdateRunning: the live run keeps what it began with, through any number of updates, and the next one has the new.
func TestUpdateRunning(t *testing.T) {
	m := made{t}
	s := spec()
	s.Limits, s.Timeout = small, time.Minute
	j := m.run(New(s, t0))
	check := func(what string, j *Job, limits []LimitUse, timeout time.Duration) {
		t.Helper()
		if diff := cmp.Diff(limits, j.Taken()); diff != "" || j.RunTimeout() != timeout {
			t.Errorf("%s takes, for %s: %s", what, j.RunTimeout(), diff)
		}
	}
	labelled := m.updated(j, FieldLabels, Spec{})
	if labelled.Run.Kept != nil {
		t.Error("an update of labels is noted with the run")
	}
	wider := m.updated(labelled, FieldLimits, Spec{Limits: wide})
	check("an updated run", wider, small, time.Minute)
	none := m.updated(wider, FieldLimits|FieldTimeout, Spec{})
	check("a run updated twice", none, small, time.Minute)
	if next := m.finish(none, released()); next.History[0].Kept != nil {
		t.Error("an ended run keeps something")
	}
	check("the next run", m.run(m.finish(wider, released())), wide, time.Minute)
	check("the next run", m.run(m.finish(none, released())), nil, 0)
	free := m.updated(m.running(), FieldLimits|FieldTimeout, Spec{Limits: wide, Timeout: time.Hour})
	check("a run that takes nothing", free, nil, 0)
}

// TestUpdatePlace: a job whose lane changes loses its place, not its age; also one whose delivery fails.
func TestUpdatePlace(t *testing.T) {
	m := made{t}
	ready := edited(m.ready(), func(j *Job) { j.ReadySeq = 7 })
	for name, c := range map[string]struct {
		fields Fields
		to     Spec
		want   uint64
	}{
		"priority":         {FieldPriority, Spec{Priority: High}, 0},
		"limits":           {FieldLimits, Spec{Limits: small}, 0},
		"the same ones":    {FieldLimits | FieldPriority | FieldSubject, Spec{Priority: Normal, Subject: "s"}, 7},
		"labels and lease": {FieldLabels | FieldLease, Spec{Lease: time.Minute}, 7},
	} {
		if j := m.updated(ready, c.fields, c.to); j.ReadySeq != c.want || j.ReadyTime != ready.ReadyTime {
			t.Errorf("%s: place %d since %s", name, j.ReadySeq, j.ReadyTime)
		}
		j := must(t)(m.updated(m.dispatch(ready), c.fields, c.to).Undeliver(t0, "gone"))
		if j.ReadySeq != c.want || j.ReadyTime != ready.ReadyTime {
			t.Errorf("%s, undelivered: place %d since %s", name, j.ReadySeq, j.ReadyTime)
		}
	}
}
