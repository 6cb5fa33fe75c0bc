package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func newJobInterruptCommand(g *globals) *cobra.Command {
	var level, reason string
	var grace, hard time.Duration
	var target targetFlags
	c := &cobra.Command{
		Use:   "interrupt [ID...]",
		Short: "Ask jobs to stop: to come back later (retry), or for good (cancel)",
		Long: `Ask jobs to stop. A job that is not running is CANCELLED at once by cancel and unchanged by retry. A running one is told
through its worker, which has --grace to end it (30s for retry, 10s for cancel), and ends as the level says unless it still
succeeds. A worker that goes on is left behind at the --hard-deadline (60s for cancel, never for retry).

Jobs are named by ids, or selected by flags; then those are passed over that have ended.`,
		Example: `  stint job interrupt --level cancel --reason 'wrong file' 018f4e7a-1c2d-7000-8000-000000000001
  stint job interrupt --level cancel --queue thumbnails --state ready --dry-run`,
		RunE: func(c *cobra.Command, ids []string) error {
			l, err := parseLevel(level)
			if err != nil {
				return usageError("--level %w", err)
			}
			filter, err := target.filter(ids)
			if err != nil {
				return err
			}
			req := &stintv1.InterruptJobsRequest{
				Ids: ids, Level: l, Reason: reason, Requester: requester(), Filter: filter, All: target.all, DryRun: target.dryRun,
			}
			if c.Flags().Changed("grace") {
				req.Grace = durationpb.New(grace)
			}
			if c.Flags().Changed("hard-deadline") {
				req.HardDeadline = durationpb.New(hard)
			}
			if filter != nil {
				// A sweep may be long: it has a deadline only if one is asked for.
				return g.connect(c.Context(), g.timeout, func(ctx context.Context, c *client.Client) error {
					return sweep(g, c.InterruptMatching(ctx, req), target.dryRun, deed{"interrupt", "interrupted"}, interruptChanged)
				})
			}
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				return g.interruptJobs(ctx, c, req)
			})
		},
	}
	target.register(g, c)
	c.Flags().StringVar(&level, "level", "", "retry or cancel (required)")
	c.Flags().DurationVar(&grace, "grace", 0, "how long workers may take to end (default by the level)")
	c.Flags().DurationVar(&hard, "hard-deadline", 0, "when runs that have not ended are left behind (default by the level)")
	c.Flags().StringVar(&reason, "reason", "", "why; kept with the job and shown to its worker")
	_ = c.RegisterFlagCompletionFunc("level", cobra.FixedCompletions([]string{"retry", "cancel"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// interruptChanged reports whether an interrupt did anything to a job.
func interruptChanged(r *stintv1.InterruptResult) bool {
	return r.GetStatus() != stintv1.InterruptStatus_INTERRUPT_STATUS_NO_RUN && r.GetStatus() != stintv1.InterruptStatus_INTERRUPT_STATUS_UNCHANGED
}

func (g *globals) interruptJobs(ctx context.Context, c *client.Client, req *stintv1.InterruptJobsRequest) error {
	answer, err := c.Jobs().InterruptJobs(ctx, req)
	if err != nil {
		return err
	}
	g.noteDryRun(req.GetDryRun())
	errs := itemErrors{g: g}
	err = g.print(answer, messages(answer.GetResults()), func(w io.Writer) {
		for _, r := range answer.GetResults() {
			if r.GetError() == nil {
				row(w, r.GetId(), name(r.GetStatus(), "INTERRUPT_STATUS_"), stateName(r.GetState()))
			}
		}
	})
	for _, r := range answer.GetResults() {
		if refused := r.GetError(); refused.GetReason() == stintv1.Reason_REASON_INTERRUPT_TOO_LATE {
			refused.Message += " (" + stateName(r.GetState()) + ")"
		}
		errs.tell(r.GetId(), r.GetError())
	}
	if err != nil {
		return err
	}
	return errs.exit()
}

func newJobRetryCommand(g *globals) *cobra.Command {
	var target targetFlags
	var reason string
	c := &cobra.Command{
		Use:   "retry [ID...]",
		Short: "Make jobs run again",
		Long: `Make jobs run again: FAILED, CANCELLED, EXPIRED and PARKED ones start over with fresh budgets, SCHEDULED and BACKOFF ones
become ready now. A running, ready or succeeded job is refused.

Jobs are named by ids, or selected by flags; then those are passed over that would be refused.`,
		Example: `  stint job retry 018f4e7a-1c2d-7000-8000-000000000001
  stint job retry --queue thumbnails --state failed`,
		RunE: func(c *cobra.Command, ids []string) error {
			filter, err := target.filter(ids)
			if err != nil {
				return err
			}
			req := &stintv1.RetryJobsRequest{
				Ids: ids, Reason: reason, Requester: requester(), Filter: filter, All: target.all, DryRun: target.dryRun,
			}
			if filter != nil {
				return g.connect(c.Context(), g.timeout, func(ctx context.Context, c *client.Client) error {
					return sweep(g, c.RetryMatching(ctx, req), target.dryRun, deed{"retry", "retried"}, always)
				})
			}
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.Jobs().RetryJobs(ctx, req)
				if err != nil {
					return err
				}
				g.noteDryRun(target.dryRun)
				return g.printJobResults(answer, answer.GetResults())
			})
		},
	}
	target.register(g, c)
	c.Flags().StringVar(&reason, "reason", "", "why; kept with the job")
	return c
}

func newJobParkCommand(g *globals) *cobra.Command {
	var target targetFlags
	var reason string
	c := &cobra.Command{
		Use:   "park [ID...]",
		Short: "Set jobs aside for a person to look at",
		Long: `Set jobs aside until they are retried. A waiting job is PARKED at once. A running one is asked to stop and PARKED however
its run ends, unless the job ends with it. One that has ended is refused.

Jobs are named by ids, or selected by flags; then those are passed over that have ended.`,
		Example: `  stint job park --reason 'ask the customer first' 018f4e7a-1c2d-7000-8000-000000000001
  stint job park --queue thumbnails --label customer=42`,
		RunE: func(c *cobra.Command, ids []string) error {
			filter, err := target.filter(ids)
			if err != nil {
				return err
			}
			req := &stintv1.ParkJobsRequest{
				Ids: ids, Reason: reason, Requester: requester(), Filter: filter, All: target.all, DryRun: target.dryRun,
			}
			if filter != nil {
				return g.connect(c.Context(), g.timeout, func(ctx context.Context, c *client.Client) error {
					return sweep(g, c.ParkMatching(ctx, req), target.dryRun, deed{"park", "parked"}, always)
				})
			}
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.Jobs().ParkJobs(ctx, req)
				if err != nil {
					return err
				}
				g.noteDryRun(target.dryRun)
				return g.printJobResults(answer, answer.GetResults())
			})
		},
	}
	target.register(g, c)
	c.Flags().StringVar(&reason, "reason", "", "why; kept with the job and shown to its worker")
	return c
}

