package job

import (
	"math"
	"time"
)

// delay is how long to wait before the n-th retry, from 1: as the curve says, then up to Jitter more or less as rnd, in
// [0,1), says.
func (r RetryPolicy) delay(n uint32, rnd float64) time.Duration {
	d := r.plain(max(n, 1)) * (1 - Jitter + 2*Jitter*rnd)
	if d >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(d)
}

// plain is the delay before the n-th retry without jitter, in nanoseconds.
func (r RetryPolicy) plain(n uint32) float64 {
	initial, longest, before := float64(max(r.Initial, 0)), float64(max(r.Max, 0)), float64(n-1)
	switch {
	case r.Curve == Constant:
		return initial
	case r.Curve == Linear:
		return min(initial+float64(max(r.Increment, 0))*before, longest)
	case initial == 0:
		return 0 // 0 × infinity is not a number
	case !(r.Multiplier >= 1): // also when it is not a number
		return min(initial, longest)
	default:
		return min(initial*math.Pow(r.Multiplier, before), longest)
	}
}
