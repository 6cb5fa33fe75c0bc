package job

import (
	"slices"
	"time"
)

// Wake does what time asks of a waiting job: EXPIRED when start_by has passed, else READY when DueTime has come. It
// returns j itself if neither holds, also when j does not wait.
func (j *Job) Wake(now time.Time) (*Job, error) {
	from := table[j.phase()]
	switch {
	case from[EventStartBy] != 0 && j.overdue(now):
		return j.change(EventStartBy, func(n *Job) { n.enter(now, Expired) })
	case from[EventDue] != 0 && !now.Before(j.DueTime):
		return j.change(EventDue, func(n *Job) { n.enter(now, Ready) })
	default:
		return j, nil
	}
}

// Unblock lets a BLOCKED job go on once its last dependency succeeded: READY, or SCHEDULED until its run_at.
func (j *Job) Unblock(now time.Time) (*Job, error) {
	return j.change(EventUnblock, func(n *Job) { n.waitForStart(now) })
}

// Retry makes a job run again: a SCHEDULED or BACKOFF one is READY now, a PARKED, FAILED, CANCELLED or EXPIRED one is
// reopened in a new epoch. Errors: ErrRunActive, ErrIllegal.
func (j *Job) Retry(now time.Time) (*Job, error) {
	if j.State == Running {
		return nil, ErrRunActive
	}
	return j.change(EventRetry, func(n *Job) {
		if j.State == Parked || j.State.Terminal() {
			n.reopen(now)
		}
		n.enter(now, Ready)
	})
}

// RetryBy is Retry at somebody's request, which the job remembers. It returns j itself for the repeat of a request.
// Errors: those of Retry.
func (j *Job) RetryBy(now time.Time, by By) (*Job, error) {
	if _, did := j.Did(ActionRetry, by.Request); did {
		return j, nil
	}
	next, err := j.Retry(now)
	if err != nil {
		return nil, err
	}
	next.record(by.action(ActionRetry, now))
	return next, nil
}

// ReleaseByBuild reopens a PARKED job because another build than the one that parked it has registered. It returns j
// itself if an operator or a worker of no build parked it, if build is the one that did, or if build has released it
// before. That no session of the old build is left is for the caller to see to. Errors: ErrIllegal.
func (j *Job) ReleaseByBuild(now time.Time, build string) (*Job, error) {
	if j.ParkReason == ParkOperator || j.ParkBuild == "" || j.ParkBuild == build || slices.Contains(j.ReleasedBy, build) {
		return j.unchanged(EventBuild)
	}
	return j.change(EventBuild, func(n *Job) {
		forgotten := max(0, len(j.ReleasedBy)+1-ReleasesKept)
		n.ReleasedBy = append(slices.Clone(j.ReleasedBy[forgotten:]), build)
		n.reopen(now)
		n.enter(now, Ready)
	})
}

// CanDelete answers ErrRunActive while j has a live run.
func (j *Job) CanDelete() error {
	if j.State == Running {
		return ErrRunActive
	}
	if table[j.phase()][EventDelete] == 0 {
		return &IllegalError{State: j.State, Event: EventDelete}
	}
	return nil
}

// reopen begins a new epoch: only numbers, fences, history and who released it go on.
func (j *Job) reopen(now time.Time) {
	j.Epoch++
	j.EpochTime = now
	j.Counters = Counters{}
	j.Interrupt = nil
	j.Failure, j.Result = nil, nil
	j.StartBy, j.EndTime = time.Time{}, time.Time{}
}
