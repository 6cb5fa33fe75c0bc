package server

import (
	"context"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// ClaimJobs waits for runs, and ends when the server stops, without runs; or it claims chosen jobs.
func (s *Server) ClaimJobs(ctx context.Context, m *stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
	request, err := claimFrom(m)
	if err != nil {
		return nil, err
	}
	if m.GetInstanceId() == "" {
		request.Instance = job.ID(uuid.New())
	}
	if len(m.GetJobIds()) > 0 {
		return s.claimChosen(ctx, m, request)
	}
	request.Quit = s.stopping
	runs, err := s.dispatch.Claim(ctx, request)
	if err != nil {
		return nil, err
	}
	assignments, err := s.wireAssignments(ctx, runs)
	return &stintv1.ClaimJobsResponse{Assignments: assignments}, err
}

// wireAssignments are the runs with their payloads. A run whose payload is gone is left out: its job was deleted in
// between.
func (s *Server) wireAssignments(ctx context.Context, runs []dispatch.Assignment) ([]*stintv1.Assignment, error) {
	apart, err := s.loadPayloads(ctx, runs)
	if err != nil {
		return nil, err
	}
	out := make([]*stintv1.Assignment, 0, len(runs))
	for i := range runs {
		if payload, ok := payloadOf(runs, i, apart); ok {
			out = append(out, wireAssignment(&runs[i], payload))
		}
	}
	return out, nil
}

// payloadOf is the payload of the run, which may be among those that were loaded; false if it is gone.
func payloadOf(runs []dispatch.Assignment, i int, loaded map[int][]byte) ([]byte, bool) {
	spec := runs[i].Job.Spec
	if spec.PayloadSize == 0 || spec.Payload != nil {
		return spec.Payload, true
	}
	return loaded[i], len(loaded[i]) == spec.PayloadSize
}

// loadPayloads reads the payloads that are kept apart from their jobs, by the index of the run.
func (s *Server) loadPayloads(ctx context.Context, runs []dispatch.Assignment) (map[int][]byte, error) {
	var apart map[int][]byte
	for i := range runs {
		if spec := runs[i].Job.Spec; spec.PayloadSize > 0 && spec.Payload == nil {
			if apart == nil {
				apart = map[int][]byte{}
			}
			apart[i] = nil
		}
	}
	if apart == nil {
		return nil, nil
	}
	err := s.store.View(ctx, func(r store.Reader) error {
		for i := range apart {
			payload, err := r.Payload(runs[i].Job)
			if err != nil {
				return err
			}
			apart[i] = payload
		}
		return nil
	})
	return apart, err
}

// HeartbeatRuns renews leases.
func (s *Server) HeartbeatRuns(ctx context.Context, m *stintv1.HeartbeatRunsRequest) (*stintv1.HeartbeatRunsResponse, error) {
	if err := checkHeartbeat(m); err != nil {
		return nil, err
	}
	verdicts, next, err := s.dispatch.Heartbeat(ctx, m.GetLeaseTokens(), interruptAcksFrom(m.GetInterruptAcks()))
	if err != nil {
		return nil, err
	}
	return &stintv1.HeartbeatRunsResponse{Verdicts: wireVerdicts(verdicts), NextHeartbeatIn: durationpb.New(next)}, nil
}

// FinishRuns ends runs.
func (s *Server) FinishRuns(ctx context.Context, m *stintv1.FinishRunsRequest) (*stintv1.FinishRunsResponse, error) {
	if err := checkCount("finishes", len(m.GetFinishes())); err != nil {
		return nil, err
	}
	acks, err := s.dispatch.Finish(ctx, s.finishesFrom(m.GetFinishes()))
	if err != nil {
		return nil, err
	}
	return &stintv1.FinishRunsResponse{Acks: s.wireAcks(nil, acks, 0)}, nil
}

// CheckLease tells whether a run owns its job.
func (s *Server) CheckLease(ctx context.Context, m *stintv1.CheckLeaseRequest) (*stintv1.CheckLeaseResponse, error) {
	id, err := parseID("job_id", m.GetJobId())
	if err != nil {
		return nil, err
	}
	lease, found, err := s.dispatch.CheckLease(ctx, id, m.GetFence())
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, errJobNotFound
	}
	return &stintv1.CheckLeaseResponse{
		Live:        lease.Live,
		Level:       stintv1.InterruptLevel(lease.Level),
		NewestFence: lease.Newest,
	}, nil
}

// ListWorkers lists who is there. The position in the list is an instance id.
func (s *Server) ListWorkers(_ context.Context, m *stintv1.ListWorkersRequest) (*stintv1.ListWorkersResponse, error) {
	query := &stintv1.ListWorkersRequest{}
	position, err := s.tokens.open(query, m.GetPageToken())
	if err != nil {
		return nil, err
	}
	var after job.ID
	copy(after[:], position)
	size := clampPageSize(m.GetPageSize())
	workers := s.dispatch.Workers(after, size+1)
	page, bytes := &stintv1.ListWorkersResponse{}, 0
	for i := range workers[:min(size, len(workers))] {
		shown := wireWorker(&workers[i])
		if bytes += proto.Size(shown); bytes > pageBytes && i > 0 {
			break
		}
		page.Workers = append(page.Workers, shown)
	}
	if n := len(page.Workers); n < len(workers) {
		last := workers[n-1].Hello.Instance
		page.NextPageToken, err = s.tokens.seal(query, last[:])
	}
	return page, err
}

// DrainWorkers gives workers nothing more.
func (s *Server) DrainWorkers(_ context.Context, m *stintv1.DrainWorkersRequest) (*stintv1.DrainWorkersResponse, error) {
	notice, err := drainFrom(m)
	if err != nil {
		return nil, err
	}
	results := make([]*stintv1.DrainResult, len(m.GetInstanceIds()))
	var ids []job.ID
	var places []int
	for i, text := range m.GetInstanceIds() {
		results[i] = &stintv1.DrainResult{InstanceId: text}
		id, err := parseID("instance_ids", text)
		if err != nil {
			results[i].Error = s.refuseItem(i, err)
			continue
		}
		ids, places = append(ids, id), append(places, i)
	}
	for n, drained := range s.dispatch.Drain(ids, notice) {
		i := places[n]
		results[i].Runs = uint32(drained.Runs)
		if drained.Err != nil {
			results[i].Error = s.refuseItem(i, drained.Err)
		}
	}
	return &stintv1.DrainWorkersResponse{Results: results}, nil
}

// refuseItem is an item's error, counted.
func (s *Server) refuseItem(index int, err error) *stintv1.ItemError {
	e := itemError(index, err)
	s.metrics.refused(e.GetReason())
	return e
}
