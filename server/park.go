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
	if err := checkWho(m.GetReason(), m.GetRequester()); err != nil {
		return nil, err
	}
	query := &stintv1.ParkJobsRequest{Filter: m.GetFilter()}
	changed, token, err := s.changeJobs(ctx, m, query, func(r store.Reader, j *job.Job) (*job.Job, job.InterruptEffect, error) {
		next, err := j.Park(r.Now(), m.GetReason(), m.GetRequester())
		return next, 0, err
	})
	if err != nil {
		return nil, err
	}
	return &stintv1.ParkJobsResponse{Results: s.jobResults(changed), ContinueToken: token}, nil
}
