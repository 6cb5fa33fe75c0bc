package pebblestore

import (
	"fmt"
	"maps"
	"slices"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Zombies are few and rarely change: each is a record of its own, and all of them are in memory too.

func (v view) Zombies(fn func(*store.Zombie) bool) {
	s := v.s.state
	s.mu.RLock()
	all := maps.Clone(s.zombies)
	s.mu.RUnlock()
	eachZombie(all, fn)
}

func (t *tx) Zombies(fn func(*store.Zombie) bool) {
	all := maps.Clone(t.s.state.zombies)
	for fence, z := range t.zombies {
		if z == nil {
			delete(all, fence)
		} else {
			all[fence] = z
		}
	}
	eachZombie(all, fn)
}

func eachZombie(all map[uint64]*store.Zombie, fn func(*store.Zombie) bool) {
	for _, fence := range slices.Sorted(maps.Keys(all)) {
		if !fn(all[fence]) {
			return
		}
	}
}

func (t *tx) PutZombie(z *store.Zombie) error {
	if t.queueOf(z.Queue) == nil {
		return fmt.Errorf("store: put of a zombie of queue %q, which does not exist", z.Queue)
	}
	t.zombies[z.Fence] = z
	return nil
}

func (t *tx) EndZombie(fence uint64) bool {
	z, written := t.zombies[fence]
	if !written {
		z = t.s.state.zombies[fence]
	}
	if z == nil {
		return false
	}
	t.zombies[fence] = nil
	return true
}

// putZombie makes z what is known of the fence; nil: nothing any more.
func (s *state) putZombie(fence uint64, z *store.Zombie) {
	if old := s.zombies[fence]; old != nil {
		delete(s.zombies, fence)
		s.queues[old.Queue].zombies--
		for _, u := range old.Keys {
			u.Key.Zombies -= uint64(u.Units)
		}
		s.letGo(old.Keys)
	}
	if z != nil {
		s.zombies[fence] = z
		s.queues[z.Queue].zombies++
		z.Keys = s.keysOf(nil, z.Limits)
		hold(z.Keys)
		for _, u := range z.Keys {
			u.Key.Zombies += uint64(u.Units)
		}
	}
}

// writeZombie adds the same to the engine's batch.
func (s *Store) writeZombie(fence uint64, z *store.Zombie) {
	if z == nil {
		s.delete(seqKey(kindZombie, fence))
		return
	}
	w := writer{}
	w.uint(1, z.Seq)
	w.uint(2, uint64(s.state.queues[z.Queue].number))
	w.bytes(3, z.Instance[:])
	w.str(4, z.Worker)
	w.flag(5, z.Unary)
	w.duration(6, z.Lease)
	w.time(7, z.Time, 0)
	writeUses(&w, 8, z.Limits, s.state)
	s.set(seqKey(kindZombie, fence), w.b)
}

func (s *Store) readZombies() error {
	return s.scan(kindZombie, func(key, value []byte) error {
		z := &store.Zombie{Fence: keySeq(key)}
		var number uint32
		r := reader{rest: value}
		for r.next() {
			switch r.field {
			case 1:
				z.Seq = r.v
			case 2:
				number = uint32(r.v)
			case 3:
				r.id((*[16]byte)(&z.Instance))
			case 4:
				z.Worker = string(r.raw)
			case 5:
				z.Unary = r.v != 0
			case 6:
				z.Lease = r.duration()
			case 7:
				z.Time = r.time(0)
			case 8:
				u, err := readUse(r.raw, s.state)
				if err != nil {
					return err
				}
				z.Limits = append(z.Limits, u)
			}
		}
		q := s.state.byNum[number]
		if r.err != nil || q == nil {
			return errRecord
		}
		z.Queue = q.set.Name
		s.state.putZombie(z.Fence, z)
		return nil
	})
}

// checkUsage holds the live runs that were found against what the log says of them: limits rest on these numbers.
func (s *state) checkUsage() error {
	live := map[string]uint64{}
	units := map[*store.Key]uint64{}
	for seq, j := range s.live {
		live[j.Spec.Queue]++
		if uses := usesOf(s.taken[seq]); !slices.Equal(uses, j.Taken()) {
			return fmt.Errorf("job %d takes %v while it runs, and %v by the log", seq, j.Taken(), uses)
		}
		for _, u := range s.taken[seq] {
			units[u.Key] += uint64(u.Units)
		}
	}
	for name, l := range s.limits {
		var err error
		l.keys.each(func(k *store.Key) {
			if k.Live != units[k] {
				err = fmt.Errorf("key %q of limit %q has %d units taken, and %d by its count", k.Name, name, units[k], k.Live)
			}
		})
		if err != nil {
			return err
		}
	}
	for _, q := range s.byNum {
		if n := q.counts[job.Running]; n != live[q.set.Name] {
			return fmt.Errorf("queue %q has %d live runs, and %d by its count", q.set.Name, live[q.set.Name], n)
		}
	}
	return nil
}
