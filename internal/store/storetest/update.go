package storetest

import (
	"testing"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// updating is the move of an update.
func updating(f job.Fields, s job.Spec) move {
	return func(tx clock, j *job.Job) (*job.Job, error) {
		return j.Update(tx.Now(), job.Update{Fields: f, Spec: s}, job.By{Requester: "ops"})
	}
}

// updated puts the next version of a job after an update.
func (b *bench) updated(seq uint64, f job.Fields, s job.Spec) *job.Job {
	b.Helper()
	return b.step(seq, func(tx store.Tx, j *job.Job) (*job.Job, error) { return updating(f, s)(tx, j) })
}

// putLimits makes limits.
func (b *bench) putLimits(names ...string) {
	b.Helper()
	b.update(func(tx store.Tx) error {
		for _, name := range names {
			if err := tx.PutLimit(&store.Limit{Name: name, Policy: job.LimitPolicy{Max: 9}}); err != nil {
				return err
			}
		}
		return nil
	})
}

// headsOf lists the READY jobs of a lane in order.
func (b *bench) headsOf(p job.Priority, uses ...job.LimitUse) (got []uint64) {
	b.Helper()
	b.update(func(tx store.Tx) error {
		got = nil
		l := laneOf(tx, "q", p, "", uses...)
		if l == nil {
			return nil
		}
		heads, err := tx.Heads(l, 9)
		got = seqs(heads)
		return err
	})
	return got
}

// testUpdateReady: an updated READY job leaves its lane for the end of another one, or keeps its place; limits count it
// where it is.
func testUpdateReady(t *testing.T, b *bench) {
	b.putLimits("l", "m")
	l, m := []job.LimitUse{{Limit: "l", Key: "a", Units: 1}}, []job.LimitUse{{Limit: "l", Units: 1}, {Limit: "m", Units: 2}}
	var jobs []*job.Job
	for range 4 {
		s := b.spec("q")
		s.Limits = l
		jobs = append(jobs, b.submit(s)...)
	}
	b.submit(b.spec("q"))
	b.advance(time.Second)
	first := b.updated(jobs[0].Seq, job.FieldLimits, job.Spec{Limits: m})
	if !first.ReadyTime.Equal(jobs[0].ReadyTime) || first.ReadySeq <= jobs[3].ReadySeq {
		t.Errorf("it is at place %d since %s", first.ReadySeq, first.ReadyTime)
	}
	b.updated(jobs[1].Seq, job.FieldPriority, job.Spec{Priority: job.High})
	b.updated(jobs[2].Seq, job.FieldSubject, job.Spec{Subject: "s"})
	b.updated(jobs[3].Seq, job.FieldLimits, job.Spec{})
	b.updated(jobs[3].Seq, job.FieldLimits, job.Spec{Limits: l}) // back, behind the one that stayed
	b.updated(jobs[3].Seq, job.FieldLimits, job.Spec{})
	for range 2 {
		b.equal("that takes other keys", b.headsOf(job.Normal, m...), []uint64{1})
		b.equal("of another band", b.headsOf(job.High, l...), []uint64{2})
		b.equal("that kept its place", b.headsOf(job.Normal, l...), []uint64{3})
		b.equal("that takes nothing", b.headsOf(job.Normal), []uint64{5, 4})
		b.equal("keys of l", b.keys("l"), []store.KeyUsage{{Waiting: 1}, {Name: "a", Waiting: 2}})
		b.equal("keys of m", b.keys("m"), []store.KeyUsage{{Waiting: 1}})
		b.equal("jobs of l", b.limit("l").Jobs, uint64(3))
		b.equal("jobs of m", b.limit("m").Jobs, uint64(1))
		b.Reopen()
	}
	if err := b.Store().Update(t.Context(), func(tx store.Tx) error {
		js, err := tx.Load([]uint64{2})
		if err != nil {
			return err
		}
		next, err := updating(job.FieldLimits, job.Spec{Limits: []job.LimitUse{{Limit: "none", Units: 1}}})(tx, js[0])
		if err != nil {
			return err
		}
		return tx.Put(store.Change{Old: js[0], New: next})
	}); err == nil {
		t.Error("a limit that never was is taken")
	}
}

// testUpdateRunning: the run of an updated job has what it took, also after a restart, and gives back exactly that; the job
// comes back to the lane of its new spec.
func testUpdateRunning(t *testing.T, b *bench) {
	b.putLimits("l", "m")
	l, m := []job.LimitUse{{Limit: "l", Key: "a", Units: 2}}, []job.LimitUse{{Limit: "m", Units: 3}}
	s := b.spec("q")
	s.Limits, s.Timeout = l, time.Minute
	b.submit(s, b.spec("q"))
	b.dispatch(1)
	b.dispatch(2)
	want := []*job.Job{
		b.updated(1, job.FieldLimits|job.FieldTimeout|job.FieldSubject, job.Spec{Limits: m, Subject: "s"}),
		b.updated(2, job.FieldLimits, job.Spec{Limits: m}),
	}
	check := func() {
		t.Helper()
		b.equal("jobs", b.get(1, 2), want)
		b.equal("keys of l", b.keys("l"), []store.KeyUsage{{Name: "a", Live: 2}})
		b.equal("keys of m", b.keys("m"), []store.KeyUsage(nil))
		b.equal("jobs of l", b.limit("l").Jobs, uint64(0))
		b.equal("jobs of m", b.limit("m").Jobs, uint64(2))
	}
	check()
	for range 3 {
		b.Reopen()
		check()
		for range 20 { // enough for a snapshot, if they are frequent
			b.submit(b.spec("r"))
		}
	}
	b.step(1, func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Undeliver(tx.Now(), "test") })
	b.finish(2, job.Outcome{Released: &job.Released{NotMe: true}})
	for range 2 {
		b.equal("heads", b.headsOf(job.Normal, m...), []uint64{1, 2})
		b.equal("keys of l when they wait", b.keys("l"), []store.KeyUsage(nil))
		b.equal("keys of m when they wait", b.keys("m"), []store.KeyUsage{{Waiting: 2}})
		b.Reopen()
	}
	b.dispatch(1)
	b.Reopen()
	b.equal("keys of m in the next run", b.keys("m"), []store.KeyUsage{{Live: 3, Waiting: 1}})
	b.finish(1, job.Outcome{Success: &job.Success{}})
	b.equal("jobs of m in the end", b.limit("m").Jobs, uint64(1))
}
