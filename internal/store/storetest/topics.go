package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

func seqs(jobs []*job.Job) (s []uint64) {
	for _, j := range jobs {
		s = append(s, j.Seq)
	}
	return s
}

// everyRetry is a retry policy that says everything.
func everyRetry() job.RetryPolicy {
	return job.RetryPolicy{
		MaxAttempts: 3, OnFailure: job.OnFailurePark, Curve: job.Linear, Initial: time.Second, Max: time.Minute, Multiplier: 1.5,
		Increment: time.Minute, Deadline: -1, InterruptDelay: time.Hour,
	}
}

func testSubmit(t *testing.T, b *bench) {
	full := b.spec("q")
	full.Priority, full.ContentType, full.Subject = job.High, "text/plain", "order/1"
	full.Labels = map[string]string{"a": "1", "b": "2"}
	full.Lease, full.Timeout, full.Digest = time.Minute, time.Hour, [16]byte{9}
	full.Retry = new(everyRetry())
	full.StartBy, full.Traceparent, full.Tracestate = b.clock.Add(time.Hour), "00-a-b-01", "x=y"
	jobs := b.submit(b.spec("q"), full, b.spec("other/queue"))
	other := job.ID{1, 2, 3}
	for range 2 {
		b.view(func(r store.Reader) error {
			found, err := r.Find([]job.ID{jobs[0].Spec.ID, other, full.ID, jobs[2].Spec.ID})
			if err != nil {
				return err
			}
			b.equal("first", found[0].Job, jobs[0])
			b.equal("unknown id", found[1], store.Found{})
			b.equal("full", found[2].Job, jobs[1])
			b.equal("third", found[3].Job, jobs[2])
			return nil
		})
		b.Reopen()
	}
	b.equal("sequence", seqs(jobs), []uint64{1, 2, 3})
	b.equal("counts", b.counts("q")[job.Ready], uint64(2))
}

func testBlobs(t *testing.T, b *bench) {
	spec := b.spec("q")
	spec.Payload = bytes.Repeat([]byte("p"), 300<<10)
	spec.PayloadSize = len(spec.Payload)
	seq := b.submit(spec)[0].Seq
	b.dispatch(seq)
	result := bytes.Repeat([]byte("r"), 200<<10)
	b.finish(seq, job.Outcome{Success: &job.Success{Result: &job.Result{Data: result, Size: len(result), ContentType: "x/y"}}})
	b.Reopen()
	j := b.get(seq)[0]
	b.equal("result's type", j.Result.ContentType, "x/y")
	b.view(func(r store.Reader) error {
		p, err := r.Payload(j)
		if !bytes.Equal(p, bytes.Repeat([]byte("p"), 300<<10)) {
			t.Errorf("payload of %d bytes differs", len(p))
		}
		out, err2 := r.Result(j)
		if !bytes.Equal(out, result) {
			t.Errorf("result of %d bytes differs", len(out))
		}
		return errors.Join(err, err2)
	})
}

func testAbort(t *testing.T, b *bench) {
	b.submit(b.spec("q"))
	spec := b.spec("q")
	err := b.Store().Update(context.Background(), func(tx store.Tx) error {
		if err := tx.Put(store.Change{New: job.New(spec, tx.Now())}); err != nil {
			return err
		}
		if _, err := tx.MakeQueue("never"); err != nil {
			return err
		}
		return errStop
	})
	if !errors.Is(err, errStop) {
		t.Fatalf("got %v, want the function's error", err)
	}
	b.view(func(r store.Reader) error {
		found, err := r.Find([]job.ID{spec.ID})
		b.equal("found", found, []store.Found{{}})
		if r.Queue("never") != nil {
			t.Error("an aborted queue exists")
		}
		return err
	})
	b.equal("heads", b.heads("q", 9), []uint64{1})
}

