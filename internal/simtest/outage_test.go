package simtest

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// outages are the ways in which a server may be away for some time.
var outages = map[string]func(w *world, away time.Duration){
	"crash, nothing unsynced is kept":    func(w *world, away time.Duration) { w.crashFor(0, away) },
	"crash, half is kept":                func(w *world, away time.Duration) { w.crashFor(50, away) },
	"crash, everything unsynced is kept": func(w *world, away time.Duration) { w.crashFor(100, away) },
	"restart":                            func(w *world, away time.Duration) { w.restartFor(time.Second, away) },
	"the process stands still":           (*world).stallFor,
	"the disk stands still":              (*world).stallDiskFor,
}

func (w *world) crashFor(keep int, away time.Duration) {
	defer w.witness.troubled(time.Now())
	w.note("crash, %d %% of what is not synced is kept", keep)
	w.crash(keep)
	time.Sleep(away)
	w.note("start")
	w.start()
}

func (w *world) restartFor(grace, away time.Duration) {
	defer w.witness.troubled(time.Now())
	w.note("stop")
	w.stop(grace)
	w.note("stopped")
	time.Sleep(away)
	w.note("start")
	w.start()
}

func (w *world) stallFor(away time.Duration) {
	defer w.witness.troubled(time.Now())
	w.note("the server stands still")
	w.up.still.shut()
	time.Sleep(away)
	w.up.still.open()
	w.note("it goes on")
}

func (w *world) stallDiskFor(away time.Duration) {
	defer w.witness.troubled(time.Now())
	w.note("the disk stands still")
	w.up.disk.shut()
	time.Sleep(away)
	w.up.disk.open()
	w.note("it goes on")
}

// heldRuns is how many runs the SDK worker holds through an outage; as many jobs again are held by calls.
const heldRuns = 32

// end is how a job ended.
type end struct {
	Queue, State                                       string
	Runs                                               uint32
	Attempts, Crashes, Interrupts, Snoozes, Deliveries uint32
}

func endOf(j *stintv1.Job) end {
	c := j.GetCounters()
	return end{
		Queue: j.GetQueue(), State: j.GetState().String(), Runs: j.GetRunCount(), Attempts: c.GetAttempts(),
		Crashes: c.GetCrashes(), Interrupts: c.GetInterrupts(), Snoozes: c.GetSnoozes(), Deliveries: c.GetDeliveries(),
	}
}

// outcome is what an outage left.
type outcome struct {
	Executions, Interrupted int32 // of the SDK's handlers
	Ends                    map[end]int
}

