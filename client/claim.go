package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// ErrNotDispatching refuses a claim of a worker that takes no jobs: Run is not under way, or it was told to stop.
var ErrNotDispatching = errors.New("stint: the worker takes no jobs: it is not running, or it is stopping")

// Claimed is what became of a job that was to be claimed.
type Claimed struct {
	// JobID is the job.
	JobID string
	// Run is what the handler of the job's queue gets, and may have got; nil if the job was not claimed.
	Run *Run
	// Err is why it was not claimed; nil if it was: JOB_NOT_FOUND; RUN_ACTIVE: Worker has it; INVALID_STATE: it is in State,
	// not READY; JOB_BLOCKED: Blockers say what keeps it.
	Err *ItemError
	// State is where it stands; UNSPECIFIED if it was not found.
	State stintv1.JobState
	// Worker and InstanceID are who has it.
	Worker, InstanceID string
	// Blockers are what keeps a READY job from starting.
	Blockers []*stintv1.Blocker
}

// Claim claims chosen READY jobs, at most 1,000, for this worker, and has the handlers of their queues execute them at once,
// beside the room of Handle. Which are READY tells ListJobs. A job of a queue that the worker does not handle is given back.
// What others have taken meanwhile, or may not start, is told in its own answer; there is one for each id, in their order.
//
// Errors of the whole: ErrNotDispatching, the call's, and one for a worker with MaxRuns, whose runs are counted by the server.
// After an error of the call it is not known whether jobs were claimed; those that were come back when their lease is over.
func (w *Worker) Claim(ctx context.Context, ids ...string) ([]Claimed, error) {
	if w.cfg.MaxRuns > 0 {
		return nil, errors.New("stint: Claim needs a worker without MaxRuns")
	}
	if !w.enterClaim() {
		return nil, ErrNotDispatching
	}
	defer w.leaveClaim()
	req := &stintv1.ClaimJobsRequest{
		Worker: w.cfg.Name, InstanceId: w.cfg.InstanceID, JobIds: ids, RequestId: uuid.NewString(),
	}
	answer, err := w.client.workers.ClaimJobs(ctx, req)
	for pause := (pacer{}); status.Code(err) == codes.Unavailable && w.Dispatching(); {
		if pause.wait(ctx, err) != nil {
			return nil, err
		}
		answer, err = w.client.workers.ClaimJobs(ctx, req) // a repeat claims nothing twice
	}
	if err != nil {
		return nil, err
	}
	runs := w.takeClaimed(answer.GetAssignments(), time.Now())
	claimed := make([]Claimed, len(answer.GetResults()))
	for i, r := range answer.GetResults() {
		claimed[i] = Claimed{
			JobID: r.GetJobId(), Err: itemError(r.GetError()), State: r.GetState(),
			Worker: r.GetWorker(), InstanceID: r.GetInstanceId(), Blockers: r.GetBlockers(),
		}
		if r.GetError() == nil {
			claimed[i].Run = runs[r.GetJobId()]
		}
	}
	return claimed, nil
}

// enterClaim has the worker not end before leaveClaim; false if it takes no jobs.
func (w *Worker) enterClaim() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.phase != phaseRunning || w.draining || w.closed {
		return false
	}
	w.claims++
	return true
}

func (w *Worker) leaveClaim() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claims--
	w.look()
	if w.session != nil {
		w.session.poke()
	}
}

// takeClaimed takes up claimed runs, has the next report list them, and executes them. Those that come too late are given
// back. It returns them by their jobs.
func (w *Worker) takeClaimed(assignments []*stintv1.Assignment, now time.Time) map[string]*Run {
	runs := make(map[string]*Run, len(assignments))
	var back []*held
	w.mu.Lock()
	for _, a := range assignments {
		h := w.hold(a, now)
		if h == nil {
			continue
		}
		runs[h.run.JobID] = h.run
		if s := w.session; s != nil && s.opened {
			h.session = s
			s.hasten(h)
			s.poke()
		} else {
			h.unlisted = true
		}
		i := slices.IndexFunc(w.pools, func(p *pool) bool { return slices.Contains(p.queues, a.GetQueue()) })
		if i < 0 || w.draining || w.closed {
			back = append(back, h)
			continue
		}
		h.pool = w.pools[i]
		w.handlers.Go(func() { h.pool.execute(h) })
	}
	w.mu.Unlock()
	for _, h := range back {
		h.cancel(nil)
		w.finished(h, outcome(h.run, NotMe("the worker does not do this"), nil))
	}
	return runs
}
