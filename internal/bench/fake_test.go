package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// fake is a server with no memory but a list: enough of the protocol to drive the load generator, with a way to get
// things wrong.
type fake struct {
	stintv1.UnimplementedJobServiceServer
	stintv1.UnimplementedWorkerServiceServer

	// What to do wrong with the n-th job, from 1; nil means nothing.
	spoilSubmit func(n int, r *stintv1.SubmitResult)
	spoilAssign func(n int, a *stintv1.Assignment) []*stintv1.Assignment
	spoilFinish func(n int, a *stintv1.FinishAck) []*stintv1.FinishAck

	mu       sync.Mutex
	jobs     []*stintv1.JobSpec
	changed  chan struct{} // closed and replaced when a job comes
	created  int
	assigned int
	finished int
	stopped  map[string]bool // ids of jobs that were interrupted
	tokens   map[string]string
}

// serve starts the fake and returns its address.
func (f *fake) serve(t *testing.T) string {
	t.Helper()
	f.changed = make(chan struct{})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	stintv1.RegisterJobServiceServer(s, f)
	stintv1.RegisterWorkerServiceServer(s, f)
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return lis.Addr().String()
}

func (f *fake) accept(jobs []*stintv1.JobSpec) []*stintv1.SubmitResult {
	f.mu.Lock()
	defer f.mu.Unlock()
	var results []*stintv1.SubmitResult
	for _, job := range jobs {
		f.created++
		r := &stintv1.SubmitResult{Id: job.Id, Status: stintv1.SubmitStatus_SUBMIT_STATUS_CREATED}
		if f.spoilSubmit != nil {
			f.spoilSubmit(f.created, r)
		}
		results = append(results, r)
	}
	f.jobs = append(f.jobs, jobs...)
	close(f.changed)
	f.changed = make(chan struct{})
	return results
}

// claim takes up to room jobs of the queues; the channel is closed when more came. A caller of an earlier run that is
// gone, and whose end has not come here yet, asks for another queue.
func (f *fake) claim(room int, queues []string) ([]*stintv1.Assignment, chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var got []*stintv1.Assignment
	for range min(room, len(f.jobs)) {
		job := f.jobs[0]
		if !slices.Contains(queues, job.Queue) {
			break
		}
		f.jobs = f.jobs[1:]
		f.assigned++
		a := &stintv1.Assignment{
			LeaseToken: fmt.Sprint("token-", f.assigned), JobId: job.Id, Queue: job.Queue,
			Payload: job.Payload, RunNumber: 1,
		}
		if f.tokens == nil {
			f.tokens = map[string]string{}
		}
		f.tokens[a.LeaseToken] = job.Id
		if f.spoilAssign == nil {
			got = append(got, a)
		} else {
			got = append(got, f.spoilAssign(f.assigned, a)...)
		}
	}
	return got, f.changed
}

func (f *fake) finish(finishes []*stintv1.Finish) []*stintv1.FinishAck {
	f.mu.Lock()
	defer f.mu.Unlock()
	var acks []*stintv1.FinishAck
	for _, finish := range finishes {
		f.finished++
		ack := &stintv1.FinishAck{
			LeaseToken: finish.LeaseToken, Status: stintv1.FinishStatus_FINISH_STATUS_RECORDED,
			JobState: stintv1.JobState_JOB_STATE_SUCCEEDED,
		}
		if f.stopped[f.tokens[finish.LeaseToken]] && finish.GetInterrupted() != nil {
			ack.JobState = stintv1.JobState_JOB_STATE_CANCELLED
		} else if finish.GetSuccess() == nil {
			ack.Status = stintv1.FinishStatus_FINISH_STATUS_REJECTED
		}
		if f.spoilFinish == nil {
			acks = append(acks, ack)
		} else {
			acks = append(acks, f.spoilFinish(f.finished, ack)...)
		}
	}
	return acks
}

func (f *fake) Submit(stream stintv1.JobService_SubmitServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&stintv1.SubmitResponse{Results: f.accept(req.Jobs)}); err != nil {
			return err
		}
	}
}

