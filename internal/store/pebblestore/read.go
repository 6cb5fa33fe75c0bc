package pebblestore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// view reads the store from any goroutine. A job is looked up in memory first and in the engine then: what memory no
// longer holds the engine holds already, so no read is older than the one before.
type view struct {
	s    *Store
	now  time.Time
	open uint64 // all batches before it are seen
}

func (v view) Now() time.Time { return v.now }

func (v view) Load(seqs []uint64) ([]*job.Job, error) {
	jobs := make([]*job.Job, len(seqs))
	for i, seq := range seqs {
		j, err := v.s.load(seq)
		if err != nil {
			return nil, err
		}
		jobs[i] = j
	}
	return jobs, nil
}

// load returns a job as it is now; nil if there is none.
func (s *Store) load(seq uint64) (*job.Job, error) {
	s.state.mu.RLock()
	j, ok := s.state.live[seq]
	if !ok {
		j, ok = s.state.pending[seq]
	}
	s.state.mu.RUnlock()
	if ok {
		return j, nil
	}
	return s.read(seq)
}

// read returns a job as the engine has it; nil if there is none.
func (s *Store) read(seq uint64) (*job.Job, error) {
	var j *job.Job
	err := s.get(seqKey(kindJob, seq), func(b []byte) (err error) {
		j, err = decodeJob(seq, b, s.state)
		return err
	})
	return j, err
}

// get calls fn with the value of the key, valid during the call, or not at all if there is none.
func (s *Store) get(key []byte, fn func([]byte) error) error {
	b, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %x: %w", key, err)
	}
	err = fn(b)
	return errors.Join(err, closer.Close())
}

