package server

import (
	"context"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// ParkJobs parks each job, or the next page of jobs, in one transaction.
func (s *Server) ParkJobs(ctx context.Context, m *stintv1.ParkJobsRequest) (*stintv1.ParkJobsResponse, error) {
	if err := checkTargets(m); err != nil {
		return nil, err
	}
	if err := checkNamed(m); err != nil {
		return nil, err
	}
	by := job.By{Reason: m.GetReason(), Requester: m.GetRequester(), Request: m.GetRequestId()}
	changed, token, err := s.changeJobs(ctx, m, deed{
		kind: job.ActionPark, request: by.Request,
		query: &stintv1.ParkJobsRequest{Filter: m.GetFilter()},
		step: func(r store.Reader, j *job.Job) (*job.Job, job.InterruptEffect, error) {
			next, err := j.Park(r.Now(), by)
			return next, 0, err
		},
	})
	if err != nil {
		return nil, err
	}
	return &stintv1.ParkJobsResponse{Results: s.jobResults(changed), ContinueToken: token}, nil
}
