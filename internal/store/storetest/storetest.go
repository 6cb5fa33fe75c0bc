// Package storetest says what a store means: one suite that every store passes, without exceptions.
package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Harness is a store under test.
type Harness interface {
	// Store is the open store.
	Store() store.Store
	// Reopen ends the store as a crash would, which keeps what was synced, and opens it again.
	Reopen()
}

// Open makes a fresh, empty store whose wall clock is now.
type Open func(tb testing.TB, now func() time.Time) Harness

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, *bench){
		"submit and find":              testSubmit,
		"large payload and result":     testBlobs,
		"lane order":                   testLaneOrder,
		"heads of a long lane":         testLongLane,
		"undelivered goes to front":    testUndelivered,
		"a new version of a READY job": testReadyAgain,
		"error writes nothing":         testAbort,
		"reads its own writes":         testOwnWrites,
		"due":                          testDue,
		"due at once":                  testDueAtOnce,
		"queues":                       testQueues,
		"deleted queue keeps names":    testQueueRevival,
		"zombies":                      testZombies,
		"limits":                       testLimits,
		"gates":                        testGates,
		"deleted limit":                testLimitDeleted,
		"holders of unique keys":       testHolders,
		"holders that have ended":      testKeyTerm,
		"holders in flight":            testHoldersInFlight,
		"replaced jobs":                testReplace,
		"replaced again and again":     testReplaceAgain,
		"an updated READY job":         testUpdateReady,
		"an updated RUNNING job":       testUpdateRunning,
		"scan":                         testScan,
		"delete":                       testDelete,
		"fences are never reused":      testFences,
		"observer":                     testObserver,
		"closed":                       testClosed,
		"view whose caller has gone":   testOverdueView,
		"state survives a restart":     testRestart,
		"ends survive a restart":       testEnds,
		"post answers in call order":   testPostOrder,
		"every state and event":        testEveryPair,
		"calls are linearizable":       testLinearizable,
	} {
		t.Run(name, func(t *testing.T) { test(t, newBench(t, open)) })
	}
	t.Run("model", func(t *testing.T) { testModel(t, open) })
}

// bench is a store with a clock and a supply of ids.
type bench struct {
	testing.TB
	Harness
	clock time.Time // what shown tells the store's goroutines
	shown atomic.Pointer[time.Time]
	ids   uint64
}

func newBench(tb testing.TB, open Open) *bench {
	b := &bench{TB: tb, clock: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	b.advance(0)
	b.Harness = open(tb, func() time.Time { return *b.shown.Load() })
	return b
}

// advance moves the clock.
func (b *bench) advance(d time.Duration) {
	now := b.clock.Add(d)
	b.clock = now
	b.shown.Store(&now)
}

// id makes a UUIDv7 of the bench's clock.
func (b *bench) id() (id job.ID) {
	b.ids++
	binary.BigEndian.PutUint64(id[:8], uint64(b.clock.UnixMilli())<<16)
	binary.BigEndian.PutUint64(id[8:], b.ids)
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

func (b *bench) spec(queue string) *job.Spec {
	return &job.Spec{ID: b.id(), Queue: queue, Priority: job.Normal, Payload: []byte("payload"), PayloadSize: 7}
}

func (b *bench) update(fn func(store.Tx) error) {
	b.Helper()
	if err := b.Store().Update(context.Background(), fn); err != nil {
		b.Fatalf("update: %v", err)
	}
}

func (b *bench) view(fn func(store.Reader) error) {
	b.Helper()
	if err := b.Store().View(context.Background(), fn); err != nil {
		b.Fatalf("view: %v", err)
	}
}

// submit puts new jobs and returns them.
func (b *bench) submit(specs ...*job.Spec) []*job.Job {
	b.Helper()
	var jobs []*job.Job
	b.update(func(tx store.Tx) error {
		jobs = jobs[:0]
		for _, s := range specs {
			if _, err := tx.MakeQueue(s.Queue); err != nil {
				return err
			}
			j := job.New(s, tx.Now())
			if err := tx.Put(store.Change{New: j}); err != nil {
				return err
			}
			jobs = append(jobs, j)
		}
		return nil
	})
	return jobs
}

// step puts the next version of a job, made by fn from the one in the store.
func (b *bench) step(seq uint64, fn func(tx store.Tx, j *job.Job) (*job.Job, error)) *job.Job {
	b.Helper()
	var next *job.Job
	b.update(func(tx store.Tx) error {
		js, err := tx.Load([]uint64{seq})
		if err != nil {
			return err
		}
		if next, err = fn(tx, js[0]); err != nil || next == js[0] {
			return err
		}
		return tx.Put(store.Change{Old: js[0], New: next})
	})
	return next
}

func (b *bench) dispatch(seq uint64) *job.Job {
	b.Helper()
	return b.step(seq, func(tx store.Tx, j *job.Job) (*job.Job, error) {
		return j.Dispatch(tx.Now(), job.Dispatch{Fence: tx.NextFence(), Worker: "w", Instance: job.ID{1}, Lease: time.Minute})
	})
}

func (b *bench) finish(seq uint64, o job.Outcome) *job.Job {
	b.Helper()
	return b.step(seq, func(tx store.Tx, j *job.Job) (*job.Job, error) {
		next, _, err := j.Finish(tx.Now(), j.Run.Fence, o, job.Effective(j.Spec, job.Policy{}), 0.5)
		return next, err
	})
}

// get loads jobs by view.
func (b *bench) get(seqs ...uint64) (jobs []*job.Job) {
	b.Helper()
	b.view(func(r store.Reader) (err error) {
		jobs, err = r.Load(seqs)
		return err
	})
	return jobs
}

// heads lists the READY jobs of a lane in order.
func (b *bench) heads(queue string, n int) (seqs []uint64) {
	b.Helper()
	b.update(func(tx store.Tx) error {
		seqs = nil
		jobs, err := tx.Heads(plain(tx, queue), n)
		for _, j := range jobs {
			seqs = append(seqs, j.Seq)
		}
		return err
	})
	return seqs
}

// laneOf finds the lane of jobs of a band that take something; nil if none of them is READY.
func laneOf(r store.Reader, queue string, p job.Priority, fairness string, uses ...job.LimitUse) (found store.Lane) {
	r.Lanes(func(l store.Lane) {
		same := slices.EqualFunc(l.Keys(), uses, func(k store.KeyUse, u job.LimitUse) bool {
			return k.Key.Limit.Name == u.Limit && k.Key.Name == u.Key && k.Units == u.Units
		})
		if l.Queue() == queue && l.Priority() == p && l.FairnessKey() == fairness && same {
			found = l
		}
	})
	return found
}

// plain is the lane of jobs that have neither priority nor limits nor fairness key.
func plain(r store.Reader, queue string) store.Lane { return laneOf(r, queue, job.Normal, "") }

func (b *bench) counts(queue string) (c [job.NumberOfStates]uint64) {
	b.Helper()
	b.view(func(r store.Reader) error {
		if q := r.Queue(queue); q != nil {
			c = q.Counts
		}
		return nil
	})
	return c
}

func (b *bench) equal(what string, got, want any) {
	b.Helper()
	if d := cmp.Diff(want, got); d != "" {
		b.Errorf("%s (-want +got):\n%s", what, d)
	}
}

var errStop = errors.New("stop")
