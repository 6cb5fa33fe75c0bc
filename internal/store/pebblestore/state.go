package pebblestore

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// state is what the store keeps in memory. It changes only by apply, with the changes of one commit record after the
// other, at run time and when a start replays the log. The committing goroutine is the only writer and reads without
// the lock; it holds mu while it writes, everybody else while they read.
type state struct {
	mu sync.RWMutex

	nextSeq   uint64 // of the next new job
	nextReady uint64 // of the next place in a lane
	nextFence uint64
	nextLane  uint64
	nextQueue uint32
	nextLimit uint32

	live       map[uint64]*job.Job           // the jobs with a live run, by seq
	taken      map[uint64][]store.KeyUse     // what their runs take of limits
	pending    map[uint64]*job.Job           // jobs the engine does not hold yet in this form; nil: deleted
	zombies    map[uint64]*store.Zombie      // by fence
	gates      map[store.GateName]store.Gate // that are not open
	queues     map[string]*queue
	byNum      map[uint32]*queue
	names      []string // of the queues, sorted; deleted ones are left out
	limits     map[string]*limit
	limitByNum map[uint32]*limit
	limitNames []string           // sorted; deleted ones are left out
	lanes      map[uint64]*lane   // by number, during a replay only
	changed    map[*lane]struct{} // lanes that differ from what the directory says of them
	dead       []uint64           // lanes that ended and may have something on disk
	seed       maphash.Seed       // of the hashes of lanes
	buckets    []*bucket          // ascending
	windows    int                // entries in all windows
	horizon    time.Time
	events     eventLog
	cold       bool // a replay is under way: lanes keep no windows
}

func newState() *state {
	return &state{
		nextSeq: 1, nextReady: 1, nextFence: 1, nextLane: 1, nextQueue: 1, nextLimit: 1,
		taken: map[uint64][]store.KeyUse{}, limits: map[string]*limit{}, limitByNum: map[uint32]*limit{},
		lanes: map[uint64]*lane{}, changed: map[*lane]struct{}{}, seed: maphash.MakeSeed(),
		live: map[uint64]*job.Job{}, pending: map[uint64]*job.Job{}, zombies: map[uint64]*store.Zombie{}, gates: map[store.GateName]store.Gate{},
		queues: map[string]*queue{}, byNum: map[uint32]*queue{},
	}
}

// step is a change as memory sees it: what apply needs and a commit record keeps.
type step struct {
	seq      uint64
	queue    uint32
	old, new job.State
	from, to *lane    // that it leaves and enters, if it was, and is, READY
	oldReady uint64   // the place it leaves, if it was READY
	job      *job.Job // the new version; in a replay only of READY (Seq, ReadySeq) and RUNNING ones
}

// apply makes one step.
func (s *state) apply(st step, now time.Time) {
	q := s.byNum[st.queue]
	if st.old != job.StateNone {
		q.counts[st.old]--
	}
	if st.new != job.StateNone {
		q.counts[st.new]++
	}
	s.applyBucket(st, now)
	if st.old == job.Ready {
		s.leave(st.from, st)
		for _, u := range st.from.Keys() {
			u.Key.Waiting--
		}
	}
	switch {
	case st.new == job.Running:
		s.live[st.seq] = st.job
		if st.old == job.Ready && len(st.from.Keys()) > 0 {
			keys := st.from.take()
			take(keys)
			s.taken[st.seq] = keys
		}
	case st.old == job.Running:
		delete(s.live, st.seq)
		if keys := s.taken[st.seq]; keys != nil {
			s.giveBack(keys)
			delete(s.taken, st.seq)
		}
	}
	if st.new == job.Ready {
		s.enter(st.to, st.job)
		for _, u := range st.to.Keys() {
			u.Key.Waiting++
		}
	}
}

func (s *state) enter(l *lane, j *job.Job) {
	if s.cold {
		l.count++
		l.tail = max(l.tail, j.ReadySeq)
		return
	}
	s.windows += l.add(j, l.len() < s.windowCap(l))
}

func (s *state) leave(l *lane, st step) {
	if s.cold {
		l.count--
		return
	}
	s.windows -= l.remove(st.oldReady)
}

func (s *state) windowCap(l *lane) int {
	switch {
	case s.windows <= windowsMax:
		return windowMax
	case l.passing():
		return 0
	default:
		return windowSmall
	}
}

// shrink lets go of what memory need not hold of the lanes.
func (s *state) shrink(lanes []*lane) {
	for _, l := range lanes {
		s.windows -= l.shrink(s.windows > windowsMax)
	}
}

// page is how many jobs of a lane are read at once.
func (s *state) page(l *lane) int { return min(refillPage, s.windowCap(l)) }

func (s *state) applyBucket(st step, now time.Time) {
	b := s.bucket(bucketOf(st.seq))
	b.moves++
	switch {
	case st.old == job.StateNone:
		b.open++
		b.submitted = now
		if b.begun.IsZero() {
			b.begun = now
		}
	case st.old.Terminal() && !st.new.Terminal() && st.new != job.StateNone:
		b.open++
	case !st.old.Terminal() && (st.new.Terminal() || st.new == job.StateNone):
		b.open--
	}
	if st.new.Terminal() {
		b.ended = now
	}
}

// bucket returns the bucket of the number, making it if there is none: buckets are made in ascending order.
func (s *state) bucket(number uint32) *bucket {
	if b := s.findBucket(number); b != nil {
		return b
	}
	b := newBucket(number)
	s.buckets = append(s.buckets, b)
	return b
}

func (s *state) findBucket(number uint32) *bucket {
	if n := len(s.buckets); n > 0 && s.buckets[n-1].number == number {
		return s.buckets[n-1]
	}
	i, ok := slices.BinarySearchFunc(s.buckets, number, func(b *bucket, n uint32) int { return int(int64(b.number) - int64(n)) })
	if !ok {
		return nil
	}
	return s.buckets[i]
}

// candidates appends the numbers of the buckets that may hold the id, newest first.
func (s *state) candidates(to []uint32, id job.ID) []uint32 {
	for _, b := range slices.Backward(s.buckets) {
		if b.mayHold(id) {
			to = append(to, b.number)
		}
	}
	return to
}

// putQueue makes next the queue of its name, or takes it from sight if it is deleted. The queue itself stays: lanes know it.
func (s *state) putQueue(next *queue) {
	q := s.queues[next.set.Name]
	if q == nil {
		q = &queue{number: next.number}
		s.queues[next.set.Name], s.byNum[q.number] = q, q
		s.nextQueue = max(s.nextQueue, q.number+1)
	}
	q.set, q.deleted = next.set, next.deleted
	i, ok := slices.BinarySearch(s.names, q.set.Name)
	switch {
	case q.deleted && ok:
		s.names = slices.Delete(s.names, i, i+1)
	case !q.deleted && !ok:
		s.names = slices.Insert(s.names, i, q.set.Name)
	}
}

func (s *state) queueName(number uint32) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if q := s.byNum[number]; q != nil {
		return q.set.Name
	}
	return ""
}
