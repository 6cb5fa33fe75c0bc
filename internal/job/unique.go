package job

import (
	"slices"
	"time"
)

// Unique is a job's claim to be the only one of its queue with a key.
type Unique struct {
	Key        string
	Until      UniqueUntil   // never none
	TTL        time.Duration // with UntilFinish: how long after its end the job still holds the key
	OnConflict OnConflict    // never none
}

// UniqueUntil says how long a job holds its unique key.
type UniqueUntil uint8

// The alternatives. The numbers are stored and never reused.
const (
	UntilNone   UniqueUntil = 0
	UntilStart  UniqueUntil = 1 // until a worker has accepted its first run
	UntilFinish UniqueUntil = 2 // until it is terminal
)

// OnConflict says what becomes of a submitted job whose unique key another one holds.
type OnConflict uint8

// The alternatives. The numbers are stored and never reused.
const (
	OnConflictNone           OnConflict = 0
	OnConflictReturnExisting OnConflict = 1
	OnConflictReject         OnConflict = 2
	OnConflictReplacePending OnConflict = 3
)

// KeyTerm says whether j holds its unique key, as far as j alone says, and until when: a zero time stands for until j
// changes. A job that holds its key until its start is free of it for good from its first acceptance on, and so can run
// beside a newer holder; one that was reopened without ever having been accepted, or that holds its key until its finish,
// holds it anew.
func (j *Job) KeyTerm() (until time.Time, held bool) {
	u := j.Spec.Unique
	switch {
	case u == nil || j.KeyFree:
		return time.Time{}, false
	case !j.State.Terminal():
		return time.Time{}, true
	case u.TTL > 0:
		return j.EndTime.Add(u.TTL), true
	default:
		return time.Time{}, false
	}
}

// HoldsKey reports whether j holds its unique key at now.
func (j *Job) HoldsKey(now time.Time) bool {
	until, held := j.KeyTerm()
	return held && (until.IsZero() || now.Before(until))
}

// Replace gives a job that no worker has begun what another submit asks for: all of spec but its id, and its digest, for a
// repeat of the job's own submit is still one. The job keeps its place in the order of submission, and waits for its new
// start, unless it waits for something else: a PARKED job stays so, and is replaced only by what may start whenever it is
// released, for a release keeps neither start nor start_by. A READY one that may start at once keeps the time for
// which it has been, and its place, if it stays in its lane. The retry policy's deadline counts from now. A job that was
// handed out once is not replaced, even if it never arrived: that run may finish it still. One that an interrupt withdrew
// cannot. Errors: ErrHadRun, ErrReplaceParked, ErrIllegal.
func (j *Job) Replace(now time.Time, spec *Spec) (*Job, error) {
	if j.State.Waiting() && !j.untouched() {
		return nil, ErrHadRun
	}
	if j.State == Parked && (spec.RunAt.After(now) || !spec.StartBy.IsZero()) {
		return nil, ErrReplaceParked
	}
	return j.change(EventReplace, func(n *Job) {
		s := *spec
		s.ID, s.Digest = j.Spec.ID, j.Spec.Digest
		n.Spec, n.StartBy, n.EpochTime = &s, s.StartBy, now
		if j.State != Scheduled && j.State != Ready {
			return
		}
		n.waitForStart(now)
		if j.State == Ready && n.State == Ready {
			n.ReadyTime = j.ReadyTime
			if s.SharesLane(j.Spec) {
				n.ReadySeq = j.ReadySeq
			}
		}
	})
}

// untouched reports whether all runs of j, which has no live one, were withdrawn: no worker had named them, and none can
// finish j by them any more.
func (j *Job) untouched() bool {
	touched := func(r Run) bool { return r.State != RunWithdrawn }
	return int(j.RunCount) == len(j.History) && !slices.ContainsFunc(j.History, touched)
}

// SharesLane reports whether jobs of both specs wait in the same lane of their queue.
func (s *Spec) SharesLane(other *Spec) bool {
	return s.Priority == other.Priority && s.FairnessKey == other.FairnessKey && slices.Equal(s.Limits, other.Limits)
}

// freeKey frees a unique key that is held until the start.
func (j *Job) freeKey() {
	if u := j.Spec.Unique; u != nil && u.Until == UntilStart {
		j.KeyFree = true
	}
}
