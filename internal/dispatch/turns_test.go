package dispatch_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// of submits n jobs of a fairness key.
func (r *rig) of(key string, n int, queue string, uses ...job.LimitUse) []uint64 {
	r.t.Helper()
	specs := make([]*job.Spec, n)
	for i := range specs {
		specs[i] = r.uses(queue, uses...)
		specs[i].FairnessKey = key
	}
	return r.submit(specs...)
}

// keysOf tells whose the runs are.
func keysOf(runs []dispatch.Assignment) (keys []string) {
	for _, a := range runs {
		keys = append(keys, a.Job.Spec.FairnessKey)
	}
	return keys
}

func count(keys []string, key string) (n int) {
	for _, k := range keys {
		if k == key {
			n++
		}
	}
	return n
}

// weigh sets the weights of a queue.
func (r *rig) weigh(queue string, weights ...job.KeyWeight) {
	r.t.Helper()
	r.update(func(tx store.Tx) error {
		_, err := tx.MakeQueue(queue)
		return err
	})
	r.policy(queue, job.Policy{Weights: job.NewWeights(weights)})
	r.d.Wake(queue)
}

// TestTurns: a key with thousands of jobs delays another one's only job by no more than one run, also if they are older by
// hours, if both wait for the same full key of a limit, and after a restart.
func TestTurns(t *testing.T) {
	for name, uses := range map[string][]job.LimitUse{"free": nil, "one key": {use("l", "k", 1)}} {
		for _, after := range []string{"at once", "hours later", "after a restart"} {
			t.Run(name+", "+after, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					r.bound("l", job.LimitPolicy{Max: 1})
					r.of("a", 3000, "q", uses...)
					s := r.open(hello(1))
					s.demand(room(1, "q"))
					held := s.accepts(1)
					for range 3 {
						s.succeed(held...)
						held = s.accepts(1)
					}
					if after == "hours later" {
						s.keep(3*time.Hour, held...)
					}
					r.of("b", 1, "q", uses...)
					if after == "after a restart" {
						r.restart()
						s = r.open(hello(1, held...))
						s.demand(room(1, "q"))
					}
					s.succeed(held...)
					held = s.accepts(1)
					if held[0].Job.Spec.FairnessKey == "a" {
						s.succeed(held...)
						held = s.accepts(1)
					}
					if got := held[0].Job.Spec.FairnessKey; got != "b" {
						t.Errorf("the second run after b's job came is of %q", got)
					}
				})
			})
		}
	}
}

// TestTurnsByUse: a key whose jobs are long has no more of the workers than one whose jobs are short; when only one has jobs
// it has all; and runs of before a restart count.
func TestTurnsByUse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		s.demand(room(10, "q"))
		r.of("long", 100, "q")
		held := s.accepts(10)
		r.of("short", 100, "q")
		for i := range 5 { // each that ends is followed by one of the other, which has fewer
			s.succeed(held[i])
			held[i] = s.accepts(1)[0]
			if got := held[i].Job.Spec.FairnessKey; got != "short" {
				t.Fatalf("run %d after it came is of %q", i+1, got)
			}
		}
		for range 20 { // five each: the short ones take their own turns
			s.succeed(held[0])
			held[0] = s.accepts(1)[0]
		}
		if keys := keysOf(held); count(keys, "short") < 5 || count(keys, "short") > 6 {
			t.Errorf("runs of %v", keys)
		}
		r.restart()
		s = r.open(hello(1, held...))
		s.demand(room(12, "q"))
		held = append(held, s.accepts(2)...)
		if keys := keysOf(held); count(keys, "short") != 6 {
			t.Errorf("after a restart runs of %v", keys)
		}
	})
}

// TestTurnsByWeight: keys have runs, and turns where one runs at a time, as their weights say; a change acts at once.
func TestTurnsByWeight(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.weigh("q", job.KeyWeight{Key: "a", Weight: 3})
		r.of("a", 500, "q")
		r.of("b", 500, "q")
		s := r.open(hello(1))
		s.demand(room(8, "q"))
		held := s.accepts(8)
		if keys := keysOf(held); count(keys, "a") != 6 {
			t.Errorf("at weights 3 and 1 runs of %v", keys)
		}
		s.succeed(held...)
		s.accepts(8)
		s.demand(room(8, "q"))

		one := r.open(hello(2))
		turns := func(n int) (keys []string) {
			for range n {
				one.demand(room(1, "p"))
				run := one.accepts(1)
				keys = append(keys, keysOf(run)...)
				one.succeed(run...)
			}
			return keys
		}
		r.weigh("p", job.KeyWeight{Key: "a", Weight: 3})
		r.of("a", 500, "p")
		r.of("b", 500, "p")
		if keys := turns(40); count(keys, "a") != 30 {
			t.Errorf("at weights 3 and 1 turns of %v", keys)
		}
		r.weigh("p", job.KeyWeight{Key: "b", Weight: 4})
		turns(5)
		if keys := turns(40); count(keys, "b") != 32 {
			t.Errorf("at weights 1 and 4 turns of %v", keys)
		}
	})
}

// TestTurnsAreNotSaved: a key that had nothing to do, or was served less because it had enough, has no more turns than others
// when it comes back.
func TestTurnsAreNotSaved(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		r.of("a", 1, "q")
		long := s.accepts(1)
		r.of("b", 100, "q")
		s.demand(room(2, "q"))
		held := s.accepts(1)
		for range 50 {
			s.succeed(held...)
			held = s.accepts(1)
		}
		r.of("a", 20, "q")
		r.of("c", 20, "q")
		s.succeed(long...)
		s.demand(room(1, "q"))
		var got []string
		for range 12 {
			s.succeed(held...)
			held = s.accepts(1)
			got = append(got, keysOf(held)...)
		}
		for _, key := range []string{"a", "b", "c"} {
			if n := count(got, key); n != 4 {
				t.Errorf("%d of 12 turns were of %q: %v", n, key, got)
			}
		}
	})
}

// TestTurnsOfManyKeys: of many keys that wait for units of one key of a limit, each has its turn, and none is left behind
// whatever else its lanes wait for; nothing of them stays.
func TestTurnsOfManyKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const tenants = 40
		r.bound("shared", job.LimitPolicy{Max: 2})
		r.bound("own", job.LimitPolicy{Max: 1})
		for i := range tenants {
			for j := range 3 {
				r.of(fmt.Sprint("t", i), 2, "q", use("own", fmt.Sprint(i, "/", j), 1), use("shared", "", 1))
			}
		}
		s := r.worker(1, "q")
		var rounds [][]string
		for range 3 * 2 {
			var round []string
			for range tenants / 2 {
				held := s.accepts(2)
				round = append(round, keysOf(held)...)
				s.succeed(held...)
			}
			slices.Sort(round)
			rounds = append(rounds, slices.Compact(round))
		}
		for i, round := range rounds {
			if len(round) != tenants {
				t.Errorf("in round %d only %d keys had a turn", i, len(round))
			}
		}
		s.takes(0)
		r.idle("shared", "own")
		if n := r.d.Shares("q"); n != 0 {
			t.Errorf("%d fairness keys are remembered", n)
		}
	})
}
