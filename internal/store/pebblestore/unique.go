package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// The holders of unique keys are on disk, an entry a key, and follow from the records of the jobs: Put writes what a change
// makes of them. Memory has those of the batch under construction only, for the engine does not show them yet. An entry
// whose holder has ended says all that is answered of it, for it outlasts the holder's record; it stands a second time
// under the time when its term is over, so that upkeep finds it then.

// uniqueKey names a key.
type uniqueKey struct {
	queue uint32
	key   string
}

// holding says who holds a key; zero: nobody. The rest is set if the holder has ended.
type holding struct {
	seq   uint64
	until int64 // nanoseconds since 1970
	id    job.ID
	state job.State
}

// holdingOf is what a job holds, by its record; zero for none.
func holdingOf(j *job.Job) holding {
	if j == nil || j.Spec.Unique == nil {
		return holding{}
	}
	until, held := j.KeyTerm()
	switch {
	case !held:
		return holding{}
	case until.IsZero():
		return holding{seq: j.Seq}
	default:
		return holding{seq: j.Seq, until: until.UnixNano(), id: j.Spec.ID, state: j.State}
	}
}

// putHolding notes what a change makes of the unique key of its job. That nobody else holds a key that is taken is for the
// caller to see to.
func (t *tx) putHolding(c store.Change, spec *job.Spec) error {
	was, is := holdingOf(c.Old), holdingOf(c.New)
	if was == is {
		return nil
	}
	k := uniqueKey{t.everQueue(spec.Queue).number, spec.Unique.Key}
	if is == (holding{}) && was.until != 0 { // its term may be over, and another one hold the key
		now, err := t.holding(k)
		if err != nil || now != was {
			return err
		}
	}
	t.holdings[k] = is
	return nil
}

// everQueue is the queue of the name, also if it was deleted: finished jobs that name it may hold keys; nil if there is none.
func (t *tx) everQueue(name string) *queue {
	if q := t.queues[name]; q != nil {
		return q
	}
	return t.s.state.queues[name]
}

// holding is the newest one of a key.
func (t *tx) holding(k uniqueKey) (holding, error) {
	if h, ok := t.holdings[k]; ok {
		return h, nil
	}
	if h, ok := t.s.building.holdings[k]; ok {
		return h, nil
	}
	return t.s.readHolding(k)
}

func (s *Store) readHolding(k uniqueKey) (h holding, err error) {
	err = s.get(k.appendKey(nil), func(b []byte) error {
		h, err = readHolding(b)
		return err
	})
	return h, err
}

// Holder implements store.Reader.
func (t *tx) Holder(queue, key string) (store.Holder, error) {
	q := t.everQueue(queue)
	if q == nil {
		return store.Holder{}, nil
	}
	h, err := t.holding(uniqueKey{q.number, key})
	if err != nil {
		return store.Holder{}, err
	}
	return h.holder(t, t.now)
}

// Holder implements store.Reader.
func (v view) Holder(queue, key string) (store.Holder, error) {
	v.s.state.mu.RLock()
	q := v.s.state.queues[queue]
	v.s.state.mu.RUnlock()
	if q == nil {
		return store.Holder{}, nil
	}
	h, err := v.s.readHolding(uniqueKey{q.number, key})
	if err != nil {
		return store.Holder{}, err
	}
	return h.holder(v, v.now)
}

// holder is who holds a key at now.
func (h holding) holder(r store.Reader, now time.Time) (store.Holder, error) {
	if h.seq == 0 || h.until != 0 && now.UnixNano() >= h.until {
		return store.Holder{}, nil
	}
	jobs, err := r.Load([]uint64{h.seq})
	switch j := jobs; {
	case err != nil:
		return store.Holder{}, err
	case j[0] == nil && h.until != 0: // past its retention
		return store.Holder{ID: h.id, State: h.state}, nil
	case j[0] == nil || !j[0].HoldsKey(now): // it moved on while a view looked
		return store.Holder{}, nil
	default:
		return store.Holder{Job: j[0], ID: j[0].Spec.ID, State: j[0].State}, nil
	}
}

