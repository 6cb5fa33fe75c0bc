package simtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// ledger is what one worker saw and was told of many jobs.
type ledger struct {
	mu       sync.Mutex
	jobs     int
	share    int // of executions, between two values of milestone
	executed int
	seen     map[string]int // executions by payload
	accepted map[string]int // outcomes that count, by job
	mile     chan struct{}
	all      chan struct{} // closed when every job has an outcome
}

// handle does the work of one run.
func (g *ledger) handle(_ context.Context, run *client.Run) error {
	g.mu.Lock()
	g.seen[string(run.Payload)]++
	if g.executed++; g.executed%g.share == 0 {
		select {
		case g.mile <- struct{}{}:
		default:
		}
	}
	g.mu.Unlock()
	run.SetResult(append([]byte("did "), run.Payload...), "")
	time.Sleep(5 * time.Millisecond)
	return nil
}

// event hears what became of the outcomes.
func (g *ledger) event(e client.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.Status != stintv1.FinishStatus_FINISH_STATUS_RECORDED && e.Status != stintv1.FinishStatus_FINISH_STATUS_DUPLICATE {
		return
	}
	if g.accepted[e.Run.JobID]++; len(g.accepted) == g.jobs {
		close(g.all)
		g.jobs = -1
	}
}

// payload is what the n-th job brings.
func payload(n int) string { return fmt.Sprintf("%05d of many", n) }

// TestCrashes sends 20,000 jobs through one worker while the server crashes ten times, at shares of the work that the
// seed chooses: every payload is seen, and every job has one accepted outcome.
func TestCrashes(t *testing.T) {
	jobs, crashes := 20_000, 10
	if testing.Short() {
		jobs = 4_000
	}
	eachSeed(t, 1, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		d := newDice(seed, "crashes")
		g := &ledger{
			jobs: jobs, share: jobs/crashes - d.n(jobs/crashes/2), seen: map[string]int{}, accepted: map[string]int{},
			mile: make(chan struct{}, 1), all: make(chan struct{}),
		}
		l := w.connect()
		worker := l.NewWorker(client.WorkerConfig{OnEvent: g.event})
		worker.Handle("crashes", 256, g.handle)
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(context.Background()) }()
		submitted := make(chan error, 1)
		go func() { submitted <- submitAll(l, jobs) }()
		for range crashes {
			w.await("the worker gets on", g.mile)
			d.rest(nil, 0, 20*time.Millisecond)
			w.crashFor(50*d.n(3), d.between(0, 5*time.Second))
		}
		if err := <-submitted; err != nil {
			t.Error(err)
		}
		w.await("all jobs have an outcome", g.all)
		worker.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if worker.Stats().Adopted == 0 {
			t.Error("no run was held across a crash")
		}
		g.check(t, w.list(), jobs)
	})
}

// submitAll submits the jobs.
func submitAll(l *link, jobs int) error {
	stream := l.SubmitStream(context.Background(), client.SubmitConfig{})
	for i := range jobs {
		if err := stream.Send(context.Background(), client.Job{Queue: "crashes", Payload: []byte(payload(i))}); err != nil {
			return err
		}
	}
	return stream.Close()
}

// check compares every job with what its worker saw and was told.
func (g *ledger) check(t *testing.T, list []*stintv1.Job, jobs int) {
	if len(list) != jobs || len(g.seen) != jobs || len(g.accepted) != jobs {
		t.Fatalf("of %d jobs %d are listed, %d were seen, and %d have an outcome", jobs, len(list), len(g.seen), len(g.accepted))
	}
	for i, j := range list {
		want := payload(i)
		if got := string(j.GetPayload().GetData()); got != want {
			t.Fatalf("job %d brings %q, want %q", i, got, want)
		}
		if g.seen[want] == 0 || g.accepted[j.GetId()] != 1 {
			t.Errorf("%q was executed %d times and has %d accepted outcomes", want, g.seen[want], g.accepted[j.GetId()])
		}
		if j.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED || string(j.GetResult().GetData()) != "did "+want {
			t.Errorf("%q is %s with the result %q", want, j.GetState(), j.GetResult().GetData())
		}
	}
}