func testOwnWrites(t *testing.T, b *bench) {
	b.update(func(tx store.Tx) error {
		if _, err := tx.MakeQueue("q"); err != nil {
			return err
		}
		if tx.Queue("q") == nil {
			t.Error("a transaction does not see the queue it made")
		}
		j := job.New(b.spec("q"), tx.Now())
		if err := tx.Put(store.Change{New: j}); err != nil {
			return err
		}
		found, err := tx.Find([]job.ID{j.Spec.ID})
		if err != nil {
			return err
		}
		b.equal("found", found[0].Job, j)
		run, err := j.Dispatch(tx.Now(), job.Dispatch{Fence: tx.NextFence(), Lease: time.Minute})
		if err != nil {
			return err
		}
		if err := tx.Put(store.Change{Old: j, New: run}); err != nil {
			return err
		}
		got, err := tx.Load([]uint64{j.Seq, 99})
		b.equal("loaded", got, []*job.Job{run, nil})
		return err
	})
	b.equal("counts", b.counts("q")[job.Running], uint64(1))
	b.equal("no heads", b.heads("q", 9), []uint64(nil))
}

func testDue(t *testing.T, b *bench) {
	at := func(d time.Duration) *job.Spec {
		s := b.spec("q")
		s.RunAt = b.clock.Add(d)
		return s
	}
	byStart := b.spec("q")
	byStart.StartBy = b.clock.Add(90 * time.Second)
	b.submit(at(3*time.Minute), at(time.Minute), byStart, at(2*time.Minute))
	due := func(n int) (got []uint64, next time.Time) {
		b.update(func(tx store.Tx) error {
			jobs, at, err := tx.Due(n)
			got, next = seqs(jobs), at
			return err
		})
		return got, next
	}
	start := b.clock
	got, next := due(10)
	b.equal("nothing due", got, []uint64(nil))
	b.equal("next", next, start.Add(time.Minute))
	b.advance(2 * time.Minute)
	b.Reopen()
	got, _ = due(2)
	b.equal("first two", got, []uint64{2, 3})
	for _, seq := range got {
		b.step(seq, func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Wake(tx.Now()) })
	}
	got, next = due(10)
	b.equal("third", got, []uint64{4})
	b.equal("next after", next, start.Add(3*time.Minute))
	b.equal("states", []job.State{b.get(2)[0].State, b.get(3)[0].State}, []job.State{job.Ready, job.Expired})
}

// testDueAtOnce: a job that is due as soon as it is written is due for the very next transaction.
func testDueAtOnce(t *testing.T, b *bench) {
	b.submit(b.spec("q"), b.spec("q"))
	for seq := range uint64(2) {
		b.dispatch(seq + 1)
		zero := time.Duration(0)
		fail := job.Outcome{Failure: &job.Failure{Class: job.Application, RetryDelay: &zero}}
		b.Store().Post(context.Background(), func(tx store.Tx) error {
			jobs, err := tx.Load([]uint64{seq + 1})
			if err != nil {
				return err
			}
			next, _, err := jobs[0].Finish(tx.Now(), jobs[0].Run.Fence, fail, job.Policy{}, 0)
			if err != nil {
				return err
			}
			return tx.Put(store.Change{Old: jobs[0], New: next})
		}, func(err error) {
			if err != nil {
				t.Error(err)
			}
		})
		var due []uint64
		b.update(func(tx store.Tx) error {
			jobs, _, err := tx.Due(10)
			due = seqs(jobs)
			return err
		})
		if len(due) != int(seq)+1 {
			t.Errorf("due are %v, want the first %d", due, seq+1)
		}
	}
}

func testQueues(t *testing.T, b *bench) {
	b.update(func(tx store.Tx) error {
		for _, name := range []string{"b", "a", "c/d"} {
			if _, err := tx.MakeQueue(name); err != nil {
				return err
			}
		}
		return nil
	})
	b.update(func(tx store.Tx) error {
		q := *tx.Queue("a")
		q.Policy = job.Policy{Lease: time.Minute, Retry: everyRetry(), MaxRunning: 5, OnZombie: job.OnZombieRelease}
		q.Pause = &store.Pause{Reason: "why", Requester: "who", Time: tx.Now()}
		return tx.PutQueue(&q)
	})
	b.submit(b.spec("c/d"))
	b.Reopen()
	var names []string
	b.view(func(r store.Reader) error {
		r.Queues("", func(q *store.Queue) bool {
			names = append(names, q.Name)
			return true
		})
		a := r.Queue("a")
		b.equal("policy", a.Policy, job.Policy{Lease: time.Minute, Retry: everyRetry(), MaxRunning: 5, OnZombie: job.OnZombieRelease})
		b.equal("pause", a.Pause, &store.Pause{Reason: "why", Requester: "who", Time: b.clock})
		b.equal("version", a.Version, uint64(2))
		return nil
	})
	b.equal("names", names, []string{"a", "b", "c/d"})
	if err := b.Store().Update(context.Background(), func(tx store.Tx) error { return tx.DeleteQueue("c/d") }); err == nil {
		t.Error("a queue with a waiting job was deleted")
	}
}

