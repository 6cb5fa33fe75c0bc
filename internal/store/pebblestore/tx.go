package pebblestore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// tx is a transaction on the committing goroutine, which runs one after the other and reuses it.
type tx struct {
	view
	changes  []store.Change
	writes   map[uint64]*job.Job      // the newest version that this transaction wrote, by seq; nil: deleted
	ids      map[job.ID]uint64        // of new jobs
	queues   map[string]*queue        // new versions of queues, by name
	limits   map[string]*limit        // new versions of limits, by name
	zombies  map[uint64]*store.Zombie // new ones, by fence; nil: ended
	holdings map[uniqueKey]holding    // new ones; zero: nobody's
	gates    []store.Gate             // new versions
	events   []event.Event            // besides those of changes
	blobs    []blob
	// What retention drops, and what the store itself writes with the transaction, which is committed for it alone, too.
	drop *drop
	also func()

	nextSeq, nextReady, nextFence uint64
}

// blob is bytes that are kept apart from their job's record; without a value, what is no longer.
type blob struct{ key, value []byte }

func newTx(s *Store) *tx {
	return &tx{
		view: view{s: s}, writes: map[uint64]*job.Job{}, ids: map[job.ID]uint64{}, queues: map[string]*queue{}, limits: map[string]*limit{},
		zombies: map[uint64]*store.Zombie{}, holdings: map[uniqueKey]holding{},
	}
}

// begin makes t ready for the next function.
func (t *tx) begin(now time.Time) {
	t.now = now
	t.changes, t.blobs, t.gates, t.events = t.changes[:0], t.blobs[:0], t.gates[:0], t.events[:0]
	t.drop, t.also = nil, nil
	clear(t.writes)
	clear(t.ids)
	clear(t.queues)
	clear(t.limits)
	clear(t.zombies)
	clear(t.holdings)
	t.nextSeq, t.nextReady, t.nextFence = t.s.state.nextSeq, t.s.state.nextReady, t.s.state.nextFence
}

func (t *tx) Load(seqs []uint64) ([]*job.Job, error) {
	jobs := make([]*job.Job, len(seqs))
	for i, seq := range seqs {
		if j, ok := t.writes[seq]; ok {
			jobs[i] = j
			continue
		}
		j, err := t.s.load(seq)
		if err != nil {
			return nil, err
		}
		jobs[i] = j
	}
	return jobs, nil
}

func (t *tx) Find(ids []job.ID) ([]store.Found, error) {
	out := make([]store.Found, len(ids))
	for i, id := range ids {
		seq, ok := t.ids[id]
		if !ok {
			seq, ok = t.s.building.ids[id]
		}
		if !ok {
			var err error
			if seq, err = t.s.seqOf(id); err != nil {
				return nil, err
			}
		}
		if seq == 0 {
			continue
		}
		if j, ok := t.writes[seq]; ok {
			out[i] = found(j)
			continue
		}
		var err error
		if out[i], err = t.s.foundAt(seq); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (t *tx) Put(changes ...store.Change) error {
	for _, c := range changes {
		if err := t.put(c); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) put(c store.Change) error {
	j := c.New
	if j == nil {
		t.changes = append(t.changes, c)
		t.writes[c.Old.Seq] = nil
		if c.Old.Spec.Unique != nil {
			return t.putHolding(c, c.Old.Spec)
		}
		return nil
	}
	if c.Old == nil && t.s.Full() {
		return store.ErrFull
	}
	if c.Old == nil || c.Old.State.Terminal() && !j.State.Terminal() {
		if q := t.queueOf(j.Spec.Queue); q == nil || q.deleted {
			return fmt.Errorf("store: put of a job in queue %q, which does not exist", j.Spec.Queue)
		}
	}
	if c.Old == nil {
		j.Seq = t.nextSeq
		t.nextSeq++
		t.ids[j.Spec.ID] = j.Seq
	}
	if c.Old == nil || c.Old.Spec != j.Spec {
		if err := t.putSpec(c); err != nil {
			return err
		}
	}
	if r := j.Result; r != nil && len(r.Data) > inlineMax {
		t.blobs = append(t.blobs, blob{seqKey(kindResult, j.Seq), r.Data})
		j.Result = &job.Result{Size: r.Size, ContentType: r.ContentType}
	}
	if j.State == job.Ready && j.ReadySeq == 0 {
		j.ReadySeq = t.nextReady
		t.nextReady++
	}
	t.changes = append(t.changes, c)
	t.writes[j.Seq] = j
	if j.Spec.Unique != nil {
		return t.putHolding(c, j.Spec)
	}
	return nil
}

// putSpec keeps what a job asks for anew: a large payload goes apart, in place of the last one.
func (t *tx) putSpec(c store.Change) error {
	j := c.New
	if c.Old == nil || !slices.Equal(c.Old.Spec.Limits, j.Spec.Limits) {
		for i := range j.Spec.Limits {
			if name := j.Spec.Limits[i].Limit; t.limitOf(name) == nil {
				return fmt.Errorf("store: put of a job with limit %q, which does not exist", name)
			}
		}
	}
	switch {
	case len(j.Spec.Payload) > inlineMax:
		t.blobs = append(t.blobs, blob{seqKey(kindPayload, j.Seq), j.Spec.Payload})
		spec := *j.Spec
		spec.Payload = nil
		j.Spec = &spec
	case c.Old != nil && c.Old.Spec.PayloadSize > inlineMax && j.Spec.PayloadSize <= inlineMax:
		t.blobs = append(t.blobs, blob{key: seqKey(kindPayload, j.Seq)})
	}
	return nil
}

func (t *tx) NextFence() uint64 {
	f := t.nextFence
	t.nextFence++
	return f
}

func (t *tx) Heads(of store.Lane, n int) ([]*job.Job, error) {
	l, ok := of.(*lane)
	if !ok || l.is(laneDead) {
		return nil, nil
	}
	written := func(j *job.Job) bool {
		_, ok := t.writes[j.Seq]
		return ok
	}
	heads := l.heads(nil, n, written)
	for len(heads) < n && l.spilled() {
		if err := t.s.refill(l, max(n-len(heads), t.s.state.page(l))); err != nil {
			return nil, err
		}
		heads = l.heads(heads[:0], n, written)
	}
	return heads, nil
}

func (t *tx) LaneOf(j *job.Job) store.Lane {
	if q := t.s.state.queues[j.Spec.Queue]; q != nil {
		if l := t.s.state.laneOf(q, j); l != nil && l.count > 0 {
			return l
		}
	}
	return nil
}

func (t *tx) Due(n int) (due []*job.Job, next time.Time, err error) {
	now := t.now.UnixNano()
	if t.s.nextDue > now {
		return nil, instant(t.s.nextDue), nil
	}
	it, err := t.s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindTime}, UpperBound: after(kindTime)})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("due: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for _, m := range t.s.building.times {
		if due, err = t.appendDue(due, n, m); err != nil {
			return nil, time.Time{}, err
		}
	}
	upcoming := t.s.building.due
	for ok := it.First(); ok; ok = it.Next() {
		key := it.Key()
		m := moment{int64(keySeq(key[:9])), keySeq(key)}
		if m.at > now || len(due) == n {
			upcoming = min(upcoming, m.at)
			break
		}
		if due, err = t.appendDue(due, n, m); err != nil {
			return nil, time.Time{}, err
		}
	}
	if len(due) == 0 {
		t.s.nextDue = upcoming // else the next call looks whether they were dealt with
	}
	return due, instant(upcoming), it.Error()
}

