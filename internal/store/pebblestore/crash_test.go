package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// crashCycles is how often the crash tests crash: STINT_CRASH_CYCLES, or a few for a quick look.
func crashCycles(tb testing.TB) int {
	text := os.Getenv("STINT_CRASH_CYCLES")
	if text == "" {
		return 60
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		tb.Fatalf("STINT_CRASH_CYCLES: %v", err)
	}
	return n
}

// TestCrash holds guarantee 1: writers change jobs and readers look at them, the machine loses power in the middle, and
// what anybody was told is there afterwards: the same version of each job, or a later one. Power takes all, half or none
// of what was not synced.
func TestCrash(t *testing.T) {
	for share := range 3 {
		percent := share * 50
		t.Run(fmt.Sprintf("%d%% of the unsynced data kept", percent), func(t *testing.T) {
			crash(t, Config{SnapshotBytes: 2048, Reserve: -1}, percent, crashCycles(t)/3+1)
		})
	}
}

// TestCrashWithRetention is the same while finished jobs and their ids leave by range.
func TestCrashWithRetention(t *testing.T) {
	cfg := Config{SnapshotBytes: 2048, Reserve: -1, RetainJobs: 40, RememberJobs: 200, Retain: time.Millisecond, Remember: 8 * time.Millisecond}
	crash(t, cfg, 50, crashCycles(t)/5+1)
}

// crash runs crash-clone-reopen cycles. A store lives through some of them, then a new one takes its place, so that no
// cycle has much to compare.
func crash(t *testing.T, cfg Config, percent, cycles int) {
	const life = 20
	var c *crasher
	for cycle := range cycles {
		if cycle%life == 0 {
			c = newCrasher(t, cfg, percent, uint64(cycle))
		}
		if !c.cycle() {
			t.Fatalf("cycle %d of seed %d: see above", cycle%life, c.seed)
		}
		if cycle%life == life-1 || cycle == cycles-1 {
			c.end()
		}
	}
}

// crasher is a store under attack and everything that was told about it.
type crasher struct {
	*testing.T
	seed    uint64
	random  *rand.Rand
	cfg     Config
	fs      *vfs.MemFS
	percent int
	store   *Store

	mu     sync.Mutex
	told   map[uint64]*job.Job // the newest version that anybody was told of, by seq; nil: told deleted
	fences map[uint64]uint64   // the job of each fence that anybody was told of
	going  map[uint64]bool     // jobs whose deletion was tried, so that it may have happened
	acks   int
	ready  chan struct{} // closed when acks have come as far as the crash
	at     int
	last   uint64 // the highest seq told
}

func newCrasher(t *testing.T, cfg Config, percent int, seed uint64) *crasher {
	c := &crasher{
		T: t, seed: seed, random: rand.New(rand.NewPCG(seed, uint64(percent))), cfg: cfg, percent: percent,
		fs: vfs.NewCrashableMem(), told: map[uint64]*job.Job{}, fences: map[uint64]uint64{}, going: map[uint64]bool{},
	}
	c.open()
	return c
}

func (c *crasher) open() {
	cfg := c.cfg
	cfg.Dir, cfg.FS = "data", c.fs
	s, err := Open(cfg)
	if err != nil {
		c.Fatalf("seed %d: open: %v", c.seed, err)
	}
	c.store = s
}

func (c *crasher) end() {
	if err := c.store.Close(); err != nil {
		c.Errorf("close: %v", err)
	}
}

// cycle lets writers and readers work until the crash, and reports whether everything told before it is still true.
func (c *crasher) cycle() bool {
	c.mu.Lock()
	c.acks, c.at, c.ready = 0, 1+c.random.IntN(40), make(chan struct{})
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var working sync.WaitGroup
	for range 3 {
		random := rand.New(rand.NewPCG(c.random.Uint64(), 1))
		working.Go(func() { c.write(ctx, random) })
	}
	random := rand.New(rand.NewPCG(c.random.Uint64(), 2))
	working.Go(func() { c.read(ctx, random) })
	if c.cfg.RetainJobs > 0 {
		working.Go(func() { c.retain(ctx) })
	}
	<-c.ready
	// What was told before this moment must be in the clone.
	c.mu.Lock()
	told, fences := maps.Clone(c.told), maps.Clone(c.fences)
	c.mu.Unlock()
	clone := c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.percent, RNG: rand.New(rand.NewPCG(c.random.Uint64(), 3))})
	cancel()
	working.Wait()
	c.end()
	c.fs, c.told, c.fences = clone, told, fences
	c.open()
	return c.check()
}

