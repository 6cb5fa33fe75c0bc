package storetest

import (
	"testing"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// keys are the keys of a limit.
func (b *bench) keys(limit string) (all []store.KeyUsage) {
	b.Helper()
	b.view(func(r store.Reader) error {
		all = r.Keys(limit, "", 100)
		return nil
	})
	return all
}

func (b *bench) limit(name string) (l *store.Limit) {
	b.Helper()
	b.view(func(r store.Reader) error { l = r.Limit(name); return nil })
	return l
}

// testLimits: settings, versions and what is taken survive a restart; a key that nobody takes and nobody waits for is
// forgotten; a zombie has its units until it ends.
func testLimits(t *testing.T, b *bench) {
	set := &store.Limit{Name: "l", CreateTime: b.clock, Policy: job.LimitPolicy{
		Max: 3, OnZombie: job.OnZombieRelease, Keys: []job.KeyMax{{Key: "a", Max: 1}, {Key: "b", Max: 9}},
	}}
	b.update(func(tx store.Tx) error { return tx.PutLimit(set) })
	b.update(func(tx store.Tx) error { return tx.PutLimit(&store.Limit{Name: "k", Policy: job.LimitPolicy{Max: 1}}) })
	spec := func(uses ...job.LimitUse) *job.Spec {
		s := b.spec("q")
		s.Limits = uses
		return s
	}
	both := []job.LimitUse{{Limit: "k", Key: "a", Units: 1}, {Limit: "l", Key: "a", Units: 2}}
	jobs := b.submit(spec(both...), spec(both...), spec(both[1]))
	b.dispatch(jobs[0].Seq)
	b.dispatch(jobs[2].Seq)
	check := func() {
		t.Helper()
		want := *set
		want.Version, want.Jobs = 1, 3
		b.equal("limit", b.limit("l"), &want)
		b.equal("keys of l", b.keys("l"), []store.KeyUsage{{Name: "a", Live: 4, Waiting: 1}})
		b.equal("keys of k", b.keys("k"), []store.KeyUsage{{Name: "a", Live: 1, Waiting: 1}})
	}
	check()
	b.Reopen()
	check()
	b.view(func(r store.Reader) error {
		var names []string
		r.Limits("k", func(l *store.Limit) bool { names = append(names, l.Name); return true })
		b.equal("limits", names, []string{"k", "l"})
		r.Limits("ka", func(l *store.Limit) bool { names = append(names, l.Name); return false })
		b.equal("limits from ka on", names[2:], []string{"l"})
		b.equal("keys of l from b on", r.Keys("l", "b", 100), []store.KeyUsage(nil))
		b.equal("a key", r.Key("l", "a"), store.KeyUsage{Name: "a", Live: 4, Waiting: 1})
		b.equal("a key that is not taken", r.Key("l", "b"), store.KeyUsage{Name: "b"})
		return nil
	})

	b.haunt(jobs[0].Seq, both)
	b.finish(jobs[2].Seq, job.Outcome{Success: &job.Success{}})
	b.step(jobs[1].Seq, func(store.Tx, *job.Job) (*job.Job, error) { return nil, nil })
	for range 2 {
		b.equal("keys in the end", append(b.keys("l"), b.keys("k")...), []store.KeyUsage(nil))
		b.equal("jobs in the end", b.limit("l").Jobs, uint64(0))
		b.Reopen()
	}
}

// haunt makes a run, which takes something, a zombie in the transaction that ends it, and then ends the zombie.
func (b *bench) haunt(seq uint64, uses []job.LimitUse) {
	b.Helper()
	var fence uint64
	b.update(func(tx store.Tx) error {
		js, err := tx.Load([]uint64{seq})
		if err != nil {
			return err
		}
		fence = js[0].Run.Fence
		if err := tx.Put(store.Change{Old: js[0]}); err != nil {
			return err
		}
		return tx.PutZombie(&store.Zombie{Fence: fence, Seq: seq, Queue: "q", Limits: uses})
	})
	b.Reopen()
	b.equal("keys of l with a zombie", b.keys("l"), []store.KeyUsage{{Name: "a", Live: 2, Zombies: 2, Waiting: 1}})
	b.equal("jobs", b.limit("l").Jobs, uint64(2))
	b.view(func(r store.Reader) error {
		r.Zombies(func(z *store.Zombie) bool {
			b.equal("limits of the zombie", z.Limits, uses)
			b.equal("keys of the zombie", len(z.Keys), len(uses))
			return true
		})
		return nil
	})
	b.update(func(tx store.Tx) error {
		if !tx.EndZombie(fence) {
			b.Error("there is no zombie")
		}
		return nil
	})
}

// testLimitDeleted: a limit that was deleted binds nobody, and its name comes back with a later version.
func testLimitDeleted(t *testing.T, b *bench) {
	put := func(most uint32) {
		b.update(func(tx store.Tx) error {
			return tx.PutLimit(&store.Limit{Name: "l", Policy: job.LimitPolicy{Max: most}})
		})
	}
	put(1)
	s := b.spec("q")
	s.Limits = []job.LimitUse{{Limit: "l", Units: 1}}
	j := b.submit(s)[0]
	b.update(func(tx store.Tx) error { return tx.DeleteLimit("l") })
	b.Reopen()
	if l := b.limit("l"); l != nil {
		t.Errorf("it is still there: %+v", l)
	}
	room := func() (n uint64) {
		b.update(func(tx store.Tx) error {
			tx.EachKey("l", func(k *store.Key) { n = k.Room(0) })
			return nil
		})
		return n
	}
	if n := room(); n < 1<<62 {
		t.Errorf("room = %d; want any number", n)
	}
	b.dispatch(j.Seq)
	put(3)
	if n := room(); n != 2 {
		t.Errorf("room = %d; want 2 of 3", n)
	}
	b.equal("limit", b.limit("l"), &store.Limit{Name: "l", Version: 2, Policy: job.LimitPolicy{Max: 3}, Jobs: 1})
	b.equal("its job", b.get(j.Seq)[0].Spec.Limits, s.Limits)
	if err := b.Store().Update(t.Context(), func(tx store.Tx) error { return tx.DeleteLimit("m") }); err == nil {
		t.Error("a limit that never was is deleted")
	}
	stray := b.spec("q")
	stray.Limits = []job.LimitUse{{Limit: "m", Units: 1}}
	err := b.Store().Update(t.Context(), func(tx store.Tx) error { return tx.Put(store.Change{New: job.New(stray, tx.Now())}) })
	if err == nil {
		t.Error("a job of a limit that never was is taken")
	}
}
