package pebblestore

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

const (
	requestsMax = 4096    // transactions waiting to be run
	stepsMax    = 8192    // steps after which a batch is sealed
	bytesMax    = 8 << 20 // bytes after which a batch is sealed
	never       = math.MaxInt64
)

// request is a transaction on its way: through the committing goroutine, which runs it, and the syncing one, which
// answers it.
type request struct {
	fn   func(store.Tx) error
	done func(error)
	err  error
}

// batch is the commit under construction.
type batch struct {
	number   uint64
	engine   *pebble.Batch
	steps    []step
	lanes    []*lane          // that have something to write down
	born     []*lane          // that were made
	refilled []*lane          // whose windows were read into
	named    map[uint32]int64 // by how many more unfinished jobs each limit is named
	drops    []drop
	ids      map[job.ID]uint64     // of its new jobs
	holdings map[uniqueKey]holding // of its jobs: the engine does not have them yet
	times    []moment              // of its jobs: the engine does not have them yet
	due      int64                 // the earliest of them
	requests []*request
}

// moment is a time at which a job has to be looked at again.
type moment struct {
	at  int64
	seq uint64
}

// sealed is a batch on its way to the disk. engine is nil if nothing was written: then its answers only wait for the
// batches before it.
type sealed struct {
	number   uint64
	engine   *pebble.Batch
	requests []*request
}

// commitLoop runs transactions until the store closes.
func (s *Store) commitLoop() {
	defer close(s.sealed)
	for {
		r, ok := <-s.requests
		if !ok {
			return
		}
		s.run(r)
		if !s.gather() {
			s.seal()
			return
		}
		s.seal()
	}
}

// gather runs what else is waiting. While the last batch is being synced it waits for more: that is what groups
// commits. It returns false when the store closes.
func (s *Store) gather() bool {
	for len(s.building.steps) < stepsMax && s.building.engine.Len() < bytesMax {
		select {
		case r, ok := <-s.requests:
			if !ok {
				return false
			}
			s.run(r)
			continue
		default:
		}
		if s.inflight.Load() == 0 {
			return true
		}
		select {
		case r, ok := <-s.requests:
			if !ok {
				return false
			}
			s.run(r)
		case <-s.idle:
		}
	}
	return true
}

// run runs one transaction and hands its writes over.
func (s *Store) run(r *request) {
	r.err = s.transact(s.tx, r.fn)
	s.building.requests = append(s.building.requests, r)
}

func (s *Store) transact(t *tx, fn func(store.Tx) error) error {
	s.now = s.cfg.Now().UTC().Round(0)
	t.begin(s.now)
	if err := guard(fn, t); err != nil {
		return err
	}
	if len(t.changes) > 0 || len(t.queues) > 0 || len(t.limits) > 0 || len(t.zombies) > 0 || len(t.gates) > 0 || len(t.events) > 0 || t.also != nil {
		s.handOver(t)
	}
	return nil
}

// guard turns a panic of fn into an error of its caller: nothing of the transaction was handed over, and the store
// goes on.
func guard(fn func(store.Tx) error, t *tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: transaction panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(t)
}

// handOver applies the writes of a transaction to memory and adds them to the batch.
func (s *Store) handOver(t *tx) {
	b := &s.building
	s.dirty.Store(b.number)
	first := len(b.steps)
	s.noteAll(t)
	s.state.mu.Lock()
	for _, q := range t.queues {
		s.state.putQueue(q)
	}
	for _, l := range t.limits {
		s.state.putLimit(l)
	}
	for _, g := range t.gates {
		s.state.putGate(g)
	}
	for fence, z := range t.zombies { // before the run ends that it was, so that its keys are held
		s.state.putZombie(fence, z)
	}
	for i := range t.changes {
		c := &t.changes[i]
		st := s.stepOf(c)
		s.state.apply(st, t.now)
		if c.Old == nil {
			s.state.bucket(bucketOf(st.seq)).add(c.New.Spec.ID)
		}
		s.state.pending[st.seq] = c.New
		b.steps = append(b.steps, st)
	}
	s.state.nextSeq, s.state.nextReady, s.state.nextFence = t.nextSeq, t.nextReady, t.nextFence
	if t.drop != nil {
		s.state.applyDrop(t.drop)
		b.drops = append(b.drops, *t.drop)
		s.forgetQueues()
	}
	s.state.mu.Unlock()

	for i := range t.changes {
		s.noteJob(&t.changes[i], t.now)
	}
	if t.also != nil {
		t.also()
	}

	s.writeAll(t, b.steps[first:])
	if len(t.changes) > 0 && s.observer != nil {
		s.observer.Applied(t.changes)
	}
}

