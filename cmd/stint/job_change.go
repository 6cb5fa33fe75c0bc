package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func newJobInterruptCommand(g *globals) *cobra.Command {
	var level, reason string
	c := &cobra.Command{
		Use:   "interrupt ID...",
		Short: "Ask jobs to stop: to come back later (retry), or for good (cancel)",
		Long: `Ask jobs to stop. A job that is not running is CANCELLED at once by cancel and unchanged by retry. A running one is told
through its worker, and ends as the level says unless it still succeeds.`,
		Example: `  stint job interrupt --level cancel --reason 'wrong file' 018f4e7a-1c2d-7000-8000-000000000001`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, ids []string) error {
			l, err := parseLevel(level)
			if err != nil {
				return usageError("--level %w", err)
			}
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				return g.interruptJobs(ctx, c, &stintv1.InterruptJobsRequest{Ids: ids, Level: l, Reason: reason, Requester: requester()})
			})
		},
	}
	c.Flags().StringVar(&level, "level", "", "retry or cancel (required)")
	c.Flags().StringVar(&reason, "reason", "", "why; kept with the job and shown to its worker")
	_ = c.RegisterFlagCompletionFunc("level", cobra.FixedCompletions([]string{"retry", "cancel"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (g *globals) interruptJobs(ctx context.Context, c *client.Client, req *stintv1.InterruptJobsRequest) error {
	answer, err := c.Jobs().InterruptJobs(ctx, req)
	if err != nil {
		return err
	}
	errs := itemErrors{g: g}
	err = g.print(answer, messages(answer.GetResults()), func(w io.Writer) {
		for _, r := range answer.GetResults() {
			if r.GetError() == nil {
				row(w, r.GetId(), name(r.GetStatus(), "INTERRUPT_STATUS_"), stateName(r.GetState()))
			}
		}
	})
	for _, r := range answer.GetResults() {
		errs.tell(r.GetId(), r.GetError())
	}
	if err != nil {
		return err
	}
	return errs.exit()
}

func newJobRetryCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "retry ID...",
		Short: "Make jobs run again",
		Long: `Make jobs run again: FAILED, CANCELLED, EXPIRED and PARKED ones start over with fresh budgets, SCHEDULED and BACKOFF ones
become ready now. A running, ready or succeeded job is refused.`,
		Example: "  stint job list --state failed -o jsonl | jq -r .id | xargs stint job retry",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, ids []string) error {
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.Jobs().RetryJobs(ctx, &stintv1.RetryJobsRequest{Ids: ids})
				if err != nil {
					return err
				}
				return g.printJobResults(answer, answer.GetResults())
			})
		},
	}
}

func newJobParkCommand(g *globals) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "park ID...",
		Short: "Set jobs aside for a person to look at",
		Long: `Set jobs aside until they are retried. A waiting job is PARKED at once. A running one is asked to stop and PARKED however
its run ends, unless the job ends with it. One that has ended is refused.`,
		Example: `  stint job park --reason 'ask the customer first' 018f4e7a-1c2d-7000-8000-000000000001`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, ids []string) error {
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.Jobs().ParkJobs(ctx, &stintv1.ParkJobsRequest{Ids: ids, Reason: reason, Requester: requester()})
				if err != nil {
					return err
				}
				return g.printJobResults(answer, answer.GetResults())
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; kept with the job and shown to its worker")
	return c
}

func newJobDeleteCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "delete ID...",
		Short:   "Delete jobs with all that is known of them",
		Long:    "Delete jobs with all that is known of them, their ids too. A running job is refused: interrupt it first.",
		Example: "  stint job delete 018f4e7a-1c2d-7000-8000-000000000001",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, ids []string) error {
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.Jobs().DeleteJobs(ctx, &stintv1.DeleteJobsRequest{Ids: ids})
				if err != nil {
					return err
				}
				return g.printJobResults(answer, answer.GetResults())
			})
		},
	}
}

// printJobResults shows one line for each job, and its refusal on standard error if it was refused.
func (g *globals) printJobResults(answer proto.Message, results []*stintv1.JobResult) error {
	err := g.print(answer, messages(results), func(w io.Writer) {
		for _, r := range results {
			if r.GetError() != nil {
				continue
			}
			state := "DELETED"
			if r.GetState() != stintv1.JobState_JOB_STATE_UNSPECIFIED {
				state = stateName(r.GetState())
			}
			row(w, r.GetId(), state)
		}
	})
	if err != nil {
		return err
	}
	errs := itemErrors{g: g}
	for _, r := range results {
		errs.tell(r.GetId(), r.GetError())
	}
	return errs.exit()
}
