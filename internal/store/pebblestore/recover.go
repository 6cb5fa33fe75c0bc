package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stintrun/stint/internal/job"
)

// recover rebuilds the state: the queues, the last snapshot, the commits after it, and then the records of what is
// live. It never reads the backlog.
func (s *Store) recover() error {
	if err := s.readQueues(); err != nil {
		return err
	}
	if err := s.readLimits(); err != nil {
		return err
	}
	if err := s.readZombies(); err != nil {
		return err
	}
	if err := s.readGates(); err != nil {
		return err
	}
	if err := s.readLanes(); err != nil {
		return err
	}
	var last uint64
	if err := s.get(metaSnapshot, func(b []byte) (err error) {
		last, err = s.state.readSnapshot(b)
		return err
	}); err != nil {
		return err
	}
	number, err := s.replay(last)
	if err != nil {
		return err
	}
	s.synced = number
	if err := s.readSecret(); err != nil {
		return err
	}
	if number > 0 && s.secret == ([32]byte{}) {
		return errors.New("it has commits and no secret")
	}
	if err := s.readFilters(); err != nil {
		return err
	}
	if err := s.readLiveJobs(); err != nil {
		return err
	}
	if err := s.state.checkUsage(); err != nil {
		return err
	}
	return s.firstWindows()
}

func (s *Store) readQueues() error {
	return s.scan(kindQueue, func(key, value []byte) error {
		q, err := readQueue(binary.BigEndian.Uint32(key[1:]), value)
		if err == nil {
			s.state.putQueue(q)
		}
		return err
	})
}

func (s *Store) readLimits() error {
	return s.scan(kindLimit, func(key, value []byte) error {
		l, err := readLimit(binary.BigEndian.Uint32(key[1:]), value)
		if err == nil {
			s.state.putLimit(l)
		}
		return err
	})
}

func (s *Store) readLanes() error {
	return s.scan(kindLane, func(_, value []byte) error {
		l, err := s.state.readLane(value)
		if err == nil {
			l.flags |= laneStored
			s.state.putLane(l)
			for _, u := range l.Keys() {
				u.Key.Waiting += l.count
			}
		}
		return err
	})
}

// scan calls fn with each key of the kind and its value, valid during the call.
func (s *Store) scan(kind byte, fn func(key, value []byte) error) error {
	return s.scanFrom([]byte{kind}, after(kind), fn)
}

func (s *Store) scanFrom(from, to []byte, fn func(key, value []byte) error) (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if err := fn(it.Key(), it.Value()); err != nil {
			return fmt.Errorf("key %x: %w", it.Key(), err)
		}
	}
	return it.Error()
}

// replay applies the commits after the batch and returns the number of the last one.
func (s *Store) replay(last uint64) (uint64, error) {
	err := s.scanFrom(seqKey(kindLog, last+1), after(kindLog), func(_, value []byte) error {
		c, err := s.state.readCommit(value)
		if err != nil {
			return err
		}
		if last != 0 && c.batch != last+1 {
			return fmt.Errorf("commit %d follows commit %d", c.batch, last)
		}
		last = c.batch
		s.logged += len(value)
		return s.state.replay(c, &s.cfg)
	})
	return last, err
}

func (s *state) replay(c *commit, cfg *Config) error {
	for _, l := range c.born {
		// As it was made, not as the batch left it: the steps say how.
		l.pos, l.tail, l.count = l.trimmed, 0, 0
		s.putLane(l)
	}
	var touched []*lane
	for _, st := range c.steps {
		if s.byNum[st.queue] == nil {
			return fmt.Errorf("commit %d names queue %d, which does not exist", c.batch, st.queue)
		}
		s.apply(st, c.time)
		for _, l := range []*lane{st.from, st.to} {
			if l != nil {
				s.changed[l] = struct{}{}
				touched = append(touched, l)
			}
		}
		if st.old == job.StateNone {
			s.bucket(bucketOf(st.seq)).count++
		}
	}
	for _, f := range c.fronts {
		l := s.lanes[f.lane]
		if l == nil {
			return fmt.Errorf("commit %d names lane %d, which does not exist", c.batch, f.lane)
		}
		l.pos = f.pos
	}
	s.settle(touched)
	for number, by := range c.named {
		l := s.limitByNum[number]
		if l == nil {
			return fmt.Errorf("commit %d names limit %d, which does not exist", c.batch, number)
		}
		l.jobs = uint64(int64(l.jobs) + by)
	}
	for i := range c.drops {
		s.applyDrop(&c.drops[i])
	}
	if c.eventBytes > 0 {
		s.events.grow(c.batch, c.time, c.eventBytes, cfg)
	}
	if c.eventsFrom > 0 {
		s.events.cut(c.eventsFrom)
	}
	s.nextSeq, s.nextReady, s.nextFence, s.nextLane = c.nextSeq, c.nextReady, c.nextFence, c.nextLane
	return nil
}

// readFilters loads the filters of the full buckets and makes the one of the current bucket anew.
func (s *Store) readFilters() error {
	for _, b := range s.state.buckets {
		b.ids = nil
		if err := s.get(bucketKey(kindFilter, b.number), b.readFilter); err != nil {
			return err
		}
		if b.ids != nil {
			continue
		}
		b.ids, b.count = newFilter(int(bucketSize)), 0
		err := s.scanFrom(bucketKey(kindID, b.number), bucketKey(kindID, b.number+1), func(key, _ []byte) error {
			b.add(job.ID(key[5:]))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readLiveJobs completes the jobs with a live run: the log has their status, the record all else.
func (s *Store) readLiveJobs() error {
	for seq, status := range s.state.live {
		j, err := s.read(seq)
		if err != nil {
			return err
		}
		if j == nil {
			return fmt.Errorf("job %d is running but has no record", seq)
		}
		live := *status
		live.Seq, live.Spec, live.History, live.Result = seq, j.Spec, j.History, j.Result
		s.state.live[seq] = &live
	}
	return nil
}

// firstWindows reads the start of each lane without keys.
func (s *Store) firstWindows() error {
	var lanes []*lane
	for _, q := range s.state.byNum {
		for _, l := range q.lanes {
			if l != nil && l.spilled() {
				lanes = append(lanes, l)
			}
		}
	}
	for _, l := range lanes {
		if err := s.refill(l, min(max(windowsMax/2/len(lanes), 1), refillPage)); err != nil {
			return err
		}
	}
	return nil
}
