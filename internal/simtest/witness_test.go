package simtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// witness sees every message between clients and server, as an interceptor of each client, and judges what it hears.
//
// Its clock counts what it saw. What was heard by the time a request left must show in the answer to that request; what
// came later need not. So every judgement compares an answer with what was known at its request's moment, and holds
// however messages were delayed.
type witness struct {
	t     *testing.T
	began time.Time
	// rule is what must hold of every job as it is shown, besides; nil: nothing.
	rule func(*stintv1.Job) error

	mu     sync.Mutex
	clock  uint64
	lives  map[string]*life  // by job id
	leases map[string]*lease // by token
	fences map[uint64]*lease
	pauses map[string]*pauses // by queue
	faults int

	troubles   []span // one after another
	askedOfAll int    // how often somebody has asked for something of jobs that a filter selects
}

// faultsMax is how many faults are told: one mistake breaks much.
const faultsMax = 20

func newWitness(t *testing.T) *witness {
	return &witness{
		t: t, began: time.Now(), lives: map[string]*life{}, leases: map[string]*lease{}, fences: map[uint64]*lease{},
		pauses: map[string]*pauses{},
	}
}

// moment is when a request left.
type moment struct {
	clock uint64
	time  time.Time
}

// rising is a number that only rises, with when each value was heard.
type rising []struct{ clock, value uint64 }

// hear notes a value; one that is not larger changes nothing.
func (r *rising) hear(clock, value uint64) {
	if n := len(*r); n == 0 || (*r)[n-1].value < value {
		*r = append(*r, struct{ clock, value uint64 }{clock, value})
	}
}

// by is the largest value that was heard by then; 0 if there was none.
func (r rising) by(m moment) uint64 {
	for _, heard := range slices.Backward(r) {
		if heard.clock <= m.clock {
			return heard.value
		}
	}
	return 0
}

// life is what was told of one job. The rising ones are zero until told.
type life struct {
	id        string
	spec      *stintv1.JobSpec
	known     rising // 1: the server has told of it
	acked     rising // 1: its submit was answered
	assigned  rising // the fence of its newest run
	accepted  rising // 1: a worker was told that it has the job
	recorded  rising // the fence of its newest run whose finish was RECORDED
	succeeded rising // 1: somebody was told that it has
	cancelled rising // 1: somebody was told that level CANCEL is in force
	versions  rising
	reopened  bool      // somebody has asked for it to run again, so that it may have left the epoch of what was told
	asked     int       // how often somebody has asked for something of it
	done      int       // how often the answer was that it is done
	retaken   bool      // somebody has asked for it to take other limits, so that its runs did not all take the same
	hard      time.Time // no interrupt has an earlier hard deadline; zero: none has one
	sights    []*stintv1.Job
	leases    []*lease
}

// lease is what was told of one run.
type lease struct {
	life     *life
	token    string
	fence    uint64
	number   uint32
	instance string
	received time.Time
	until    time.Time // it was granted so long at least
	over     bool      // its worker has finished it, no longer lists it, or was told to stop
	finish   *stintv1.Finish
	recorded rising // 1: its finish was answered RECORDED or DUPLICATE
	passed   rising // 1: its finish was answered SUPERSEDED
	ended    rising // 1: its worker was told that it is over
	level    rising
	acted    uint64 // the generation of its interrupt that its worker acknowledged last
	told     rising // the generation that its worker was told last
}

// fault reports what must not be.
func (w *witness) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blame(format, args...)
}

// blame is fault for those who hold mu.
func (w *witness) blame(format string, args ...any) {
	if w.faults++; w.faults <= faultsMax {
		w.t.Errorf("%s: %s", time.Since(w.began), fmt.Sprintf(format, args...))
	}
}

// now is the moment of what happens now. Caller holds mu.
func (w *witness) now() moment {
	w.clock++
	return moment{w.clock, time.Now()}
}

// life returns what is known of a job. Caller holds mu.
func (w *witness) life(id string) *life {
	l := w.lives[id]
	if l == nil {
		l = &life{id: id}
		w.lives[id] = l
	}
	return l
}

// unary is the interceptor of calls.
func (w *witness) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	w.mu.Lock()
	asked := w.now()
	w.asks(req)
	w.mu.Unlock()
	err := invoke(ctx, method, req, reply, cc, opts...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now()
	if err != nil {
		w.refused(asked, req, err)
		return err
	}
	w.answers(asked, req, reply)
	return nil
}

// asks notes what a call asks for. Caller holds mu.
func (w *witness) asks(req any) {
	switch m := req.(type) {
	case *stintv1.SubmitJobsRequest:
		w.submits(m.GetJobs())
	case *stintv1.FinishRunsRequest:
		w.finishes(m.GetFinishes())
	case *stintv1.HeartbeatRunsRequest:
		w.acts(m.GetInterruptAcks())
	case *stintv1.InterruptJobsRequest:
		w.demands(m)
	case *stintv1.ParkJobsRequest:
		for _, id := range m.GetIds() {
			w.life(id).asked++
		}
	case *stintv1.UpdateJobRequest:
		w.life(m.GetId()).asked++
		w.life(m.GetId()).retaken = true
	case *stintv1.RetryJobsRequest:
		for _, id := range m.GetIds() {
			w.life(id).reopened = true
			w.life(id).asked++
		}
	case *stintv1.ResumeQueueRequest:
		w.resumes(m.GetName())
	}
}

func (w *witness) submits(specs []*stintv1.JobSpec) {
	for _, spec := range specs {
		w.life(spec.GetId()).spec = spec
	}
}

