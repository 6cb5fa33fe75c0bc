package job

import "time"

// New is a submitted job's first version: SCHEDULED if its run_at is later than now, else READY. The store sets Seq.
func New(s *Spec, now time.Time) *Job {
	j := &Job{Spec: s, Version: 1, Epoch: 1, SubmitTime: now, StartBy: s.StartBy}
	j.waitForStart(now)
	return j
}

// change is the one way from a version to the next: it asks the table whether e is legal, lets do alter a copy with the
// next version number, and asks the table whether e may lead there.
func (j *Job) change(e Event, do func(next *Job)) (*Job, error) {
	legal := table[j.phase()][e]
	if legal == 0 {
		return nil, &IllegalError{State: j.State, Event: e}
	}
	next := *j
	next.Version++
	do(&next)
	if !legal.has(next.phase()) {
		return nil, &IllegalError{State: j.State, Event: e, To: next.State}
	}
	return &next, nil
}

// unchanged is the answer to an event that finds its work done.
func (j *Job) unchanged(e Event) (*Job, error) {
	legal := table[j.phase()][e]
	if legal == 0 {
		return nil, &IllegalError{State: j.State, Event: e}
	}
	if !legal.has(j.phase()) {
		return nil, &IllegalError{State: j.State, Event: e, To: j.State}
	}
	return j, nil
}

// enter puts j into a state other than RUNNING and drops what belonged to the last one.
func (j *Job) enter(now time.Time, s State) {
	j.State = s
	j.DueTime, j.ReadyTime, j.ReadySeq = time.Time{}, time.Time{}, 0
	j.ParkReason, j.ParkBuild = ParkNone, ""
	if s == Ready {
		j.ReadyTime = now
	}
	if s.Terminal() {
		j.EndTime = later(now, j.SubmitTime)
	}
	if s.Terminal() || !now.Before(j.AvoidUntil) {
		j.Avoid, j.AvoidUntil = ID{}, time.Time{}
	}
}

// waitForStart makes j SCHEDULED until its run_at, or READY if that is not later than now.
func (j *Job) waitForStart(now time.Time) {
	if j.Spec.RunAt.After(now) {
		j.enter(now, Scheduled)
		j.DueTime = j.Spec.RunAt
		return
	}
	j.enter(now, Ready)
}

// overdue reports whether j should have been accepted by now.
func (j *Job) overdue(now time.Time) bool { return !j.StartBy.IsZero() && !now.Before(j.StartBy) }

// later keeps the times of one job in order when the wall clock jumps back.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