func (v view) Find(ids []job.ID) ([]store.Found, error) {
	found := make([]store.Found, len(ids))
	for i, id := range ids {
		seq, err := v.s.seqOf(id)
		if err != nil {
			return nil, err
		}
		if seq == 0 {
			continue
		}
		if found[i], err = v.s.foundAt(seq); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// seqOf returns the sequence of an id; 0 if it is unknown to the engine.
func (s *Store) seqOf(id job.ID) (uint64, error) {
	var buf [8]uint32
	s.state.mu.RLock()
	buckets := s.state.candidates(buf[:0], id)
	s.state.mu.RUnlock()
	for _, number := range buckets {
		var seq uint64
		var key [32]byte
		err := s.get(idKey(key[:0], number, id), func(b []byte) error {
			offset, err := readOffset(b)
			seq = uint64(number)<<bucketBits | offset
			return err
		})
		if seq != 0 || err != nil {
			return seq, err
		}
	}
	return 0, nil
}

// foundAt tells what is known of a sequence whose id was found.
func (s *Store) foundAt(seq uint64) (store.Found, error) {
	j, err := s.load(seq)
	if err != nil || j != nil {
		return found(j), err
	}
	var f store.Found
	err = s.get(chunkKey(seq), func(b []byte) error {
		if i := int(seq % chunkSize); i < len(b) {
			f.State = job.State(b[i])
		}
		return nil
	})
	return f, err
}

func found(j *job.Job) store.Found {
	if j == nil {
		return store.Found{}
	}
	return store.Found{Job: j, State: j.State}
}

func (v view) Payload(j *job.Job) ([]byte, error) {
	if j.Spec.Payload != nil || j.Spec.PayloadSize == 0 {
		return j.Spec.Payload, nil
	}
	return v.s.blob(seqKey(kindPayload, j.Seq))
}

func (v view) Result(j *job.Job) ([]byte, error) {
	if j.Result == nil || j.Result.Data != nil || j.Result.Size == 0 {
		if j.Result == nil {
			return nil, nil
		}
		return j.Result.Data, nil
	}
	return v.s.blob(seqKey(kindResult, j.Seq))
}

func (s *Store) blob(key []byte) ([]byte, error) {
	var out []byte
	err := s.get(key, func(b []byte) error {
		out = slices.Clone(b)
		return nil
	})
	return out, err
}

func (v view) Running(fn func(*job.Job) bool) {
	v.s.state.mu.RLock()
	jobs := make([]*job.Job, 0, len(v.s.state.live))
	for _, j := range v.s.state.live {
		jobs = append(jobs, j)
	}
	v.s.state.mu.RUnlock()
	slices.SortFunc(jobs, func(a, b *job.Job) int { return int(int64(a.Run.Fence) - int64(b.Run.Fence)) })
	for _, j := range jobs {
		if !fn(j) {
			return
		}
	}
}

func (v view) Scan(from uint64, reverse bool, budget int, fn func(*job.Job) bool) (next uint64, err error) {
	it, err := v.s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindJob}, UpperBound: after(kindJob)})
	if err != nil {
		return 0, fmt.Errorf("scan: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	move, seek, start := it.Next, it.SeekGE, from
	if reverse {
		move, seek, start = it.Prev, it.SeekLT, from+1
	}
	for ok := seek(seqKey(kindJob, start)); ok; ok = move() {
		seq := keySeq(it.Key())
		if budget == 0 {
			return seq, nil
		}
		budget--
		j, err := decodeJob(seq, it.Value(), v.s.state)
		if err == nil && !j.State.Terminal() {
			j, err = v.s.load(seq) // the engine may lag behind memory
		}
		if err != nil {
			return 0, err
		}
		if j != nil && !fn(j) {
			return seq, nil
		}
	}
	return 0, it.Error()
}

func (v view) Horizon() time.Time {
	v.s.state.mu.RLock()
	defer v.s.state.mu.RUnlock()
	return v.s.state.horizon
}

func (v view) Queue(name string) *store.Queue {
	v.s.state.mu.RLock()
	defer v.s.state.mu.RUnlock()
	if q := v.s.state.queues[name]; q != nil && !q.deleted {
		return q.shown()
	}
	return nil
}

func (v view) Queues(from string, fn func(*store.Queue) bool) {
	v.s.state.mu.RLock()
	i, _ := slices.BinarySearch(v.s.state.names, from)
	queues := make([]*store.Queue, 0, len(v.s.state.names)-i)
	for _, name := range v.s.state.names[i:] {
		queues = append(queues, v.s.state.queues[name].shown())
	}
	v.s.state.mu.RUnlock()
	for _, q := range queues {
		if !fn(q) {
			return
		}
	}
}

func (v view) Oldest(name string) *job.Job {
	read := map[*lane]*job.Job{} // the first jobs of lanes that memory does not show
	for range oldestLooks {
		j, l, place := v.s.state.oldest(name, read)
		if l == nil {
			return j
		}
		read[l] = v.s.firstFrom(l.number, place)
	}
	j, _, _ := v.s.state.oldest(name, read)
	return j
}

// oldestLooks bounds the lanes whose first job is looked for on disk; with more of them it is about the oldest that is shown.
const oldestLooks = 8

// oldest is the first of the queue's READY jobs, as far as memory and what was read before show it. Where another lane may
// have an older one, it returns that lane and from where on to look.
func (s *state) oldest(name string, read map[*lane]*job.Job) (oldest *job.Job, unread *lane, from uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	q := s.queues[name]
	if q == nil {
		return nil, nil, 0
	}
	from = never
	place := uint64(never)
	q.eachLane(func(l *lane) {
		if l.count == 0 || l.front() >= place {
			return
		}
		j, known := read[l]
		for _, head := range l.heads(nil, 1, func(*job.Job) bool { return false }) {
			j, known = head, true
		}
		switch {
		case !known && l.front() < from:
			unread, from = l, l.front()
		case j != nil && j.ReadySeq < place:
			oldest, place = j, j.ReadySeq
		}
	})
	if from >= place {
		unread = nil
	}
	return oldest, unread, from
}

// lookPast is how many places of jobs that left a lane a look for its first passes.
const lookPast = 4096

// firstFrom reads the first job of a lane from a place on; nil if it is not on disk yet, or not near.
func (s *Store) firstFrom(number, place uint64) (first *job.Job) {
	left := lookPast
	err := s.scanFrom(segmentKey(number, place), segmentKey(number+1, 0), func(_, segment []byte) error {
		err := readSegment(segment, func(e entry) bool {
			if e.ready < place {
				return true
			}
			j, err := s.load(e.seq)
			if err == nil && j != nil && j.State == job.Ready && j.ReadySeq == e.ready {
				first = j
			}
			left--
			return first == nil && left > 0
		})
		if err == nil && (first != nil || left == 0) {
			err = errLooked
		}
		return err
	})
	if err != nil && !errors.Is(err, errLooked) {
		return nil
	}
	return first
}

// errLooked ends a scan that has seen enough.
var errLooked = errors.New("seen enough")

func (v view) Lanes(fn func(store.Lane)) {
	v.s.state.mu.RLock()
	defer v.s.state.mu.RUnlock()
	for _, q := range v.s.state.queues {
		q.eachLane(func(l *lane) {
			if l.count > 0 {
				fn(l)
			}
		})
	}
}
