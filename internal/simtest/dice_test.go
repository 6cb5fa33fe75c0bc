package simtest

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// dice is one stream of chance of a seed. Each actor has its own, so that what one does moves nobody else's.
type dice struct {
	mu   sync.Mutex
	rand *rand.Rand
}

func newDice(seed uint64, actor string) *dice {
	h := fnv.New64a()
	h.Write([]byte(actor))
	return &dice{rand: rand.New(rand.NewPCG(seed, h.Sum64()))}
}

// n is 0 to n-1.
func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rand.IntN(n)
}

// chance is true in so many of a hundred cases.
func (d *dice) chance(percent int) bool { return d.n(100) < percent }

// between is a time from least to most.
func (d *dice) between(least, most time.Duration) time.Duration {
	return least + time.Duration(d.n(int(most-least)+1))
}

// rest waits for a time from least to most, or until done is closed, and reports whether the time has passed.
func (d *dice) rest(done <-chan struct{}, least, most time.Duration) bool {
	timer := time.NewTimer(d.between(least, most))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
		return false
	}
}

// soaks reports whether the long settings are asked for.
func soaks() bool { return os.Getenv("STINT_SOAK") == "1" }

// eachSeed runs a test in a bubble for so many seeds, twenty times as many in a soak.
func eachSeed(t *testing.T, seeds int, test func(t *testing.T, seed uint64)) {
	if soaks() {
		seeds *= 20
	}
	forSeeds(t, seeds, test)
}

// forSeeds runs a test in a bubble for so many seeds, one in short mode (the race detector makes each fifteen times
// slower), or for the one of STINT_SIM_SEED.
func forSeeds(t *testing.T, seeds int, test func(t *testing.T, seed uint64)) {
	first := uint64(1)
	if testing.Short() {
		seeds = 1
	}
	if text := os.Getenv("STINT_SIM_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("STINT_SIM_SEED: %v", err)
		}
		first, seeds = seed, 1
	}
	for seed := first; seed < first+uint64(seeds); seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(t, seed) })
		})
	}
}