func testQueueRevival(t *testing.T, b *bench) {
	seq := b.submit(b.spec("q"))[0].Seq
	b.dispatch(seq)
	b.finish(seq, job.Outcome{Success: &job.Success{}})
	b.update(func(tx store.Tx) error { return tx.DeleteQueue("q") })
	b.Reopen()
	b.view(func(r store.Reader) error {
		if r.Queue("q") != nil {
			t.Error("a deleted queue is shown")
		}
		return nil
	})
	b.equal("name", b.get(seq)[0].Spec.Queue, "q")
	// A job that goes on after its end needs its queue, as a new one does.
	cancelled := b.submit(b.spec("r"))[0]
	b.step(cancelled.Seq, events()["cancel"])
	b.update(func(tx store.Tx) error { return tx.DeleteQueue("r") })
	retry := func(tx store.Tx) error {
		js, err := tx.Load([]uint64{cancelled.Seq})
		if err != nil {
			return err
		}
		next, err := js[0].Retry(tx.Now())
		if err != nil {
			return err
		}
		return tx.Put(store.Change{Old: js[0], New: next})
	}
	if err := b.Store().Update(context.Background(), retry); err == nil {
		t.Error("a job of a deleted queue goes on")
	}
	b.update(func(tx store.Tx) error {
		if _, err := tx.MakeQueue("r"); err != nil {
			return err
		}
		return retry(tx)
	})
	b.Reopen()
	b.equal("heads of the queue that is made again", b.heads("r", 9), []uint64{cancelled.Seq})
	b.equal("its counts", b.counts("r")[job.Ready], uint64(1))
	next := b.submit(b.spec("q"))[0].Seq
	b.equal("heads", b.heads("q", 9), []uint64{next})
	b.equal("counts", b.counts("q")[job.Succeeded], uint64(1))
}

func testScan(t *testing.T, b *bench) {
	for range 10 {
		b.submit(b.spec("q"))
	}
	b.dispatch(3)
	b.dispatch(5)
	b.finish(5, job.Outcome{Success: &job.Success{}})
	scan := func(from uint64, reverse bool, budget, take int) (got []string, next uint64) {
		b.view(func(r store.Reader) (err error) {
			next, err = r.Scan(from, reverse, budget, func(j *job.Job) bool {
				if len(got) == take {
					return false
				}
				got = append(got, fmt.Sprint(j.Seq, j.State))
				return true
			})
			return err
		})
		return got, next
	}
	got, next := scan(2, false, 4, 100)
	b.equal("page", got, []string{"2" + " READY", "3 RUNNING", "4 READY", "5 SUCCEEDED"})
	b.equal("next", next, uint64(6))
	got, next = scan(4, true, 100, 2)
	b.equal("reverse", got, []string{"4 READY", "3 RUNNING"})
	b.equal("reverse next", next, uint64(2))
	got, next = scan(9, false, 100, 100)
	b.equal("end", len(got), 2)
	b.equal("end next", next, uint64(0))
}

func testDelete(t *testing.T, b *bench) {
	specs := []*job.Spec{b.spec("q"), b.spec("q")}
	b.submit(specs...)
	b.update(func(tx store.Tx) error {
		jobs, err := tx.Load([]uint64{1})
		if err != nil {
			return err
		}
		return tx.Put(store.Change{Old: jobs[0]})
	})
	again := *specs[0]
	for range 2 {
		b.view(func(r store.Reader) error {
			found, err := r.Find([]job.ID{specs[0].ID})
			b.equal("found", found, []store.Found{{}})
			return err
		})
		b.equal("heads", b.heads("q", 9), []uint64{2})
		b.equal("counts", b.counts("q")[job.Ready], uint64(1))
		b.Reopen()
	}
	b.equal("its id is free", b.submit(&again)[0].Seq, uint64(3))
}