// holdThrough has an SDK worker and one that makes calls hold runs for 100 s each, lets an outage happen after 10 s, and
// tells what became of the jobs once all have ended. The SDK's handlers give way when asked to, if they listen.
func holdThrough(t *testing.T, listen bool, outage func(*world)) outcome {
	w := newWorld(t, 1)
	l := w.connect()
	var jobs []client.Job
	for i := range 2 * heldRuns {
		queue := [...]string{"held/sdk", "held/calls"}[i%2]
		jobs = append(jobs, client.Job{ID: newID(), Queue: queue, Lease: 30 * time.Second})
	}
	if _, err := l.Submit(t.Context(), jobs...); err != nil {
		t.Fatal(err)
	}
	var executions, interrupted atomic.Int32
	worker := l.NewWorker(client.WorkerConfig{})
	worker.Handle("held/sdk", heldRuns, func(ctx context.Context, _ *client.Run) error {
		executions.Add(1)
		defer context.AfterFunc(ctx, func() { interrupted.Add(1) })()
		listens := ctx.Done()
		if !listen {
			listens = nil
		}
		select {
		case <-time.After(100 * time.Second):
			return nil
		case <-listens:
			return context.Cause(ctx)
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(context.Background()) }()
	var calls sync.WaitGroup
	calls.Go(func() { holdByCalls(t, w) })

	time.Sleep(10 * time.Second)
	quiet := make(chan struct{})
	calls.Go(func() { submitEverySecond(t, w, quiet) })
	outage(w)
	close(quiet)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := outcome{Ends: map[end]int{}}
	for _, job := range jobs {
		j, err := l.Wait(ctx, job.ID)
		if err != nil {
			t.Fatal(err)
		}
		got.Ends[endOf(j)]++
	}
	calls.Wait()
	worker.Stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got.Executions, got.Interrupted = executions.Load(), interrupted.Load()
	return got
}

// submitEverySecond gives the disk something to write until quiet is closed.
func submitEverySecond(t *testing.T, w *world, quiet <-chan struct{}) {
	l := w.connect()
	defer l.close()
	stream := l.SubmitStream(context.Background(), client.SubmitConfig{})
	for d := newDice(1, "noise"); d.rest(quiet, time.Second, time.Second); {
		if err := stream.Send(context.Background(), client.Job{Queue: "noise"}); err != nil {
			t.Error(err)
		}
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}

// holdByCalls claims runs, keeps them by heartbeats for 100 s, and finishes them.
func holdByCalls(t *testing.T, w *world) {
	s := &sim{world: w, leave: make(chan struct{})}
	h := &hand{link: w.connect(), s: s, d: newDice(1, "calls"), instance: uuid.NewString()}
	defer h.close()
	claim, err := h.Workers().ClaimJobs(t.Context(), &stintv1.ClaimJobsRequest{
		Worker: "calls", InstanceId: h.instance, Queues: []string{"held/calls"}, MaxRuns: heldRuns,
	})
	if err != nil || len(claim.GetAssignments()) != heldRuns {
		t.Errorf("claimed %d runs: %v", len(claim.GetAssignments()), err)
		return
	}
	var runs sync.WaitGroup
	for _, a := range claim.GetAssignments() {
		runs.Go(func() {
			ctx, cancel := context.WithCancelCause(t.Context())
			beats := make(chan struct{})
			go func() {
				defer close(beats)
				h.beat(ctx, a.GetLeaseToken(), cancel)
			}()
			time.Sleep(100 * time.Second)
			cancel(nil)
			<-beats
			h.finish(t.Context(), h.ending(a, nil))
		})
	}
	runs.Wait()
}

// TestShorterThanALease: an outage shorter than a lease interrupts nothing. Each run goes on, whoever holds it, and is
// finished with the token it was assigned with.
func TestShorterThanALease(t *testing.T) {
	kinds := maps.Clone(outages)
	kinds["every connection is cut"] = func(w *world, _ time.Duration) { w.cut(false) }
	for name, outage := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				got := holdThrough(t, true, func(w *world) { outage(w, 15*time.Second) })
				want := outcome{Executions: heldRuns, Ends: map[end]int{
					{Queue: "held/sdk", State: "JOB_STATE_SUCCEEDED", Runs: 1}:   heldRuns,
					{Queue: "held/calls", State: "JOB_STATE_SUCCEEDED", Runs: 1}: heldRuns,
				}}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestLongerThanALease: an outage longer than a lease burns no attempt and no crash. The SDK asks its handlers to give
// way, since the server might have given their jobs to others; they come back as interrupted. Who goes on nevertheless
// finds that the server has waited for it.
func TestLongerThanALease(t *testing.T) {
	for name, outage := range outages {
		for _, listen := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, handlers give way: %t", name, listen), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					got := holdThrough(t, listen, func(w *world) { outage(w, 60*time.Second) })
					want := outcome{Executions: heldRuns, Interrupted: heldRuns, Ends: map[end]int{
						{Queue: "held/sdk", State: "JOB_STATE_SUCCEEDED", Runs: 1}:   heldRuns,
						{Queue: "held/calls", State: "JOB_STATE_SUCCEEDED", Runs: 1}: heldRuns,
					}}
					if listen {
						want.Executions = 2 * heldRuns
						want.Ends[end{Queue: "held/sdk", State: "JOB_STATE_SUCCEEDED", Runs: 2, Interrupts: 1}] = heldRuns
						delete(want.Ends, end{Queue: "held/sdk", State: "JOB_STATE_SUCCEEDED", Runs: 1})
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Error(diff)
					}
				})
			})
		}
	}
}