// tell notes the versions that somebody was told.
func (c *crasher) tell(jobs ...*job.Job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range jobs {
		c.last = max(c.last, j.Seq)
		before, known := c.told[j.Seq]
		if known && before == nil {
			continue // told deleted before
		}
		if !known || before.Version < j.Version {
			c.told[j.Seq] = j
		}
		if f := j.Run.Fence; f != 0 {
			if other, used := c.fences[f]; used && other != j.Seq {
				c.Errorf("fence %d was given to job %d and to job %d", f, other, j.Seq)
			}
			c.fences[f] = j.Seq
		}
	}
	c.count()
}

func (c *crasher) tellDeleted(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told[seq] = nil
	c.count()
}

// count counts an answer. Caller holds mu.
func (c *crasher) count() {
	if c.acks++; c.acks == c.at {
		close(c.ready)
	}
}

func (c *crasher) pick(random *rand.Rand) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return 1 + random.Uint64N(c.last+1)
}

// write changes jobs until ctx ends.
func (c *crasher) write(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		var jobs []*job.Job
		var deleted uint64
		err := c.store.Update(ctx, func(tx store.Tx) (err error) {
			jobs, deleted = nil, 0
			switch random.IntN(5) {
			case 0, 1:
				jobs, err = submitSome(tx, random)
			case 2:
				jobs, err = dispatchSome(tx, random)
			case 3:
				jobs, err = moveSome(tx, random, c.pick(random))
			default:
				if seq := c.pick(random); random.IntN(4) == 0 {
					c.mu.Lock()
					c.going[seq] = true
					c.mu.Unlock()
					deleted, err = deleteOne(tx, seq)
				} else {
					jobs, err = moveSome(tx, random, seq)
				}
			}
			return err
		})
		if err != nil {
			return // the store is closing
		}
		if deleted != 0 {
			c.tellDeleted(deleted)
		}
		c.tell(jobs...)
	}
}

// read looks at jobs until ctx ends: what a reader sees may not be taken back either.
func (c *crasher) read(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		var jobs []*job.Job
		err := c.store.View(ctx, func(r store.Reader) error {
			found, err := r.Load([]uint64{c.pick(random), c.pick(random), c.pick(random)})
			jobs = nil
			for _, j := range found {
				if j != nil {
					jobs = append(jobs, j)
				}
			}
			return err
		})
		if err != nil {
			return
		}
		c.tell(jobs...)
	}
}

// retain does the store's retention, more often than its own clock would.
func (c *crasher) retain(ctx context.Context) {
	for ctx.Err() == nil {
		_, err := c.store.retain()
		if err == nil {
			err = c.store.dropAllHoldings()
		}
		if err := errors.Join(err, c.store.closeBucket()); err != nil && ctx.Err() == nil {
			select {
			case <-c.store.closing:
				return
			default:
			}
		}
	}
}

func freshID() job.ID { return randomID(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))) }

func randomID(random *rand.Rand) (id job.ID) {
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16|random.Uint64N(1<<16))
	binary.BigEndian.PutUint64(id[8:], random.Uint64())
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id
}

func submitSome(tx store.Tx, random *rand.Rand) (jobs []*job.Job, err error) {
	for range 1 + random.IntN(6) {
		payload := make([]byte, []int{1, 20, 700}[random.IntN(3)])
		s := &job.Spec{
			ID: randomID(random), Queue: fmt.Sprint("q", random.IntN(2)), Priority: job.Normal,
			Payload: payload, PayloadSize: len(payload),
		}
		if random.IntN(5) == 0 {
			s.RunAt = tx.Now().Add(time.Hour)
		}
		if random.IntN(3) == 0 {
			s.FairnessKey = "t"
		}
		if s.Limits, err = someUses(tx, random); err != nil {
			return nil, err
		}
		if _, err := tx.MakeQueue(s.Queue); err != nil {
			return nil, err
		}
		c := store.Change{New: job.New(s, tx.Now())}
		if random.IntN(2) == 0 {
			if c, err = submitOnly(tx, random, s); err != nil {
				return nil, err
			}
		}
		if c.Old == c.New {
			continue
		}
		if err := tx.Put(c); err != nil {
			return nil, err
		}
		jobs = append(jobs, c.New)
	}
	return jobs, nil
}

