package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

func gates(r store.Reader) map[store.GateName]store.Gate {
	all := map[store.GateName]store.Gate{}
	r.Gates(func(g store.Gate) { all[g.Of] = g })
	return all
}

// testGates: gates last until they are open, also over a restart, whatever becomes of what they are of.
func testGates(t *testing.T, b *bench) {
	b.submit(b.spec("q"))
	b.update(func(tx store.Tx) error { return tx.PutLimit(&store.Limit{Name: "l", Policy: job.LimitPolicy{Max: 1}}) })
	queue := store.Gate{
		Of: store.GateName{Name: "q"}, ThrottledUntil: b.clock.Add(time.Minute), ThrottleReason: "429", ThrottledBy: job.ID{4},
	}
	key := store.Gate{
		Of: store.GateName{Limit: "l", Name: "k"}, TripTime: b.clock, TryTime: b.clock.Add(time.Second), Failures: 5, Failure: "refused",
	}
	empty := store.Gate{Of: store.GateName{Limit: "l"}, TripTime: b.clock}
	want := map[store.GateName]store.Gate{queue.Of: queue, key.Of: key}
	b.update(func(tx store.Tx) error {
		for _, g := range []store.Gate{queue, key, empty, {Of: empty.Of}, {Of: store.GateName{Name: "none"}, TripTime: b.clock}} {
			tx.PutGate(g)
		}
		b.equal("own writes", gates(tx), want)
		return nil
	})
	err := b.Store().Update(context.Background(), func(tx store.Tx) error {
		tx.PutGate(store.Gate{Of: queue.Of})
		return errStop
	})
	if !errors.Is(err, errStop) {
		t.Fatal(err)
	}
	b.view(func(r store.Reader) error { b.equal("gates", gates(r), want); return nil })
	b.Reopen()
	b.view(func(r store.Reader) error { b.equal("after a restart", gates(r), want); return nil })
	b.update(func(tx store.Tx) error {
		tx.PutGate(store.Gate{Of: queue.Of})
		return tx.DeleteLimit("l")
	})
	delete(want, queue.Of)
	b.Reopen()
	b.view(func(r store.Reader) error { b.equal("with a deleted limit", gates(r), want); return nil })
	b.update(func(tx store.Tx) error { tx.PutGate(store.Gate{Of: key.Of}); return nil })
	b.Reopen()
	b.view(func(r store.Reader) error {
		b.equal("in the end", gates(r), map[store.GateName]store.Gate{})
		return nil
	})
}
