package pebblestore

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stintrun/stint/internal/job"
)

// refillEmpty reads on in the lanes of the batch whose window ran out, so that a lane without keys always shows its first.
func (s *Store) refillEmpty() error {
	for _, l := range s.building.lanes {
		if l.len() == 0 && l.spilled() && !l.passing() {
			if err := s.refill(l, s.state.page(l)); err != nil {
				return err
			}
		}
	}
	return nil
}

// refill reads up to page jobs of a lane into its window: first from disk, then those that the batch under construction
// adds. Entries whose job moved on are skipped: their record says so.
func (s *Store) refill(l *lane, page int) (err error) {
	segments, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: segmentKey(l.number, l.pos), UpperBound: segmentKey(l.number+1, 0),
	})
	if err != nil {
		return fmt.Errorf("refill: %w", err)
	}
	defer func() { err = errors.Join(err, segments.Close()) }()
	records, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindJob}, UpperBound: after(kindJob)})
	if err != nil {
		return fmt.Errorf("refill: %w", err)
	}
	defer func() { err = errors.Join(err, records.Close()) }()

	var got []entry
	pos := l.pos
	var failed error
	take := func(e entry) bool {
		if e.ready < pos {
			return true
		}
		pos = e.ready + 1
		if l.comesBack(e.ready) {
			return true
		}
		if e.job, failed = s.waiting(records, e); e.job != nil {
			got = append(got, e)
		}
		return failed == nil && len(got) < page
	}
	for ok := segments.First(); ok && len(got) < page && failed == nil; ok = segments.Next() {
		if err := readSegment(segments.Value(), take); err != nil {
			return err
		}
	}
	if w := l.window; w != nil {
		for i := 0; i < len(w.batch) && len(got) < page && failed == nil; i++ {
			take(w.batch[i])
		}
	}
	if failed != nil {
		return failed
	}
	if len(got) < page {
		pos = l.tail + 1 // memory holds all of the lane
	}
	s.state.mu.Lock()
	if l.window == nil {
		l.window = &window{}
	}
	l.window.entries = append(l.window.entries, got...)
	l.pos = pos
	s.state.windows += len(got)
	s.state.mu.Unlock()
	s.building.refilled = append(s.building.refilled, l)
	return segments.Error()
}

// waiting returns the job of a place in a lane; nil if it left that place.
func (s *Store) waiting(records *pebble.Iterator, e entry) (*job.Job, error) {
	if _, ok := s.state.live[e.seq]; ok {
		return nil, nil
	}
	j, ok := s.state.pending[e.seq]
	if !ok {
		key := seqKey(kindJob, e.seq)
		if !records.SeekGE(key) || string(records.Key()) != string(key) {
			return nil, records.Error()
		}
		var err error
		if j, err = decodeJob(e.seq, records.Value(), s.state); err != nil {
			return nil, err
		}
	}
	if j == nil || j.State != job.Ready || j.ReadySeq != e.ready {
		return nil, nil
	}
	return j, nil
}
