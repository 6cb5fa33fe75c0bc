package pebblestore

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// aged is a store whose clock the test moves.
type aged struct {
	*harness
	start time.Time
	since atomic.Int64 // nanoseconds
}

func openAged(t *testing.T, cfg Config) *aged {
	a := &aged{start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	cfg.Now = func() time.Time { return a.start.Add(time.Duration(a.since.Load())) }
	cfg.Reserve = -1
	a.harness = openHarness(t, cfg)
	return a
}

// finish makes jobs succeed, with a result that is kept apart.
func (a *aged) finish(jobs ...*job.Job) {
	a.tb.Helper()
	for _, j := range jobs {
		err := a.store.Update(context.Background(), func(tx store.Tx) error {
			run, err := j.Dispatch(tx.Now(), job.Dispatch{Fence: tx.NextFence(), Lease: time.Minute})
			if err != nil {
				return err
			}
			result := &job.Result{Data: make([]byte, 2*inlineMax), Size: 2 * inlineMax}
			done, _, err := run.Finish(tx.Now(), run.Run.Fence, job.Outcome{Success: &job.Success{Result: result}}, job.Policy{}, 0)
			if err != nil {
				return err
			}
			return tx.Put(store.Change{Old: j, New: run}, store.Change{Old: run, New: done})
		})
		if err != nil {
			a.tb.Fatal(err)
		}
	}
}

// retainAll does retention until there is nothing more to do.
func (a *aged) retainAll() {
	a.tb.Helper()
	for more := true; more; {
		var err error
		if more, err = a.store.retain(); err != nil {
			a.tb.Fatal(err)
		}
	}
}

func (a *aged) find(j *job.Job) (f store.Found) {
	a.tb.Helper()
	err := a.store.View(context.Background(), func(r store.Reader) error {
		found, err := r.Find([]job.ID{j.Spec.ID})
		f = found[0]
		return err
	})
	if err != nil {
		a.tb.Fatal(err)
	}
	return f
}

func (a *aged) horizon() (h time.Time) {
	a.tb.Helper()
	if err := a.store.View(context.Background(), func(r store.Reader) error { h = r.Horizon(); return nil }); err != nil {
		a.tb.Fatal(err)
	}
	return h
}

// keys is how many keys of a kind the engine has.
func (a *aged) keys(kind byte) (n int) {
	a.tb.Helper()
	if err := a.store.scan(kind, func([]byte, []byte) error { n++; return nil }); err != nil {
		a.tb.Fatal(err)
	}
	return n
}

// TestRetention follows a bucket of finished jobs: whole while it is young, then its ids go and the horizon tells up to
// when ids may be forgotten. A job that is not finished survives with its id, and a restart changes nothing.
func TestRetention(t *testing.T) {
	a := openAged(t, Config{Retain: time.Hour, Remember: time.Minute})
	jobs := submitJobs(t, a.store, "q", int(bucketSize)+5)
	waiting := jobs[7]
	a.finish(jobs[:7]...)
	a.finish(jobs[8:]...)
	submitted := a.start.Add(clocksDiffer) // the ids are made today, far ahead of the store's clock
	a.since.Add(int64(59 * time.Minute))
	a.retainAll()
	if f := a.find(jobs[0]); f.Job == nil || !a.horizon().IsZero() {
		t.Fatalf("before its time: %+v, horizon %v", f, a.horizon())
	}
	a.since.Add(int64(time.Minute))
	a.retainAll()
	last := jobs[len(jobs)-1] // in the bucket that fills at present
	for range 2 {
		if f := a.find(jobs[0]); f != (store.Found{}) {
			t.Errorf("after its time: %+v", f)
		}
		if f := a.find(waiting); f.Job == nil || f.State != job.Ready {
			t.Errorf("the job that waits: %+v", f)
		}
		if f := a.find(last); f.Job == nil {
			t.Error("a job of the present bucket is gone")
		}
		if got := a.horizon(); !got.Equal(submitted) {
			t.Errorf("the horizon is %v, want %v", got, submitted)
		}
		a.Reopen()
	}
	if got := a.keys(kindJob); got != 7 { // the one that waits, and six of the present bucket
		t.Errorf("%d job records are left", got)
	}
	var counts [job.NumberOfStates]uint64
	if err := a.store.View(context.Background(), func(r store.Reader) error { counts = r.Queue("q").Counts; return nil }); err != nil {
		t.Fatal(err)
	}
	if counts[job.Ready] != 1 || counts[job.Succeeded] != 6 {
		t.Errorf("counts %v", counts)
	}
}

// TestHorizonAhead: an id whose maker's clock ran ahead lies before the horizon once it is forgotten, but no clock moves
// the horizon by more than a minute.
func TestHorizonAhead(t *testing.T) {
	for ahead, want := range map[time.Duration]time.Duration{
		-time.Hour: 0, 20 * time.Second: 20 * time.Second, time.Hour: time.Minute,
	} {
		a := openAged(t, Config{Retain: time.Hour, Remember: time.Minute})
		var jobs []*job.Job
		for n := range bucketSize + 5 {
			id := freshID()
			binary.BigEndian.PutUint64(id[:8], uint64(a.start.Add(ahead).UnixMilli())<<16|0x7000|n)
			err := a.store.Update(t.Context(), func(tx store.Tx) error {
				if _, err := tx.MakeQueue("q"); err != nil {
					return err
				}
				j := job.New(&job.Spec{ID: id, Queue: "q", Priority: job.Normal}, tx.Now())
				jobs = append(jobs, j)
				return tx.Put(store.Change{New: j})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		a.finish(jobs...)
		a.since.Add(int64(61 * time.Minute))
		a.retainAll()
		if got := a.horizon().Sub(a.start); got.Truncate(time.Millisecond) != want {
			t.Errorf("ids made %v ahead: the horizon is %v after the last submit, want %v", ahead, got, want)
		}
	}
}

// TestRetainJobs: over the bound on records the oldest are reduced to their final states, by which a repeated submit is
// still answered; over the bound on ids those go too.
func TestRetainJobs(t *testing.T) {
	a := openAged(t, Config{RetainJobs: int(bucketSize), RememberJobs: 3 * int(bucketSize)})
	first := submitJobs(t, a.store, "q", int(bucketSize))
	a.finish(first...)
	a.finish(submitJobs(t, a.store, "q", int(bucketSize))...)
	a.retainAll()
	for range 2 {
		if f := a.find(first[3]); f.Job != nil || f.State != job.Succeeded {
			t.Errorf("a trimmed job is found as %+v", f)
		}
		if !a.horizon().IsZero() {
			t.Error("ids were forgotten")
		}
		a.Reopen()
	}
	for range 3 {
		a.finish(submitJobs(t, a.store, "q", int(bucketSize))...)
	}
	a.retainAll()
	if f := a.find(first[3]); f != (store.Found{}) {
		t.Errorf("a forgotten job is found as %+v", f)
	}
	if a.horizon().IsZero() {
		t.Error("ids were forgotten and the horizon does not say so")
	}
	if results, records := a.keys(kindResult), a.keys(kindJob); results != records {
		t.Errorf("%d results are left of %d jobs", results, records)
	}
}

// TestFewJobsAreRetainedInTime: where a bucket would never fill it is closed in time, so that records go after Retain, by
// an eighth of the longer time at most, and ids after Remember. A restart in between changes nothing.
func TestFewJobsAreRetainedInTime(t *testing.T) {
	a := openAged(t, Config{Retain: time.Hour, Remember: 8 * time.Hour})
	var jobs []*job.Job
	pass := func(d time.Duration) {
		for range d / (10 * time.Minute) {
			made := submitJobs(t, a.store, "q", 1)
			a.finish(made...)
			jobs = append(jobs, made...)
			a.since.Add(int64(10 * time.Minute))
			if err := a.store.closeBucket(); err != nil {
				t.Fatal(err)
			}
			a.retainAll()
		}
	}
	pass(50 * time.Minute)
	if f := a.find(jobs[0]); f.Job == nil {
		t.Fatalf("before its time a job is found as %+v", f)
	}
	pass(80 * time.Minute)
	a.Reopen()
	pass(10 * time.Minute)
	if f := a.find(jobs[0]); f.Job != nil || f.State != job.Succeeded {
		t.Errorf("after an hour and its eighth a job is found as %+v", f)
	}
	if f := a.find(jobs[len(jobs)-1]); f.Job == nil {
		t.Errorf("a fresh job is found as %+v", f)
	}
	pass(7 * time.Hour)
	a.Reopen()
	if f := a.find(jobs[0]); f != (store.Found{}) {
		t.Errorf("after the ids' time a job is found as %+v", f)
	}
	if f := a.find(jobs[len(jobs)-1]); f.Job == nil {
		t.Errorf("a fresh job is found as %+v", f)
	}
}

// TestDeletedQueueIsForgotten: the name of a deleted queue goes with the last job that has it.
func TestDeletedQueueIsForgotten(t *testing.T) {
	a := openAged(t, Config{Retain: time.Hour, Remember: time.Minute})
	a.finish(submitJobs(t, a.store, "old", int(bucketSize)+1)...)
	others := submitJobs(t, a.store, "q", int(bucketSize))
	if err := a.store.Update(context.Background(), func(tx store.Tx) error { return tx.DeleteQueue("old") }); err != nil {
		t.Fatal(err)
	}
	a.since.Add(int64(2 * time.Hour))
	a.retainAll()
	if n := a.keys(kindQueue); n != 2 {
		t.Fatalf("%d queues are kept while a job names the deleted one", n)
	}
	a.finish(others...)
	a.since.Add(int64(2 * time.Hour))
	a.retainAll()
	if n := a.keys(kindQueue); n != 1 {
		t.Errorf("%d queues are kept", n)
	}
	a.Reopen()
	if j := submitJobs(t, a.store, "old", 1)[0]; a.find(j).Job == nil {
		t.Error("the name cannot be used again")
	}
}

// TestIdleTrimsEvents: events go when their time is over, also where nothing happens any more; the newest part of the log
// stays until something does.
func TestIdleTrimsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the bubble's clock stands still, so that the store's own upkeep does not come by
		a := openAged(t, Config{RetainEvents: time.Hour})
		trim := func() (events int) {
			if err := a.store.trimEvents(); err != nil {
				t.Fatal(err)
			}
			return a.keys(kindEvent)
		}
		submitJobs(t, a.store, "q", 1)
		a.since.Add(int64(30 * time.Minute))
		submitJobs(t, a.store, "q", 1)
		second := a.store.under.Load() - 1
		a.since.Add(int64(time.Hour))
		if n := trim(); n != 2 {
			t.Fatalf("events of %d batches are left before their time, not of two", n)
		}
		a.since.Add(1)
		if n := trim(); n != 1 {
			t.Errorf("events of %d batches are left after their time, not of one", n)
		}
		for range 2 {
			if oldest := a.store.oldestEvent(); oldest.Batch != second {
				t.Errorf("the log begins with batch %d, not %d", oldest.Batch, second)
			}
			a.Reopen()
		}
	})
}
