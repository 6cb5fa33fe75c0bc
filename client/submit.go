package client

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Submit submits jobs and returns one answer for each, in order; a refused job is an error in its answer (STORAGE_FULL
// too), never of the call. Ids are chosen before the first send, and the call is repeated with full jitter while the
// server is away, until ctx ends; so give ctx a deadline. Large lists are sent in messages of at most 1,000 jobs and
// about 2 MiB, one after another.
//
// On an error the list still has every job: those that were not answered have their ID and the error.
func (c *Client) Submit(ctx context.Context, jobs ...Job) ([]Submitted, error) {
	answers := make([]Submitted, len(jobs))
	batch := make([]*stintv1.JobSpec, 0, min(len(jobs), maxItems))
	indexes := make([]int, 0, cap(batch))
	bytes := 0
	var failed error
	flush := func() {
		if failed == nil && len(batch) > 0 {
			failed = c.submitBatch(ctx, batch, indexes, answers)
		}
		for _, i := range indexes {
			if failed != nil && answers[i].State == stintv1.JobState_JOB_STATE_UNSPECIFIED && answers[i].Err == nil {
				answers[i].Err = failed
			}
		}
		batch, indexes, bytes = batch[:0], indexes[:0], 0
	}
	for i, job := range jobs {
		spec, refused := job.spec(ctx)
		answers[i].ID = spec.Id
		if refused != nil {
			refused.Index = i
			answers[i].Err = refused
			continue
		}
		if n := size(spec); len(batch) == maxItems || len(batch) > 0 && bytes+n > maxBatchBytes {
			flush()
		}
		batch, indexes, bytes = append(batch, spec), append(indexes, i), bytes+size(spec)
	}
	flush()
	return answers, failed
}

// submitBatch sends one message until it is answered, and files the answers under their indexes.
func (c *Client) submitBatch(ctx context.Context, batch []*stintv1.JobSpec, indexes []int, answers []Submitted) error {
	var pause pacer
	for {
		resp, err := c.jobs.SubmitJobs(ctx, &stintv1.SubmitJobsRequest{Jobs: batch}, grpc.WaitForReady(true))
		if err == nil {
			if len(resp.GetResults()) != len(batch) {
				return fmt.Errorf("the server answered %d of %d jobs", len(resp.GetResults()), len(batch))
			}
			for i, result := range resp.GetResults() {
				answers[indexes[i]] = submitted(indexes[i], result)
			}
			return nil
		}
		if !transient(ctx, err) {
			return err
		}
		if pause.wait(ctx, err) != nil {
			return err
		}
	}
}
