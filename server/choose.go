package server

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// blockersBytes bounds the blockers in one answer to a claim of chosen jobs, overshot by those of one job.
const blockersBytes = 256 << 10

var (
	errBlocked    = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_JOB_BLOCKED, message: "the jobs before it in this request took what it needs"}
	errAnswerFull = &refusal{code: codes.ResourceExhausted, reason: stintv1.Reason_REASON_JOB_BLOCKED, message: "the answer is full; claim it by another call"}
	errRunOver    = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_TOKEN_STALE, message: "this request has claimed it before, and that run is over"}
)

// claimChosen claims jobs by their ids.
func (s *Server) claimChosen(ctx context.Context, m *stintv1.ClaimJobsRequest, request dispatch.ClaimRequest) (*stintv1.ClaimJobsResponse, error) {
	results := make([]*stintv1.ClaimResult, len(m.GetJobIds()))
	var ids []job.ID
	var places []int
	named := map[job.ID]bool{}
	for i, text := range m.GetJobIds() {
		results[i] = &stintv1.ClaimResult{JobId: text}
		id, err := parseID("job_ids", text)
		if err == nil && named[id] {
			err = invalid("job_ids", "this job is named twice")
		}
		if err != nil {
			results[i].Error = s.refuseItem(i, err)
			continue
		}
		named[id] = true
		ids, places = append(ids, id), append(places, i)
	}
	if len(ids) == 0 {
		return &stintv1.ClaimJobsResponse{Results: results}, nil
	}
	choices, err := s.dispatch.Choose(ctx, request, ids, func(tx store.Tx, j *job.Job) (any, error) {
		known, err := s.dispatch.Blockers(tx, j)
		return (&explainer{r: tx, j: j, queue: tx.Queue(j.Spec.Queue), known: known, brief: true}).blocked(request.Instance), err
	})
	if err != nil {
		return nil, err
	}
	runs, bytes := make([]dispatch.Assignment, 0, len(choices)), 0
	for n := range choices {
		c, result := &choices[n], results[places[n]]
		result.State = stintv1.JobState(c.State)
		if c.Run != nil {
			runs = append(runs, *c.Run)
			continue
		}
		s.tellChoice(result, c, places[n])
		for _, b := range result.GetBlockers() {
			bytes += proto.Size(b)
		}
		if bytes > blockersBytes {
			result.Blockers = nil
		}
	}
	assignments, err := s.wireAssignments(ctx, runs)
	if err != nil {
		return nil, err
	}
	s.missPayloads(results, assignments)
	return &stintv1.ClaimJobsResponse{Assignments: assignments, Results: results}, nil
}

// tellChoice says why a job was not claimed.
func (s *Server) tellChoice(result *stintv1.ClaimResult, c *dispatch.Choice, index int) {
	err := c.Err
	switch {
	case errors.Is(err, job.ErrRunActive):
		result.Worker, result.InstanceId = c.Worker, uuid.UUID(c.Instance).String()
		told := *errRunActive
		told.message = "the job is running on worker " + result.GetWorker()
		err = &told
	case errors.Is(err, job.ErrIllegal):
		told := *errInvalidState
		told.message = "the job is " + short(result.GetState().String(), "JOB_STATE_") + ", not READY"
		err = &told
	case errors.Is(err, dispatch.ErrBlocked):
		if result.Blockers, _ = c.Why.([]*stintv1.Blocker); len(result.Blockers) > 0 {
			told := *errBlocked
			told.message = result.Blockers[0].GetText()
			err = &told
		}
	}
	result.Error = s.refuseItem(index, err)
}

// missPayloads tells of the jobs that were deleted after they were claimed and before their payloads were read.
func (s *Server) missPayloads(results []*stintv1.ClaimResult, assignments []*stintv1.Assignment) {
	there := make(map[string]bool, len(assignments))
	for _, a := range assignments {
		there[a.GetJobId()] = true
	}
	for i, result := range results {
		if result.GetError() == nil && !there[result.GetJobId()] {
			result.State, result.Error = stintv1.JobState_JOB_STATE_UNSPECIFIED, s.refuseItem(i, errJobNotFound)
		}
	}
}

// blocked is what keeps a READY job from being claimed by this worker.
func (x *explainer) blocked(by job.ID) []*stintv1.Blocker {
	x.queued()
	x.limits()
	x.gates()
	if x.j.Avoid == by && x.r.Now().Before(x.j.AvoidUntil) {
		x.add(stintv1.BlockerKind_BLOCKER_KIND_NOT_ME, "", "this worker gave it back; it does not go there before %s",
			clock(x.j.AvoidUntil)).Until = wireTime(x.j.AvoidUntil)
	}
	return x.blockers
}