func newJobDeleteCommand(g *globals) *cobra.Command {
	var target targetFlags
	c := &cobra.Command{
		Use:   "delete [ID...]",
		Short: "Delete jobs with all that is known of them",
		Long: `Delete jobs with all that is known of them, their ids too. A running job is refused: interrupt it first.

Jobs are named by ids, or selected by flags; then those are passed over that are running.`,
		Example: `  stint job delete 018f4e7a-1c2d-7000-8000-000000000001
  stint job delete --state cancelled --before 2026-01-31T00:00:00Z --dry-run`,
		RunE: func(c *cobra.Command, ids []string) error {
			filter, err := target.filter(ids)
			if err != nil {
				return err
			}
			req := &stintv1.DeleteJobsRequest{Ids: ids, Filter: filter, All: target.all, DryRun: target.dryRun}
			if filter != nil {
				return g.connect(c.Context(), g.timeout, func(ctx context.Context, c *client.Client) error {
					return sweep(g, c.DeleteMatching(ctx, req), target.dryRun, deed{"delete", "deleted"}, always)
				})
			}
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.Jobs().DeleteJobs(ctx, req)
				if err != nil {
					return err
				}
				g.noteDryRun(target.dryRun)
				return g.printJobResults(answer, answer.GetResults())
			})
		},
	}
	target.register(g, c)
	return c
}

// always counts every job as changed.
func always(*stintv1.JobResult) bool { return true }

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