// someUses are what a job takes, or nothing.
func someUses(tx store.Tx, random *rand.Rand) ([]job.LimitUse, error) {
	if random.IntN(2) == 0 {
		return nil, nil
	}
	return []job.LimitUse{{Limit: "l", Key: fmt.Sprint("k", random.IntN(4)), Units: 1 + random.Uint32N(2)}}, makeLimit(tx, "l")
}

// makeLimit makes a limit that there is not.
func makeLimit(tx store.Tx, name string) error {
	if tx.Limit(name) != nil {
		return nil
	}
	return tx.PutLimit(&store.Limit{Name: name, Policy: job.LimitPolicy{Max: 5}})
}

// someLane is one of the lanes that have jobs; nil if there are none.
func someLane(tx store.Tx, random *rand.Rand) store.Lane {
	var all []store.Lane
	tx.Lanes(func(l store.Lane) { all = append(all, l) })
	if len(all) == 0 {
		return nil
	}
	return all[random.IntN(len(all))]
}

func dispatchSome(tx store.Tx, random *rand.Rand) (jobs []*job.Job, err error) {
	heads, err := tx.Heads(someLane(tx, random), 1+random.IntN(5))
	for _, j := range heads {
		next, err := j.Dispatch(tx.Now(), job.Dispatch{Fence: tx.NextFence(), Worker: "w", Lease: time.Minute})
		if err != nil {
			return nil, err
		}
		if err := tx.Put(store.Change{Old: j, New: next}); err != nil {
			return nil, err
		}
		jobs = append(jobs, next)
	}
	return jobs, err
}

// moveSome makes a legal step of a job, if there is one for it.
func moveSome(tx store.Tx, random *rand.Rand, seq uint64) ([]*job.Job, error) {
	jobs, err := tx.Load([]uint64{seq})
	if err != nil || jobs[0] == nil {
		return nil, err
	}
	j, now := jobs[0], tx.Now()
	var next *job.Job
	switch random.IntN(8) {
	case 6, 7:
		u := job.Update{Fields: job.FieldLimits | job.FieldPriority | job.FieldTimeout}
		u.Spec.Priority, u.Spec.Timeout = job.Priority(10*(2+random.IntN(2))), time.Duration(random.IntN(2))*time.Minute
		if u.Spec.Limits, err = someUses(tx, random); err == nil {
			next, err = j.Update(now, u, job.By{})
		}
	case 0:
		next, err = j.Accept(now)
	case 1:
		next, err = j.Undeliver(now, "x")
	case 2:
		next, err = j.Lose(now, job.Policy{}, random.Float64(), "x")
	case 3:
		next, err = j.Retry(now)
	default:
		result := &job.Result{Data: make([]byte, 1+random.IntN(900))}
		result.Size = len(result.Data)
		next, _, err = j.Finish(now, j.Run.Fence, job.Outcome{Success: &job.Success{Result: result}}, job.Policy{}, 0.5)
	}
	if errors.Is(err, job.ErrIllegal) || errors.Is(err, job.ErrRunActive) || next == j {
		return []*job.Job{j}, nil // nothing to do here: the transaction has only read
	}
	if err != nil {
		return nil, err
	}
	if taken, err := keyTaken(tx, next); err != nil || taken {
		return nil, err
	}
	return []*job.Job{next}, tx.Put(store.Change{Old: j, New: next})
}

func deleteOne(tx store.Tx, seq uint64) (uint64, error) {
	jobs, err := tx.Load([]uint64{seq})
	if err != nil || jobs[0] == nil || jobs[0].CanDelete() != nil {
		return 0, err
	}
	return seq, tx.Put(store.Change{Old: jobs[0]})
}

