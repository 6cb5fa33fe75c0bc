package dispatch_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
	"github.com/stintrun/stint/internal/store/pebblestore"
)

// rig is a dispatcher over a store in memory, all in the bubble of a test.
type rig struct {
	t     testing.TB
	ctx   context.Context
	disk  *disk
	store *pebblestore.Store
	d     *dispatch.Dispatcher
	log   *slog.Logger
	skew  atomic.Int64 // how much the store's clock is ahead
	goOn  func()       // ends what occupy began
	ids   uint32
}

// inBubble runs a test in virtual time against a rig, and takes the rig down after it.
func inBubble(t *testing.T, test func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		test(t, r)
	})
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, ctx: t.Context(), disk: newDisk(), goOn: func() {}}
	r.log = slog.New(slog.NewTextHandler(errorsOf{t}, &slog.HandlerOptions{Level: slog.LevelError}))
	r.start()
	return r
}

// errorsOf fails a test by what the code under test logs as an error.
type errorsOf struct{ t testing.TB }

func (e errorsOf) Write(p []byte) (int, error) {
	e.t.Errorf("logged: %s", bytes.TrimSpace(p))
	return len(p), nil
}

func (r *rig) start() {
	r.t.Helper()
	var err error
	r.store, err = pebblestore.Open(pebblestore.Config{
		Dir: "data", FS: r.disk, Logger: r.log, Reserve: -1, CacheBytes: 1 << 20,
		Now: func() time.Time { return time.Now().Add(time.Duration(r.skew.Load())) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if r.d, err = dispatch.New(r.store, r.log); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait() // its first look at what is there
}

func (r *rig) close() {
	r.t.Helper()
	r.disk.resume()
	r.goOn()
	r.d.Close()
	if err := r.store.Close(); err != nil {
		r.t.Error("close the store:", err)
	}
}

// restart closes everything in good order and starts it again on the same disk.
func (r *rig) restart() {
	r.t.Helper()
	r.close()
	r.start()
}

// pass lets time pass, and then everything that came due in it.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// disk is a file system in memory whose syncs can be made to hang.
type disk struct {
	vfs.FS
	mu   sync.Mutex
	hung chan struct{} // nil: syncs go through
}

func newDisk() *disk {
	d := &disk{}
	d.FS = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			d.mu.Lock()
			hung := d.hung
			d.mu.Unlock()
			if hung != nil {
				<-hung
			}
		}
		return nil
	}))
	return d
}

// hang makes the disk hang, until resume, under a batch of one job for each of the queues.
func (r *rig) hang(queues ...string) (resume func()) {
	specs := make([]*job.Spec, len(queues))
	for i, q := range queues {
		specs[i] = r.spec(q)
	}
	r.disk.hang()
	submitted := make(chan struct{})
	go func() {
		defer close(submitted)
		r.submit(specs...)
	}()
	synctest.Wait()
	return func() {
		r.disk.resume()
		<-submitted
	}
}

