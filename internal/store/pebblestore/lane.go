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
//
// There may be millions of passing lanes, so one is small: a byte for its flags, and no second copy of what its key knows.
type lane struct {
	number   uint64
	tenant   *tenant
	one      [1]store.KeyUse // what its jobs take, if that is of one key
	more     *[]store.KeyUse // if it is of several
	priority job.Priority
	flags    laneFlags
	gone     uint16  // jobs that left it since its segments were trimmed, up to trimAfter
	count    uint32  // READY jobs in the lane
	window   *window // nil: memory holds nothing of it
	pos      uint64  // the first ready sequence that memory does not cover: where a refill goes on
	tail     uint64  // the highest ready sequence the lane ever had
	trimmed  uint64  // places before this one are in segments of their own, or gone
	mark     any
}

type laneFlags uint8

const (
	laneTouched laneFlags = 1 << iota // the batch under construction has something of the lane to write down
	laneMoved                         // the front moved since it was last written down
	laneStored                        // the disk has something of it
	laneDead                          // it ended with its last job
)

func (l *lane) is(f laneFlags) bool { return l.flags&f != 0 }

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

func (l *lane) Queue() string          { return l.tenant.queue.set.Name }
func (l *lane) FairnessKey() string    { return l.tenant.key }
func (l *lane) Priority() job.Priority { return l.priority }
func (l *lane) Len() int               { return int(l.count) }
func (l *lane) First() uint64          { return l.front() }
func (l *lane) Mark() any              { return l.mark }
func (l *lane) SetMark(m any)          { l.mark = m }

func (l *lane) Keys() []store.KeyUse {
	switch {
	case l.more != nil:
		return *l.more
	case l.one[0].Key != nil:
		return l.one[:]
	default:
		return nil
	}
}

// take are its keys for a run, which may outlive it.
func (l *lane) take() []store.KeyUse {
	if l.more != nil {
		return *l.more
	}
	return slices.Clone(l.Keys())
}

// setKeys sets what its jobs take.
func (s *state) setKeys(l *lane, uses []job.LimitUse) {
	switch len(uses) {
	case 0:
	case 1:
		s.keysOf(l.one[:0], uses)
	default:
		keys := s.keysOf(make([]store.KeyUse, 0, len(uses)), uses)
		l.more = &keys
	}
}

// passing reports whether the lane ends when it is empty. There may be any number of those.
func (l *lane) passing() bool { return l.one[0].Key != nil || l.more != nil || l.tenant.key != "" }

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
		l.flags |= laneMoved
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
	l.gone = min(l.gone+1, trimAfter)
	l.flags |= laneMoved
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

// laneOf returns the lane that j waits in, as state has it; nil if there is none.
func (s *state) laneOf(q *queue, j *job.Job) *lane {
	if len(j.Spec.Limits) == 0 && j.Spec.FairnessKey == "" {
		return q.lanes[bandIndex(j.Spec.Priority)]
	}
	var h maphash.Hash
	s.hashLane(&h, j.Spec.Priority, j.Spec.FairnessKey)
	for i := range j.Spec.Limits {
		maphash.WriteComparable(&h, j.Spec.Limits[i])
	}
	return q.passing.find(uint32(h.Sum64()), func(l *lane) bool { return l.isOf(j) })
}

func (s *state) hashLane(h *maphash.Hash, p job.Priority, fairness string) {
	h.SetSeed(s.seed)
	_ = h.WriteByte(byte(p))
	_, _ = h.WriteString(fairness)
}

// hash is the lane's own, by which its queue finds it.
func (s *state) hash(l *lane) uint32 {
	var h maphash.Hash
	s.hashLane(&h, l.priority, l.tenant.key)
	for _, u := range l.Keys() {
		maphash.WriteComparable(&h, job.LimitUse{Limit: u.Key.Limit.Name, Key: u.Key.Name, Units: u.Units})
	}
	return uint32(h.Sum64())
}

// isOf reports whether the jobs of the lane take what j takes.
func (l *lane) isOf(j *job.Job) bool {
	keys, uses := l.Keys(), j.Spec.Limits
	if l.priority != j.Spec.Priority || l.FairnessKey() != j.Spec.FairnessKey || len(keys) != len(uses) {
		return false
	}
	for i, u := range keys {
		if u.Units != uses[i].Units || u.Key.Name != uses[i].Key || u.Key.Limit.Name != uses[i].Limit {
			return false
		}
	}
	return true
}

// makeLane makes the lane that j waits in.
func (s *state) makeLane(q *queue, j *job.Job) *lane {
	l := &lane{number: s.nextLane, tenant: q.tenant(j.Spec.FairnessKey), priority: j.Spec.Priority, pos: s.nextReady, trimmed: s.nextReady}
	s.nextLane++
	s.setKeys(l, j.Spec.Limits)
	s.putLane(l)
	return l
}

// putLane makes l the lane of its jobs.
func (s *state) putLane(l *lane) {
	hold(l.Keys())
	l.tenant.lanes++
	if q := l.tenant.queue; l.passing() {
		q.passing.add(s.hash(l), l)
	} else {
		q.lanes[bandIndex(l.priority)] = l
	}
	if s.cold {
		s.lanes[l.number] = l
	}
}

// settle ends the passing lanes among those that a batch touched, if they have no jobs any more.
func (s *state) settle(touched []*lane) {
	for _, l := range touched {
		if l.is(laneDead) || l.count > 0 || !l.passing() {
			continue
		}
		l.tenant.queue.passing.remove(s.hash(l), l)
		s.endLane(l)
		if s.cold {
			delete(s.lanes, l.number)
		}
	}
}

// endLane lets go of what a lane held, once its queue does not name it any more.
func (s *state) endLane(l *lane) {
	s.letGo(l.Keys())
	l.tenant.leave()
	if l.is(laneStored) {
		s.dead = append(s.dead, l.number)
	}
	l.flags |= laneDead
	delete(s.changed, l)
}

// segmentMax is above the number of entries that one batch can add to a lane.
const segmentMax = 1 << 24

// appendSegment writes the entries as runs of consecutive places and jobs: most batches take a few bytes.
func appendSegment(b []byte, entries []entry) []byte {
	w := writer{b: b}
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