// writeAll adds the writes of a transaction to the engine's batch; steps are those of its changes.
func (s *Store) writeAll(t *tx, steps []step) {
	for _, q := range t.queues {
		s.set(queueKey(q.number), q.record())
	}
	for _, l := range t.limits {
		s.set(limitKey(l.number), l.record())
	}
	for _, g := range t.gates {
		s.writeGate(g)
	}
	for fence, z := range t.zombies {
		s.writeZombie(fence, z)
	}
	for i := range t.changes { // keys of a kind stand together, for the engine finds the place of a key fastest behind the last one
		switch c := &t.changes[i]; {
		case c.Old == nil:
			s.writeID(c.New.Spec.ID, steps[i].seq)
		case c.New == nil:
			s.deleteID(c.Old)
		}
	}
	for i := range t.changes {
		s.writeChange(&t.changes[i], &steps[i])
	}
	for _, bl := range t.blobs {
		if bl.value == nil {
			s.delete(bl.key)
		} else {
			s.set(bl.key, bl.value)
		}
	}
	s.writeHoldings(t.holdings)
}

// noteAll tells of what a transaction changes besides jobs, before it does.
func (s *Store) noteAll(t *tx) {
	for _, q := range t.queues {
		s.noteQueue(q, t.now)
	}
	for _, l := range t.limits {
		s.noteLimit(l, t.now)
	}
	for _, g := range t.gates {
		s.noteGate(g, t.now)
	}
	for fence, z := range t.zombies {
		if err := s.noteZombie(fence, z, t.now); err != nil {
			s.fail(err)
		}
	}
	for i := range t.events {
		s.events.add(&t.events[i])
	}
}

// stepOf says what a change is for memory, and tells its observer.
func (s *Store) stepOf(c *store.Change) step {
	j := c.New
	if j == nil {
		j = c.Old
	}
	q := s.state.queues[j.Spec.Queue]
	st := step{seq: j.Seq, queue: q.number, job: c.New}
	if c.Old != nil {
		st.old, st.oldReady = c.Old.State, c.Old.ReadySeq
	}
	if c.New != nil {
		st.new = c.New.State
	}
	if st.old == job.Ready {
		st.from = s.state.laneOf(q, c.Old)
		c.Left = st.from
		s.touch(st.from)
	}
	if st.new == job.Ready {
		if st.to = s.state.laneOf(q, c.New); st.to == nil {
			st.to = s.state.makeLane(q, c.New)
			s.building.born = append(s.building.born, st.to)
		}
		c.Entered = st.to
		s.touch(st.to)
	}
	if st.old == job.Running && st.new != job.Running {
		c.Freed = s.state.taken[st.seq]
	}
	s.countNamed(c, st.old, st.new)
	return st
}

// countNamed follows a change of the unfinished jobs that name limits.
func (s *Store) countNamed(c *store.Change, from, to job.State) {
	was, is := unfinished(from), unfinished(to)
	if c.Old != nil && c.New != nil && c.Old.Spec == c.New.Spec { // as ever but for a job that is replaced
		was, is = 0, is-was
	}
	if was != 0 && len(c.Old.Spec.Limits) > 0 {
		s.state.countJob(c.Old.Spec.Limits, -was, s.building.named)
	}
	if is != 0 && len(c.New.Spec.Limits) > 0 {
		s.state.countJob(c.New.Spec.Limits, is, s.building.named)
	}
}

// updated reports whether a change gives a job another spec.
func updated(c *store.Change) bool { return c.Old != nil && c.New != nil && c.Old.Spec != c.New.Spec }

// unfinished is how many unfinished jobs a job in the state is.
func unfinished(s job.State) int64 {
	if s == job.StateNone || s.Terminal() {
		return 0
	}
	return 1
}