// refused judges a call's error: a server that stops, stands still or is gone may refuse everything, but says nothing
// wrong. Caller holds mu.
func (w *witness) refused(asked moment, req any, err error) {
	if m, ok := req.(*stintv1.ResumeQueueRequest); ok {
		w.pausesOf(m.GetName()).unsure = true
	}
	switch code := status.Code(err); code {
	case codes.Internal, codes.Unknown, codes.DataLoss, codes.Unimplemented, codes.InvalidArgument:
		w.blame("%T was answered %v", req, err)
	case codes.NotFound:
		if m, ok := req.(*stintv1.GetJobRequest); ok && w.life(m.GetId()).known.by(asked) > 0 {
			w.blame("job %s is gone: %v", m.GetId(), client.ReasonOf(err))
		}
	}
}

// answers judges a call's answer. Caller holds mu.
func (w *witness) answers(asked moment, req, reply any) {
	switch m := reply.(type) {
	case *stintv1.SubmitJobsResponse:
		w.submitted(asked, req.(*stintv1.SubmitJobsRequest).GetJobs(), m.GetResults())
	case *stintv1.ClaimJobsResponse:
		for _, a := range m.GetAssignments() {
			w.assigns(req.(*stintv1.ClaimJobsRequest).GetInstanceId(), a)
		}
	case *stintv1.HeartbeatRunsResponse:
		w.judges(asked, req.(*stintv1.HeartbeatRunsRequest).GetLeaseTokens(), m.GetVerdicts())
	case *stintv1.FinishRunsResponse:
		for i, f := range req.(*stintv1.FinishRunsRequest).GetFinishes() {
			w.acknowledges(asked, f, m.GetAcks()[i])
		}
	case *stintv1.GetJobResponse:
		w.shows(asked, m.GetJob(), req.(*stintv1.GetJobRequest).GetView())
	case *stintv1.ListJobsResponse:
		for _, j := range m.GetJobs() {
			w.shows(asked, j, req.(*stintv1.ListJobsRequest).GetView())
		}
	case *stintv1.InterruptJobsResponse:
		w.interrupts(asked, m.GetResults())
		w.carriedOut(m.GetResults())
	case *stintv1.UpdateJobResponse:
		w.life(m.GetJob().GetId()).done++
		w.shows(asked, m.GetJob(), stintv1.JobView_JOB_VIEW_BASIC)
	case *stintv1.PauseQueueResponse:
		w.paused(m.GetQueue().GetName())
	case *stintv1.RetryJobsResponse:
		w.foundAll(asked, m.GetResults())
	case *stintv1.ParkJobsResponse:
		w.foundAll(asked, m.GetResults())
	}
}

func (w *witness) foundAll(asked moment, results []*stintv1.JobResult) {
	for _, r := range results {
		w.found(asked, r.GetId(), r.GetError())
	}
}

// found judges an item's error: a job that somebody was told of does not vanish.
func (w *witness) found(asked moment, id string, err *stintv1.ItemError) {
	if err.GetReason() == stintv1.Reason_REASON_JOB_NOT_FOUND && w.life(id).known.by(asked) > 0 {
		w.blame("job %s is gone", id)
	}
}

// submitted judges the answers to submitted jobs.
func (w *witness) submitted(asked moment, specs []*stintv1.JobSpec, results []*stintv1.SubmitResult) {
	for i, r := range results {
		l := w.life(specs[i].GetId())
		switch {
		case r.GetId() != l.id:
			w.blame("the answer to job %s is about %s", l.id, r.GetId())
		case r.GetHolderId() != "":
			if l.known.by(asked) > 0 {
				w.blame("job %s is known and was answered %v", l.id, r)
			}
			w.stands(asked, w.life(r.GetHolderId()), r.GetState())
			continue
		case r.GetError() != nil:
			w.blame("job %s was refused: %v", l.id, r.GetError())
		case r.GetStatus() == stintv1.SubmitStatus_SUBMIT_STATUS_CREATED && l.known.by(asked) > 0:
			w.blame("job %s was CREATED a second time", l.id)
		}
		l.known.hear(w.clock, 1)
		l.acked.hear(w.clock, 1)
		w.stands(asked, l, r.GetState())
	}
}

// stands judges and notes the state of a job as an answer tells it.
func (w *witness) stands(asked moment, l *life, state stintv1.JobState) {
	if l.succeeded.by(asked) > 0 && state != stintv1.JobState_JOB_STATE_SUCCEEDED {
		w.blame("job %s had succeeded and is %s", l.id, state)
	}
	if state == stintv1.JobState_JOB_STATE_SUCCEEDED {
		l.succeeded.hear(w.clock, 1)
	}
}

// interrupts judges the answers to interrupts.
func (w *witness) interrupts(asked moment, results []*stintv1.InterruptResult) {
	for _, r := range results {
		l := w.life(r.GetId())
		w.found(asked, l.id, r.GetError())
		if r.GetError() != nil {
			continue
		}
		w.stands(asked, l, r.GetState())
		w.keeps(asked, l, r.GetLevel())
	}
}

// keeps judges and notes the level of a job as an answer tells it: CANCEL stays in force for the rest of the epoch.
func (w *witness) keeps(asked moment, l *life, level stintv1.InterruptLevel) {
	if level == stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL {
		l.cancelled.hear(w.clock, 1)
	} else if l.cancelled.by(asked) > 0 && !l.reopened {
		w.blame("job %s: level CANCEL fell to %s", l.id, level)
	}
}

// sight is a job without what only the full view has.
func sight(j *stintv1.Job) *stintv1.Job {
	basic := proto.CloneOf(j)
	basic.Payload, basic.Result, basic.History, basic.Actions = nil, nil, nil, nil
	return basic
}
