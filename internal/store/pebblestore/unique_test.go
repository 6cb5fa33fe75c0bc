package pebblestore

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// submitUnique stores jobs that hold keys of their own in queue "q" until ttl after their end.
func (a *aged) submitUnique(n int, ttl time.Duration) []*job.Job {
	a.tb.Helper()
	jobs := make([]*job.Job, n)
	err := a.store.Update(context.Background(), func(tx store.Tx) error {
		if _, err := tx.MakeQueue("q"); err != nil {
			return err
		}
		for i := range jobs {
			unique := &job.Unique{Key: fmt.Sprint(i), Until: job.UntilFinish, TTL: ttl}
			jobs[i] = job.New(&job.Spec{ID: freshID(), Queue: "q", Priority: job.Normal, Unique: unique}, tx.Now())
			if err := tx.Put(store.Change{New: jobs[i]}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		a.tb.Fatal(err)
	}
	return jobs
}

func (a *aged) holder(key string) (h store.Holder) {
	a.tb.Helper()
	err := a.store.View(context.Background(), func(r store.Reader) (err error) {
		h, err = r.Holder("q", key)
		return err
	})
	if err != nil {
		a.tb.Fatal(err)
	}
	return h
}

// dropAll lets upkeep drop what it finds.
func (a *aged) dropAll() {
	a.tb.Helper()
	if err := a.store.dropAllHoldings(); err != nil {
		a.tb.Fatal(err)
	}
}

// TestHolderOutlastsItsRecord: a holder that has ended is known for its ttl, past the retention of its record and its id;
// then nothing of it is left on disk.
func TestHolderOutlastsItsRecord(t *testing.T) {
	a := openAged(t, Config{Retain: time.Minute, Remember: time.Minute})
	const ttl = time.Hour
	jobs := a.submitUnique(int(bucketSize)+5, ttl) // the last few are of a bucket that is not dropped
	a.finish(jobs...)
	a.dropAll()
	if h := a.holder("1"); h.Job == nil || h.ID != jobs[1].Spec.ID || h.State != job.Succeeded {
		t.Errorf("a job that has ended: %+v", h)
	}
	a.since.Add(int64(ttl - 1))
	a.retainAll()
	a.dropAll()
	if f := a.find(jobs[1]); f != (store.Found{}) {
		t.Fatalf("its record is kept: %+v", f)
	}
	for range 2 {
		if h := a.holder("1"); h != (store.Holder{ID: jobs[1].Spec.ID, State: job.Succeeded}) {
			t.Errorf("a job past its retention: %+v", h)
		}
		a.Reopen()
	}
	a.since.Add(1)
	for range 2 { // before upkeep comes by, and after that
		for _, key := range []string{"1", fmt.Sprint(bucketSize + 1)} {
			if h := a.holder(key); h != (store.Holder{}) {
				t.Errorf("key %s after the ttl: %+v", key, h)
			}
		}
		a.dropAll()
	}
	if n, m := a.keys(kindHold), a.keys(kindHoldEnd); n != 0 || m != 0 {
		t.Errorf("%d entries and %d times are left", n, m)
	}
}

// TestDroppedHoldersAreOver: upkeep drops the entry of the holder whose term it finds over, not that of the next one.
func TestDroppedHoldersAreOver(t *testing.T) {
	a := openAged(t, Config{})
	first := a.submitUnique(1, time.Minute)
	a.finish(first...)
	a.since.Add(int64(time.Minute))
	second := a.submitUnique(1, 0)[0]
	a.dropAll()
	if h := a.holder("0"); h.Job == nil || h.ID != second.Spec.ID {
		t.Errorf("the next holder's: %+v", h)
	}
	if n := a.keys(kindHoldEnd); n != 0 {
		t.Errorf("%d times are left", n)
	}
	a.finish(second)
	if n := a.keys(kindHold); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// TestDropGoesOn: upkeep goes on behind what it has dropped just now, and does not look at that again. The bubble's clock
// stands still, so that the store's own upkeep does not come by.
func TestDropGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAged(t, Config{})
		const ttl = time.Minute
		jobs := a.submitUnique(2*holdingsDropped+500, ttl)
		err := a.store.Update(context.Background(), func(tx store.Tx) error {
			for _, j := range jobs {
				ended, _, err := j.RequestInterrupt(tx.Now(), job.InterruptRequest{Level: job.LevelCancel})
				if err == nil {
					err = tx.Put(store.Change{Old: j, New: ended})
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		over := a.start.Add(ttl).UnixNano()
		a.since.Add(int64(ttl))
		endOf := func(i int) []byte { return holdEndKey(over, jobs[i].Seq) }
		next := endOf(400)
		for _, want := range [][]byte{append(endOf(400+holdingsDropped-1), 0), append(endOf(400+2*holdingsDropped-1), 0), nil} {
			if next, err = a.store.dropHoldings(next); err != nil || !bytes.Equal(next, want) {
				t.Fatalf("goes on at %x, %v; want %x", next, err, want)
			}
		}
		if n, m := a.keys(kindHold), a.keys(kindHoldEnd); n != 400 || m != 400 {
			t.Errorf("%d entries and %d times are left", n, m)
		}
		a.dropAll()
		if n, m := a.keys(kindHold), a.keys(kindHoldEnd); n != 0 || m != 0 {
			t.Errorf("%d entries and %d times are left in the end", n, m)
		}
	})
}

// submitOnly is what becomes of a job that shall be the only one with its key: it is stored, or takes the place of the
// holder, or nothing changes.
func submitOnly(tx store.Tx, random *rand.Rand, s *job.Spec) (store.Change, error) {
	s.Unique = &job.Unique{Key: fmt.Sprint("u", random.IntN(4)), Until: job.UniqueUntil(1 + random.IntN(2))}
	if s.Unique.Until == job.UntilFinish && random.IntN(2) == 0 {
		s.Unique.TTL = time.Duration(random.IntN(20)) * time.Millisecond
	}
	h, err := tx.Holder(s.Queue, s.Unique.Key)
	switch {
	case err != nil:
		return store.Change{}, err
	case h.State == job.StateNone:
		return store.Change{New: job.New(s, tx.Now())}, nil
	case h.Job == nil:
		return store.Change{}, nil
	}
	next, err := h.Job.Replace(tx.Now(), s)
	if err != nil {
		return store.Change{}, nil //nolint:nilerr // the holder stays as it is
	}
	return store.Change{Old: h.Job, New: next}, nil
}

// keyTaken reports whether another job holds the key that next holds.
func keyTaken(r store.Reader, next *job.Job) (bool, error) {
	if next.Spec.Unique == nil || !next.HoldsKey(r.Now()) {
		return false, nil
	}
	h, err := r.Holder(next.Spec.Queue, next.Spec.Unique.Key)
	return h.State != job.StateNone && h.ID != next.Spec.ID, err
}

// checkHolders compares who holds the keys with what the jobs' records say, both ways. A holder that has ended may be past
// its retention.
func (c *crasher) checkHolders(r store.Reader, bad func(string, ...any)) error {
	holders := map[string]*job.Job{}
	_, err := r.Scan(0, false, 1<<30, func(j *job.Job) bool {
		if u := j.Spec.Unique; u != nil && j.HoldsKey(r.Now()) {
			name := j.Spec.Queue + " " + u.Key
			if other := holders[name]; other != nil {
				bad("jobs %d and %d hold the key %s", other.Seq, j.Seq, name)
			}
			holders[name] = j
		}
		return true
	})
	if err != nil {
		return err
	}
	if err := c.store.scan(kindHold, func(key, value []byte) error {
		h, err := readHolding(value)
		if err != nil {
			return err
		}
		jobs, err := r.Load([]uint64{h.seq})
		if err == nil && h.until == 0 && (jobs[0] == nil || holdingOf(jobs[0]) != h) {
			bad("the entry of %q is left behind by job %d: %+v", key[5:], h.seq, jobs[0])
		}
		return err
	}); err != nil {
		return err
	}
	for _, queue := range []string{"q0", "q1"} {
		for i := range 4 {
			key := fmt.Sprint("u", i)
			h, err := r.Holder(queue, key)
			if err != nil {
				return err
			}
			switch want := holders[queue+" "+key]; {
			case want == nil && h.Job == nil && (h.State == job.StateNone || h.State.Terminal()):
			case want == nil || h.Job == nil || h.Job.Seq != want.Seq:
				bad("the key %s of %s is held by %+v, and by its record by %+v", key, queue, h, want)
			}
		}
	}
	return nil
}