// touch notes that the lane has something to write down with the batch.
func (s *Store) touch(l *lane) {
	if !l.is(laneTouched) {
		l.flags |= laneTouched
		s.building.lanes = append(s.building.lanes, l)
	}
}

// writeChange adds a change's records to the engine's batch. A job with a live run is in memory and in the log only, but
// for its spec.
func (s *Store) writeChange(c *store.Change, st *step) {
	seq, j := st.seq, c.New
	switch {
	case j == nil:
		s.deleteJob(c.Old)
	case j.State != job.Running || updated(c):
		s.record.b = s.record.b[:0]
		writeJob(&s.record, j, st.queue, s.state)
		s.set(seqKey(kindJob, seq), s.record.b)
		if c.Old != nil && c.Old.Result != nil && j.Result == nil && c.Old.Result.Data == nil {
			s.delete(seqKey(kindResult, seq))
		}
	}
	s.writeTimes(c, seq)
	if c.Old != nil && c.Old.Spec.Unique != nil {
		s.writeHoldEnds(c, st)
	}
}

func (s *Store) writeTimes(c *store.Change, seq uint64) {
	was, n := timesOf(c.Old)
	is, m := timesOf(c.New)
	if was == is && n == m {
		return
	}
	for _, at := range was[:n] {
		s.delete(timeKey(at, seq))
	}
	for _, at := range is[:m] {
		s.set(timeKey(at, seq), nil)
		s.building.times = append(s.building.times, moment{at, seq})
		s.building.due = min(s.building.due, at)
		s.nextDue = min(s.nextDue, at)
	}
}

func (s *Store) writeID(id job.ID, seq uint64) {
	var key [32]byte
	s.building.ids[id] = seq
	s.set(idKey(key[:0], bucketOf(seq), id), offsetOf(seq))
	if seq%bucketSize == bucketSize-1 {
		s.set(bucketKey(kindFilter, bucketOf(seq)), s.state.bucket(bucketOf(seq)).appendFilter(nil))
	}
}

// offsetOf is what an id's record holds: where its job is in the bucket.
func offsetOf(seq uint64) []byte { return protowire.AppendVarint(nil, seq%bucketSize) }

func readOffset(b []byte) (uint64, error) {
	v, n := protowire.ConsumeVarint(b)
	if n < 0 || v >= bucketSize {
		return 0, errRecord
	}
	return v, nil
}

func (s *Store) deleteID(j *job.Job) {
	var key [32]byte
	delete(s.building.ids, j.Spec.ID)
	s.delete(idKey(key[:0], bucketOf(j.Seq), j.Spec.ID))
}

func (s *Store) deleteJob(j *job.Job) {
	s.delete(seqKey(kindJob, j.Seq))
	if j.Spec.PayloadSize > inlineMax {
		s.delete(seqKey(kindPayload, j.Seq))
	}
	if j.Result != nil && j.Result.Size > inlineMax {
		s.delete(seqKey(kindResult, j.Seq))
	}
}

// set and delete add to the engine's batch. An engine batch in memory cannot fail but by misuse.
func (s *Store) set(key, value []byte) {
	if err := s.building.engine.Set(key, value, nil); err != nil {
		s.fail(err)
	}
}

func (s *Store) delete(key []byte) {
	if err := s.building.engine.Delete(key, nil); err != nil {
		s.fail(err)
	}
}

// seal lets ready jobs meet room, writes the commit record and sends the batch to the disk.
func (s *Store) seal() {
	if s.observer != nil {
		if err := s.transact(s.matching, s.observer.Match); err != nil {
			s.cfg.Logger.Error("matching failed", "error", err)
		}
	}
	if err := s.refillEmpty(); err != nil {
		s.fail(err)
	}
	b := &s.building
	out := sealed{number: b.number, requests: b.requests}
	if s.dirty.Load() == b.number {
		s.state.mu.Lock()
		s.state.settle(b.lanes)
		s.state.mu.Unlock()
		s.writeLanes()
		s.writeCommit()
		out.engine = b.engine
		if err := s.write(b.engine); err != nil {
			s.fail(err)
		}
		s.state.mu.Lock()
		clear(s.state.pending)
		s.state.shrink(b.lanes)
		s.state.shrink(b.refilled)
		s.state.mu.Unlock()
		if s.observer != nil {
			s.observer.Sealed(b.number)
		}
		s.begin(b.number + 1)
	} else {
		b.requests = nil
		s.state.mu.Lock()
		s.state.shrink(b.refilled)
		s.state.mu.Unlock()
		clear(b.refilled)
		b.refilled = b.refilled[:0]
	}
	s.inflight.Add(1)
	select {
	case s.sealed <- out:
	case <-s.failed:
	}
}

