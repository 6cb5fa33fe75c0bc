package dispatch

import (
	"container/heap"
	"errors"
	"math"
	"time"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

const (
	// claimsMax bounds the claims of one batch, so that a batch stays short; the rest is for the next one.
	claimsMax = 4096
	// chunkMin and chunkMax are how many heads of a lane are asked for at first and at most: a match mostly has few
	// slots to fill, and now and then thousands.
	chunkMin = 64
	chunkMax = claimsMax
	// chunkKeyed is chunkMin for a lane with keys: there may be many, of few jobs each.
	chunkKeyed = 8
	// skipsMax bounds how many heads that are not for the workers at hand (NOT_ME) one match passes in a lane.
	skipsMax = 256
)

// matcher is one match.
type matcher struct {
	d       *Dispatcher
	tx      store.Tx
	now     time.Time
	clock   int64    // the dispatcher's own
	queues  []*queue // with room, and maybe with ready jobs
	opened  []*queue // those of them that are not paused and have room for more runs
	due     []*band  // whose first lane has to be looked at
	order   order
	looked  []cursor // of the lanes that it looks at
	changes []store.Change
	claims  int
	failed  bool
	wrote   []*gate
	noted   []event.Event
}

// cursor walks down one lane.
type cursor struct {
	lane    *lane
	heads   []*job.Job // what is left of the last chunk
	chunk   int        // the size of the next
	skipped int        // heads that were passed: the next chunk brings them again
	empty   bool       // the lane has no more heads in reach
}

// order is a heap of bands, the best head first.
type order []*band

func (o order) Len() int { return len(o) }
func (o order) Less(i, j int) bool {
	a, b := o[i], o[j]
	if a.rank != b.rank {
		return a.rank > b.rank
	}
	return a.turns.first().place < b.turns.first().place
}

func (o order) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].at, o[j].at = i, j
}

func (o *order) Push(x any) {
	b := x.(*band) //nolint:errcheck,forcetypeassert // of container/heap
	b.at = len(*o)
	*o = append(*o, b)
}

func (o *order) Pop() any {
	old := *o
	b := old[len(old)-1]
	b.at = -1
	old[len(old)-1] = nil
	*o = old[:len(old)-1]
	return b
}

// Match is part of [store.Observer]: ready jobs meet room.
func (d *Dispatcher) Match(tx store.Tx) error {
	m := matcher{d: d, tx: tx, now: tx.Now(), clock: d.now(), looked: d.looked}
	m.writeGates()
	m.writeNotes()
	err := m.match()
	if err != nil {
		m.unwriteGates()
		m.unwriteNotes()
	}
	return err
}

func (m *matcher) match() error {
	if !m.begin() {
		return nil
	}
	m.failed = true
	defer m.end()
	for _, q := range m.queues {
		m.open(q)
	}
	for m.claims < claimsMax {
		short := m.assign()
		if err := m.tx.Put(m.changes...); err != nil {
			return err
		}
		m.changes = m.changes[:0]
		if short == nil {
			break
		}
		if err := m.fill(short); err != nil {
			return err
		}
	}
	m.failed = false
	return nil
}

// begin takes back what a match that was not committed proposed, and tells which queues to look at; false if there are
// none.
func (m *matcher) begin() bool {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.poked = false
	d.takeBack()
	m.loosen()
	m.revisit()
	m.review()
	m.tryFreed()
	for _, q := range d.active {
		q.active = false
		if q.stands() && q.first != nil {
			m.queues = append(m.queues, q)
		} else {
			d.forget(q)
		}
	}
	clear(d.active)
	d.active = d.active[:0]
	return len(m.queues) > 0
}

// takeBack forgets what was proposed and not committed.
func (d *Dispatcher) takeBack() {
	for _, r := range d.proposed {
		if !r.applied {
			d.free(r)
			d.unprobe(r.fence)
		}
	}
	d.proposed = d.proposed[:0]
}

