package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Retention takes finished jobs away by range, in two steps, so that it costs no write per job. A trim reduces a chunk
// of finished jobs to their final states, a byte each, so that a repeated submit is still answered. A forget takes a
// whole bucket's ids. Both work on buckets that take no more jobs, some time after the last end in them; where jobs are
// few, a bucket is closed before it is full. Jobs that are not terminal survive both.

// chunkBits: a trim takes 2^14 jobs at a time. They are variables only for tests.
var (
	chunkBits        = 14
	chunkSize uint64 = 1 << chunkBits
)

const (
	upkeepPeriod  = time.Second
	upkeepTimeout = 30 * time.Second
	// bucketsInTime is how many buckets a retention time has at least: by so much of it a job may outstay it.
	bucketsInTime = 8
	// clocksDiffer is how far ahead of the server's clock that of a maker of ids may be for the horizon to cover its ids.
	clocksDiffer = time.Minute
)

func chunksInBucket() uint32 { return uint32(bucketSize / chunkSize) }

// survivorsMax: a bucket with more unfinished jobs is left alone.
func survivorsMax() uint32 { return uint32(bucketSize / 16) }

// errMoved: the bucket changed while it was looked at. The next round tries again.
var errMoved = errors.New("bucket changed")

// upkeepLoop looks after free space and retention until the store closes.
func (s *Store) upkeepLoop() {
	tick := time.NewTicker(upkeepPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.closing:
			return
		case <-s.failed:
			return
		}
		s.watchSpace()
		if err := s.closeBucket(); err != nil && !errors.Is(err, store.ErrClosed) {
			s.cfg.Logger.Error("a bucket could not be closed; it is tried again", "error", err)
		}
		if err := s.dropAllHoldings(); err != nil && !errors.Is(err, store.ErrClosed) {
			s.cfg.Logger.Error("unique keys whose term is over could not be dropped; it is tried again", "error", err)
		}
		if err := s.trimEvents(); err != nil && !errors.Is(err, store.ErrClosed) {
			s.cfg.Logger.Error("old events could not be dropped; it is tried again", "error", err)
		}
		for range chunksInBucket() {
			more, err := s.retain()
			s.watchSpace() // a step may read a lot
			if err != nil && !errors.Is(err, errMoved) && !errors.Is(err, store.ErrClosed) {
				s.cfg.Logger.Error("retention failed; it is tried again", "error", err)
			}
			if !more || err != nil {
				break
			}
		}
	}
}

// dropAllHoldings drops all unique keys whose term is over, until the store closes.
func (s *Store) dropAllHoldings() error {
	next, err := s.dropHoldings(nil)
	for ; next != nil && err == nil; next, err = s.dropHoldings(next) {
		s.watchSpace() // there may be many
		select {
		case <-s.closing:
			return nil
		default:
		}
	}
	return err
}

// watchSpace measures free space against the reserve.
func (s *Store) watchSpace() {
	usage, err := s.cfg.FS.GetDiskUsage(s.cfg.Dir)
	if err != nil || s.cfg.Reserve < 0 {
		return // a file system without limits, or nobody asks
	}
	full := usage.AvailBytes < uint64(s.cfg.Reserve)
	if s.full.Swap(full) != full {
		s.cfg.Logger.Warn("free space crossed the reserve", "full", full, "free", usage.AvailBytes, "reserve", s.cfg.Reserve)
	}
}

// closeBucket lets the next job begin a bucket, if the present one takes jobs for long enough already.
func (s *Store) closeBucket() error {
	age := max(s.cfg.Retain, s.cfg.Remember) / bucketsInTime
	due := func() *bucket {
		b := s.state.findBucket(bucketOf(s.state.nextSeq))
		if b == nil || b.begun.IsZero() || s.cfg.Now().Before(b.begun.Add(age)) {
			return nil
		}
		return b
	}
	s.state.mu.RLock()
	old := due()
	s.state.mu.RUnlock()
	if old == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), upkeepTimeout) //nolint:forbidigo // of a goroutine of the store
	defer cancel()
	return s.Update(ctx, func(x store.Tx) error {
		if t, ok := x.(*tx); ok && due() == old {
			t.nextSeq = uint64(old.number+1) << bucketBits
			t.also = func() { s.set(bucketKey(kindFilter, old.number), old.appendFilter(nil)) }
		}
		return nil
	})
}

