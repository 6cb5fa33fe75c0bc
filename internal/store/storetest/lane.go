package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

func testLaneOrder(t *testing.T, b *bench) {
	var want []uint64
	for range 40 {
		for _, j := range b.submit(b.spec("q"), b.spec("r"), b.spec("q")) {
			if j.Spec.Queue == "q" {
				want = append(want, j.Seq)
			}
		}
	}
	b.Reopen()
	for len(want) > 0 {
		got := b.heads("q", 3) // a store may show fewer than there are, but not none
		if len(got) == 0 {
			t.Fatalf("no heads while %d jobs are ready", len(want))
		}
		b.equal("heads after a restart", got, want[:min(len(got), len(want))])
		b.dispatch(got[0])
		want = want[1:]
	}
	b.equal("empty lane", b.heads("q", 3), []uint64(nil))
}

// testLongLane looks for heads behind those that transactions of the same batch took, however many those are.
func testLongLane(t *testing.T, b *bench) {
	const jobs, taken = 60, 50
	specs := make([]*job.Spec, jobs)
	for i := range specs {
		specs[i] = b.spec("q")
	}
	b.submit(specs...)
	posted := make(chan struct{})
	deleted := make(chan error, 1)
	b.Store().Post(t.Context(), func(tx store.Tx) error {
		<-posted
		for seq := range uint64(taken) {
			js, err := tx.Load([]uint64{seq + 1})
			if err != nil {
				return err
			}
			if err := tx.Put(store.Change{Old: js[0]}); err != nil {
				return err
			}
		}
		return nil
	}, func(err error) { deleted <- err })
	var got []uint64
	seen := make(chan error, 1)
	b.Store().Post(t.Context(), func(tx store.Tx) error {
		heads, err := tx.Heads(plain(tx, "q"), jobs)
		got = seqs(heads)
		return err
	}, func(err error) { seen <- err })
	close(posted)
	if err := errors.Join(<-deleted, <-seen); err != nil {
		t.Fatal(err)
	}
	b.equal("heads", got, []uint64{51, 52, 53, 54, 55, 56, 57, 58, 59, 60})
	b.Reopen()
	b.equal("heads after a restart", b.heads("q", 3), []uint64{51, 52, 53})
	b.view(func(r store.Reader) error {
		b.equal("oldest", r.Oldest("q").Seq, uint64(51))
		return nil
	})
}

func testUndelivered(t *testing.T, b *bench) {
	jobs := b.submit(b.spec("q"), b.spec("q"), b.spec("q"))
	for _, j := range jobs {
		b.dispatch(j.Seq)
	}
	last := b.submit(b.spec("q"))[0].Seq
	for _, i := range []int{2, 0} {
		b.step(jobs[i].Seq, func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Undeliver(tx.Now(), "test") })
	}
	want := []uint64{jobs[0].Seq, jobs[2].Seq, last}
	b.equal("heads", b.heads("q", 9), want)
	b.Reopen()
	b.equal("heads after a restart", b.heads("q", 9), want)
}

// testReadyAgain writes new versions of READY jobs, wherever in a long lane they are: each keeps its place and is seen as
// it was written.
func testReadyAgain(t *testing.T, b *bench) {
	const jobs = 40
	remember := func(seqs ...uint64) {
		for _, seq := range seqs {
			b.step(seq, func(tx store.Tx, j *job.Job) (*job.Job, error) {
				next, _, err := j.RequestInterrupt(tx.Now(), job.InterruptRequest{
					Level: job.LevelRetry, Source: job.SourceUser, Request: fmt.Sprint(len(j.Actions)),
				})
				return next, err
			})
		}
	}
	for range jobs {
		b.submit(b.spec("q"))
	}
	remember(3, 1, 3, 20, jobs)
	b.Reopen()
	remember(5, 3, jobs-1)
	for seq := range uint64(jobs) {
		heads := b.heads("q", 1)
		b.equal("head", heads, []uint64{seq + 1})
		want := map[uint64]int{0: 1, 2: 3, 4: 1, 19: 1, jobs - 2: 1, jobs - 1: 1}[seq]
		if got := b.get(seq + 1)[0]; len(got.Actions) != want || got.ReadySeq == 0 {
			t.Errorf("job %d has %d actions, want %d; its place is %d", seq+1, len(got.Actions), want, got.ReadySeq)
		}
		remember(seq + 1) // the head itself
		b.dispatch(heads[0])
	}
	b.equal("counts", b.counts("q")[job.Running], uint64(jobs))
}