// loosen follows changes of policies: lanes that hang on keys of such limits are looked at.
func (m *matcher) loosen() {
	d := m.d
	for name := range d.loosened {
		m.tx.EachKey(name, func(k *store.Key) { d.gaveBack([]store.KeyUse{{Key: k}}) })
		r := rates{}
		if l := m.tx.Limit(name); l != nil {
			r = rates{l.Policy.Rate, l.Policy.Rates}
		}
		d.rated(store.GateName{Limit: name}, r)
	}
	for name := range d.rewritten {
		r := rates{}
		known := m.tx.Queue(name)
		if known != nil {
			r.all = known.Policy.Rate
		}
		d.rated(store.GateName{Name: name}, r)
		if q := d.queues[name]; q != nil && known != nil {
			q.policy = known.Policy
		}
	}
	clear(d.rewritten)
	if len(d.loosened) == 0 {
		return
	}
	for of, g := range d.gates.all {
		if _, changed := d.loosened[of.Limit]; !changed || g.Open() {
			continue
		}
		l := m.tx.Limit(of.Limit)
		if l == nil || l.Policy.Breaker.Failures == 0 {
			d.reset(g)
		}
		if l == nil {
			d.unthrottle(g)
		}
	}
	clear(d.loosened)
}

// open puts the queue's bands among those to choose from. A queue that is paused is left to the sweep.
func (m *matcher) open(q *queue) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if !m.admit(q) {
		return
	}
	for _, b := range q.bands {
		if b != nil {
			m.look(b)
		}
	}
}

// admit opens the queue, with room for as many runs as it may have more; false if it may have none: until it is resumed, a
// run of it ends, its policy changes, or its gate opens. The caller holds the mutex.
func (m *matcher) admit(q *queue) bool {
	known := m.tx.Queue(q.name)
	if known != nil && known.Policy.Weights != q.weights {
		q.reweigh(known.Policy.Weights)
	}
	if known != nil && known.Pause != nil {
		return false
	}
	q.room, q.policy = math.MaxUint64, job.Policy{}
	if known != nil {
		q.room, q.policy = known.Policy.Room(known.Counts[job.Running], known.Zombies), known.Policy
	}
	q.room = min(q.room, m.entrance(q, q.policy))
	if q.room == 0 {
		return false
	}
	q.open = true
	m.opened = append(m.opened, q)
	return true
}

// look has the band's first lane looked at, if the band takes part.
func (m *matcher) look(b *band) {
	if b.at >= 0 {
		heap.Remove(&m.order, b.at)
	}
	if b.queue.open && !b.due {
		b.due = true
		m.due = append(m.due, b)
	}
}

// tryFreed lets the first lane of each hook of the keys that were given back stand in its band, if its jobs fit.
func (m *matcher) tryFreed() {
	d := m.d
	for len(d.freed) > 0 {
		k := d.freed[len(d.freed)-1]
		d.freed[len(d.freed)-1] = nil
		d.freed = d.freed[:len(d.freed)-1]
		if l, ok := k.Mark.(*lane); ok {
			m.tryAlone(l, k)
		}
		for h, _ := k.Mark.(*hook); h != nil; h = h.next {
			if h.tried != nil {
				band := h.band
				if !h.outrun() {
					continue
				}
				m.look(band)
			}
			if len(h.turns) == 0 {
				continue
			}
			l := h.turns.first()
			if r := d.reserved[k]; r != nil && r.lane.stands(&h.turns) {
				l = r.lane // out of turn
			}
			if !m.fits(l, store.KeyUse{Key: k, Units: h.units}) {
				m.reserve(l)
				continue
			}
			h.try(l)
			m.look(h.band)
			d.activate(h.band.queue)
		}
	}
}

// tryAlone lets the only lane that hangs on a key stand in its band, if its jobs fit.
func (m *matcher) tryAlone(l *lane, k *store.Key) {
	if !m.fits(l, store.KeyUse{Key: k, Units: uint32(l.units(k))}) {
		m.reserve(l)
		return
	}
	l.unhang()
	b := l.band()
	l.stand(&b.turns)
	m.look(b)
	m.d.activate(b.queue)
}

