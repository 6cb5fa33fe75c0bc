package storetest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// only makes a spec the only one of its queue with a key.
func (b *bench) only(queue, key string, until job.UniqueUntil, ttl time.Duration) *job.Spec {
	s := b.spec(queue)
	s.Unique = &job.Unique{Key: key, Until: until, TTL: ttl, OnConflict: job.OnConflictReject}
	return s
}

// holder is who holds a key: a job, or what outlasted it, or nobody. A view and a transaction say the same.
func (b *bench) holder(queue, key string) (h store.Holder) {
	b.Helper()
	b.view(func(r store.Reader) (err error) {
		h, err = r.Holder(queue, key)
		return err
	})
	b.update(func(tx store.Tx) error {
		again, err := tx.Holder(queue, key)
		b.equal("holder in a transaction", again, h)
		return err
	})
	return h
}

// heldBy checks who holds a key, nil for nobody, at once and after a restart.
func (b *bench) heldBy(queue, key string, want *job.Job) {
	b.Helper()
	for range 2 {
		expect := store.Holder{}
		if want != nil {
			expect = store.Holder{Job: b.get(want.Seq)[0], ID: want.Spec.ID, State: want.State}
		}
		b.equal("holder of "+key, b.holder(queue, key), expect)
		b.Reopen()
	}
}

// testHolders: a key is held as the job's record says, through its whole life, by queue.
func testHolders(_ *testing.T, b *bench) {
	b.heldBy("q", "k", nil) // nor is there such a queue
	events := events()
	step := func(j *job.Job, names ...string) *job.Job {
		b.Helper()
		for _, name := range names {
			j = b.step(j.Seq, events[name])
		}
		return j
	}
	jobs := b.submit(b.only("q", "k", job.UntilFinish, 0), b.only("r", "k", job.UntilStart, 0), b.spec("q"))
	finish, start := jobs[0], jobs[1]
	b.heldBy("q", "k", finish)
	b.heldBy("r", "k", start)
	b.heldBy("q", "other", nil)

	start = step(start, "dispatch")
	b.heldBy("r", "k", start)
	start = step(start, "undeliver")
	b.heldBy("r", "k", start)
	start = step(start, "dispatch", "accept")
	b.heldBy("r", "k", nil)
	next := b.submit(b.only("r", "k", job.UntilStart, 0))[0]
	start = step(start, "failure", "retry")
	b.heldBy("r", "k", next)
	step(start, "delete")
	b.heldBy("r", "k", next)
	step(next, "cancel")
	b.heldBy("r", "k", nil)
	b.heldBy("r", "k", step(next, "retry")) // it never was accepted

	finish = step(finish, "dispatch", "accept", "failure")
	b.heldBy("q", "k", finish)
	finish = step(finish, "park")
	b.heldBy("q", "k", finish)
	finish = step(finish, "retry", "dispatch", "give up")
	b.heldBy("q", "k", nil)
	b.heldBy("q", "k", step(finish, "retry"))
	step(finish, "delete")
	b.heldBy("q", "k", nil)
}

// testKeyTerm: a job that has ended holds its key for its ttl. Whatever happens to it later does not touch who holds the
// key then.
func testKeyTerm(_ *testing.T, b *bench) {
	j := b.submit(b.only("q", "k", job.UntilFinish, time.Minute))[0]
	b.dispatch(j.Seq)
	j = b.finish(j.Seq, job.Outcome{Failure: &job.Failure{Class: job.Application, Final: true}})
	b.advance(time.Minute - 1)
	b.heldBy("q", "k", j)
	b.advance(1)
	b.heldBy("q", "k", nil)
	next := b.submit(b.only("q", "k", job.UntilFinish, time.Minute))[0]
	b.heldBy("q", "k", next)
	b.advance(-time.Minute) // clocks jump
	b.step(j.Seq, func(store.Tx, *job.Job) (*job.Job, error) { return nil, nil })
	b.heldBy("q", "k", next)

	b.dispatch(next.Seq)
	next = b.finish(next.Seq, job.Outcome{Failure: &job.Failure{Class: job.Application, Final: true}})
	b.update(func(tx store.Tx) error { return tx.DeleteQueue("q") })
	b.heldBy("q", "k", next)
	b.submit(b.spec("q")) // makes it again
	b.heldBy("q", "k", next)
	next = b.step(next.Seq, func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Retry(tx.Now()) })
	b.advance(time.Hour)
	b.heldBy("q", "k", next)
	b.dispatch(next.Seq)
	b.finish(next.Seq, job.Outcome{Success: &job.Success{}})
	b.step(next.Seq, func(store.Tx, *job.Job) (*job.Job, error) { return nil, nil })
	b.heldBy("q", "k", nil)
}

