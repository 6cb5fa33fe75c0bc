package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

const (
	unaryTimeout = time.Minute     // of one call
	unaryWait    = 5 * time.Second // of one long poll
)

// submitUnary starts to submit all jobs by calls of one job each, from as many callers.
func (l *load) submitUnary(callers int) {
	next := new(atomic.Int64)
	for range callers {
		l.run(func() error {
			for {
				job := int(next.Add(1)) - 1
				if job >= len(l.jobs) {
					return nil
				}
				if err := l.submitCall(l.batchOf(job, job+1)); err != nil {
					return err
				}
			}
		})
	}
}

func (l *load) submitCall(jobs []*stintv1.JobSpec) error {
	ctx, cancel := context.WithTimeout(l.ctx, unaryTimeout)
	defer cancel()
	resp, err := l.target.jobs.SubmitJobs(ctx, &stintv1.SubmitJobsRequest{Jobs: jobs})
	if err != nil {
		return fmt.Errorf("SubmitJobs: %w", err)
	}
	return l.checkSubmit(jobs, resp.GetResults())
}

// workUnary starts callers that each claim and finish one job at a time until the load is closed.
func (l *load) workUnary(callers int) {
	instance := uuid.NewString()
	for range callers {
		l.run(func() error {
			for l.ctx.Err() == nil {
				if err := l.workCall(instance); err != nil && l.ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
}

// workCall claims one job, or none if none comes, and finishes it.
func (l *load) workCall(instance string) error {
	ctx, cancel := context.WithTimeout(l.ctx, unaryTimeout)
	defer cancel()
	claimed, err := l.target.workers.ClaimJobs(ctx, &stintv1.ClaimJobsRequest{
		Worker: "bench", InstanceId: instance, Queues: []string{l.queue}, MaxRuns: 1, Wait: durationpb.New(unaryWait),
	})
	if err != nil {
		return fmt.Errorf("ClaimJobs: %w", err)
	}
	if len(claimed.GetAssignments()) == 0 {
		return nil
	}
	if len(claimed.Assignments) > 1 {
		l.fault("a claim of one job brought %d", len(claimed.Assignments))
	}
	a := claimed.Assignments[0]
	l.checkAssignment(a)
	finished, err := l.target.workers.FinishRuns(ctx, &stintv1.FinishRunsRequest{
		Finishes: finishesOf([]string{a.GetLeaseToken()}, l.outcome),
	})
	if err != nil {
		return fmt.Errorf("FinishRuns: %w", err)
	}
	if len(finished.GetAcks()) != 1 {
		return fmt.Errorf("one finish was answered with %d acknowledgements", len(finished.GetAcks()))
	}
	l.checkFinish(a.GetJobId(), finished.Acks[0])
	return nil
}