// fill brings the lane's next heads.
func (m *matcher) fill(l *lane) error {
	c := m.cursor(l)
	n := c.skipped + c.chunk
	heads, err := m.tx.Heads(l.Lane, n)
	if err != nil {
		return err
	}
	c.empty = len(heads) < n
	c.heads = heads[min(c.skipped, len(heads)):]
	c.chunk = min(8*c.chunk, chunkMax)
	return nil
}

// settle finds the first lane of the band that has a job that fits, and puts the band among those to choose from. If it
// needs to see heads of a lane for that, it returns the lane.
func (m *matcher) settle(b *band) (short *lane) {
	for len(b.turns) > 0 {
		l := b.turns.first()
		if _, full := m.full(l); full {
			m.hang(l)
			continue
		}
		c := m.cursor(l)
		if c == nil {
			chunk := chunkMin
			if len(l.Keys()) > 0 {
				chunk = chunkKeyed
			}
			m.looked = append(m.looked, cursor{lane: l, chunk: chunk})
			l.cursor = int32(len(m.looked))
			c = m.cursor(l)
		}
		switch {
		case len(c.heads) == 0 && !c.empty && c.skipped < skipsMax:
			return l
		case len(c.heads) == 0 || c.skipped >= skipsMax:
			l.stand(nil) // until the end of the match
			m.d.decided(l)
		case c.heads[0].ReadySeq != l.place:
			l.moved(c.heads[0].ReadySeq)
		default:
			j := c.heads[0]
			b.rank = int64(j.Spec.Priority)/int64(job.VeryLow) + max(0, int64(m.now.Sub(j.ReadyTime)/job.AgingStep))
			heap.Push(&m.order, b)
			return nil
		}
	}
	return nil
}

// cursor returns the lane's cursor, valid until another lane gets one; nil if it has none.
func (m *matcher) cursor(l *lane) *cursor {
	if l.cursor == 0 {
		return nil
	}
	return &m.looked[l.cursor-1]
}

// full tells the first of the lane's keys that has no room for a job; false if all have.
func (m *matcher) full(l *lane) (store.KeyUse, bool) {
	for _, u := range l.Keys() {
		if !m.fits(l, u) {
			return u, true
		}
	}
	return store.KeyUse{}, false
}

// assign gives heads to pools, best first, until it needs to see more of a lane, which it returns, or until room or
// heads run out.
func (m *matcher) assign() (short *lane) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	for m.claims < claimsMax {
		m.tryFreed()
		for n := len(m.due); n > 0; n = len(m.due) {
			b := m.due[n-1]
			if short := m.settle(b); short != nil {
				return short
			}
			b.due = false
			m.due = m.due[:n-1]
			m.tryFreed()
		}
		if len(m.order) == 0 {
			return nil
		}
		b := m.order[0]
		if b.queue.first == nil || b.queue.room == 0 {
			heap.Pop(&m.order)
			continue
		}
		l := b.turns.first()
		c := m.cursor(l)
		if _, full := m.full(l); full || c == nil || len(c.heads) == 0 || c.heads[0].ReadySeq != l.place {
			m.look(b) // what it was ranked by is no longer so
			continue
		}
		j := c.heads[0]
		c.heads = c.heads[1:]
		if p := b.queue.pick(j, m.now); p == nil || !m.give(l, j, p) {
			c.skipped++
		}
		if len(c.heads) > 0 {
			l.moved(c.heads[0].ReadySeq)
		}
		m.turned(l)
		m.look(b)
	}
	return nil
}

// turned has looked at what may be the turn of others now that the lane's fairness key took one: the bands of its queue, and
// the hooks that let one of its lanes be tried.
func (m *matcher) turned(l *lane) {
	for h := range l.share.tried {
		m.d.freed = append(m.d.freed, h.key)
	}
	for _, b := range l.share.queue.bands {
		if b != nil && b.at >= 0 && len(b.turns) > 1 {
			m.look(b)
		}
	}
}