// occupy makes transactions wait until goOn.
func (r *rig) occupy() {
	gate, done := make(chan struct{}), make(chan error, 1)
	wait := func(store.Tx) error { <-gate; return nil }
	r.store.Post(r.ctx, wait, func(err error) { done <- err })
	synctest.Wait()
	r.goOn = sync.OnceFunc(func() {
		close(gate)
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
}

// hang makes syncs wait for resume.
func (d *disk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hung = make(chan struct{})
}

func (d *disk) resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hung != nil {
		close(d.hung)
		d.hung = nil
	}
}

// spec is a plain job for the queue.
func (r *rig) spec(queue string) *job.Spec {
	r.ids++
	s := &job.Spec{Queue: queue, Priority: job.Normal, Payload: []byte("payload"), PayloadSize: 7}
	binary.BigEndian.PutUint32(s.ID[:], r.ids)
	return s
}

// submit submits jobs and returns their sequences.
func (r *rig) submit(specs ...*job.Spec) []uint64 {
	r.t.Helper()
	var seqs []uint64
	r.update(func(tx store.Tx) error {
		seqs = nil
		for _, s := range specs {
			if _, err := tx.MakeQueue(s.Queue); err != nil {
				return err
			}
			j := job.New(s, tx.Now())
			if err := tx.Put(store.Change{New: j}); err != nil {
				return err
			}
			seqs = append(seqs, j.Seq)
		}
		return nil
	})
	return seqs
}

// plain submits n plain jobs.
func (r *rig) plain(queue string, n int) []uint64 {
	r.t.Helper()
	specs := make([]*job.Spec, n)
	for i := range specs {
		specs[i] = r.spec(queue)
	}
	return r.submit(specs...)
}

func (r *rig) update(fn func(store.Tx) error) {
	r.t.Helper()
	if err := r.store.Update(r.ctx, fn); err != nil {
		r.t.Fatal(err)
	}
}

// step moves a job on, as an operator or producer would.
func (r *rig) step(seq uint64, fn func(j *job.Job, now time.Time) (*job.Job, error)) {
	r.t.Helper()
	r.update(func(tx store.Tx) error {
		jobs, err := tx.Load([]uint64{seq})
		if err != nil {
			return err
		}
		next, err := fn(jobs[0], tx.Now())
		if err != nil || next == jobs[0] {
			return err
		}
		return tx.Put(store.Change{Old: jobs[0], New: next})
	})
}

// interrupt interrupts a job.
func (r *rig) interrupt(seq uint64, level job.Level) {
	r.t.Helper()
	r.step(seq, func(j *job.Job, now time.Time) (*job.Job, error) {
		next, _, err := j.RequestInterrupt(now, job.InterruptRequest{Level: level, Source: job.SourceUser, Reason: "asked"})
		return next, err
	})
}

// delete removes a job.
func (r *rig) delete(seq uint64) {
	r.t.Helper()
	r.step(seq, func(*job.Job, time.Time) (*job.Job, error) { return nil, nil })
}

// job reads a job.
func (r *rig) job(seq uint64) *job.Job {
	r.t.Helper()
	var found *job.Job
	err := r.store.View(r.ctx, func(v store.Reader) error {
		jobs, err := v.Load([]uint64{seq})
		found = jobs[0]
		return err
	})
	if err != nil || found == nil {
		r.t.Fatalf("job %d: %v, %v", seq, found, err)
	}
	return found
}

// expect checks where a job stands.
func (r *rig) expect(seq uint64, want job.State) *job.Job {
	r.t.Helper()
	j := r.job(seq)
	if j.State != want {
		r.t.Fatalf("job %d is %s, want %s; runs %+v", seq, j.State, want, j.History)
	}
	return j
}

// expectEnd checks how a job's last run ended.
func (r *rig) expectEnd(seq uint64, want job.RunState) *job.Job {
	r.t.Helper()
	j := r.job(seq)
	if n := len(j.History); n == 0 || j.History[n-1].State != want {
		r.t.Fatalf("job %d is %s with the runs %+v, want a last one with state %d", seq, j.State, j.History, want)
	}
	return j
}

// hello is the hello of worker n, a process that holds these runs.
func hello(n byte, held ...dispatch.Assignment) dispatch.Hello {
	return dispatch.Hello{Worker: "w", Instance: job.ID{n}, Held: tokensOf(held)}
}

func tokensOf(runs []dispatch.Assignment) []string {
	tokens := make([]string, len(runs))
	for i, a := range runs {
		tokens[i] = a.Token
	}
	return tokens
}

// seqsOf are the jobs of the runs.
func seqsOf(runs []dispatch.Assignment) []uint64 {
	seqs := make([]uint64, len(runs))
	for i, a := range runs {
		seqs[i] = a.Job.Seq
	}
	return seqs
}

// room is a pool of a demand.
func room(runs int, queues ...string) dispatch.Pool {
	return dispatch.Pool{Queues: queues, MaxRuns: runs}
}

// stream is a worker's session, driven as the server drives it: one message after the other, each answered before the
// next is sent.
type stream struct {
	*dispatch.Session
	r       *rig
	welcome dispatch.Welcome
	seq     uint64
	version uint64 // of the last demand
	last    uint64 // the number of the last assignment taken
	out     []dispatch.Outgoing
}

func (r *rig) open(h dispatch.Hello) *stream {
	r.t.Helper()
	s, err := r.tryOpen(h)
	if err != nil {
		r.t.Fatal("hello:", err)
	}
	return s
}

func (r *rig) tryOpen(h dispatch.Hello) (*stream, error) {
	s := &stream{r: r}
	var err error
	s.Session, s.welcome, err = r.d.Open(r.ctx, h, func() {})
	return s, err
}

// ended checks that the session has ended, and why.
func (s *stream) ended(why error) {
	s.r.t.Helper()
	synctest.Wait()
	select {
	case <-s.Done():
	default:
		s.r.t.Fatal("the session goes on")
	}
	if err := s.Err(); !errors.Is(err, why) {
		s.r.t.Errorf("the session ended with %v, want %v", err, why)
	}
}

// say sends a message and waits for its answer.
func (s *stream) say(m dispatch.Message) dispatch.Answer {
	s.r.t.Helper()
	answer := s.post(m)
	a, ok := <-answer
	if !ok {
		s.r.t.Fatal("the message was not answered")
	}
	return a
}

// post sends a message; its answer will be in the channel, which is closed if there is none.
func (s *stream) post(m dispatch.Message) <-chan dispatch.Answer {
	s.seq++
	m.Seq = s.seq
	answer := make(chan dispatch.Answer, 1)
	s.Receive(s.r.ctx, m, func(a dispatch.Answer, err error) {
		if err == nil {
			answer <- a
		}
		close(answer)
	})
	return answer
}

// demand says how much room there is.
func (s *stream) demand(pools ...dispatch.Pool) {
	s.r.t.Helper()
	s.version++
	a := s.say(demandOf(s.version, pools...))
	if len(a.Errors) > 0 {
		s.r.t.Fatal("demand:", a.Errors)
	}
}

func demandOf(version uint64, pools ...dispatch.Pool) dispatch.Message {
	return dispatch.Message{Demand: &dispatch.Demand{Version: version, Pools: pools}}
}

// take takes what there is to send.
func (s *stream) take() []dispatch.Assignment {
	synctest.Wait()
	var runs []dispatch.Assignment
	for {
		out := s.Take(1 << 20)
		s.out = append(s.out, out)
		runs = append(runs, out.Assignments...)
		if n := len(out.Assignments); n > 0 {
			s.last = out.Assignments[n-1].Number
		} else if out.More {
			s.r.t.Fatal("there is said to be more, and it does not come")
		}
		if !out.More {
			return runs
		}
	}
}

// takes takes exactly n runs.
func (s *stream) takes(n int) []dispatch.Assignment {
	s.r.t.Helper()
	runs := s.take()
	if len(runs) != n {
		s.r.t.Fatalf("got %d runs, want %d", len(runs), n)
	}
	return runs
}

// accepts takes exactly n runs and says that they were seen.
func (s *stream) accepts(n int) []dispatch.Assignment {
	s.r.t.Helper()
	runs := s.takes(n)
	s.see()
	return runs
}

// see says that everything taken has arrived.
func (s *stream) see() {
	s.r.t.Helper()
	s.say(dispatch.Message{Seen: s.last})
}

// report says what the worker holds.
func (s *stream) report(held ...dispatch.Assignment) dispatch.Answer {
	s.r.t.Helper()
	return s.say(dispatch.Message{Report: true, Held: tokensOf(held)})
}

// keep reports the held runs every two seconds until d has passed.
func (s *stream) keep(d time.Duration, held ...dispatch.Assignment) {
	s.r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		s.r.pass(min(2*time.Second, time.Until(end)))
		for _, v := range s.report(held...).Verdicts {
			if v.Action != dispatch.Continue {
				s.r.t.Fatalf("a held run got the verdict %+v", v)
			}
		}
	}
}

