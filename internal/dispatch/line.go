package dispatch

import "github.com/stintrun/stint/internal/job"

// queue is what the dispatcher knows of a queue: who has room for its jobs, and the lanes in which they wait.
type queue struct {
	name        string
	first, last *seat // the pools with room, the one idle longest first
	seats       int   // of all pools that serve it, with room or without
	bands       [bands]*band
	shares      map[string]*share
	virtual     uint64 // the virtual time at which the last turn began
	weights     *job.Weights
	lanes       int     // that have READY jobs
	starts      *starts // of runs; nil: there were none
	active      bool    // it is among those the next match looks at

	policy job.Policy // as the last match found it

	// Of the match under way.
	open bool   // its jobs may be given
	room uint64 // how many more runs it may have
}

// band returns the band of a priority.
func (q *queue) band(p job.Priority) *band {
	i := int(p)/int(job.VeryLow) - 1
	if q.bands[i] == nil {
		q.bands[i] = &band{queue: q, at: -1}
	}
	return q.bands[i]
}

// stands reports whether it has lanes that may have a job that fits.
func (q *queue) stands() bool {
	for _, b := range q.bands {
		if b != nil && len(b.turns) > 0 {
			return true
		}
	}
	return false
}

// seat is a pool's place in the line of one of its queues.
type seat struct {
	pool       *pool
	queue      *queue
	prev, next *seat
}

// pool is room for runs of some queues: a part of a session's demand, or a unary claim.
type pool struct {
	to       job.Dispatch // who its runs go to; the fence and the lease are each run's own
	worker   *worker
	session  *Session // nil: a claim's
	claim    *claim   // nil: a session's
	index    int      // among the session's pools
	seats    []*seat  // one for each queue
	max      int
	maxBytes uint64 // 0: no bound
	inFlight int
	bytes    uint64 // of payload in flight
	lined    bool   // it stands in the lines of its queues
	closed   bool   // it takes nothing any more
}

// room reports whether the pool may get a run. The byte budget is looked at before the pick, so that it is overshot by
// one job at most and no job is too large to come.
func (p *pool) room() bool {
	return !p.closed && p.inFlight < p.max && (p.maxBytes == 0 || p.bytes < p.maxBytes) &&
		!p.worker.draining && (p.session == nil || !p.session.quiet)
}

// take counts a run as in flight.
func (p *pool) take(r *run) {
	r.pool = p
	p.inFlight++
	p.bytes += r.size
}

// give takes a run out of the count.
func (p *pool) give(r *run) {
	r.pool = nil
	p.inFlight--
	p.bytes -= r.size
}

// serves reports whether the pool is for the queue.
func (p *pool) serves(name string) bool {
	for _, s := range p.seats {
		if s.queue.name == name {
			return true
		}
	}
	return false
}

// queue returns the named queue, making it if need be.
func (d *Dispatcher) queue(name string) *queue {
	q := d.queues[name]
	if q == nil {
		q = &queue{name: name}
		d.queues[name] = q
	}
	return q
}

// newPool makes a pool that stands in no line yet.
func (d *Dispatcher) newPool(p pool, names []string) *pool {
	p.seats = make([]*seat, len(names))
	made := &p
	for i, name := range names {
		q := d.queue(name)
		q.seats++
		made.seats[i] = &seat{pool: made, queue: q}
	}
	return made
}

// line puts the pool into its lines if it has room and takes it out if it has none. A pool that had room keeps its
// place.
func (d *Dispatcher) line(p *pool) {
	room := p.room()
	if room == p.lined {
		return
	}
	p.lined = room
	for _, s := range p.seats {
		if room {
			s.queue.push(s)
			d.activate(s.queue)
		} else {
			s.queue.remove(s)
		}
	}
	if room {
		d.waiting++
	} else {
		d.waiting--
	}
}

// close takes a pool out of its lines for good.
func (d *Dispatcher) close(p *pool) {
	if p.closed {
		return
	}
	p.closed = true
	d.line(p)
	for _, s := range p.seats {
		s.queue.seats--
		d.forget(s.queue)
	}
}

// forget drops a queue that nobody serves, that has neither ready jobs nor runs, and of which no run began of late: it comes
// back with the next of these.
func (d *Dispatcher) forget(q *queue) {
	if q.seats == 0 && len(q.shares) == 0 && q.starts == nil && !q.active && d.queues[q.name] == q {
		delete(d.queues, q.name)
	}
}

// requeue moves a pool to the end of its lines: it is no longer the one idle longest.
func (p *pool) requeue() {
	for _, s := range p.seats {
		if s.queue.last != s {
			s.queue.remove(s)
			s.queue.push(s)
		}
	}
}

// activate lets the next match look at the queue, if room and ready jobs may meet there.
func (d *Dispatcher) activate(q *queue) {
	if wakeUps {
		d.visit(q)
	}
}

// visit is activate, by the sweep.
func (d *Dispatcher) visit(q *queue) {
	if !q.active && q.first != nil && q.stands() {
		q.active = true
		d.active = append(d.active, q)
	}
}

func (q *queue) push(s *seat) {
	s.prev, s.next = q.last, nil
	if q.last == nil {
		q.first = s
	} else {
		q.last.next = s
	}
	q.last = s
}

func (q *queue) remove(s *seat) {
	if s.prev == nil {
		q.first = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		q.last = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
}