// appendDue adds the job of a moment, if that has come and is still the job's.
func (t *tx) appendDue(due []*job.Job, n int, m moment) ([]*job.Job, error) {
	if _, written := t.writes[m.seq]; written || m.at > t.now.UnixNano() || len(due) == n || listed(due, m.seq) {
		return due, nil
	}
	j, err := t.s.load(m.seq)
	if err != nil {
		return nil, err
	}
	if times, k := timesOf(j); k > 0 && times[0] == m.at || k > 1 && times[1] == m.at {
		due = append(due, j)
	}
	return due, nil
}

// listed reports whether the jobs hold one of the sequence: a job whose two times have both come is met twice.
func listed(jobs []*job.Job, seq uint64) bool {
	return slices.ContainsFunc(jobs, func(j *job.Job) bool { return j.Seq == seq })
}

// instant is the time of nanoseconds since 1970; zero for "never".
func instant(nanos int64) time.Time {
	if nanos == never {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// timesOf tells at which times a job has to be looked at again.
func timesOf(j *job.Job) (times [2]int64, n int) {
	if j == nil || !j.State.Waiting() {
		return times, 0
	}
	if !j.DueTime.IsZero() {
		times[n] = j.DueTime.UnixNano()
		n++
	}
	if !j.StartBy.IsZero() && j.State != job.Backoff && j.State != job.Parked {
		times[n] = j.StartBy.UnixNano()
		n++
	}
	return times, n
}

// queueOf is the queue of the name as this transaction sees it; nil if there is none.
func (t *tx) queueOf(name string) *queue {
	if q := t.queues[name]; q != nil {
		return q
	}
	if q := t.s.state.queues[name]; q != nil && !q.deleted {
		return q
	}
	return nil
}

func (t *tx) Queue(name string) *store.Queue {
	if q := t.queues[name]; q != nil {
		if q.deleted {
			return nil
		}
		return q.shown()
	}
	return t.view.Queue(name)
}

func (t *tx) MakeQueue(name string) (*store.Queue, error) {
	if q := t.queueOf(name); q != nil && !q.deleted {
		return q.shown(), nil
	}
	if len(t.s.state.names)+len(t.queues) >= store.QueuesMax {
		return nil, store.ErrTooManyQueues
	}
	q := &queue{number: t.s.state.nextQueue + uint32(len(t.queues))}
	if old := t.s.state.queues[name]; old != nil {
		*q = *old // its finished jobs keep their name
	}
	q.deleted = false
	q.set = store.Queue{Name: name, Version: q.set.Version + 1, CreateTime: t.now}
	t.queues[name] = q
	return q.shown(), nil
}

func (t *tx) PutQueue(set *store.Queue) error {
	q := t.queueOf(set.Name)
	if q == nil {
		return fmt.Errorf("store: queue %q does not exist", set.Name)
	}
	next := *q
	next.set = *set
	next.set.Counts, next.set.Zombies = [job.NumberOfStates]uint64{}, 0
	next.set.Version = q.set.Version + 1
	t.queues[set.Name] = &next
	return nil
}

func (t *tx) DeleteQueue(name string) error {
	q := t.queueOf(name)
	if q == nil || q.unfinished() > 0 {
		return fmt.Errorf("store: queue %q does not exist or is in use", name)
	}
	next := *q
	next.deleted = true
	t.queues[name] = &next
	return nil
}

func (t *tx) Note(e event.Event) {
	e.Time = t.now
	t.events = append(t.events, e)
}
