package pebblestore

import (
	"fmt"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// keyed is a store with a queue and a limit.
type keyed struct {
	*testing.T
	*harness
}

func newKeyed(t *testing.T) keyed {
	k := keyed{t, openHarness(t, Config{Reserve: -1})}
	k.update(func(tx store.Tx) error {
		if _, err := tx.MakeQueue("q"); err != nil {
			return err
		}
		return makeLimit(tx, "l")
	})
	return k
}

func (k keyed) update(fn func(store.Tx) error) {
	k.Helper()
	if err := k.store.Update(k.Context(), fn); err != nil {
		k.Fatal(err)
	}
}

// put puts a READY job of a key.
func (k keyed) put(key string) {
	k.update(func(tx store.Tx) error {
		return tx.Put(store.Change{New: job.New(&job.Spec{
			ID: freshID(), Queue: "q", Priority: job.Normal, Limits: []job.LimitUse{{Limit: "l", Key: key, Units: 1}},
		}, tx.Now())})
	})
}

func stepOf(tx store.Tx, seq uint64, fn func(*job.Job) (*job.Job, error)) error {
	js, err := tx.Load([]uint64{seq})
	if err != nil {
		return err
	}
	next, err := fn(js[0])
	if err != nil {
		return err
	}
	return tx.Put(store.Change{Old: js[0], New: next})
}

func gone(*job.Job) (*job.Job, error) { return nil, nil } //nolint:nilnil // deleted

// TestReturnToALaneReborn: jobs that come back, before and after a restart, to a lane that had ended meanwhile stand in
// their order, however few heads are asked for.
func TestReturnToALaneReborn(t *testing.T) {
	const jobs = 10
	k := newKeyed(t)
	for range jobs {
		k.put("k")
	}
	undeliver := func(seq uint64) {
		k.update(func(tx store.Tx) error {
			return stepOf(tx, seq, func(j *job.Job) (*job.Job, error) { return j.Undeliver(tx.Now(), "a test") })
		})
	}
	for seq := range uint64(jobs) {
		k.update(func(tx store.Tx) error {
			return stepOf(tx, seq+1, func(j *job.Job) (*job.Job, error) {
				return j.Dispatch(tx.Now(), job.Dispatch{Fence: tx.NextFence(), Lease: time.Minute})
			})
		})
	}
	undeliver(1)
	k.Reopen()
	for seq := range uint64(jobs - 1) {
		undeliver(seq + 2)
	}
	for _, n := range []int{1, 3, jobs} {
		k.update(func(tx store.Tx) error {
			js, err := tx.Load([]uint64{1})
			if err != nil {
				return err
			}
			heads, err := tx.Heads(tx.LaneOf(js[0]), n)
			for i, j := range heads {
				if j.Seq != uint64(i+1) || len(heads) != n {
					t.Errorf("head %d of %d is job %d", i, n, j.Seq)
				}
			}
			return err
		})
	}
}

// TestOldestOfManyLanes: a lane whose first jobs have left, and that memory does not show, hides no older job of another.
func TestOldestOfManyLanes(t *testing.T) {
	k := newKeyed(t)
	for _, key := range []string{"a", "b", "a"} {
		k.put(key)
	}
	k.Reopen()
	k.update(func(tx store.Tx) error { return stepOf(tx, 1, gone) })
	if err := k.store.View(t.Context(), func(r store.Reader) error {
		if j := r.Oldest("q"); j == nil || j.Seq != 2 {
			t.Errorf("the oldest is %+v", j)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestForgottenQueueLetsKeysGo: a queue that is forgotten in the batch that emptied its lanes leaves no key behind.
func TestForgottenQueueLetsKeysGo(t *testing.T) {
	k := newKeyed(t)
	k.put("a")
	hold, done := make(chan struct{}), make(chan error, 3)
	for _, fn := range []func(store.Tx) error{
		func(tx store.Tx) error { <-hold; return stepOf(tx, 1, gone) },
		func(tx store.Tx) error { return tx.DeleteQueue("q") },
		func(x store.Tx) error {
			t := x.(*tx) //nolint:forcetypeassert // of this package
			t.drop, t.also = &drop{bucket: 999, finished: map[uint32]*[job.NumberOfStates]uint64{}}, func() {}
			return nil
		},
	} {
		k.store.Post(t.Context(), fn, func(err error) { done <- err })
	}
	close(hold)
	for range 3 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := k.store.View(t.Context(), func(r store.Reader) error {
			if left := r.Keys("l", "", 10); len(left) > 0 {
				t.Errorf("keys are left: %+v", left)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		k.Reopen()
	}
}

// TestWindowsAreBounded: looking deep into many lanes leaves no more in memory than all windows may hold.
func TestWindowsAreBounded(t *testing.T) {
	k := newKeyed(t)
	for i := range 20 {
		for range 10 {
			k.put(fmt.Sprint("key", i))
		}
	}
	k.Reopen()
	for range 2 {
		k.update(func(tx store.Tx) error {
			var all []store.Lane
			tx.Lanes(func(l store.Lane) { all = append(all, l) })
			for _, l := range all {
				heads, err := tx.Heads(l, 1000)
				if err != nil || len(heads) != 10 {
					return fmt.Errorf("%d heads, %w", len(heads), err)
				}
			}
			return nil
		})
		k.update(func(store.Tx) error { return nil })
		k.store.state.mu.RLock()
		held := k.store.state.windows
		k.store.state.mu.RUnlock()
		if held > 2*windowsMax {
			t.Errorf("windows hold %d jobs, of about %d", held, windowsMax)
		}
	}
}

// TestLanesOutlastPolicies: a queue's lanes are the same ones after its policy was written, by whichever order jobs come,
// leave and come back.
func TestLanesOutlastPolicies(t *testing.T) {
	const rounds, keys = 40, 6
	k := newKeyed(t)
	rewrite := func() {
		k.update(func(tx store.Tx) error { return tx.PutQueue(tx.Queue("q")) })
	}
	seq := uint64(0)
	for range rounds {
		for i := range keys {
			k.put(fmt.Sprint("k", i))
			rewrite()
		}
		for i := range keys {
			seq++
			k.update(func(tx store.Tx) error {
				js, err := tx.Load([]uint64{seq})
				if err != nil {
					return err
				}
				if l := tx.LaneOf(js[0]); l == nil || l.Len() != 1 || len(l.Keys()) != 1 || l.Keys()[0].Key.Name != fmt.Sprint("k", i) {
					t.Fatalf("job %d waits in %v", seq, l)
				}
				return tx.Put(store.Change{Old: js[0]})
			})
			rewrite()
		}
	}
	q := k.store.state.queues["q"]
	if n := q.passing.n + len(q.tenants) + q.plain.lanes; n != 0 {
		t.Errorf("%d lanes and tenants are left", n)
	}
}
