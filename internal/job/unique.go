package job

import "time"

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

// freeKey frees a unique key that is held until the start.
func (j *Job) freeKey() {
	if u := j.Spec.Unique; u != nil && u.Until == UntilStart {
		j.KeyFree = true
	}
}
