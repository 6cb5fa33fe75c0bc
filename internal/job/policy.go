package job

import (
	"cmp"
	"time"
)

// The defaults and bounds of a job's life.
const (
	DefaultLease = 30 * time.Second // how long a run may be silent
	LeaseMin     = 5 * time.Second
	LeaseMax     = 24 * time.Hour

	DefaultAttempts   = 10               // failed attempts until FAILED
	MaxAttempts       = 1000             // the most a policy may allow
	DefaultInitial    = time.Second      // delay before the first retry
	DefaultMax        = 10 * time.Minute // longest delay before a retry, before jitter
	DefaultMultiplier = 2.0              // growth of the delay
	Jitter            = 0.2              // share by which a delay varies, up or down

	MaxCrashes    = 3    // crashes until PARKED
	MaxInterrupts = 100  // interrupts until PARKED
	MaxSnoozes    = 1000 // snoozes until PARKED
	MaxDeliveries = 100  // failed deliveries until PARKED

	RetryGrace   = 30 * time.Second // what a worker has to end a run that is interrupted with RETRY
	CancelGrace  = 10 * time.Second // the same with CANCEL
	CancelHard   = time.Minute      // until a run that is interrupted with CANCEL is abandoned
	TimeoutGrace = 10 * time.Second // what a worker has to end a run that took longer than its timeout
	TimeoutHard  = time.Minute      // until it is abandoned

	InterruptDelay = 10 * time.Second // until an interrupted job comes back, unless a policy says otherwise
	ReleaseDelay   = time.Second      // until a released job comes back
	NotMePeriod    = time.Minute      // how long NOT_ME keeps a job from the instance that said it

	AgingStep   = 5 * time.Minute // a lane's head rises one band for each that it has been READY
	HistoryEdge = 100             // a history keeps the first and the last so many runs

	ReleasesKept = 10 // builds that a job remembers: none of them releases it again
)

// Equal reports whether two policies say the same.
func (p Policy) Equal(o Policy) bool {
	if !p.Weights.Equal(o.Weights) {
		return false
	}
	p.Weights, o.Weights = nil, nil
	return p == o
}

// Effective is the policy in force for a job: its own settings, then its queue's, then the defaults, field by field. An
// explicit zero (-1 ns) stays one, so Effective of its own result changes nothing.
func Effective(s *Spec, q Policy) Policy {
	return Policy{
		Lease: LeaseOf(s, q), Retry: s.retry().or(q.Retry),
		LostContact: q.LostContact, MaxRunning: q.MaxRunning, OnZombie: q.OnZombie,
	}
}

// retry is what the job itself says of it.
func (s *Spec) retry() RetryPolicy {
	if s.Retry == nil {
		return RetryPolicy{}
	}
	return *s.Retry
}

// LeaseOf is the lease in force for a job.
func LeaseOf(s *Spec, q Policy) time.Duration { return cmp.Or(s.Lease, q.Lease, DefaultLease) }

// or is r with what it leaves open from q, and then from the defaults. The numbers of a curve are taken from policies
// with the same curve only: those of another say nothing about it.
func (r RetryPolicy) or(q RetryPolicy) RetryPolicy {
	all := RetryPolicy{
		MaxAttempts:    min(cmp.Or(r.MaxAttempts, q.MaxAttempts, DefaultAttempts), MaxAttempts),
		OnFailure:      cmp.Or(r.OnFailure, q.OnFailure, OnFailureRetry),
		Curve:          cmp.Or(r.AskedCurve(), q.AskedCurve(), Exponential),
		Deadline:       cmp.Or(r.Deadline, q.Deadline),
		InterruptDelay: cmp.Or(r.InterruptDelay, q.InterruptDelay, InterruptDelay),
	}
	if q.AskedCurve() != all.Curve {
		q = RetryPolicy{}
	}
	all.Initial = cmp.Or(r.Initial, q.Initial, DefaultInitial)
	if all.Curve != Constant {
		all.Max = cmp.Or(r.Max, q.Max, DefaultMax)
	}
	switch all.Curve {
	case Linear:
		all.Increment = cmp.Or(r.Increment, q.Increment, all.Initial)
	case Exponential:
		all.Multiplier = cmp.Or(r.Multiplier, q.Multiplier, DefaultMultiplier)
	default:
	}
	return all
}

// AskedCurve is the curve that r asks for, by name or by a number. Records of the time before there were others name none.
func (r RetryPolicy) AskedCurve() Curve {
	if r.Curve == CurveNone && (r.Initial != 0 || r.Max != 0 || r.Multiplier != 0) {
		return Exponential
	}
	return r.Curve
}

// bound is the count at which c is used up, and why a job is PARKED there; attempts have no such reason, they end FAILED.
func (c Counter) bound(r RetryPolicy) (uint32, ParkReason) {
	switch c {
	case CountCrashes:
		return MaxCrashes, ParkCrashes
	case CountInterrupts:
		return MaxInterrupts, ParkInterrupts
	case CountSnoozes:
		return MaxSnoozes, ParkSnoozes
	case CountDeliveries:
		return MaxDeliveries, ParkUndeliverable
	default:
		return r.MaxAttempts, ParkNone
	}
}

// of returns the named counter; nil for CountNone.
func (c *Counters) of(name Counter) *uint32 {
	switch name {
	case CountAttempts:
		return &c.Attempts
	case CountCrashes:
		return &c.Crashes
	case CountInterrupts:
		return &c.Interrupts
	case CountSnoozes:
		return &c.Snoozes
	case CountDeliveries:
		return &c.Deliveries
	default:
		return nil
	}
}
