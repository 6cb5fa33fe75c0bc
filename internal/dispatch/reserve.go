package dispatch

import (
	"slices"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// A job that takes much, or of several keys, may find them taken by others again and again. One that has not fitted for an
// aging step reserves all its keys, or none: what is given back there is kept for it until all that it takes is free. So it
// holds nothing while it waits for more, and two of them cannot wait for each other.

// roomFor is how many more units of the key the lane may take: all there are but those kept for another one.
func (d *Dispatcher) roomFor(l *lane, k *store.Key) uint64 {
	room := k.Room()
	if len(d.reserved) > 0 {
		if r := d.reserved[k]; r != nil && r != l {
			room -= min(room, r.units(k))
		}
	}
	return room
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

// reserve has what is given back kept for the lane, if its first job has not fitted for an aging step, may start as far as
// its queue is concerned, and no older lane has one of its keys.
func (d *Dispatcher) reserve(l *lane, now int64) {
	if now-l.since < int64(job.AgingStep) {
		return
	}
	if !l.startable() {
		d.unreserve(l)
		return
	}
	for _, u := range l.Keys() {
		if r := d.reserved[u.Key]; r != nil && r.since <= l.since {
			return // itself, too
		}
	}
	for _, u := range l.Keys() {
		if r := d.reserved[u.Key]; r != nil {
			d.unreserve(r)
		}
	}
	for _, u := range l.Keys() {
		d.reserved[u.Key] = l
	}
}

// startable reports whether the lane's jobs may start once their keys are free: their queue is served and not held, and no
// maximum was lowered under what they take.
func (l *lane) startable() bool {
	q := l.band.queue
	return q.first != nil && !q.held && !slices.ContainsFunc(l.Keys(), func(u store.KeyUse) bool {
		p := u.Key.Limit.Policy
		return p != nil && u.Units > p.MaxOf(u.Key.Name)
	})
}

// dropIdle ends the reservations of lanes that could not use what is free.
func (d *Dispatcher) dropIdle() {
	for _, l := range d.reserved {
		if l.in == &l.band.lanes && !l.startable() {
			d.unreserve(l)
		}
	}
}

// unreserve ends it. Others may take what was kept.
func (d *Dispatcher) unreserve(l *lane) {
	if len(d.reserved) == 0 {
		return
	}
	for _, u := range l.Keys() {
		if d.reserved[u.Key] == l {
			delete(d.reserved, u.Key)
			d.gaveBack([]store.KeyUse{u})
		}
	}
}
