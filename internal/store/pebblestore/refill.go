package pebblestore

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stintrun/stint/internal/job"
)

// noteLow notes that the lane's window runs short while there is more of the lane on disk.
func (s *Store) noteLow(l *lane) {
	if l.spilled() && l.len() < min(refillBelow, s.state.windowCap()/2+1) {
		s.low[l] = struct{}{}
	}
}

// refillLow reads the next page of each window that ran short in the last batch. What is still short then stays noted,
// and the next turn follows at once.
func (s *Store) refillLow() error {
	low := slices.Collect(maps.Keys(s.low))
	clear(s.low)
	for _, l := range low {
		if err := s.refill(l, min(refillPage, s.state.windowCap())); err != nil {
			return err
		}
		s.noteLow(l)
	}
	return nil
}

// refill reads up to page jobs of a lane into its window. Entries whose job moved on are skipped: their record says so.
func (s *Store) refill(l *lane, page int) (err error) {
	segments, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: segmentKey(l.id, l.pos), UpperBound: append(segmentKey(l.id, ^uint64(0)), 0),
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
	if failed != nil {
		return failed
	}
	if len(got) < page && len(l.batch) == 0 {
		pos = l.tail + 1 // nothing of the lane is left on disk
	}
	s.state.mu.Lock()
	l.window = append(l.window, got...)
	l.pos = pos
	s.state.windows += len(got)
	s.state.mu.Unlock()
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
		if j, err = decodeJob(e.seq, records.Value(), s.state.name); err != nil {
			return nil, err
		}
	}
	if j == nil || j.State != job.Ready || j.ReadySeq != e.ready {
		return nil, nil
	}
	return j, nil
}