// finish ends runs, each with the same outcome.
func (s *stream) finish(o job.Outcome, runs ...dispatch.Assignment) []dispatch.Ack {
	s.r.t.Helper()
	return s.say(dispatch.Message{Finishes: finishes(o, runs)}).Acks
}

// succeed ends runs well.
func (s *stream) succeed(runs ...dispatch.Assignment) {
	s.r.t.Helper()
	s.r.recorded(s.finish(success(), runs...))
}

func finishes(o job.Outcome, runs []dispatch.Assignment) []dispatch.Finish {
	f := make([]dispatch.Finish, len(runs))
	for i, a := range runs {
		f[i] = dispatch.Finish{Token: a.Token, Outcome: o}
	}
	return f
}

// recorded checks that every finish counted.
func (r *rig) recorded(acks []dispatch.Ack) {
	r.t.Helper()
	if i := slices.IndexFunc(acks, func(a dispatch.Ack) bool { return a.Status != dispatch.AckRecorded }); i >= 0 {
		r.t.Fatalf("finish %d was answered %+v", i, acks[i])
	}
}

func success() job.Outcome { return job.Outcome{Success: &job.Success{}} }

func failure() job.Outcome {
	return job.Outcome{Failure: &job.Failure{Class: job.Application, Message: "no"}}
}