// trimEvents lets old events go where nothing is committed that would: every commit does.
func (s *Store) trimEvents() error {
	s.state.mu.RLock()
	from := s.state.events.over(s.cfg.Now(), &s.cfg)
	s.state.mu.RUnlock()
	if from == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), upkeepTimeout) //nolint:forbidigo // of a goroutine of the store
	defer cancel()
	return s.Update(ctx, func(x store.Tx) error {
		if t, ok := x.(*tx); ok {
			t.also = func() {}
		}
		return nil
	})
}

// retain does one step of retention and reports whether there may be more to do.
func (s *Store) retain() (bool, error) {
	b, forget := s.overdue(s.cfg.Now())
	switch {
	case b == nil:
		return false, nil
	case forget:
		return true, s.forget(b)
	default:
		return true, s.trimChunk(b)
	}
}

// overdue picks the oldest bucket that has something to give.
func (s *Store) overdue(now time.Time) (pick *bucket, forget bool) {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	var finished, ids int
	for _, q := range s.state.byNum {
		for state, n := range q.counts {
			if job.State(state).Terminal() {
				finished += int(n)
			}
		}
	}
	for _, b := range s.state.buckets {
		ids += int(b.count)
	}
	current := bucketOf(s.state.nextSeq)
	for _, b := range s.state.buckets {
		if b.number >= current || b.ended.IsZero() || b.open > survivorsMax() {
			continue
		}
		past := func(d time.Duration) bool { return !now.Before(b.ended.Add(d)) }
		switch {
		case b.trim < chunksInBucket() && (past(s.cfg.Retain) || finished > s.cfg.RetainJobs):
			return b, false
		case b.trim == chunksInBucket() && b.count > b.open &&
			(past(max(s.cfg.Retain, s.cfg.Remember)) || ids > s.cfg.RememberJobs):
			return b, true
		}
	}
	return nil, false
}

// moves is how often jobs of the bucket changed.
func (s *Store) moves(b *bucket) uint64 {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	return b.moves
}

// trimChunk reduces the next chunk of a bucket.
func (s *Store) trimChunk(b *bucket) error {
	seen := s.moves(b)
	first := uint64(b.number)<<bucketBits + uint64(b.trim)<<chunkBits
	d := drop{bucket: b.number, trim: b.trim + 1, finished: map[uint32]*[job.NumberOfStates]uint64{}}
	states := make([]byte, chunkSize)
	var survivors []uint64
	err := s.scanJobs(first, first+chunkSize, func(j *job.Job) error {
		if !j.State.Terminal() {
			survivors = append(survivors, j.Seq)
			return nil
		}
		states[j.Seq-first] = byte(j.State)
		d.count(s.numberOf(j.Spec.Queue), j.State, 1)
		return nil
	})
	if err != nil {
		return err
	}
	return s.commitDrop(b, seen, d, func() {
		for _, kind := range []byte{kindJob, kindPayload, kindResult} {
			s.dropAround(kind, first, first+chunkSize, survivors)
		}
		if states = bytes.TrimRight(states, "\x00"); len(states) > 0 {
			s.set(chunkKey(first), states)
		}
	})
}

// chunkKey is where the final states of the chunk of a seq are.
func chunkKey(seq uint64) []byte { return bucketKey(kindFinal, uint32(seq>>chunkBits)) }