func testFences(t *testing.T, b *bench) {
	b.submit(b.spec("q"), b.spec("q"))
	first := b.dispatch(1).Run.Fence
	b.Reopen()
	if second := b.dispatch(2).Run.Fence; second <= first {
		t.Errorf("fence %d follows fence %d", second, first)
	}
}

// recorder is an observer that claims everything ready in one queue.
type recorder struct {
	mu      sync.Mutex
	applied []string
	claim   bool
	sealed  uint64
	synced  uint64
}

func (o *recorder) Applied(changes []store.Change) {
	for _, c := range changes {
		o.applied = append(o.applied, fmt.Sprint(c.New.Seq, c.New.State))
	}
}

func (o *recorder) Match(tx store.Tx) error {
	if !o.claim {
		return nil
	}
	jobs, err := tx.Heads(plain(tx, "q"), 10)
	for _, j := range jobs {
		next, err := j.Dispatch(tx.Now(), job.Dispatch{Fence: tx.NextFence(), Lease: time.Minute})
		if err != nil {
			return err
		}
		if err := tx.Put(store.Change{Old: j, New: next}); err != nil {
			return err
		}
	}
	return err
}

func (o *recorder) Sealed(n uint64) { o.sealed = n }

func (o *recorder) Synced(n uint64) {
	o.mu.Lock()
	o.synced = n
	o.mu.Unlock()
}

func testObserver(t *testing.T, b *bench) {
	o := &recorder{claim: true}
	b.Store().Attach(o)
	b.submit(b.spec("q"), b.spec("r"))
	b.equal("applied", o.applied, []string{"1 READY", "2 READY", "1 RUNNING"})
	o.mu.Lock()
	defer o.mu.Unlock()
	b.equal("synced with the answer", o.synced, o.sealed)
	if o.sealed == 0 {
		t.Error("no batch was sealed")
	}
	b.equal("a claim shares its submit's batch", b.get(1)[0].State, job.Running)
}