// writeHoldings adds the holdings of a transaction to the batch.
func (s *Store) writeHoldings(holdings map[uniqueKey]holding) {
	for k, h := range holdings {
		s.building.holdings[k] = h
		key := k.appendKey(nil)
		if h == (holding{}) {
			s.delete(key)
		} else {
			s.set(key, h.record())
		}
	}
}

// writeHoldEnds notes when the term of a job that has ended is over.
func (s *Store) writeHoldEnds(c *store.Change, st *step) {
	was, is := holdingOf(c.Old), holdingOf(c.New)
	if was.until == is.until {
		return
	}
	if was.until != 0 {
		s.delete(holdEndKey(was.until, st.seq))
	}
	if is.until != 0 {
		k := uniqueKey{st.queue, c.New.Spec.Unique.Key}
		s.set(holdEndKey(is.until, st.seq), k.appendKey(nil)[1:])
	}
}

// holdingsDropped is how many entries one transaction of upkeep drops.
const holdingsDropped = 1000

// dropHoldings drops entries whose term is over, and returns where to go on if there may be more, else nil. Nothing is
// answered by them any more. It begins at from, or with the oldest if that is nil: what was dropped just now lies before the
// rest, and each look from the front would pass over all of it again.
func (s *Store) dropHoldings(from []byte) (next []byte, err error) {
	if from == nil {
		from = []byte{kindHoldEnd}
	}
	var ends [][]byte // their keys
	var of []uniqueKey
	err = s.scanFrom(from, holdEndKey(s.cfg.Now().UnixNano()+1, 0), func(key, value []byte) error {
		if len(value) < 4 {
			return errRecord
		}
		if len(ends) == holdingsDropped {
			return errLooked
		}
		ends = append(ends, bytes.Clone(key))
		of = append(of, uniqueKey{binary.BigEndian.Uint32(value), string(value[4:])})
		return nil
	})
	if err != nil && !errors.Is(err, errLooked) || len(ends) == 0 {
		return nil, err
	}
	if len(ends) == holdingsDropped {
		next = append(bytes.Clone(ends[len(ends)-1]), 0)
	}
	ctx, cancel := context.WithTimeout(context.Background(), upkeepTimeout) //nolint:forbidigo // of a goroutine of the store
	defer cancel()
	return next, s.Update(ctx, func(x store.Tx) error {
		t, ok := x.(*tx)
		if !ok {
			return fmt.Errorf("store: a transaction is a %T", x)
		}
		for i, k := range of {
			h, err := t.holding(k)
			if err != nil {
				return err
			}
			if h.seq == keySeq(ends[i]) && h.until == int64(keySeq(ends[i][:9])) {
				t.holdings[k] = holding{}
			}
		}
		t.also = func() {
			for _, key := range ends {
				s.delete(key)
			}
		}
		return nil
	})
}

// appendKey appends the key of the entry: the unique key itself, so that no two share one.
func (k uniqueKey) appendKey(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kindHold), k.queue)
	return append(b, k.key...)
}

func holdEndKey(until int64, seq uint64) []byte {
	k := timeKey(until, seq)
	k[0] = kindHoldEnd
	return k
}

func (h holding) record() []byte {
	w := writer{}
	w.uint(1, h.seq)
	if h.until != 0 {
		w.uint(2, uint64(h.until))
		w.bytes(3, h.id[:])
		w.uint(4, uint64(h.state))
	}
	return w.b
}

func readHolding(b []byte) (h holding, err error) {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			h.seq = r.v
		case 2:
			h.until = int64(r.v)
		case 3:
			r.id((*[16]byte)(&h.id))
		case 4:
			h.state = job.State(r.v)
		}
	}
	return h, r.err
}