// forget takes a bucket's ids, all but those of jobs that are not terminal.
func (s *Store) forget(b *bucket) error {
	seen := s.moves(b)
	first := uint64(b.number) << bucketBits
	d := drop{bucket: b.number, trim: b.trim, forgot: true, horizon: b.horizon(), finished: map[uint32]*[job.NumberOfStates]uint64{}}
	var left []*job.Job
	err := s.scanJobs(first, first+bucketSize, func(j *job.Job) error {
		if j.State.Terminal() {
			d.count(s.numberOf(j.Spec.Queue), j.State, 1)
		} else {
			left = append(left, j)
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.left = uint32(len(left))
	ids := newFilter(max(len(left), 1))
	small := &bucket{number: b.number, ids: ids, v7min: b.v7min, v7max: b.v7max, other: b.other}
	seqs := make([]uint64, len(left))
	for i, j := range left {
		ids.add(j.Spec.ID)
		seqs[i] = j.Seq
	}
	return s.commitDrop(b, seen, d, func() {
		for _, kind := range []byte{kindJob, kindPayload, kindResult} {
			s.dropAround(kind, first, first+bucketSize, seqs)
		}
		s.dropRange(bucketKey(kindID, b.number), bucketKey(kindID, b.number+1))
		s.dropRange(chunkKey(first), chunkKey(first+bucketSize))
		if len(left) == 0 {
			s.delete(bucketKey(kindFilter, b.number))
			return
		}
		for _, j := range left {
			var key [32]byte
			s.set(idKey(key[:0], b.number, j.Spec.ID), offsetOf(j.Seq))
		}
		s.set(bucketKey(kindFilter, b.number), small.appendFilter(nil))
		s.state.mu.Lock()
		b.ids = ids
		s.state.mu.Unlock()
	})
}

// horizon is where the horizon moves when the bucket's ids are forgotten: to its last submit, and past ids whose maker's
// clock ran ahead of that, within reason.
func (b *bucket) horizon() time.Time {
	h := b.submitted
	if latest := b.submitted.Add(clocksDiffer); b.v7max > h.UnixMilli() {
		h = time.UnixMilli(b.v7max).UTC()
		if h.After(latest) {
			h = latest
		}
	}
	return h
}

// commitDrop commits what a look at the bucket found, unless the bucket changed since.
func (s *Store) commitDrop(b *bucket, seen uint64, d drop, write func()) error {
	ctx, cancel := context.WithTimeout(context.Background(), upkeepTimeout) //nolint:forbidigo // of a goroutine of the store
	defer cancel()
	return s.Update(ctx, func(x store.Tx) error {
		t, ok := x.(*tx)
		if !ok || b.moves != seen {
			return errMoved
		}
		t.drop, t.also = &d, write
		return nil
	})
}

// dropAround deletes the records of a range, all but those of the survivors.
func (s *Store) dropAround(kind byte, from, to uint64, survivors []uint64) {
	for _, seq := range survivors {
		if from < seq {
			s.dropRange(seqKey(kind, from), seqKey(kind, seq))
		}
		from = seq + 1
	}
	if from < to {
		s.dropRange(seqKey(kind, from), seqKey(kind, to))
	}
}

// scanJobs calls fn for the jobs from one seq up to another, as they are now.
func (s *Store) scanJobs(from, to uint64, fn func(*job.Job) error) (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: seqKey(kindJob, from), UpperBound: seqKey(kindJob, to)})
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		seq := keySeq(it.Key())
		j, err := decodeJob(seq, it.Value(), s.state)
		if err == nil && !j.State.Terminal() {
			j, err = s.load(seq)
		}
		if err == nil && j != nil {
			err = fn(j)
		}
		if err != nil {
			return err
		}
	}
	return it.Error()
}

func (s *Store) numberOf(queue string) uint32 {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	return s.state.queues[queue].number
}

// applyDrop makes what a drop says true in memory.
func (s *state) applyDrop(d *drop) {
	for number, counts := range d.finished {
		if q := s.byNum[number]; q != nil {
			for state, n := range counts {
				q.counts[state] -= n
			}
		}
	}
	b := s.findBucket(d.bucket)
	if b == nil {
		return
	}
	b.trim = d.trim
	if !d.forgot {
		return
	}
	b.count = d.left
	if d.horizon.After(s.horizon) {
		s.horizon = d.horizon
	}
	if d.left == 0 {
		i := slices.Index(s.buckets, b)
		s.buckets = slices.Delete(s.buckets, i, i+1)
	}
}

// forgetQueues lets go of deleted queues that no job names any more. Their numbers stay in the log, so a snapshot goes
// with it.
func (s *Store) forgetQueues() {
	for name, q := range s.state.queues {
		if q.deleted && q.empty() {
			delete(s.state.queues, name)
			delete(s.state.byNum, q.number)
			q.eachLane(func(l *lane) {
				l.flags |= laneStored
				s.state.endLane(l)
			})
			s.delete(queueKey(q.number))
			if _, gated := s.state.gates[store.GateName{Name: name}]; gated {
				s.delete(queueGateKey(q.number))
				delete(s.state.gates, store.GateName{Name: name})
			}
			s.logged = s.cfg.SnapshotBytes
		}
	}
}
