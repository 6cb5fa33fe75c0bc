package pebblestore

import (
	"cmp"
	"hash/maphash"
	"slices"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Windows are bounded one by one; while all of them together hold more than windowsMax jobs, each is kept small, and
// those of lanes with keys, of which there may be any number, empty. They are variables only for tests, which make rare
// paths frequent.
var (
	windowMax      = 4096
	windowSmall    = 64
	windowsMax     = 64 << 10
	refillPage     = 1024 // jobs read at once
	windowCompacts = 1024 // dead entries before a window is moved together
)

// lane is a line of READY jobs, in the order of their ready sequences. All of it is on disk, in segments from front on;
// memory holds a window of its front, and the jobs that came back to it. One of jobs that take something or have a fairness
// key is a passing lane: it lives while it has jobs, and its number is never used again.
type lane struct {
	number   uint64
	queue    *queue
	keys     []store.KeyUse
	priority job.Priority
	fairness string
	touched  bool    // the batch under construction has something of the lane to write down
	moved    bool    // the front moved since it was last written down
	listed   bool    // the directory on disk has it
	dead     bool    // it ended with its last job
	written  bool    // it has had segments
	gone     int     // jobs that left it since its segments were trimmed
	window   *window // nil: memory holds nothing of it
	pos      uint64  // the first ready sequence that memory does not cover: where a refill goes on
	tail     uint64  // the highest ready sequence the lane ever had
	trimmed  uint64  // places before this one are in segments of their own, or gone
	count    int     // READY jobs in the lane
	hash     uint64  // of what its jobs take
	next     *lane   // another one of the queue with the same hash
	mark     any
}

// window is what memory holds of a lane.
type window struct {
	entries []entry // ascending; entries[:first] is gone
	first   int
	back    []entry // jobs that came back undelivered, to places before pos, ascending
	batch   []entry // what the batch under construction adds at the end, for its segment
	again   []entry // what it adds to back and may not be in a segment
}

// entry is a place in a lane. A nil job is one that left.
type entry struct {
	ready uint64
	seq   uint64
	job   *job.Job
}

// The methods of a store.Lane.

func (l *lane) Queue() string          { return l.queue.set.Name }
func (l *lane) Priority() job.Priority { return l.priority }
func (l *lane) FairnessKey() string    { return l.fairness }
func (l *lane) Keys() []store.KeyUse   { return l.keys }
func (l *lane) Len() int               { return l.count }
func (l *lane) First() uint64          { return l.front() }
func (l *lane) Mark() any              { return l.mark }
func (l *lane) SetMark(m any)          { l.mark = m }

// passing reports whether the lane ends when it is empty. There may be any number of those.
func (l *lane) passing() bool { return len(l.keys) > 0 || l.fairness != "" }

func (l *lane) len() int {
	if l.window == nil {
		return 0
	}
	return len(l.window.entries) - l.window.first + len(l.window.back)
}

// spilled reports whether the lane has entries that are on disk only.
func (l *lane) spilled() bool { return l.pos <= l.tail }

// front is the first ready sequence that a restart has to look at.
func (l *lane) front() uint64 {
	f, w := l.pos, l.window
	if w == nil {
		return f
	}
	if w.first < len(w.entries) {
		f = w.entries[w.first].ready
	}
	if len(w.back) > 0 {
		f = min(f, w.back[0].ready)
	}
	return f
}

// add puts a READY job in its place and returns by how many entries memory grew; keep says whether the window may.
func (l *lane) add(j *job.Job, keep bool) (grown int) {
	l.count++
	if l.window == nil {
		l.window = &window{}
	}
	w := l.window
	e := entry{ready: j.ReadySeq, seq: j.Seq, job: j}
	if e.ready < l.trimmed {
		// What else a segment holds below trimmed has left or is in one of its own, so the places still ascend.
		w.again = append(w.again, e)
	} else if e.ready >= l.pos && e.ready <= l.tail {
		return 0 // its place is on disk, where a refill will come by
	}
	if e.ready < l.trimmed || e.ready <= l.tail {
		i, _ := slices.BinarySearchFunc(w.back, e, byReady)
		w.back = slices.Insert(w.back, i, e)
		l.tail = max(l.tail, e.ready)
		l.moved = true
		return 1
	}
	w.batch = append(w.batch, e)
	if keep && !l.spilled() {
		w.entries = append(w.entries, e)
		l.tail, l.pos = j.ReadySeq, j.ReadySeq+1
		return 1
	}
	if !l.spilled() {
		l.pos = j.ReadySeq
	}
	l.tail = j.ReadySeq
	return 0
}

// remove takes a job out and returns by how many entries memory shrank.
func (l *lane) remove(ready uint64) (shrunk int) {
	l.count--
	l.gone++
	l.moved = true
	w := l.window
	if w == nil {
		return 0
	}
	e := entry{ready: ready}
	if i, ok := slices.BinarySearchFunc(w.back, e, byReady); ok {
		w.back = slices.Delete(w.back, i, i+1)
		return 1
	}
	i, ok := slices.BinarySearchFunc(w.entries[w.first:], e, byReady)
	if !ok {
		return 0 // beyond the window: a refill finds that its record moved on
	}
	w.entries[w.first+i].job = nil
	for w.first < len(w.entries) && w.entries[w.first].job == nil {
		w.first++
		shrunk++
	}
	if w.first == len(w.entries) {
		w.entries, w.first = w.entries[:0], 0
	} else if w.first >= windowCompacts && w.first > len(w.entries)/2 {
		n := copy(w.entries, w.entries[w.first:])
		clear(w.entries[n:])
		w.entries, w.first = w.entries[:n], 0
	}
	return shrunk
}

func byReady(a, b entry) int { return cmp.Compare(a.ready, b.ready) }

// heads appends the first n jobs of the lane that skip does not name, as far as memory holds them.
func (l *lane) heads(to []*job.Job, n int, skip func(*job.Job) bool) []*job.Job {
	w := l.window
	if w == nil {
		return to
	}
	back, entries := w.back, w.entries[w.first:]
	for n > 0 && len(back)+len(entries) > 0 {
		var e entry
		if len(entries) == 0 || len(back) > 0 && back[0].ready < entries[0].ready {
			e = back[0]
			if e.ready >= l.pos && l.spilled() {
				break // what is on disk only may stand before it
			}
			back = back[1:]
		} else {
			e, entries = entries[0], entries[1:]
		}
		if e.job != nil && !skip(e.job) {
			to = append(to, e.job)
			n--
		}
	}
	return to
}

// comesBack reports whether the place is among those that came back to the lane.
func (l *lane) comesBack(ready uint64) bool {
	if l.window == nil {
		return false
	}
	_, ok := slices.BinarySearchFunc(l.window.back, entry{ready: ready}, byReady)
	return ok
}

// shrink lets go of what memory need not hold between batches of a passing lane: its
// window if that is empty, and what of it is on disk too while all windows together are over their bound. It returns by
// how many entries memory shrank.
func (l *lane) shrink(over bool) (shrunk int) {
	w := l.window
	if w == nil || !l.passing() {
		return 0
	}
	if shrunk = len(w.entries) - w.first; over && shrunk > 0 {
		l.pos = w.entries[w.first].ready
		w.entries, w.first = nil, 0
	} else {
		shrunk = 0
	}
	if l.len() == 0 {
		l.window = nil
	}
	return shrunk
}

// laneOf returns the lane that j waits in, as state has it; nil if there is none. It tells the hash of a passing one.
func (s *state) laneOf(q *queue, j *job.Job) (l *lane, hash uint64) {
	if len(j.Spec.Limits) == 0 && j.Spec.FairnessKey == "" {
		return q.lanes[bandIndex(j.Spec.Priority)], 0
	}
	hash = s.hashOf(j.Spec.Priority, j.Spec.FairnessKey, j.Spec.Limits)
	l = q.passing[hash]
	for l != nil && !l.isOf(j) {
		l = l.next
	}
	return l, hash
}

func (s *state) hashOf(p job.Priority, fairness string, uses []job.LimitUse) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_ = h.WriteByte(byte(p))
	maphash.WriteComparable(&h, fairness)
	for i := range uses {
		maphash.WriteComparable(&h, uses[i])
	}
	return h.Sum64()
}

