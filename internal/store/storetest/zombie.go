package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

func zombies(r store.Reader) (all []*store.Zombie) {
	r.Zombies(func(z *store.Zombie) bool {
		all = append(all, z)
		return true
	})
	return all
}

func testZombies(t *testing.T, b *bench) {
	b.submit(b.spec("q"))
	seven := &store.Zombie{
		Fence: 7, Seq: 1, Queue: "q", Instance: job.ID{3}, Worker: "w", Unary: true, Lease: time.Minute, Time: b.clock,
	}
	five := &store.Zombie{Fence: 5, Seq: 2, Queue: "q", Instance: job.ID{4}, Lease: time.Hour, Time: b.clock}
	b.update(func(tx store.Tx) error {
		six := *five
		six.Fence = 6
		err := errors.Join(tx.PutZombie(seven), tx.PutZombie(five), tx.PutZombie(&six))
		if !tx.EndZombie(6) || tx.EndZombie(6) {
			t.Error("a zombie of the same transaction does not end once")
		}
		b.equal("own writes", zombies(tx), []*store.Zombie{five, seven})
		return err
	})
	err := b.Store().Update(context.Background(), func(tx store.Tx) error {
		tx.EndZombie(5)
		return errStop
	})
	if !errors.Is(err, errStop) {
		t.Error(err)
	}
	expect := func(want ...*store.Zombie) {
		t.Helper()
		b.view(func(r store.Reader) error {
			b.equal("zombies", zombies(r), want)
			b.equal("count", r.Queue("q").Zombies, uint64(len(want)))
			return nil
		})
	}
	expect(five, seven)
	b.Reopen()
	expect(five, seven)
	b.update(func(tx store.Tx) error {
		if tx.EndZombie(8) || !tx.EndZombie(5) {
			t.Error("the one that ended is not the one that was there")
		}
		q := *tx.Queue("q")
		q.Policy.MaxRunning = 1
		return tx.PutQueue(&q)
	})
	expect(seven)
	b.Reopen()
	expect(seven)
	if err := b.Store().Update(context.Background(), func(tx store.Tx) error {
		return tx.PutZombie(&store.Zombie{Fence: 9, Queue: "unknown"})
	}); err == nil {
		t.Error("a zombie of an unknown queue was taken")
	}
}
