package pebblestore

import (
	"slices"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// bands are the priorities in the order in which lanes are looked at.
var bands = [...]job.Priority{job.VeryHigh, job.High, job.Normal, job.Low, job.VeryLow}

func bandIndex(p job.Priority) int { return len(bands) - int(p)/10 }

// knownBand reports whether a record's priority is a band.
func knownBand(p job.Priority) bool { return slices.Contains(bands[:], p) }

// queue is a queue in memory. Its number stands for its name in every record and is never given to another name.
type queue struct {
	number  uint32
	set     store.Queue // the settings; Counts and Zombies stay zero here
	deleted bool        // it is kept for the finished jobs that name it
	counts  [job.NumberOfStates]uint64
	zombies uint64
	plain   tenant             // of jobs without a fairness key
	tenants map[string]*tenant // the others that have lanes
	lanes   [len(bands)]*lane  // that do not pass; nil until first used
	passing table[lane]        // the others
}

// tenant is whose turns the jobs of lanes take: a fairness key of a queue.
type tenant struct {
	queue *queue
	key   string
	lanes int
}

// tenant returns the queue's tenant of the fairness key. A lane that is put keeps it.
func (q *queue) tenant(key string) *tenant {
	if key == "" {
		q.plain.queue = q
		return &q.plain
	}
	t := q.tenants[key]
	if t == nil {
		t = &tenant{queue: q, key: key}
		if q.tenants == nil {
			q.tenants = map[string]*tenant{}
		}
		q.tenants[key] = t
	}
	return t
}

// leave counts a lane less; the last one's tenant is forgotten.
func (t *tenant) leave() {
	if t.lanes--; t.lanes == 0 && t.key != "" {
		delete(t.queue.tenants, t.key)
	}
}

// eachLane calls fn for each lane.
func (q *queue) eachLane(fn func(*lane)) {
	for _, l := range q.lanes {
		if l != nil {
			fn(l)
		}
	}
	q.passing.each(fn)
}

// shown is the queue as readers see it.
func (q *queue) shown() *store.Queue {
	s := q.set
	s.Counts, s.Zombies = q.counts, q.zombies
	return &s
}

// unfinished is how many jobs of the queue are not terminal.
func (q *queue) unfinished() (n uint64) {
	for s, c := range q.counts {
		if !job.State(s).Terminal() {
			n += c
		}
	}
	return n
}

func (q *queue) empty() bool { return q.counts == [job.NumberOfStates]uint64{} && q.zombies == 0 }

func (q *queue) record() []byte {
	w := writer{}
	w.str(1, q.set.Name)
	w.uint(2, q.set.Version)
	w.time(3, q.set.CreateTime, 0)
	w.duration(4, q.set.Policy.Lease)
	w.message(5, func(w *writer) { writeRetry(w, &q.set.Policy.Retry) })
	if p := q.set.Pause; p != nil {
		w.message(6, func(w *writer) {
			w.str(1, p.Reason)
			w.str(2, p.Requester)
			w.time(3, p.Time, 0)
		})
	}
	w.flag(7, q.deleted)
	w.uint(8, uint64(q.set.Policy.LostContact))
	w.uint(9, uint64(q.set.Policy.MaxRunning))
	w.uint(10, uint64(q.set.Policy.OnZombie))
	w.message(12, func(w *writer) { writeRate(w, q.set.Policy.Rate) })
	w.message(13, func(w *writer) { writeBreaker(w, q.set.Policy.Breaker) })
	for _, k := range q.set.Policy.Weights.All() {
		w.message(11, func(w *writer) {
			w.str(1, k.Key)
			w.uint(2, uint64(k.Weight))
		})
	}
	return w.b
}

func readQueue(number uint32, b []byte) (*queue, error) {
	q := &queue{number: number}
	var weights []job.KeyWeight
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			q.set.Name = string(r.raw)
		case 2:
			q.set.Version = r.v
		case 3:
			q.set.CreateTime = r.time(0)
		case 4:
			q.set.Policy.Lease = r.duration()
		case 5:
			if err := readRetry(&q.set.Policy.Retry, r.raw); err != nil {
				return nil, err
			}
		case 6:
			p, err := readPause(r.raw)
			if err != nil {
				return nil, err
			}
			q.set.Pause = p
		case 7:
			q.deleted = r.v != 0
		case 8:
			q.set.Policy.LostContact = job.LostContact(r.v)
		case 9:
			q.set.Policy.MaxRunning = uint32(r.v)
		case 10:
			q.set.Policy.OnZombie = job.OnZombie(r.v)
		case 11:
			k, err := readWeight(r.raw)
			if err != nil {
				return nil, err
			}
			weights = append(weights, k)
		default:
			if err := readGating(&q.set.Policy.Rate, &q.set.Policy.Breaker, &r, 12, 13); err != nil {
				return nil, err
			}
		}
	}
	q.set.Policy.Weights = job.NewWeights(weights)
	return q, r.err
}

func readWeight(b []byte) (job.KeyWeight, error) {
	var k job.KeyWeight
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			k.Key = string(r.raw)
		case 2:
			k.Weight = uint32(r.v)
		}
	}
	return k, r.err
}

func readPause(b []byte) (*store.Pause, error) {
	p := &store.Pause{}
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			p.Reason = string(r.raw)
		case 2:
			p.Requester = string(r.raw)
		case 3:
			p.Time = r.time(0)
		}
	}
	return p, r.err
}
