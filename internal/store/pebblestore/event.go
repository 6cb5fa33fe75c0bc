package pebblestore

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/store"
)

// eventLog says what is kept of events, by marks at most a fraction of the bound apart. It is part of the state.
type eventLog struct {
	marks []eventMark
	bytes uint64
	from  uint64 // no batch before this one is kept
}

// eventMark is where a part of the log begins.
type eventMark struct {
	batch uint64
	time  int64 // unix nanoseconds
	bytes uint64
}

// eventMarks is how many parts the log has about: one goes at a time.
const eventMarks = 64

// grow counts a batch's events.
func (l *eventLog) grow(batch uint64, at time.Time, n int, cfg *Config) {
	now := at.UnixNano()
	last := len(l.marks) - 1
	if last < 0 || l.marks[last].bytes >= uint64(cfg.EventBytes)/eventMarks || now-l.marks[last].time >= int64(cfg.RetainEvents)/eventMarks {
		l.marks = append(l.marks, eventMark{batch: batch, time: now})
		last++
	}
	l.marks[last].bytes += uint64(n)
	l.bytes += uint64(n)
}

// over is the batch that the log is to begin with, if it is over its bounds; 0: it is not.
func (l *eventLog) over(now time.Time, cfg *Config) (from uint64) {
	bytes := l.bytes
	for i := 0; i+1 < len(l.marks); i++ {
		if bytes <= uint64(cfg.EventBytes) && now.UnixNano()-l.marks[i+1].time <= int64(cfg.RetainEvents) {
			break
		}
		bytes -= l.marks[i].bytes
		from = l.marks[i+1].batch
	}
	return from
}

// cut lets go of what is before the batch.
func (l *eventLog) cut(from uint64) {
	for len(l.marks) > 1 && l.marks[1].batch <= from {
		l.bytes -= l.marks[0].bytes
		l.marks = l.marks[1:]
	}
	if len(l.marks) > 0 && l.marks[0].batch < from { // other bounds are in force since it was made
		l.marks[0].batch = from
	}
	l.from = max(l.from, from)
}

func (l *eventLog) write(w *writer) {
	w.uint(1, l.from)
	for _, m := range l.marks {
		w.message(2, func(w *writer) {
			w.uint(1, m.batch)
			w.uint(2, uint64(m.time))
			w.uint(3, m.bytes)
		})
	}
}

func (l *eventLog) read(raw []byte) error {
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			l.from = r.v
		case 2:
			var m eventMark
			mark := reader{rest: r.raw}
			for mark.next() {
				switch mark.field {
				case 1:
					m.batch = mark.v
				case 2:
					m.time = int64(mark.v)
				case 3:
					m.bytes = mark.v
				}
			}
			if mark.err != nil {
				return mark.err
			}
			l.marks = append(l.marks, m)
			l.bytes += m.bytes
		}
	}
	return r.err
}

// writeEvents adds the batch's events, and lets old ones go.
func (s *Store) writeEvents(c *commit) {
	l := &s.state.events
	if n := len(s.events.b); n > 0 {
		s.set(seqKey(kindEvent, c.batch), s.events.b)
		c.eventBytes = n
		s.state.mu.Lock()
		l.grow(c.batch, c.time, n, &s.cfg)
		s.state.mu.Unlock()
		s.events.reset()
	}
	if from := l.over(c.time, &s.cfg); from > 0 {
		s.dropRange(seqKey(kindEvent, 0), seqKey(kindEvent, from))
		s.state.mu.Lock()
		l.cut(from)
		s.state.mu.Unlock()
		c.eventsFrom = from
	}
}

// noteQueue tells of a queue's next version, before it is one.
func (s *Store) noteQueue(q *queue, at time.Time) {
	e := event.Event{Shape: event.Shape{Queue: q.set.Name}, Time: at}
	note := func(k event.Kind) {
		e.Kind = k
		s.events.add(&e)
	}
	was := s.state.queues[q.set.Name]
	if was == nil || was.deleted {
		was = &queue{set: store.Queue{Policy: q.set.Policy}}
		note(event.QueueCreated)
	}
	if !samePolicy(was, q) {
		note(event.QueueUpdated)
	}
	switch {
	case q.deleted:
		note(event.QueueDeleted)
	case was.set.Pause == nil && q.set.Pause != nil:
		e.Reason, e.Who = q.set.Pause.Reason, q.set.Pause.Requester
		note(event.QueuePaused)
	case was.set.Pause != nil && q.set.Pause == nil:
		note(event.QueueResumed)
	}
}

func samePolicy(a, b *queue) bool { return bytes.Equal(policyRecord(a), policyRecord(b)) }

// policyRecord is the record of a queue that has the policy and nothing else.
func policyRecord(q *queue) []byte {
	return (&queue{set: store.Queue{Policy: q.set.Policy}}).record()
}