// pick is the pool that gets the job: of those with room the one idle longest, but not one of an instance that does not
// want it.
func (q *queue) pick(j *job.Job, now time.Time) *pool {
	avoid := !j.AvoidUntil.IsZero() && now.Before(j.AvoidUntil)
	for s := q.first; s != nil; s = s.next {
		if !avoid || s.pool.to.Instance != j.Avoid {
			return s.pool
		}
	}
	return nil
}

// give makes the run that hands the job to the pool; a job whose start_by has passed expires instead. It returns false
// if neither is possible, which only a bug can cause: that job must not stand in the way of the others.
func (m *matcher) give(l *lane, j *job.Job, p *pool) bool {
	m.claims++
	q := l.share.queue
	to := p.to
	to.Fence = m.tx.NextFence()
	to.Lease, to.LostContact = job.LeaseOf(j.Spec, q.policy), q.policy.LostContact
	next, err := j.Dispatch(m.now, to)
	if errors.Is(err, job.ErrStartBy) {
		next, err = j.Wake(m.now)
	} else if err == nil {
		if q.starts == nil {
			q.starts = &starts{}
		}
		q.starts.count(m.now)
		m.take(l, to.Fence)
		m.d.propose(next, p, l.share)
	}
	if err != nil {
		m.d.log.Error("could not dispatch a job", "job", j.Spec.ID.String(), "error", err)
		return false
	}
	m.changes = append(m.changes, store.Change{Old: j, New: next})
	return true
}

// take counts what a run of the lane takes.
func (m *matcher) take(l *lane, fence uint64) {
	q := l.share.queue
	q.room--
	m.pass(store.GateName{Name: q.name}, q.policy.Rate, 1, fence)
	for _, u := range l.Keys() {
		if m.d.gated(u.Key) {
			m.pass(gateOf(u.Key), rateOf(u.Key), uint64(u.Units), fence)
		}
		m.d.given[u.Key] += uint64(u.Units)
	}
	m.d.decided(l)
	m.d.unreserve(l)
	l.since = 0
}

// propose counts a run that is not applied yet.
func (d *Dispatcher) propose(j *job.Job, p *pool, s *share) {
	r := d.add(&run{
		ref: ref{j.Seq, j.Run.Fence}, queue: j.Spec.Queue, size: uint64(j.Spec.PayloadSize), unary: j.Run.Unary,
		session: p.session, claim: p.claim,
	}, p.worker)
	if p.claim != nil {
		r.size = weight(j) // it has to fit into one answer
	}
	p.take(r)
	r.share = s
	s.turn()
	d.proposed = append(d.proposed, r)
	if p.session != nil {
		r.demand = p.session.demand
		p.session.outbox = append(p.session.outbox, r)
	}
	p.requeue()
	d.line(p)
}

// end puts the lanes that it looked at back where they stood, asks for another batch if this one was full, and keeps
// looking at queues where room and ready jobs are left.
func (m *matcher) end() {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Matched += uint64(m.claims)
	for _, b := range m.order {
		b.at = -1
	}
	for _, b := range m.due {
		b.due = false
	}
	stray := len(d.active) > 0 // queues that this match did not open
	for _, c := range m.looked {
		l := c.lane
		if l.cursor = 0; l.share == nil {
			continue
		}
		if c.skipped > 0 || m.failed {
			l.moved(min(l.place, l.First())) // what was passed stands before what was looked at last
		}
		if l.in == nil {
			l.stand(&l.band().turns)
		}
	}
	clear(m.looked)
	d.looked = m.looked[:0]
	if m.failed { // what its runs would have taken is free
		for k := range d.given {
			d.gaveBack([]store.KeyUse{{Key: k}})
		}
	}
	clear(d.given)
	for _, q := range m.opened {
		q.open = false
		if q.room == 0 {
			m.entrance(q, q.policy)
		}
		d.activate(q)
	}
	if !m.failed && (m.claims >= claimsMax && len(d.active) > 0 || stray || len(d.freed) > 0) {
		d.poke() // what failed is for the sweep
	}
}
