package dispatch

import (
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// bands is how many priorities there are.
const bands = int(job.VeryHigh) / int(job.VeryLow)

// lane is a lane of the store that has READY jobs. It stands in its band if its jobs may fit, or hangs on a key that has
// no room for them; one whose jobs are all gone stands nowhere. There may be millions.
type lane struct {
	store.Lane
	share  *share // nil: its jobs are all gone
	place  uint64 // of its first job, or less
	in     *party // where it stands; nil: nowhere; alone: it is the only one that hangs on a key
	hook   *hook  // that let it into its band, to be tried
	since  int64  // since when its jobs have been found not to fit; 0: they have not
	at     int32  // in the party
	cursor int32  // its number in the match under way; 0: it has not been looked at
}

// alone is where a lane stands that is the only one that hangs on a key and is that one's mark itself.
var alone = &party{}

// band is where the lane's jobs are to start.
func (l *lane) band() *band { return l.share.queue.band(l.Priority()) }

// band holds the lanes of a queue and priority whose jobs may fit.
type band struct {
	queue *queue
	turns turns

	// Of the match under way.
	rank int64 // of the first job of the first lane, with its age
	at   int   // among the bands to choose from; -1: it is not
	due  bool  // its first lane has to be looked at
}

// hook is where the lanes of a band that take so many units of a full key hang. Once the key has room for them, the
// one whose turn it is stands in its band, and so competes with all others there; the next one follows when that is decided.
type hook struct {
	key   *store.Key
	band  *band
	units uint32
	turns turns
	tried *lane // that stands in its band
	next  *hook // of the same key
}

// entered follows a job that became READY in a lane.
func (d *Dispatcher) entered(s store.Lane, place uint64) {
	l, _ := s.Mark().(*lane)
	if l == nil {
		l = &lane{Lane: s}
		s.SetMark(l)
	}
	if l.share == nil {
		q := d.queue(s.Queue())
		q.lanes++
		l.share, l.place = q.share(s.FairnessKey()), place
		if l.share.lanes++; l.share.lanes == 1 {
			l.share.time = max(l.share.time, q.virtual)
		}
		l.stand(&l.band().turns)
	} else if place < l.place {
		l.moved(place)
	}
	d.activate(l.share.queue)
}

// left follows a job that left a lane.
func (d *Dispatcher) left(s store.Lane) {
	l, _ := s.Mark().(*lane)
	if l == nil || l.share == nil || s.Len() > 0 {
		return
	}
	if l.in == alone {
		l.unhang()
	} else if h := hookOf(l); h != nil {
		l.stand(nil)
		d.freed = append(d.freed, h.key) // another one is its first
		h.tidy()
	}
	l.stand(nil)
	d.decided(l)
	d.unreserve(l)
	l.since = 0
	q := l.share.queue
	q.lanes--
	l.share.lanes--
	l.share.tidy()
	l.share = nil
	d.forget(q)
}

// unhang takes a lane that hangs alone from its key.
func (l *lane) unhang() {
	for _, u := range l.Keys() {
		if u.Key.Mark == l {
			u.Key.Mark = nil
		}
	}
	l.in = nil
}

// hookOf is the hook that the lane hangs on; nil if it hangs alone, stands in its band, or nowhere.
func hookOf(l *lane) *hook {
	if l.in == nil || l.in == alone || l.stands(&l.band().turns) {
		return nil
	}
	for _, u := range l.Keys() {
		for h, _ := u.Key.Mark.(*hook); h != nil; h = h.next {
			if l.stands(&h.turns) {
				return h
			}
		}
	}
	return nil
}

// hang takes a lane that does not fit from its band until its first full key has room.
func (m *matcher) hang(l *lane) {
	if l.since == 0 {
		l.since = m.clock
	}
	m.reserve(l)
	u, full := m.full(l)
	if !full {
		return // what was not free was kept for a younger one
	}
	if u.Key.Mark == nil {
		l.stand(nil)
		l.in, u.Key.Mark = alone, l
		m.d.decided(l)
		return
	}
	if other, ok := u.Key.Mark.(*lane); ok {
		units := other.units(u.Key)
		other.unhang()
		other.stand(&hookFor(u.Key, other, uint32(units)).turns)
	}
	h := hookFor(u.Key, l, u.Units)
	l.stand(&h.turns)
	m.d.decided(l)
	if h.tried != nil {
		h.contend()
		m.d.freed = append(m.d.freed, h.key) // it may be this one's turn
	}
}

// hookFor returns the hook of a key for lanes like this one, making it if there is none.
func hookFor(k *store.Key, l *lane, units uint32) *hook {
	band := l.band()
	first, _ := k.Mark.(*hook)
	for h := first; h != nil; h = h.next {
		if h.band == band && h.units == units {
			return h
		}
	}
	h := &hook{key: k, band: band, units: units, next: first}
	k.Mark = h
	return h
}

// contend has the key of the lane that is tried remember that lanes of others hang there.
func (h *hook) contend() {
	s := h.tried.share
	if len(h.turns) == 0 || len(h.turns) == 1 && h.turns[0].share == s {
		return
	}
	if s.tried == nil {
		s.tried = map[*hook]struct{}{}
	}
	s.tried[h] = struct{}{}
}

// try lets a lane of the hook stand in its band.
func (h *hook) try(l *lane) {
	l.hook, h.tried = h, l
	l.stand(&l.band().turns)
	h.contend()
}

// outrun takes the lane that is tried back if it has become the turn of another one that hangs there.
func (h *hook) outrun() bool {
	l := h.tried
	if len(h.turns) == 0 || compareShares(h.turns[0].share, l.share) >= 0 {
		return false
	}
	h.untry()
	l.stand(&h.turns)
	return true
}

// untry ends a try.
func (h *hook) untry() {
	if s := h.tried.share; s != nil {
		delete(s.tried, h)
	}
	h.tried.hook, h.tried = nil, nil
}

// tidy forgets a hook that nothing hangs on.
func (h *hook) tidy() {
	if len(h.turns) > 0 || h.tried != nil {
		return
	}
	first, _ := h.key.Mark.(*hook)
	if first == h {
		if h.next == nil {
			h.key.Mark = nil
		} else {
			h.key.Mark = h.next
		}
		return
	}
	for o := first; o != nil; o = o.next {
		if o.next == h {
			o.next = h.next
			return
		}
	}
}

// decided ends a lane's try: it got a run, hangs, or is empty. The next one of its hook may be tried.
func (d *Dispatcher) decided(l *lane) {
	if h := l.hook; h != nil {
		h.untry()
		d.freed = append(d.freed, h.key)
		h.tidy()
	}
}

// gaveBack notes that units of the keys were given back. The next match sees to it.
func (d *Dispatcher) gaveBack(keys []store.KeyUse) {
	for _, u := range keys {
		if wakeUps && u.Key.Mark != nil {
			d.freed = append(d.freed, u.Key)
		}
	}
}

// revisit has the match look again at all keys that lanes hang on although something of them is free.
func (m *matcher) revisit() {
	d := m.d
	if !d.revisiting {
		return
	}
	d.revisiting = false
	m.tx.Limits("", func(l *store.Limit) bool {
		m.tx.EachKey(l.Name, func(k *store.Key) {
			if k.Mark != nil && k.Room(0) > 0 {
				d.freed = append(d.freed, k)
			}
		})
		return true
	})
}