// noteLimit tells of a limit's next version, before it is one.
func (s *Store) noteLimit(l *limit, at time.Time) {
	was := s.state.limits[l.set.Name]
	e := event.Event{Shape: event.Shape{Kind: event.LimitUpdated, Limit: l.set.Name}, Time: at}
	switch {
	case l.deleted:
		e.Kind = event.LimitDeleted
	case was == nil || was.deleted:
		e.Kind = event.LimitCreated
	}
	s.events.add(&e)
}

// noteGate tells of a gate's next version, before it is one, if it closes, opens, or is closed for longer.
func (s *Store) noteGate(g store.Gate, at time.Time) {
	e := event.Event{Shape: event.Shape{Kind: event.GateClosed}, Time: at}
	if e.Limit, e.Key = g.Of.Limit, g.Of.Name; g.Of.Limit == "" {
		e.Queue, e.Key = g.Of.Name, ""
	}
	was, closed := s.state.gates[g.Of]
	switch {
	case g.Open():
		if !closed {
			return
		}
		e.Kind = event.GateOpened
	case closed && was.ThrottledUntil.Equal(g.ThrottledUntil) && was.TryTime.Equal(g.TryTime):
		return
	case g.TripTime.IsZero() || g.ThrottledUntil.After(g.TryTime):
		e.Until, e.Reason, e.Job = g.ThrottledUntil, g.ThrottleReason, g.ThrottledBy
	default:
		e.Until, e.Reason = g.TryTime, g.Failure
	}
	s.events.add(&e)
}

// noteZombie tells of a zombie that was left or, without one, has ended, before the state knows.
func (s *Store) noteZombie(fence uint64, z *store.Zombie, at time.Time) error {
	e := event.Event{Shape: event.Shape{Kind: event.ZombieLeft}, Time: at}
	if z == nil {
		if z = s.state.zombies[fence]; z == nil {
			return nil // it began and ended in one transaction
		}
		e.Kind = event.ZombieEnded
	}
	e.Queue, e.Worker, e.Instance = z.Queue, z.Worker, z.Instance
	j, err := s.load(z.Seq)
	if err == nil && j != nil {
		e.Job = j.Spec.ID
	}
	s.events.add(&e)
	return err
}

// noteJob tells of a job's change.
func (s *Store) noteJob(c *store.Change, at time.Time) {
	s.told = event.Of(s.told[:0], c.Old, c.New, at)
	for i := range s.told {
		s.events.add(&s.told[i])
	}
}

// Position implements store.Reader.
func (v view) Position() (oldest, next store.Cursor) {
	return v.s.oldestEvent(), store.Cursor{Batch: v.open}
}

func (s *Store) oldestEvent() store.Cursor {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	return store.Cursor{Batch: s.state.events.from}
}

// Events implements store.Store.
func (s *Store) Events(from store.Cursor, budget int, fn func(store.Cursor, *event.Event) bool) (store.Cursor, error) {
	s.gate.RLock() // Close waits
	defer s.gate.RUnlock()
	select {
	case <-s.closing:
		return from, store.ErrClosed
	case <-s.failed:
		return from, store.ErrClosed
	default:
	}
	end := s.syncedBatch() + 1
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: seqKey(kindEvent, from.Batch), UpperBound: seqKey(kindEvent, max(end, from.Batch))})
	if err != nil {
		return from, fmt.Errorf("read events: %w", err)
	}
	defer it.Close()
	// The iterator sees the engine as it was, so what it does not have was cut before.
	if oldest := s.oldestEvent(); from.Batch < oldest.Batch || from.Batch > end || from.Batch == end && from.Index > 0 {
		return oldest, store.ErrResync
	}
	for ok := it.First(); ok; ok = it.Next() {
		next, more, err := eachEvent(keySeq(it.Key()), it.Value(), from, &budget, fn)
		if err != nil || !more {
			return next, err
		}
	}
	if err := it.Error(); err != nil {
		return from, fmt.Errorf("read events: %w", err)
	}
	return store.Cursor{Batch: end}, nil
}

// eachEvent calls fn for the events of a batch that are not behind the cursor. It returns which one is next, if not all were
// taken.
func eachEvent(batch uint64, record []byte, from store.Cursor, budget *int, fn func(store.Cursor, *event.Event) bool) (store.Cursor, bool, error) {
	u, err := unpack(record)
	if err != nil {
		return from, false, fmt.Errorf("events of batch %d: %w", batch, err)
	}
	for i := uint32(0); ; i++ {
		e, ok := u.next()
		if !ok {
			break
		}
		if batch == from.Batch && i < from.Index {
			continue
		}
		if *budget--; *budget < 0 || !fn(store.Cursor{Batch: batch, Index: i + 1}, e) {
			return store.Cursor{Batch: batch, Index: i}, false, nil
		}
	}
	if u.bad {
		return from, false, fmt.Errorf("events of batch %d: %w", batch, errRecord)
	}
	return from, true, nil
}

// AwaitEvents implements store.Store.
func (s *Store) AwaitEvents(ctx context.Context, from store.Cursor) error {
	return s.awaitSync(ctx, from.Batch)
}

func (s *Store) syncedBatch() uint64 {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	return s.synced
}