func (f *fake) SubmitJobs(_ context.Context, req *stintv1.SubmitJobsRequest) (*stintv1.SubmitJobsResponse, error) {
	return &stintv1.SubmitJobsResponse{Results: f.accept(req.Jobs)}, nil
}

func (f *fake) ClaimJobs(ctx context.Context, req *stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
	for {
		got, changed := f.claim(int(req.MaxRuns), req.Queues)
		if len(got) > 0 {
			return &stintv1.ClaimJobsResponse{Assignments: got}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// InterruptJobs has the sessions tell their workers.
func (f *fake) InterruptJobs(_ context.Context, req *stintv1.InterruptJobsRequest) (*stintv1.InterruptJobsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped == nil {
		f.stopped = map[string]bool{}
	}
	answer := &stintv1.InterruptJobsResponse{}
	for _, id := range req.Ids {
		f.stopped[id] = true
		answer.Results = append(answer.Results, &stintv1.InterruptResult{Id: id, Status: stintv1.InterruptStatus_INTERRUPT_STATUS_REQUESTED})
	}
	close(f.changed)
	f.changed = make(chan struct{})
	return answer, nil
}

// interrupts are verdicts on the runs that are interrupted; these are told once.
func (f *fake) interrupts(held map[string]bool) (verdicts []*stintv1.Verdict, changed chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for token := range held {
		if f.stopped[f.tokens[token]] {
			delete(held, token)
			verdicts = append(verdicts, &stintv1.Verdict{
				LeaseToken: token, Action: stintv1.VerdictAction_VERDICT_ACTION_CONTINUE,
				Interrupt: &stintv1.Interrupt{Level: stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL, Generation: 1},
			})
		}
	}
	return verdicts, f.changed
}

func (f *fake) FinishRuns(_ context.Context, req *stintv1.FinishRunsRequest) (*stintv1.FinishRunsResponse, error) {
	return &stintv1.FinishRunsResponse{Acks: f.finish(req.Finishes)}, nil
}

// Work speaks the session: welcome, assignments within the demand, acknowledgements, drain.
func (f *fake) Work(stream stintv1.WorkerService_WorkServer) error {
	requests := make(chan *stintv1.WorkRequest)
	go func() {
		defer close(requests)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- m:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	s := fakeSession{tokens: map[string]bool{}}
	for {
		answer := &stintv1.WorkResponse{}
		var changed chan struct{}
		if !s.drained {
			answer.Assignments, changed = f.claim(s.room-s.held, s.queues)
		}
		for _, a := range answer.Assignments {
			s.seq++
			a.AssignmentSeq = s.seq
			s.tokens[a.LeaseToken] = true
		}
		var later chan struct{}
		if answer.Interrupts, later = f.interrupts(s.tokens); changed == nil {
			changed = later
		}
		if s.held += len(answer.Assignments); s.held > s.room {
			return errors.New("the test's server gave too much")
		}
		if len(answer.Assignments)+len(answer.Interrupts) == 0 {
			select {
			case <-changed:
				continue
			case m, ok := <-requests:
				if !ok {
					return nil
				}
				answer.FinishAcks = f.finish(m.Finishes)
				s.apply(m, answer)
			}
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

type fakeSession struct {
	room, held int
	tokens     map[string]bool // of runs whose interrupt was not told
	queues     []string
	seq        uint64
	drained    bool
}

func (s *fakeSession) apply(m *stintv1.WorkRequest, answer *stintv1.WorkResponse) {
	if m.Hello != nil {
		answer.Welcome = &stintv1.Welcome{NextReportIn: durationpb.New(1e9)}
	}
	s.held -= len(m.Finishes)
	if d := m.Demand; d != nil {
		s.room = s.held
		for _, p := range d.Pools {
			s.room, s.queues = int(p.MaxRuns), p.Queues
		}
	}
	if m.Drain != nil {
		s.drained, answer.Drained = true, true
	}
}
