package job

import (
	"maps"
	"slices"
	"time"
)

// Fields is a set of what an update may change of a spec.
type Fields uint16

// The fields. Queue, payload, content type and trace stay what they were at the submit, and so does the digest.
const (
	FieldPriority Fields = 1 << iota
	FieldStart           // RunAt
	FieldStartBy
	FieldTimeout
	FieldLease
	FieldRetry
	FieldLabels
	FieldSubject
	FieldLimits
	FieldFairness
)

// Update gives fields of a job's spec other values.
type Update struct {
	Fields Fields // those that it names
	Spec   Spec   // their values; the others are not read
}

// Kept is what a live run keeps of the spec that it began under, when an update has changed that since.
type Kept struct {
	Timeout time.Duration
	Limits  []LimitUse
}

// Update changes a job at somebody's request, which the job remembers. A live run goes on as it began: what it takes, its
// lease and its timeout are those of its dispatch, so that the change is for the next one. A job that waits for a time or
// for room waits for the named start from now on: SCHEDULED until then, READY if that is not later than now. A READY job
// that waits in another lane then goes to its end, as old as it is. It returns j itself if nothing changes and the request
// has no name, and for the repeat of a request. Errors: ErrUpdateStart, ErrUpdateStartBy, ErrIllegal.
func (j *Job) Update(now time.Time, u Update, by By) (*Job, error) {
	if _, did := j.Did(ActionUpdate, by.Request); did {
		return j, nil
	}
	if err := j.mayUpdate(now, u); err != nil {
		return nil, err
	}
	spec := u.of(j.Spec)
	next, err := j.change(EventUpdate, func(n *Job) { n.update(now, u.Fields, spec) })
	if err != nil {
		return nil, err
	}
	same := spec == j.Spec && next.State == j.State && next.DueTime.Equal(j.DueTime) && next.StartBy.Equal(j.StartBy)
	if same && by.Request == "" {
		return j.unchanged(EventUpdate)
	}
	next.record(by.action(ActionUpdate, now))
	return next, nil
}

// mayUpdate refuses what the job as it is has no use for. What has no other effect than a default is always fine.
func (j *Job) mayUpdate(now time.Time, u Update) error {
	switch {
	case table[j.phase()][EventUpdate] == 0:
		return &IllegalError{State: j.State, Event: EventUpdate}
	case u.Fields&FieldStart != 0 && u.Spec.RunAt.After(now) && (j.State == Running || j.State == Parked):
		return ErrUpdateStart
	case u.Fields&FieldStartBy != 0 && !u.Spec.StartBy.IsZero() && j.started():
		return ErrUpdateStartBy
	default:
		return nil
	}
}

// started reports whether start_by is over for j: a worker has accepted a run of it, or it was reopened. One that a submit
// replaced since may have another start_by, which is in force until it is met or taken back.
func (j *Job) started() bool {
	accepted := func(r Run) bool { return !r.AcceptTime.IsZero() }
	return j.Epoch > 1 && j.StartBy.IsZero() || accepted(j.Run) || slices.ContainsFunc(j.History, accepted)
}

// update gives j another spec, which is its own if nothing of it changes, and lets it wait as the named fields say.
func (j *Job) update(now time.Time, named Fields, spec *Spec) {
	old := j.Spec
	j.Spec = spec
	uses := slices.Equal(spec.Limits, old.Limits)
	if j.State == Running && j.Run.Kept == nil && (!uses || spec.Timeout != old.Timeout) {
		j.Run.Kept = &Kept{Timeout: old.Timeout, Limits: old.Limits}
	}
	if named&FieldStartBy != 0 && !j.started() {
		j.StartBy = spec.StartBy
	}
	if !spec.SharesLane(old) {
		j.ReadySeq = 0 // its place is one of the old lane, also if it is RUNNING and comes back undelivered
	}
	if named&FieldStart == 0 {
		return
	}
	switch {
	case j.State == Ready && !spec.RunAt.After(now): // it keeps its place
	case j.State == Scheduled, j.State == Ready, j.State == Backoff:
		j.waitForStart(now)
	default: // of a BLOCKED job it is read when that is over
	}
}

// Taken is what j's live run takes of limits.
func (j *Job) Taken() []LimitUse {
	if j.Run.Kept != nil {
		return j.Run.Kept.Limits
	}
	return j.Spec.Limits
}

// RunTimeout is how long j's live run may take; 0: as long as it takes.
func (j *Job) RunTimeout() time.Duration {
	if j.Run.Kept != nil {
		return j.Run.Kept.Timeout
	}
	return j.Spec.Timeout
}

// of is s with the named fields as in the update; s itself if they have these values already.
func (u *Update) of(s *Spec) *Spec {
	next, from := *s, &u.Spec
	changed := false
	set := func(f Fields, same bool, do func()) {
		if u.Fields&f != 0 && !same {
			changed = true
			do()
		}
	}
	set(FieldPriority, from.Priority == s.Priority, func() { next.Priority = from.Priority })
	set(FieldStart, from.RunAt.Equal(s.RunAt), func() { next.RunAt = from.RunAt })
	set(FieldStartBy, from.StartBy.Equal(s.StartBy), func() { next.StartBy = from.StartBy })
	set(FieldTimeout, from.Timeout == s.Timeout, func() { next.Timeout = from.Timeout })
	set(FieldLease, from.Lease == s.Lease, func() { next.Lease = from.Lease })
	set(FieldRetry, from.retry() == s.retry(), func() { next.Retry = from.Retry })
	set(FieldLabels, maps.Equal(from.Labels, s.Labels), func() { next.Labels = from.Labels })
	set(FieldSubject, from.Subject == s.Subject, func() { next.Subject = from.Subject })
	set(FieldFairness, from.FairnessKey == s.FairnessKey, func() { next.FairnessKey = from.FairnessKey })
	set(FieldLimits, slices.Equal(from.Limits, s.Limits), func() { next.Limits = from.Limits })
	if !changed {
		return s
	}
	return &next
}
