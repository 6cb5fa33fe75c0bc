package job

import (
	"math"
	"time"
)

// delay is how long to wait before the n-th retry, from 1: initial × multiplier^(n−1), at most max, then up to Jitter
// more or less as rnd, in [0,1), says.
func (r RetryPolicy) delay(n uint32, rnd float64) time.Duration {
	multiplier := r.Multiplier
	if !(multiplier >= 1) { // also when it is not a number
		multiplier = 1
	}
	initial, longest := float64(max(r.Initial, 0)), float64(max(r.Max, 0))
	if initial == 0 {
		return 0 // 0 × infinity is not a number
	}
	d := min(initial*math.Pow(multiplier, float64(max(n, 1)-1)), longest)
	d *= 1 - Jitter + 2*Jitter*rnd
	if d >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(d)
}