func testClosed(t *testing.T, b *bench) {
	s := b.Store()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(context.Background(), func(store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("update: %v", err)
	}
	if err := s.View(context.Background(), func(store.Reader) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("view: %v", err)
	}
	b.Reopen()
}

// testOverdueView: a view whose caller has gone is not begun, so that a caller of many ends with its deadline.
func testOverdueView(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := b.Store().View(ctx, func(store.Reader) error {
		t.Error("the view was begun")
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("view: %v", err)
	}
}

func testRestart(t *testing.T, b *bench) {
	b.submit(b.spec("q"), b.spec("q"), b.spec("q"), b.spec("q"))
	b.dispatch(1)
	b.step(1, func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Accept(tx.Now()) })
	b.step(1, func(tx store.Tx, j *job.Job) (*job.Job, error) {
		next, _, err := j.RequestInterrupt(tx.Now(), job.InterruptRequest{Level: job.LevelRetry, Source: job.SourceUser, Reason: "r", Requester: "me"})
		return next, err
	})
	b.dispatch(2)
	b.dispatch(3)
	code := job.ProcessExit{Code: -3, Signal: "KILL", StderrTail: "oh"}
	delay := time.Minute
	b.finish(3, job.Outcome{Failure: &job.Failure{
		Class: job.Application, Type: "exit", Message: "m", Process: &code, RetryDelay: &delay,
		Stack: []job.Frame{{Function: "f", File: "g", Line: 3}}, Causes: []job.Cause{{Type: "a", Message: "b"}},
	}})
	want, counts := b.get(1, 2, 3, 4), b.counts("q")
	b.Reopen()
	b.equal("jobs", b.get(1, 2, 3, 4), want)
	b.equal("counts", b.counts("q"), counts)
	var running []uint64
	b.view(func(r store.Reader) error {
		r.Running(func(j *job.Job) bool {
			running = append(running, j.Seq)
			return true
		})
		return nil
	})
	b.equal("running", running, []uint64{1, 2})
}

// testEnds ends runs in every way under every interrupt: what the store shows, and still shows after a restart, is what
// package job has made.
func testEnds(_ *testing.T, b *bench) {
	policy := job.Policy{}
	failing := func(f job.Failure) job.Outcome { return job.Outcome{Failure: &f} }
	finish := func(o job.Outcome) func(store.Tx, *job.Job) (*job.Job, error) {
		return func(tx store.Tx, j *job.Job) (*job.Job, error) {
			next, _, err := j.Finish(tx.Now(), j.Run.Fence, o, policy, 0.5)
			return next, err
		}
	}
	ends := []func(store.Tx, *job.Job) (*job.Job, error){
		finish(job.Outcome{Success: &job.Success{Result: &job.Result{Data: []byte("r"), Size: 1}}}),
		finish(failing(job.Failure{Class: job.Application, Message: "no"})), finish(failing(job.Failure{Class: job.Infrastructure})),
		finish(failing(job.Failure{Class: job.Malformed})), finish(failing(job.Failure{Class: job.TimedOut, Final: true})),
		finish(failing(job.Failure{Class: job.Application, Park: true})), finish(job.Outcome{Stopped: &job.Stopped{Reason: "bye"}}),
		finish(job.Outcome{Released: &job.Released{}}), finish(job.Outcome{Released: &job.Released{NotMe: true}}),
		func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Lose(tx.Now(), policy, 0.5, "silent") },
		func(tx store.Tx, j *job.Job) (*job.Job, error) {
			if j.Interrupted().Level == job.LevelNone {
				return j, nil
			}
			return j.HardDeadline(tx.Now(), policy, 0.5)
		},
	}
	ask := func(level job.Level) func(store.Tx, *job.Job) (*job.Job, error) {
		return func(tx store.Tx, j *job.Job) (*job.Job, error) {
			next, _, err := j.RequestInterrupt(tx.Now(), job.InterruptRequest{Level: level, Source: job.SourceUser, Reason: "why", Requester: "ops"})
			return next, err
		}
	}
	levels := []func(store.Tx, *job.Job) (*job.Job, error){
		func(_ store.Tx, j *job.Job) (*job.Job, error) { return j, nil }, ask(job.LevelRetry), ask(job.LevelCancel),
		func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Timeout(tx.Now()) },
		func(tx store.Tx, j *job.Job) (*job.Job, error) {
			return j.Park(tx.Now(), job.By{Reason: "look", Requester: "ops"})
		},
	}
	var all []uint64
	want := map[uint64]*job.Job{}
	check := func() {
		for i, got := range b.get(all...) {
			b.equal(fmt.Sprint("job ", all[i]), got, want[all[i]])
		}
	}
	for _, level := range levels {
		for range ends {
			seq := b.submit(b.spec("q"))[0].Seq
			all = append(all, seq)
			b.dispatch(seq)
			b.step(seq, func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Accept(tx.Now()) })
			b.step(seq, level)
			b.advance(time.Second)
			b.step(seq, func(tx store.Tx, j *job.Job) (*job.Job, error) {
				return j.Acknowledge(tx.Now(), j.Run.Fence, j.Interrupted().Generation)
			})
			want[seq] = b.get(seq)[0]
		}
	}
	b.Reopen()
	check() // while they run
	for i, seq := range all {
		want[seq] = b.step(seq, ends[i%len(ends)])
	}
	check()
	b.Reopen()
	check()
}

func testPostOrder(t *testing.T, b *bench) {
	const n = 500
	var ran, answered []int
	var wait sync.WaitGroup
	wait.Add(n)
	for i := range n {
		b.Store().Post(context.Background(), func(tx store.Tx) error {
			ran = append(ran, i)
			_, err := tx.MakeQueue(fmt.Sprint("q", i%7))
			return err
		}, func(err error) {
			if err != nil {
				t.Error(err)
			}
			answered = append(answered, i)
			wait.Done()
		})
	}
	wait.Wait()
	for i := range n {
		if ran[i] != i || answered[i] != i {
			t.Fatalf("call %d ran as %d and was answered as %d", i, ran[i], answered[i])
		}
	}
}