// testHoldersInFlight: a transaction sees who holds a key by its own writes, and by those of the batch that is not on disk
// yet; what a failed one wrote is nothing.
func testHoldersInFlight(t *testing.T, b *bench) {
	b.submit(b.spec("q"))
	put := func(tx store.Tx, spec *job.Spec) *job.Job {
		j := job.New(spec, tx.Now())
		if err := tx.Put(store.Change{New: j}); err != nil {
			t.Error(err)
		}
		return j
	}
	want := func(tx store.Tx, want *job.Job) {
		t.Helper()
		h, err := tx.Holder("q", "k")
		if err != nil || h.Job != want {
			t.Errorf("holder is %+v, %v; want %+v", h, err, want)
		}
	}
	var first, second *job.Job
	done := make(chan error, 4)
	began := make(chan struct{})
	for _, fn := range []func(store.Tx) error{
		func(tx store.Tx) error {
			<-began // so that the others come into the same batch
			want(tx, nil)
			want(tx, put(tx, b.only("q", "k", job.UntilFinish, 0)))
			return errStop
		},
		func(tx store.Tx) error {
			want(tx, nil)
			first = put(tx, b.only("q", "k", job.UntilFinish, 0))
			want(tx, first)
			return nil
		},
		func(tx store.Tx) error {
			want(tx, first)
			ended, _, err := first.RequestInterrupt(tx.Now(), job.InterruptRequest{Level: job.LevelCancel})
			if err != nil {
				return err
			}
			if err := tx.Put(store.Change{Old: first, New: ended}); err != nil {
				return err
			}
			want(tx, nil)
			second = put(tx, b.only("q", "k", job.UntilFinish, 0))
			want(tx, second)
			return nil
		},
		func(tx store.Tx) error {
			want(tx, second)
			return nil
		},
	} {
		b.Store().Post(t.Context(), fn, func(err error) { done <- err })
	}
	close(began)
	if err := <-done; !errors.Is(err, errStop) {
		t.Error(err)
	}
	if err := errors.Join(<-done, <-done, <-done); err != nil {
		t.Error(err)
	}
	b.heldBy("q", "k", second)
}

// testReplace gives waiting jobs what others ask for: payloads that are kept in the record and apart, lanes, limits and
// starts. What is shown, counted and handed out next is as if the job had come so, but in its place.
func testReplace(_ *testing.T, b *bench) {
	b.update(func(tx store.Tx) error { return tx.PutLimit(&store.Limit{Name: "l", Policy: job.LimitPolicy{Max: 1}}) })
	jobs := b.submit(b.spec("q"), b.spec("q"), b.spec("q"))
	mid := jobs[1].Seq
	replace := func(change func(*job.Spec)) {
		b.Helper()
		spec := b.spec("q")
		change(spec)
		b.replace(mid, spec)
	}
	replace(func(s *job.Spec) { s.Payload = large(1) })
	replace(func(s *job.Spec) { s.Payload = large(2) })
	replace(func(s *job.Spec) { s.Payload = []byte("small") })
	replace(func(s *job.Spec) { s.Payload = large(3) })
	b.equal("heads", b.heads("q", 3), seqs(jobs))

	uses := []job.LimitUse{{Limit: "l", Key: "k", Units: 1}}
	replace(func(s *job.Spec) { s.Payload, s.Limits = nil, uses })
	b.equal("jobs of the limit", b.limit("l").Jobs, uint64(1))
	b.equal("keys of the limit", b.keys("l"), []store.KeyUsage{{Name: "k", Waiting: 1}})
	b.equal("heads without it", b.heads("q", 3), []uint64{jobs[0].Seq, jobs[2].Seq})
	replace(func(s *job.Spec) { s.Limits, s.RunAt = uses, b.clock.Add(time.Minute) })
	b.equal("jobs of the limit", b.limit("l").Jobs, uint64(1))
	b.equal("keys of the limit", b.keys("l"), []store.KeyUsage(nil))
	b.equal("counts", b.counts("q"), [job.NumberOfStates]uint64{job.Ready: 2, job.Scheduled: 1})
	replace(func(s *job.Spec) { s.StartBy = b.clock.Add(time.Minute) })
	b.equal("jobs of the limit", b.limit("l").Jobs, uint64(0))
	b.equal("heads in the end", b.heads("q", 3), []uint64{jobs[0].Seq, jobs[2].Seq, mid})
	b.advance(time.Minute)
	b.update(func(tx store.Tx) error {
		due, _, err := tx.Due(9)
		b.equal("due by its new start_by", seqs(due), []uint64{mid})
		return err
	})
}

// large is a payload that is kept apart.
func large(with byte) []byte { return bytes.Repeat([]byte{with}, 900) }

// replace puts what a job becomes, and checks what is shown of it, at once and after a restart.
func (b *bench) replace(seq uint64, spec *job.Spec) {
	b.Helper()
	payload := spec.Payload
	spec.PayloadSize = len(payload)
	next := b.step(seq, func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Replace(tx.Now(), spec) })
	for range 2 {
		b.equal("replaced", b.get(seq)[0], next)
		b.hasPayload(seq, payload)
		b.Reopen()
	}
}

func (b *bench) hasPayload(seq uint64, want []byte) {
	b.Helper()
	b.view(func(r store.Reader) error {
		jobs, err := r.Load([]uint64{seq})
		if err != nil {
			return err
		}
		has, err := r.Payload(jobs[0])
		b.equal("payload", has, want)
		return err
	})
}

// testReplaceAgain replaces a job several times in one transaction: what came last is kept, in the record or apart.
func testReplaceAgain(_ *testing.T, b *bench) {
	seq := b.submit(b.spec("q"))[0].Seq
	b.update(func(tx store.Tx) error {
		js, err := tx.Load([]uint64{seq})
		if err != nil {
			return err
		}
		j := js[0]
		for _, payload := range [][]byte{large(4), []byte("small"), large(5)} {
			spec := b.spec("q")
			spec.Payload, spec.PayloadSize = payload, len(payload)
			next, err := j.Replace(tx.Now(), spec)
			if err == nil {
				err = tx.Put(store.Change{Old: j, New: next})
			}
			if err != nil {
				return err
			}
			j = next
		}
		return nil
	})
	b.Reopen()
	b.hasPayload(seq, large(5))
}