// isOf reports whether the jobs of the lane take what j takes.
func (l *lane) isOf(j *job.Job) bool {
	uses := j.Spec.Limits
	if l.priority != j.Spec.Priority || l.fairness != j.Spec.FairnessKey || len(l.keys) != len(uses) {
		return false
	}
	for i, u := range l.keys {
		if u.Units != uses[i].Units || u.Key.Name != uses[i].Key || u.Key.Limit.Name != uses[i].Limit {
			return false
		}
	}
	return true
}

// makeLane makes the lane that j waits in.
func (s *state) makeLane(q *queue, j *job.Job, hash uint64) *lane {
	l := &lane{number: s.nextLane, queue: q, priority: j.Spec.Priority, fairness: j.Spec.FairnessKey, hash: hash, pos: s.nextReady, trimmed: s.nextReady}
	s.nextLane++
	if len(j.Spec.Limits) > 0 {
		l.keys = s.keysOf(make([]store.KeyUse, 0, len(j.Spec.Limits)), j.Spec.Limits)
	}
	s.putLane(l)
	return l
}

// putLane makes l the lane of its jobs.
func (s *state) putLane(l *lane) {
	hold(l.keys)
	if !l.passing() {
		l.queue.lanes[bandIndex(l.priority)] = l
	} else {
		if l.queue.passing == nil {
			l.queue.passing = map[uint64]*lane{}
		}
		l.next = l.queue.passing[l.hash]
		l.queue.passing[l.hash] = l
	}
	if s.cold {
		s.lanes[l.number] = l
	}
}

