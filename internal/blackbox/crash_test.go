//go:build blackbox

package blackbox

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestWorkersOverACrash kills the server while jobs are submitted and done, at a share that chance chooses. The workers
// see every payload, each job gets exactly one outcome, the right one, and no fence is given twice.
func TestWorkersOverACrash(t *testing.T) {
	rounds := 2
	if soak() {
		rounds = 10
	}
	seed := rand.Uint64()
	if given := os.Getenv("STINT_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
		rounds = 1
	}
	for round := range uint64(rounds) {
		t.Run(strconv.FormatUint(round, 10), func(t *testing.T) {
			share := 0.05 + 0.85*rand.New(rand.NewPCG(seed+round, 0)).Float64()
			t.Logf("repeat it with STINT_SEED=%d: killed with %.0f %% done", seed+round, 100*share)
			workOverACrash(t, share)
		})
	}
}

func workOverACrash(t *testing.T, share float64) {
	const queue, count = "hash", 20_000
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := serve(t, t.TempDir())
	l := newLedger()
	input := make(map[string]string, count) // payload by id
	jobs := make([]client.Job, count)
	for i := range jobs {
		jobs[i] = client.Job{ID: uuid.Must(uuid.NewV7()).String(), Queue: queue, Payload: fmt.Appendf(nil, "payload %d", i)}
		input[jobs[i].ID] = string(jobs[i].Payload)
	}

	var working sync.WaitGroup
	var workers []*client.Worker
	for range 2 {
		w := s.client().NewWorker(client.WorkerConfig{OnEvent: l.observe})
		w.Handle(queue, 32, l.hash)
		workers = append(workers, w)
		working.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Errorf("the worker: %v", err)
			}
		})
	}
	submitted := make(chan error, 1)
	go func() { submitted <- submitAll(ctx, s.client(), jobs) }()

	l.await(ctx, t, int(share*count))
	s.kill()
	s = s.again()
	if err := <-submitted; err != nil {
		t.Error(err)
	}
	l.await(ctx, t, count)
	adopted := uint64(0)
	for _, w := range workers {
		w.Stop()
		adopted += w.Stats().Adopted
	}
	working.Wait()
	if adopted == 0 {
		t.Error("no run was held over the crash, so it was none")
	}
	l.check(t, input)
	s.wantCounts(queue, &stintv1.JobCounts{Succeeded: count})
	checkResults(ctx, t, s.client(), queue, input)
}

// submitAll submits jobs over one stream, which outlasts the crash.
func submitAll(ctx context.Context, c *client.Client, jobs []client.Job) error {
	var refused error
	stream := c.SubmitStream(ctx, client.SubmitConfig{OnResult: func(s client.Submitted) {
		if s.Err != nil {
			refused = fmt.Errorf("submit %s: %w", s.ID, s.Err)
		}
	}})
	for _, job := range jobs {
		if err := stream.Send(ctx, job); err != nil {
			stream.Close()
			return fmt.Errorf("submit %s: %w", job.ID, err)
		}
	}
	if err := stream.Close(); err != nil {
		return err
	}
	return refused
}

// ledger is what the side of the workers saw.
type ledger struct {
	mu       sync.Mutex
	seen     map[string]string // payload by id
	accepted map[string]int    // outcomes that count, by id
	fences   map[uint64]int    // how many runs had each
	done     int               // jobs with one
	changed  chan struct{}     // closed when there is one more
}

func newLedger() *ledger {
	return &ledger{
		seen: map[string]string{}, accepted: map[string]int{}, fences: map[uint64]int{}, changed: make(chan struct{}),
	}
}