func released(how job.Released) job.Outcome { return job.Outcome{Released: &how} }

// claim is a claim by worker n that waits for nothing.
func claim(n byte, runs int, queues ...string) dispatch.ClaimRequest {
	return dispatch.ClaimRequest{Worker: "w", Instance: job.ID{n}, Queues: queues, Max: runs}
}

// claims claims exactly n runs of a queue, by worker 9.
func (r *rig) claims(n int, queue string) []dispatch.Assignment {
	r.t.Helper()
	runs, err := r.d.Claim(r.ctx, claim(9, n, queue))
	if err != nil || len(runs) != n {
		r.t.Fatalf("claimed %d runs, want %d; error %v", len(runs), n, err)
	}
	return runs
}

// claiming claims on a goroutine of its own.
func (r *rig) claiming(ctx context.Context, c dispatch.ClaimRequest) <-chan claimed {
	answer := make(chan claimed, 1)
	go func() {
		runs, err := r.d.Claim(ctx, c)
		answer <- claimed{runs, err, time.Now()}
	}()
	synctest.Wait()
	return answer
}

type claimed struct {
	runs []dispatch.Assignment
	err  error
	at   time.Time
}

// heartbeat names claimed runs.
func (r *rig) heartbeat(runs ...dispatch.Assignment) []dispatch.Verdict {
	r.t.Helper()
	verdicts, _, err := r.d.Heartbeat(r.ctx, tokensOf(runs), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return verdicts
}

// pause pauses or resumes a queue.
func (r *rig) pause(queue string, on bool) {
	r.t.Helper()
	r.update(func(tx store.Tx) error {
		q := *tx.Queue(queue)
		q.Pause = nil
		if on {
			q.Pause = &store.Pause{Reason: "a test", Time: tx.Now()}
		}
		return tx.PutQueue(&q)
	})
}

// policy sets a queue's policy.
func (r *rig) policy(queue string, p job.Policy) {
	r.t.Helper()
	r.update(func(tx store.Tx) error {
		q := *tx.Queue(queue)
		q.Policy = p
		return tx.PutQueue(&q)
	})
}

// queue reads a queue; nil if there is none.
func (r *rig) queue(name string) (q *store.Queue) {
	r.t.Helper()
	err := r.store.View(r.ctx, func(v store.Reader) error {
		q = v.Queue(name)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return q
}