// settle ends the passing lanes among those that a batch touched, if they have no jobs any more.
func (s *state) settle(touched []*lane) {
	for _, l := range touched {
		if l.dead || l.count > 0 || !l.passing() {
			continue
		}
		switch first := l.queue.passing[l.hash]; {
		case first != l:
			for first.next != l {
				first = first.next
			}
			first.next = l.next
		case l.next != nil:
			l.queue.passing[l.hash] = l.next
		default:
			delete(l.queue.passing, l.hash)
		}
		s.letGo(l.keys)
		if s.cold {
			delete(s.lanes, l.number)
		}
		if l.listed || l.written {
			s.dead = append(s.dead, l.number)
		}
		l.dead = true
		delete(s.changed, l)
	}
}

// segmentMax is above the number of entries that one batch can add to a lane.
const segmentMax = 1 << 24

// appendSegment writes the entries as runs of consecutive places and jobs: most batches take a few bytes.
func appendSegment(b []byte, entries []entry) []byte {
	w := writer{b}
	for i := 0; i < len(entries); {
		n := 1
		for i+n < len(entries) && entries[i+n].ready == entries[i].ready+uint64(n) && entries[i+n].seq == entries[i].seq+uint64(n) {
			n++
		}
		w.message(1, func(w *writer) {
			w.uint(1, entries[i].ready)
			w.uint(2, entries[i].seq)
			w.uint(3, uint64(n))
		})
		i += n
	}
	return w.b
}

// readSegment calls fn for each entry until it returns false.
func readSegment(b []byte, fn func(entry) bool) error {
	r := reader{rest: b}
	for r.next() {
		var start entry
		var n uint64
		run := reader{rest: r.raw}
		for run.next() {
			switch run.field {
			case 1:
				start.ready = run.v
			case 2:
				start.seq = run.v
			case 3:
				n = run.v
			}
		}
		if run.err != nil || n > segmentMax {
			return errRecord
		}
		for i := range n {
			if !fn(entry{ready: start.ready + i, seq: start.seq + i}) {
				return nil
			}
		}
	}
	return r.err
}
