package pebblestore

import (
	"fmt"
	"slices"

	"github.com/stintrun/stint/internal/job"
)

// A snapshot is the state after a batch. It bounds what a start has to replay, and lets the log and the segments
// before it go.

// writeSnapshot adds a snapshot of the state, as it is after the batch under construction, to that batch. The lanes, of
// which there may be millions, are in a directory of their own; only those that changed are written again.
func (s *Store) writeSnapshot() {
	s.writeDirectory()
	w, st := &s.record, s.state
	w.b = w.b[:0]
	w.uint(1, s.building.number)
	w.uint(2, st.nextSeq)
	w.uint(3, st.nextReady)
	w.uint(4, st.nextFence)
	w.uint(5, uint64(st.nextQueue))
	w.time(6, st.horizon, 0)
	for _, b := range st.buckets {
		w.message(7, b.write)
	}
	for _, q := range st.byNum {
		w.message(8, func(w *writer) { writeCounts(w, q) })
	}
	for _, j := range st.live {
		w.message(10, func(w *writer) {
			w.uint(1, j.Seq)
			w.message(4, func(w *writer) { writeStatus(w, j) })
			writeUses(w, 5, usesOf(st.taken[j.Seq]), st)
		})
	}
	w.uint(11, st.nextLane)
	for _, l := range st.limits {
		w.message(12, func(w *writer) {
			w.uint(1, uint64(l.number))
			w.uint(2, l.jobs)
		})
	}
	w.message(13, st.events.write)
	s.set(metaSnapshot, w.b)
	s.logged = 0
	s.dropRange(seqKey(kindLog, 0), seqKey(kindLog, s.building.number+1))
}

// trimAfter is how many jobs leave a passing lane before its segments are trimmed: a range that is dropped costs more
// than a few segments.
const trimAfter = 1024

// writeDirectory writes down the lanes that changed since it was written last, and drops what is over.
func (s *Store) writeDirectory() {
	for l := range s.state.changed {
		if !l.passing() || l.gone >= trimAfter {
			s.dropRange(segmentKey(l.number, 0), segmentKey(l.number, l.front()))
			l.trimmed, l.gone = max(l.trimmed, l.front()), 0
		}
		w := writer{}
		writeLane(&w, l, s.state)
		s.set(seqKey(kindLane, l.number), w.b)
		l.flags |= laneStored
	}
	s.state.changed = map[*lane]struct{}{} // there may have been millions
	dead := s.state.dead
	slices.Sort(dead)
	for len(dead) > 0 { // in runs: most lanes end soon after they began
		n := 1
		for n < len(dead) && dead[n] == dead[n-1]+1 {
			n++
		}
		from, to := dead[0], dead[n-1]+1
		s.dropRange(segmentKey(from, 0), segmentKey(to, 0))
		s.dropRange(seqKey(kindLane, from), seqKey(kindLane, to))
		dead = dead[n:]
	}
	s.state.dead = nil
}

func (s *Store) dropRange(from, to []byte) {
	if err := s.building.engine.DeleteRange(from, to, nil); err != nil {
		s.fail(err)
	}
}

func writeCounts(w *writer, q *queue) {
	w.uint(1, uint64(q.number))
	for state, n := range q.counts {
		if n > 0 {
			w.message(2, func(w *writer) {
				w.uint(1, uint64(state))
				w.uint(2, n)
			})
		}
	}
}

func writeLane(w *writer, l *lane, names names) {
	w.uint(1, uint64(l.tenant.queue.number))
	w.uint(2, uint64(l.priority))
	w.uint(3, l.front())
	w.uint(4, l.tail)
	w.uint(5, uint64(l.count))
	w.uint(6, l.trimmed)
	w.uint(7, l.number)
	w.str(9, l.FairnessKey())
	for _, u := range l.Keys() {
		writeUse(w, 8, job.LimitUse{Limit: u.Key.Limit.Name, Key: u.Key.Name, Units: u.Units}, names)
	}
}

// readSnapshot fills a fresh state, whose queues are known, and returns the number of its batch.
func (s *state) readSnapshot(raw []byte) (batch uint64, err error) {
	r := reader{rest: raw}
	for r.next() && err == nil {
		switch r.field {
		case 1:
			batch = r.v
		case 2:
			s.nextSeq = r.v
		case 3:
			s.nextReady = r.v
		case 4:
			s.nextFence = r.v
		case 5:
			s.nextQueue = max(s.nextQueue, uint32(r.v))
		case 6:
			s.horizon = r.time(0)
		case 7:
			var b *bucket
			if b, err = readBucket(r.raw); err == nil {
				s.buckets = append(s.buckets, b)
			}
		case 8:
			err = s.readCounts(r.raw)
		case 10:
			err = s.readLive(r.raw)
		case 11:
			s.nextLane = r.v
		case 12:
			err = s.readNamed(r.raw)
		case 13:
			err = s.events.read(r.raw)
		}
	}
	if err == nil {
		err = r.err
	}
	if err != nil {
		return 0, fmt.Errorf("snapshot: %w", err)
	}
	return batch, nil
}

func (s *state) readCounts(raw []byte) error {
	var q *queue
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			if q = s.byNum[uint32(r.v)]; q == nil {
				return errRecord
			}
		case 2:
			var state, n uint64
			c := reader{rest: r.raw}
			for c.next() {
				switch c.field {
				case 1:
					state = c.v
				case 2:
					n = c.v
				}
			}
			if c.err != nil || q == nil || state >= uint64(job.NumberOfStates) {
				return errRecord
			}
			q.counts[state] = n
		}
	}
	return r.err
}

func (s *state) readNamed(raw []byte) error {
	var number, jobs uint64
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			number = r.v
		case 2:
			jobs = r.v
		}
	}
	l := s.limitByNum[uint32(number)]
	if r.err != nil || l == nil {
		return errRecord
	}
	l.jobs = jobs
	return nil
}

// readLane reads a lane, which is not among those of the state yet.
func (s *state) readLane(raw []byte) (*lane, error) {
	l := &lane{flags: laneStored}
	var q *queue
	fairness := ""
	var uses []job.LimitUse
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			q = s.byNum[uint32(r.v)]
		case 2:
			l.priority = job.Priority(r.v)
		case 3:
			l.pos = r.v
		case 4:
			l.tail = r.v
		case 5:
			l.count = uint32(r.v)
		case 6:
			l.trimmed = r.v
		case 7:
			l.number = r.v
		case 8:
			u, err := readUse(r.raw, s)
			if err != nil {
				return nil, err
			}
			uses = append(uses, u)
		case 9:
			fairness = string(r.raw)
		}
	}
	if r.err != nil || q == nil || !knownBand(l.priority) {
		return nil, errRecord
	}
	l.tenant = q.tenant(fairness)
	s.setKeys(l, uses)
	return l, nil
}

func (s *state) readLive(raw []byte) error {
	j := &job.Job{}
	var uses []job.LimitUse
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			j.Seq = r.v
		case 4:
			if err := readStatus(j, r.raw); err != nil {
				return err
			}
		case 5:
			u, err := readUse(r.raw, s)
			if err != nil {
				return err
			}
			uses = append(uses, u)
		}
	}
	s.live[j.Seq] = j
	if len(uses) > 0 {
		s.taken[j.Seq] = s.keysOf(nil, uses)
		take(s.taken[j.Seq])
	}
	return r.err
}