// check compares the store with what was told, and with itself.
func (c *crasher) check() bool {
	good := true
	bad := func(format string, args ...any) {
		good = false
		c.Errorf(format, args...)
	}
	err := c.store.View(context.Background(), func(r store.Reader) error {
		for seq, told := range c.told {
			if err := c.checkJob(r, seq, told, bad); err != nil {
				return err
			}
		}
		return errors.Join(c.checkCounts(r, bad), c.checkHolders(r, bad))
	})
	if err != nil {
		bad("look at the store: %v", err)
	}
	c.checkLanes(bad)
	return good
}

func (c *crasher) checkJob(r store.Reader, seq uint64, told *job.Job, bad func(string, ...any)) error {
	jobs, err := r.Load([]uint64{seq})
	if err != nil {
		return err
	}
	j := jobs[0]
	if told == nil {
		if j != nil {
			bad("job %d was told deleted and is back: %v", seq, j.State)
		}
		return nil
	}
	found, err := r.Find([]job.ID{told.Spec.ID})
	if err != nil {
		return err
	}
	switch {
	case j == nil && (c.going[seq] || c.mayBeDropped(found[0])):
		return nil
	case j == nil:
		bad("job %d was told %v, version %d, and is lost", seq, told.State, told.Version)
	case j.Version < told.Version:
		bad("job %d was told version %d and has version %d", seq, told.Version, j.Version)
	case j.Version == told.Version && !cmp.Equal(j, told):
		bad("job %d differs from what was told:\n%s", seq, cmp.Diff(told, j))
	case found[0].Job == nil || found[0].Job.Seq != seq:
		bad("job %d is not found by its id", seq)
	}
	return nil
}

// mayBeDropped reports whether retention may have taken the record.
func (c *crasher) mayBeDropped(found store.Found) bool {
	return c.cfg.RetainJobs > 0 && (found.State.Terminal() || found.State == job.StateNone)
}

// checkCounts compares the counts with the jobs.
func (c *crasher) checkCounts(r store.Reader, bad func(string, ...any)) error {
	counts := map[string]*[job.NumberOfStates]uint64{"q0": {}, "q1": {}}
	next, err := r.Scan(0, false, 1<<30, func(j *job.Job) bool {
		counts[j.Spec.Queue][j.State]++
		return true
	})
	if err != nil || next != 0 {
		return fmt.Errorf("scan ended at %d: %w", next, err)
	}
	for name, want := range counts {
		if q := r.Queue(name); q != nil && q.Counts != *want {
			bad("counts of %s are %v, want %v", name, q.Counts, *want)
		}
	}
	return nil
}

// checkLanes looks at the heads of all lanes: every READY job is there once, in order.
func (c *crasher) checkLanes(bad func(string, ...any)) {
	err := c.store.Update(context.Background(), func(tx store.Tx) error {
		shown := map[string]uint64{}
		var all []store.Lane
		tx.Lanes(func(l store.Lane) { all = append(all, l) })
		for _, l := range all {
			heads, err := tx.Heads(l, l.Len())
			if err != nil {
				return err
			}
			if len(heads) != l.Len() {
				bad("a lane of %s has %d READY jobs and %d heads", l.Queue(), l.Len(), len(heads))
			}
			for i, j := range heads {
				if j.State != job.Ready || i > 0 && heads[i-1].ReadySeq >= j.ReadySeq || len(j.Spec.Limits) != len(l.Keys()) || j.Spec.FairnessKey != l.FairnessKey() {
					bad("head %d of %s is job %d, %v, place %d", i, l.Queue(), j.Seq, j.State, j.ReadySeq)
				}
			}
			shown[l.Queue()] += uint64(len(heads))
		}
		for _, name := range []string{"q0", "q1"} {
			if q := tx.Queue(name); q != nil && q.Counts[job.Ready] != shown[name] {
				bad("queue %s has %d READY jobs and %d in its lanes", name, q.Counts[job.Ready], shown[name])
			}
		}
		return nil
	})
	if err != nil {
		bad("heads: %v", err)
	}
}
