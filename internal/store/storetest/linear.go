package storetest

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// access is one call about one job: a change, which returns the version it made, or a look, which returns the one there.
type access struct {
	seq    uint64
	change bool
}

// versions is what a store of jobs is when only versions count: each job is a counter.
var versions = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		jobs := map[uint64][]porcupine.Operation{}
		for _, op := range history {
			seq := op.Input.(access).seq //nolint:errcheck,forcetypeassert // the inputs are made below
			jobs[seq] = append(jobs[seq], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range jobs {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return uint64(1) },
	Step: func(state, input, output any) (bool, any) {
		now, made := state.(uint64), output.(uint64) //nolint:errcheck,forcetypeassert // as above
		if input.(access).change {                   //nolint:errcheck,forcetypeassert // as above
			return made == now+1, made
		}
		return made == now, now
	},
}

// testLinearizable: whatever many callers do at once, each change and each look seems to happen at one moment between its
// call and its answer.
func testLinearizable(t *testing.T, b *bench) {
	const callers, calls, jobs = 6, 60, 3
	for range jobs {
		b.submit(b.spec("q"))
	}
	var clock atomic.Int64
	var mu sync.Mutex
	var history []porcupine.Operation
	var calling sync.WaitGroup
	for caller := range callers {
		calling.Go(func() {
			random := rand.New(rand.NewPCG(uint64(caller), 1))
			for range calls {
				in := access{seq: 1 + random.Uint64N(jobs), change: random.IntN(2) == 0}
				called := clock.Add(1)
				version, err := in.do(b.Store())
				if err != nil {
					t.Error(err)
					return
				}
				op := porcupine.Operation{ClientId: caller, Input: in, Call: called, Output: version, Return: clock.Add(1)}
				mu.Lock()
				history = append(history, op)
				mu.Unlock()
			}
		})
	}
	calling.Wait()
	if !porcupine.CheckOperations(versions, history) {
		t.Error("no order of the calls explains what they answered")
	}
}

func (a access) do(s store.Store) (version uint64, err error) {
	if !a.change {
		err = s.View(context.Background(), func(r store.Reader) error {
			jobs, err := r.Load([]uint64{a.seq})
			if err == nil {
				version = jobs[0].Version
			}
			return err
		})
		return version, err
	}
	err = s.Update(context.Background(), func(tx store.Tx) error {
		jobs, err := tx.Load([]uint64{a.seq})
		if err != nil {
			return err
		}
		j := jobs[0]
		next, err := j.Retry(tx.Now())
		if j.State == job.Ready {
			next, err = j.Park(tx.Now(), job.By{Reason: "test", Requester: "test"})
		}
		if err != nil {
			return err
		}
		version = next.Version
		return tx.Put(store.Change{Old: j, New: next})
	})
	return version, err
}