// hash is the work: the result is the payload's hash. One job in sixteen takes a while, so that some are always held.
func (l *ledger) hash(ctx context.Context, run *client.Run) error {
	l.mu.Lock()
	l.seen[run.JobID] = string(run.Payload)
	l.mu.Unlock()
	hash := sha256.Sum256(run.Payload)
	if hash[0] < 16 {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	run.SetResult(hash[:], "")
	return nil
}

// observe counts the runs that were handed out, and the outcomes that the server says count.
func (l *ledger) observe(e client.Event) {
	if e.Kind == client.RunAssigned {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.fences[e.Run.Fence]++
	}
	if e.Kind != client.RunFinished {
		return
	}
	switch e.Status {
	case stintv1.FinishStatus_FINISH_STATUS_RECORDED, stintv1.FinishStatus_FINISH_STATUS_DUPLICATE:
	default:
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted[e.Run.JobID]++
	if l.accepted[e.Run.JobID] == 1 {
		l.done++
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// await waits until so many jobs have an outcome.
func (l *ledger) await(ctx context.Context, t *testing.T, count int) {
	t.Helper()
	for {
		l.mu.Lock()
		done, changed := l.done, l.changed
		l.mu.Unlock()
		if done >= count {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%d of %d jobs have an outcome: %v", done, count, context.Cause(ctx))
		}
	}
}

// check compares what was seen and accepted with the input.
func (l *ledger) check(t *testing.T, input map[string]string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !maps.Equal(l.seen, input) {
		t.Errorf("the payloads that the workers saw are not those of the input: %d of %d jobs were seen", len(l.seen), len(input))
	}
	for fence, runs := range l.fences {
		if runs != 1 {
			t.Errorf("%d runs had the fence %d, which must be of one alone", runs, fence)
		}
	}
	for id, outcomes := range l.accepted {
		if _, known := input[id]; !known || outcomes != 1 {
			t.Errorf("job %s, of the input: %t, had %d outcomes accepted, want 1", id, known, outcomes)
		}
	}
	if len(l.accepted) != len(input) {
		t.Errorf("%d jobs had an outcome accepted, want %d", len(l.accepted), len(input))
	}
}

// checkResults compares every result that the server has with a direct computation.
func checkResults(ctx context.Context, t *testing.T, c *client.Client, queue string, input map[string]string) {
	t.Helper()
	req := &stintv1.ListJobsRequest{
		Filter: &stintv1.JobFilter{Queue: queue}, View: stintv1.JobView_JOB_VIEW_FULL, PageSize: 1000,
	}
	listed := make(map[string]bool)
	for {
		page, err := c.Jobs().ListJobs(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range page.GetJobs() {
			hash := sha256.Sum256([]byte(input[job.GetId()]))
			if string(job.GetResult().GetData()) != string(hash[:]) {
				t.Errorf("job %s: the result is %x, want %x", job.GetId(), job.GetResult().GetData(), hash)
			}
			listed[job.GetId()] = true
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if len(listed) != len(input) {
		t.Errorf("%d jobs are listed, want %d", len(listed), len(input))
	}
}

// TestRunsHeldOverACrash kills the server while a worker is in the middle of 32 runs. They go on, and the server that is
// started again takes their outcomes under the tokens of the one before.
func TestRunsHeldOverACrash(t *testing.T) {
	t.Parallel()
	const count = 32
	hold := 4 * time.Second // longer than the cadence of reports
	if soak() {
		hold = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := serve(t, t.TempDir())
	c := s.client()
	var jobs []client.Job
	for range count {
		jobs = append(jobs, client.Job{ID: uuid.Must(uuid.NewV7()).String(), Queue: "held"})
	}
	if err := submitAll(ctx, c, jobs); err != nil {
		t.Fatal(err)
	}

	events := make(chan client.Event, 10*count)
	release := make(chan struct{})
	w := c.NewWorker(client.WorkerConfig{OnEvent: func(e client.Event) { events <- e }})
	w.Handle("held", count, func(ctx context.Context, _ *client.Run) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()

	for _, job := range jobs {
		s.accepted(c, job.ID)
	}
	held := time.After(hold)
	s.kill()
	s = s.again()
	fences := make(map[string]uint64)
	for len(fences) < count {
		if e := next(ctx, t, events); e.Kind == client.RunAdopted {
			fences[e.Run.JobID] = e.Run.Fence
		}
	}
	<-held
	close(release)
	for recorded := 0; recorded < count; {
		e := next(ctx, t, events)
		switch {
		case e.Kind != client.RunFinished:
		case e.Status != stintv1.FinishStatus_FINISH_STATUS_RECORDED:
			t.Fatalf("job %s: the outcome is %v, want RECORDED", e.Run.JobID, e.Status)
		default:
			recorded++
		}
	}
	w.Stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	checkHeld(ctx, t, c, fences)
	s.wantCounts("held", &stintv1.JobCounts{Succeeded: count})
}

// checkHeld checks that each job's only run is the one that was held.
func checkHeld(ctx context.Context, t *testing.T, c *client.Client, fences map[string]uint64) {
	t.Helper()
	for id, held := range fences {
		job, err := c.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if job.GetRunCount() != 1 || job.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED {
			t.Errorf("job %s is %v after %d runs, want SUCCEEDED after 1", id, job.GetState(), job.GetRunCount())
		} else if fence := job.GetHistory()[0].GetFence(); fence != held {
			t.Errorf("job %s: its run has the fence %d, the worker's had %d", id, fence, held)
		}
	}
}

// next waits for a worker's next event.
func next(ctx context.Context, t *testing.T, events <-chan client.Event) client.Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-ctx.Done():
		t.Fatalf("no event of the worker: %v", context.Cause(ctx))
		return client.Event{}
	}
}
