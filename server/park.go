package server

import (
	"context"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// ParkJobs parks each job, in one transaction.
func (s *Server) ParkJobs(ctx context.Context, m *stintv1.ParkJobsRequest) (*stintv1.ParkJobsResponse, error) {
	if err := checkParkJobs(m); err != nil {
		return nil, err
	}
	changed, err := s.changeJobs(ctx, m.GetIds(), func(tx store.Tx, _ int, j *job.Job) (*job.Job, error) {
		return j.Park(tx.Now(), m.GetReason(), m.GetRequester())
	})
	if err != nil {
		return nil, err
	}
	return &stintv1.ParkJobsResponse{Results: s.jobResults(m.GetIds(), changed)}, nil
}

func checkParkJobs(m *stintv1.ParkJobsRequest) error {
	if err := checkCount("ids", len(m.GetIds())); err != nil {
		return err
	}
	return checkWho(m.GetReason(), m.GetRequester())
}
