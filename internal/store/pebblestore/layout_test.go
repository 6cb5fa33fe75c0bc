package pebblestore

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// TestFilter: an id that was added is always found; of others about one in a hundred is.
func TestFilter(t *testing.T) {
	const n = 20_000
	random := rand.New(rand.NewPCG(1, 2))
	f := newFilter(n)
	ids := make([]job.ID, n)
	for i := range ids {
		ids[i] = randomID(random)
		f.add(ids[i])
	}
	back, err := readFilter(f.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if !back.has(id) {
			t.Fatalf("%s was added and is not found", id)
		}
	}
	wrong := 0
	for range n {
		if f.has(randomID(random)) {
			wrong++
		}
	}
	if wrong > n*3/100 {
		t.Errorf("%d of %d other ids are let through", wrong, n)
	}
}

// TestLogPerLife holds the budget of the contract: at most 600 bytes of log for each life of a default job of 100 bytes,
// in batches as a busy server has them.
func TestLogPerLife(t *testing.T) {
	s, err := Open(Config{Dir: "data", FS: vfs.NewMem(), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const lives, batch = 20_000, 500
	worker := job.Dispatch{Worker: "thumbnailer", Instance: freshID(), Build: "build-1", Lease: 30 * time.Second}
	before := s.db.Metrics().WAL.BytesWritten
	for range lives / batch {
		jobs := submitJobs(t, s, "thumbnails", batch)
		for i, step := range []func(store.Tx, *job.Job) (*job.Job, error){
			func(tx store.Tx, j *job.Job) (*job.Job, error) {
				to := worker
				to.Fence = tx.NextFence()
				return j.Dispatch(tx.Now(), to)
			},
			func(tx store.Tx, j *job.Job) (*job.Job, error) {
				done, _, err := j.Finish(tx.Now(), j.Run.Fence, job.Outcome{Success: &job.Success{}}, job.Policy{}, 0)
				return done, err
			},
		} {
			err := s.Update(t.Context(), func(tx store.Tx) error {
				for k, j := range jobs {
					next, err := step(tx, j)
					if err != nil {
						return err
					}
					if err := tx.Put(store.Change{Old: j, New: next}); err != nil {
						return err
					}
					jobs[k] = next
				}
				return nil
			})
			if err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
	}
	if got := (s.db.Metrics().WAL.BytesWritten - before) / lives; got > 600 {
		t.Errorf("a life takes %d bytes of log", got)
	}
}

// TestTables: a table of the engine holds keys of one kind, and the engine goes on emptying its upper level, though no key
// is in more than a few tables there, which is what it goes by otherwise: a read passes as many levels of it as there are.
func TestTables(t *testing.T) {
	s, err := Open(Config{Dir: "data", FS: vfs.NewMem(), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var last []*job.Job
	for range 100 {
		jobs := submitJobs(t, s, "q", 20)
		err := s.Update(t.Context(), func(tx store.Tx) error {
			for _, j := range last { // so that each memtable overlaps the one before
				next, err := j.Park(tx.Now(), job.By{})
				if err != nil {
					return err
				}
				if err := tx.Put(store.Change{Old: j, New: next}); err != nil {
					return err
				}
			}
			return nil
		})
		if err := errors.Join(err, s.db.Flush()); err != nil {
			t.Fatal(err)
		}
		last = jobs
		if n := s.db.Metrics().Levels[0].Sublevels; n >= l0Tables {
			t.Fatalf("the engine's upper level has %d levels", n)
		}
	}
	levels, err := s.db.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[byte]bool{}
	for _, tables := range levels {
		for _, table := range tables {
			first, last := table.Smallest.UserKey, table.Largest.UserKey
			kinds[first[0]] = true
			toEnd := table.Largest.IsExclusiveSentinel() && bytes.Equal(last, after(first[0]))
			if first[0] != last[0] && !toEnd {
				t.Errorf("a table has keys from %q to %q", first, last)
			}
		}
	}
	if !kinds[kindJob] || !kinds[kindID] || !kinds[kindEvent] {
		t.Errorf("tables of %v", kinds)
	}
}

// someJob is a job with every part that a record can have.
func someJob() *job.Job {
	now := time.Unix(1_700_000_000, 5).UTC()
	delay := time.Minute
	failure := &job.Failure{
		Class: job.Malformed, Type: "t", Message: "m", Final: true, Park: true, RetryDelay: &delay,
		Stack: []job.Frame{{Function: "f", File: "g", Line: 7}}, Causes: []job.Cause{{Type: "c", Message: "d"}},
		Process: &job.ProcessExit{Code: -3, Signal: "KILL", StderrTail: "tail"},
	}
	run := job.Run{
		Throttle: &job.Throttle{Limit: "l", Key: "k", Cooldown: time.Minute},
		Number:   2, Fence: 99, State: job.RunFailed, Worker: "w", Instance: job.ID{1, 2}, Build: "b", Unary: true,
		Lease: time.Hour, DispatchTime: now, AcceptTime: now.Add(-time.Second), EndTime: now.Add(time.Second),
		Failure: failure, Note: "n", Epoch: 3, Charged: job.CountAttempts,
	}
	return &job.Job{
		Seq: 17, Spec: &job.Spec{
			ID: job.ID{9}, Queue: "q", Priority: job.Low, Payload: []byte("p"), PayloadSize: 1, ContentType: "c",
			RunAt: now, StartBy: now.Add(time.Hour), Timeout: time.Second, Lease: time.Minute,
			Retry:  new(everyRetry()),
			Limits: []job.LimitUse{{Limit: "l", Key: "k", Units: 2}, {Limit: "m", Units: 1}}, FairnessKey: "f",
			Labels: map[string]string{"k": "v"}, Subject: "s", Traceparent: "tp",
			Unique:     &job.Unique{Key: "u", Until: job.UntilStart, TTL: time.Hour, OnConflict: job.OnConflictReject},
			Tracestate: "ts", Digest: [16]byte{8},
		},
		State: job.Parked, Version: 12, Epoch: 3,
		Counters:   job.Counters{Attempts: 1, Crashes: 2, Interrupts: 3, Snoozes: 4, Deliveries: 5},
		SubmitTime: now, ReadyTime: now, DueTime: now.Add(time.Hour), StartBy: now, EndTime: now, EpochTime: now, ReadySeq: 6,
		Run: run, RunCount: 2, History: []job.Run{run},
		Interrupt: &job.Interrupt{
			Level: job.LevelCancel, Generation: 2, Source: job.SourceDrain, Reason: "r", Requester: "q", RequestTime: now, Park: true,
		},
		ParkReason: job.ParkWorker, ParkBuild: "b", ReleasedBy: []string{"b", "c"}, Avoid: job.ID{7}, AvoidUntil: now,
		Failure: failure, Result: &job.Result{Data: []byte("r"), Size: 1, ContentType: "x"},
		Actions: []job.Action{{Kind: job.ActionInterruptRetry, Reason: "r", Requester: "q", Time: now, Request: "x", Effect: job.EffectNoRun}, {Kind: 7}}, KeyFree: true,
	}
}

// everyRetry is a retry policy that says everything.
func everyRetry() job.RetryPolicy {
	return job.RetryPolicy{
		MaxAttempts: 3, OnFailure: job.OnFailurePark, Curve: job.Linear, Initial: -1, Max: time.Hour, Multiplier: 1.5,
		Increment: time.Minute, Deadline: -1, InterruptDelay: time.Second,
	}
}

// named is a state that knows some names.
func named() *state {
	st := newState()
	st.cold = true
	st.putQueue(&queue{number: 4, set: store.Queue{Name: "q"}})
	st.putLimit(&limit{number: 2, set: store.Limit{Name: "l"}})
	st.putLimit(&limit{number: 3, set: store.Limit{Name: "m"}})
	return st
}

func recordOf(j *job.Job) []byte {
	var w writer
	writeJob(&w, j, 4, named())
	return w.b
}

// TestRecordKeepsEveryField fails when a field of a job is not in its record.
func TestRecordKeepsEveryField(t *testing.T) {
	want := someJob()
	got, err := decodeJob(want.Seq, recordOf(want), named())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzRecords: no bytes make a reader panic, and what is read can be written and read again.
func FuzzRecords(f *testing.F) {
	j := someJob()
	f.Add(recordOf(j))
	st := named()
	l := st.makeLane(st.queues["q"], j)
	var w writer
	(&commit{
		batch: 3, time: j.SubmitTime, nextSeq: 4, nextReady: 5, nextFence: 6, nextLane: 2, born: []*lane{l}, named: map[uint32]int64{2: 1},
		steps:  []step{{seq: 1, queue: 4, new: job.Ready, to: l, job: j}, {seq: 2, queue: 4, old: job.Ready, from: l, new: job.Running, job: j}},
		fronts: []front{{1, 9}}, drops: []drop{{bucket: 1, trim: 2, forgot: true, left: 3, horizon: j.SubmitTime}},
	}).write(&w, st)
	f.Add(w.b)
	f.Add((&limit{set: store.Limit{Name: "l", Policy: job.LimitPolicy{Max: 3, Keys: []job.KeyMax{{Key: "k", Max: 2}}}}, deleted: true}).record())
	f.Add(appendSegment(nil, []entry{{ready: 1, seq: 1}, {ready: 2, seq: 2}, {ready: 9, seq: 4}}))
	f.Add((&queue{set: store.Queue{Name: "q", Version: 3, Pause: &store.Pause{Reason: "r"}}, deleted: true}).record())
	f.Fuzz(func(t *testing.T, b []byte) {
		if j, err := decodeJob(1, b, named()); err == nil {
			if _, err := decodeJob(1, recordOf(j), named()); err != nil {
				t.Fatalf("its own record is refused: %v", err)
			}
		}
		st := named()
		if c, err := st.readCommit(b); err == nil {
			c.write(&writer{}, st)
		}
		_, _ = readLimit(1, b)
		_, _ = readHolding(b)
		_, _ = st.readLane(b)
		_ = readSegment(b, func(e entry) bool { return e.ready%5 != 0 })
		_, _ = readQueue(1, b)
		_, _ = readBucket(b)
		_ = (&bucket{}).readFilter(b)
		_, _ = named().readSnapshot(b)
	})
}
