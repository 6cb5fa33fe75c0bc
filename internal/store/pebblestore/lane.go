package pebblestore

import (
	"slices"

	"github.com/stintrun/stint/internal/job"
)

// laneID names a lane in keys and records.
type laneID struct {
	queue    uint32
	priority job.Priority
}

// Windows are bounded one by one; while all of them together hold more than windowsMax jobs, each is kept small. They
// are variables only for tests, which make rare paths frequent.
var (
	windowMax      = 4096
	windowSmall    = 64
	windowsMax     = 128 << 10
	refillPage     = 1024 // jobs read at once
	windowCompacts = 1024 // dead entries before a window is moved together
)

// lane is a line of READY jobs, in the order of their ready sequences. All of it is on disk, in segments from front on;
// memory holds a window of its front, and the jobs that came back to it.
type lane struct {
	id      laneID
	window  []entry // ascending; window[:first] is gone
	first   int
	back    []entry // jobs that came back undelivered, to places before pos, ascending
	pos     uint64  // the first ready sequence that memory does not cover: where a refill goes on
	tail    uint64  // the highest ready sequence the lane ever had
	count   int     // READY jobs in the lane
	batch   []entry // what the batch under construction adds at the end, for its segment
	again   []entry // what it adds to back and may no longer be in a segment
	trimmed uint64  // segments that end before this place are gone
	moved   bool    // the front moved since it was last written down
	touched bool    // the batch under construction has something of the lane to write down
}

// entry is a place in a lane. A nil job is one that left.
type entry struct {
	ready uint64
	seq   uint64
	job   *job.Job
}

func (l *lane) len() int { return len(l.window) - l.first + len(l.back) }

// spilled reports whether the lane has entries that are on disk only.
func (l *lane) spilled() bool { return l.pos <= l.tail }

// front is the first ready sequence that a restart has to look at.
func (l *lane) front() uint64 {
	f := l.pos
	if l.first < len(l.window) {
		f = l.window[l.first].ready
	}
	if len(l.back) > 0 {
		f = min(f, l.back[0].ready)
	}
	return f
}

// add puts a READY job in its place and returns by how many entries memory grew; keep says whether the window may.
func (l *lane) add(j *job.Job, keep bool) (grown int) {
	l.count++
	e := entry{ready: j.ReadySeq, seq: j.Seq, job: j}
	if j.ReadySeq <= l.tail {
		if j.ReadySeq >= l.pos {
			return 0 // its place is on disk, where a refill will come by
		}
		i, _ := slices.BinarySearchFunc(l.back, e, byReady)
		l.back = slices.Insert(l.back, i, e)
		if e.ready < l.trimmed {
			// What else a segment holds below trimmed has left or is written again too, so the places still ascend.
			l.again = append(l.again, e)
		}
		l.moved = true
		return 1
	}
	l.batch = append(l.batch, e)
	if keep && !l.spilled() {
		l.window = append(l.window, e)
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
	l.moved = true
	e := entry{ready: ready}
	if i, ok := slices.BinarySearchFunc(l.back, e, byReady); ok {
		l.back = slices.Delete(l.back, i, i+1)
		return 1
	}
	i, ok := slices.BinarySearchFunc(l.window[l.first:], e, byReady)
	if !ok {
		return 0 // beyond the window: a refill finds that its record moved on
	}
	l.window[l.first+i].job = nil
	for l.first < len(l.window) && l.window[l.first].job == nil {
		l.first++
		shrunk++
	}
	if l.first == len(l.window) {
		l.window, l.first = l.window[:0], 0
	} else if l.first >= windowCompacts && l.first > len(l.window)/2 {
		n := copy(l.window, l.window[l.first:])
		clear(l.window[n:])
		l.window, l.first = l.window[:n], 0
	}
	return shrunk
}

func byReady(a, b entry) int {
	switch {
	case a.ready < b.ready:
		return -1
	case a.ready > b.ready:
		return 1
	}
	return 0
}

// heads appends the first n jobs of the lane that skip does not name.
func (l *lane) heads(to []*job.Job, n int, skip func(*job.Job) bool) []*job.Job {
	back, window := l.back, l.window[l.first:]
	for n > 0 && len(back)+len(window) > 0 {
		var e entry
		if len(window) == 0 || len(back) > 0 && back[0].ready < window[0].ready {
			e, back = back[0], back[1:]
		} else {
			e, window = window[0], window[1:]
		}
		if e.job != nil && !skip(e.job) {
			to = append(to, e.job)
			n--
		}
	}
	return to
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
