package dispatch

import (
	"container/heap"
	"errors"
	"math"
	"time"

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
	// skipsMax bounds how many heads that are not for the workers at hand (NOT_ME) one match passes in a lane.
	skipsMax = 256
)

// matcher is one match.
type matcher struct {
	d       *Dispatcher
	tx      store.Tx
	now     time.Time
	queues  []*queue // with room, and maybe with ready jobs
	opened  []*queue // those of them that have lanes and are not paused
	lanes   lanes
	changes []store.Change
	claims  int
}

// cursor walks down one lane.
type cursor struct {
	queue   *queue
	lane    store.Lane
	policy  job.Policy
	heads   []*job.Job // what is left of the last chunk
	chunk   int        // the size of the next
	skipped int        // heads that were passed: the next chunk brings them again
	band    int64      // of the first head, with its age
	empty   bool       // the lane has no more heads in reach
}

// lanes is a heap of cursors, the best head first.
type lanes []*cursor

func (l lanes) Len() int { return len(l) }
func (l lanes) Less(i, j int) bool {
	a, b := l[i], l[j]
	if a.band != b.band {
		return a.band > b.band
	}
	return a.heads[0].ReadySeq < b.heads[0].ReadySeq
}
func (l lanes) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l *lanes) Push(c any)   { *l = append(*l, c.(*cursor)) } //nolint:errcheck,forcetypeassert // of container/heap
func (l *lanes) Pop() any {
	old := *l
	c := old[len(old)-1]
	old[len(old)-1] = nil
	*l = old[:len(old)-1]
	return c
}

// Match is part of [store.Observer]: ready jobs meet room.
func (d *Dispatcher) Match(tx store.Tx) error {
	m := matcher{d: d, tx: tx, now: tx.Now()}
	if !m.begin() {
		return nil
	}
	for _, q := range m.queues {
		if err := m.open(q); err != nil {
			return err
		}
	}
	for len(m.lanes) > 0 && m.claims < claimsMax {
		dry := m.assign()
		if err := tx.Put(m.changes...); err != nil {
			return err
		}
		m.changes = m.changes[:0]
		if dry != nil {
			if err := m.refill(dry); err != nil {
				return err
			}
		}
	}
	m.end()
	return nil
}

// begin takes back what a match that was not committed proposed, and tells which queues to look at; false if there are
// none.
func (m *matcher) begin() bool {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.poked = false
	for _, r := range d.proposed {
		if !r.applied {
			d.free(r)
		}
	}
	d.proposed = d.proposed[:0]
	for _, q := range d.active {
		q.active = false
		if q.ready && q.first != nil {
			m.queues = append(m.queues, q)
		} else {
			d.forget(q)
		}
	}
	clear(d.active)
	d.active = d.active[:0]
	return len(m.queues) > 0
}

// open puts the queue's lanes among those to choose from. A queue that is paused is left to the sweep, one that has
// nothing ready to its next ready job.
func (m *matcher) open(q *queue) error {
	known := m.tx.Queue(q.name)
	if known != nil && known.Pause != nil {
		return nil
	}
	var found []store.Lane
	m.tx.Lanes(q.name, func(l store.Lane) { found = append(found, l) })
	if len(found) == 0 {
		m.d.mu.Lock()
		q.ready = false
		m.d.forget(q)
		m.d.mu.Unlock()
		return nil
	}
	q.room = math.MaxUint64
	if known != nil {
		q.room = known.Policy.Room(known.Counts[job.Running], known.Zombies)
	}
	if q.room == 0 {
		return nil // until a run of the queue ends, or its policy changes
	}
	m.opened = append(m.opened, q)
	for _, l := range found {
		c := &cursor{queue: q, lane: l, chunk: chunkMin}
		if known != nil {
			c.policy = known.Policy
		}
		if err := m.fill(c); err != nil {
			return err
		}
		if len(c.heads) > 0 {
			heap.Push(&m.lanes, c)
		}
	}
	return nil
}

// fill brings the lane's next heads.
func (m *matcher) fill(c *cursor) error {
	n := c.skipped + c.chunk
	heads, err := m.tx.Heads(c.lane, n)
	if err != nil {
		return err
	}
	c.empty = len(heads) < n
	c.heads = heads[min(c.skipped, len(heads)):]
	c.chunk = min(8*c.chunk, chunkMax)
	c.rank(m.now)
	return nil
}

// rank is the band of the first head: it rises by one for each aging step that the job has been ready.
func (c *cursor) rank(now time.Time) {
	if len(c.heads) > 0 {
		j := c.heads[0]
		c.band = int64(j.Spec.Priority)/int64(job.VeryLow) + max(0, int64(now.Sub(j.ReadyTime)/job.AgingStep))
	}
}

// refill brings more heads of the lane that ran dry and puts it back in order.
func (m *matcher) refill(c *cursor) error {
	if !c.empty {
		if err := m.fill(c); err != nil {
			return err
		}
	}
	if len(c.heads) > 0 {
		heap.Push(&m.lanes, c)
	}
	return nil
}

// assign gives heads to pools, best first, until a lane has to be refilled or room or heads run out. It returns the
// lane that ran dry, taken from the heap.
func (m *matcher) assign() (dry *cursor) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	for len(m.lanes) > 0 && m.claims < claimsMax {
		c := m.lanes[0]
		j := c.heads[0]
		p := c.queue.pick(j, m.now)
		if c.queue.first == nil || c.queue.room == 0 || c.skipped >= skipsMax {
			heap.Pop(&m.lanes)
			continue
		}
		if p == nil || !m.give(c, j, p) {
			c.skipped++
		}
		if c.heads = c.heads[1:]; len(c.heads) == 0 {
			heap.Pop(&m.lanes)
			return c
		}
		c.rank(m.now)
		heap.Fix(&m.lanes, 0)
	}
	return nil
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
func (m *matcher) give(c *cursor, j *job.Job, p *pool) bool {
	m.claims++
	to := p.to
	to.Fence = m.tx.NextFence()
	to.Lease, to.LostContact = job.LeaseOf(j.Spec, c.policy), c.policy.LostContact
	next, err := j.Dispatch(m.now, to)
	if errors.Is(err, job.ErrStartBy) {
		next, err = j.Wake(m.now)
	} else if err == nil {
		c.queue.room--
		m.d.propose(next, p)
	}
	if err != nil {
		m.d.log.Error("could not dispatch a job", "job", j.Spec.ID.String(), "error", err)
		return false
	}
	m.changes = append(m.changes, store.Change{Old: j, New: next})
	return true
}

// propose counts a run that is not applied yet.
func (d *Dispatcher) propose(j *job.Job, p *pool) {
	r := d.add(&run{
		ref: ref{j.Seq, j.Run.Fence}, queue: j.Spec.Queue, size: uint64(j.Spec.PayloadSize), unary: j.Run.Unary,
		session: p.session, claim: p.claim,
	}, p.worker)
	if p.claim != nil {
		r.size = weight(j) // it has to fit into one answer
	}
	p.take(r)
	d.proposed = append(d.proposed, r)
	if p.session != nil {
		r.demand = p.session.demand
		p.session.outbox = append(p.session.outbox, r)
	}
	p.requeue()
	d.line(p)
}

// end asks for another batch if this one was full, and keeps looking at queues where room and ready jobs are left.
func (m *matcher) end() {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Matched += uint64(m.claims)
	for _, q := range m.opened {
		d.activate(q)
	}
	if m.claims >= claimsMax && len(d.active) > 0 {
		d.poke()
	}
}