// begin starts the next batch.
func (s *Store) begin(number uint64) {
	b := &s.building
	s.under.Store(number)
	clear(b.ids)
	clear(b.lanes)
	clear(b.born)
	clear(b.refilled)
	clear(b.named)
	clear(b.holdings)
	*b = batch{
		number: number, engine: s.db.NewBatch(), steps: b.steps[:0], lanes: b.lanes[:0], born: b.born[:0], refilled: b.refilled[:0],
		ids: b.ids, holdings: b.holdings, named: b.named, times: b.times[:0], due: never,
	}
	if b.ids == nil {
		b.ids, b.holdings, b.named = map[job.ID]uint64{}, map[uniqueKey]holding{}, map[uint32]int64{}
	}
}

func (s *Store) writeLanes() {
	for _, l := range s.building.lanes {
		l.flags &^= laneTouched
		if l.is(laneDead) {
			continue
		}
		s.state.changed[l] = struct{}{}
		w := l.window
		if w == nil {
			continue
		}
		if n := len(w.batch); n > 0 {
			s.set(segmentKey(l.number, w.batch[n-1].ready), appendSegment(nil, w.batch))
			clear(w.batch)
			w.batch = w.batch[:0]
			l.flags |= laneStored
		}
		for _, e := range w.again {
			s.set(segmentKey(l.number, e.ready), appendSegment(nil, []entry{e}))
			l.flags |= laneStored
		}
		w.again = nil
	}
}

func (s *Store) writeCommit() {
	b := &s.building
	c := commit{
		batch: b.number, time: s.now, steps: b.steps, drops: b.drops,
		nextSeq: s.state.nextSeq, nextReady: s.state.nextReady, nextFence: s.state.nextFence, nextLane: s.state.nextLane,
		born: b.born, named: b.named,
	}
	for _, l := range b.lanes {
		if l.is(laneMoved) && !l.is(laneDead) {
			l.flags &^= laneMoved
			c.fronts = append(c.fronts, front{lane: l.number, pos: l.front()})
		}
	}
	s.writeEvents(&c)
	s.record.b = s.record.b[:0]
	c.write(&s.record, s.state)
	s.set(seqKey(kindLog, b.number), s.record.b)
	s.logged += len(s.record.b)
	if s.logged >= s.cfg.SnapshotBytes {
		s.writeSnapshot()
	}
}

// syncLoop waits for each batch to be on disk and answers what rests on it.
func (s *Store) syncLoop() {
	for b := range s.sealed {
		if b.engine != nil {
			if err := s.sync(b.engine); err != nil {
				s.fail(err)
			}
			s.markSynced(b.number)
		}
		for _, r := range b.requests {
			r.done(r.err)
		}
		s.inflight.Add(-1)
		select {
		case s.idle <- struct{}{}:
		default:
		}
	}
}

func (s *Store) sync(b *pebble.Batch) error {
	if err := awaitDisk(b); err != nil {
		return err
	}
	return b.Close()
}

// markSynced tells observers and waiting views that the batch is on disk.
func (s *Store) markSynced(number uint64) {
	s.syncMu.Lock()
	s.synced = number
	close(s.syncCh)
	s.syncCh = make(chan struct{})
	s.syncMu.Unlock()
	if s.observer != nil {
		s.observer.Synced(number)
	}
}

// awaitSync returns when the batch is on disk.
func (s *Store) awaitSync(ctx context.Context, number uint64) error {
	for {
		s.syncMu.Lock()
		synced, ch := s.synced, s.syncCh
		s.syncMu.Unlock()
		if synced >= number {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.failed:
			return store.ErrClosed
		}
	}
}
