package dispatch

import (
	"slices"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// A job that takes much, or of several keys, may find them taken by others again and again. A lane that has not fitted for
// an aging step reserves all its keys, or none: what is given back there is kept for it until all that it takes is free. So
// it holds nothing while it waits for more, and two of them cannot wait for each other.

// reservation is what is kept for a lane.
type reservation struct {
	lane *lane
	free int64 // since when all of it is free, as the sweep saw; 0: it is not
}

// reserveGrace is how long everything that a lane takes is kept once it is free, for a worker of its queue to have room.
const reserveGrace = 10 * time.Second

// roomFor is how many more units of the key the lane may take: all there are but those kept for another one.
func (d *Dispatcher) roomFor(l *lane, k *store.Key) uint64 {
	room := k.Room(d.given[k])
	return room - min(room, d.keptFrom(l, k))
}

// keptFrom is how many units of the key are kept for another lane.
func (d *Dispatcher) keptFrom(l *lane, k *store.Key) uint64 {
	if len(d.reserved) > 0 {
		if r := d.reserved[k]; r != nil && r.lane != l {
			return r.lane.units(k)
		}
	}
	return 0
}

// permitsFrom is keptFrom of permits: they are kept once nothing but permits is missing.
func (d *Dispatcher) permitsFrom(l *lane, k *store.Key) uint64 {
	r := d.reserved[k]
	if r == nil || r.lane == l || slices.ContainsFunc(r.lane.Keys(), func(u store.KeyUse) bool { return u.Key.Room(d.given[u.Key]) < uint64(u.Units) }) {
		return 0
	}
	return r.lane.units(k)
}

// units is how many units of the key the lane takes.
func (l *lane) units(k *store.Key) uint64 {
	for _, u := range l.Keys() {
		if u.Key == k {
			return uint64(u.Units)
		}
	}
	return 0
}

// reserve has what is given back kept for the lane, if it has not fitted for an aging step, its jobs may start as far as
// their queue is concerned, and no older lane has one of its keys.
func (m *matcher) reserve(l *lane) {
	d := m.d
	if m.clock-l.since < int64(job.AgingStep) {
		return
	}
	for _, u := range l.Keys() {
		if r := d.reserved[u.Key]; r != nil && r.lane.since <= l.since {
			return // itself, too
		}
	}
	if !m.startable(l) {
		return
	}
	made := &reservation{lane: l}
	for _, u := range l.Keys() {
		if r := d.reserved[u.Key]; r != nil {
			d.unreserve(r.lane)
		}
	}
	for _, u := range l.Keys() {
		d.reserved[u.Key] = made
	}
}

// startable reports whether the lane's jobs may start once their keys are free: somebody serves their queue, which is not
// paused and may have more runs, no maximum was lowered under what they take, and no gate is closed for long.
func (m *matcher) startable(l *lane) bool {
	q := l.share.queue
	if q.seats == 0 {
		return false
	}
	if known := m.tx.Queue(q.name); known != nil && (known.Pause != nil || known.Policy.Room(known.Counts[job.Running], known.Zombies) == 0) {
		return false
	}
	return !slices.ContainsFunc(l.Keys(), func(u store.KeyUse) bool {
		p := u.Key.Limit.Policy
		return p != nil && u.Units > p.UnitsMax(u.Key.Name) || m.shut(u)
	})
}

// shut reports whether the key's gate is closed for longer than what is kept for the lane may be idle.
func (m *matcher) shut(u store.KeyUse) bool {
	if !m.d.gated(u.Key) {
		return false
	}
	n, after := m.through(gateOf(u.Key), job.Rate{}, uint64(u.Units)) // permits come
	return n < uint64(u.Units) && (after == 0 || after > int64(reserveGrace))
}

// review ends the reservations of lanes whose jobs may not start any more, and of those that could not use what is free. A
// sweep asks for it.
func (m *matcher) review() {
	d := m.d
	if !d.reviewing {
		return
	}
	d.reviewing = false
	for _, r := range d.reserved {
		switch l := r.lane; {
		case !m.startable(l):
			d.unreserve(l)
		case !l.stands(&l.band().turns):
			r.free = 0
		case r.free == 0:
			r.free = m.clock
		case m.clock-r.free > int64(reserveGrace):
			d.unreserve(l)
			l.since = m.clock // it had its chance
		}
	}
}

// unreserve ends it. Others may take what was kept.
func (d *Dispatcher) unreserve(l *lane) {
	if len(d.reserved) == 0 {
		return
	}
	for _, u := range l.Keys() {
		if r := d.reserved[u.Key]; r != nil && r.lane == l {
			delete(d.reserved, u.Key)
			d.gaveBack([]store.KeyUse{u})
		}
	}
}
