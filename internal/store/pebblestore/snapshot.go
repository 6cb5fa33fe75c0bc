package pebblestore

import (
	"fmt"

	"github.com/stintrun/stint/internal/job"
)

// A snapshot is the state after a batch. It bounds what a start has to replay, and lets the log and the segments
// before it go.

// writeSnapshot adds a snapshot of the state, as it is after the batch under construction, to that batch.
func (s *Store) writeSnapshot() {
	for l := range s.trim {
		s.dropRange(segmentKey(l.id, 0), segmentKey(l.id, l.front()))
		l.trimmed = max(l.trimmed, l.front())
	}
	clear(s.trim)
	w := writer{s.buf[:0]}
	st := s.state
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
		for _, l := range q.lanes {
			if l != nil {
				w.message(9, func(w *writer) { writeLane(w, l) })
			}
		}
	}
	for _, j := range st.live {
		w.message(10, func(w *writer) {
			w.uint(1, j.Seq)
			w.uint(2, uint64(st.queues[j.Spec.Queue].number))
			w.uint(3, uint64(j.Spec.Priority))
			w.message(4, func(w *writer) { writeStatus(w, j) })
		})
	}
	s.set(metaSnapshot, w.b)
	s.buf = w.b
	s.logged = 0
	s.dropRange(seqKey(kindLog, 0), seqKey(kindLog, s.building.number+1))
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

func writeLane(w *writer, l *lane) {
	w.uint(1, uint64(l.id.queue))
	w.uint(2, uint64(l.id.priority))
	w.uint(3, l.front())
	w.uint(4, l.tail)
	w.uint(5, uint64(l.count))
	w.uint(6, l.trimmed)
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
		case 9:
			err = s.readLane(r.raw)
		case 10:
			err = s.readLive(r.raw)
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

func (s *state) readLane(raw []byte) error {
	var l lane
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			l.id.queue = uint32(r.v)
		case 2:
			l.id.priority = job.Priority(r.v)
		case 3:
			l.pos = r.v
		case 4:
			l.tail = r.v
		case 5:
			l.count = int(r.v)
		case 6:
			l.trimmed = r.v
		}
	}
	q := s.byNum[l.id.queue]
	if r.err != nil || q == nil || !knownBand(l.id.priority) {
		return errRecord
	}
	*q.lane(l.id.priority) = l
	return nil
}

func (s *state) readLive(raw []byte) error {
	j := &job.Job{}
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			j.Seq = r.v
		case 4:
			if err := readStatus(j, r.raw); err != nil {
				return err
			}
		}
	}
	s.live[j.Seq] = j
	return r.err
}
