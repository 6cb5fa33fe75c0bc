package job

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Rate is how many permits come in a period, one for each run that begins, or for each unit that it takes of a key. Those
// that nobody takes gather, up to Most. The zero value is no bound.
type Rate struct {
	Permits uint32
	Period  time.Duration
	Burst   uint32 // 0: what comes in RateSlack, at least one
}

// The bounds of rates. Permits that gather in RateSlack make up for starts that come together and not evenly.
const (
	RatePeriodMin = time.Millisecond
	RatePeriodMax = 24 * time.Hour
	RateBurstMax  = 10_000
	RatePerSecond = 1_000_000 // permits
	RateSlack     = 100 * time.Millisecond
)

// Interval is the time from one permit to the next, rounded up: a rate is never exceeded by a rounding.
func (r Rate) Interval() time.Duration {
	n := time.Duration(r.Permits)
	return (r.Period + n - 1) / n
}

// Most is how many permits gather.
func (r Rate) Most() uint32 {
	if r.Burst > 0 {
		return r.Burst
	}
	return uint32(min(max(RateSlack/r.Interval(), 1), RateBurstMax))
}

// Breaker says when failures keep what fails from starting: after so many in a row its gate closes, for RetryIn; then one
// run tries, and by its end the gate opens or closes again. The zero value is none.
type Breaker struct {
	Failures uint32
	RetryIn  time.Duration // 0: BreakerRetryIn
}

// The bounds of breakers.
const (
	BreakerFailuresMax = 1000
	BreakerRetryIn     = 30 * time.Second
	BreakerRetryMin    = time.Second
	BreakerRetryMax    = 24 * time.Hour
)

// Pause is how long the gate stays closed before a run tries.
func (b Breaker) Pause() time.Duration { return cmp.Or(b.RetryIn, BreakerRetryIn) }

// KeyRate is the rate of one key of a limit.
type KeyRate struct {
	Key  string
	Rate Rate
}

// RateOf is the rate of the key.
func (p *LimitPolicy) RateOf(key string) Rate {
	if i, ok := slices.BinarySearchFunc(p.Rates, key, func(k KeyRate, key string) int { return cmp.Compare(k.Key, key) }); ok {
		return p.Rates[i].Rate
	}
	return p.Rate
}

// UnitsMax is how many units of the key one job may take: more would never be there at once.
func (p *LimitPolicy) UnitsMax(key string) uint32 {
	most := p.MaxOf(key)
	if r := p.RateOf(key); r.Permits > 0 {
		most = min(most, r.Most())
	}
	return most
}

// Verdict says what a run's end tells of what it works on.
type Verdict uint8

// The verdicts.
const (
	VerdictNone    Verdict = iota // nothing
	VerdictSuccess                // it is well
	VerdictFailure                // it is not
)

// Verdict of an ended run: a success, or a failure of any class but MALFORMED, which is the payload's, a timeout, or a worker
// that was lost. What was stopped, given back or never begun says nothing.
func (r *Run) Verdict() Verdict {
	switch {
	case r.State == RunSucceeded:
		return VerdictSuccess
	case r.Interrupt != nil && r.Interrupt.Source != SourceTimeout: // which may be why
		return VerdictNone
	case r.State == RunLost, r.Failure != nil && r.Failure.Class != Malformed:
		return VerdictFailure
	default:
		return VerdictNone
	}
}

// Throttle is a worker's word that a key, or its job's queue if Limit is empty, is overloaded.
type Throttle struct {
	Limit, Key string
	Cooldown   time.Duration // how long nothing that takes it shall start, at most ThrottleMax
}

// The bounds of cooldowns.
const (
	ThrottleCooldown = 30 * time.Second
	ThrottleMax      = time.Hour
)

// Holds reports whether the job's run takes what the throttle closes.
func (j *Job) Holds(t *Throttle) bool {
	return t.Limit == "" || slices.ContainsFunc(j.Taken(), func(u LimitUse) bool { return u.Limit == t.Limit && u.Key == t.Key })
}

// unbounded is the maximum of a limit that has none.
const unbounded = math.MaxUint32
