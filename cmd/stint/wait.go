package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// waiters is how many jobs are waited for at once; each is a stream.
const waiters = 32

func newJobWaitCommand(g *globals) *cobra.Command {
	var until string
	c := &cobra.Command{
		Use:   "wait ID...",
		Short: "Wait until jobs have ended or are parked",
		Long: `Wait until all jobs have ended or are parked; show each when it has. The exit code is the worst of their outcomes.
A server that goes away in between is waited for.

With --until accepted a job is waited for until a worker has begun a run of it; with --until interrupt-acknowledged, until
its worker acts on the interrupt in force, or there is no run to interrupt. A job that ends or is parked first is shown,
and counts for the exit code, as ever.`,
		Example: `  stint job wait --timeout 1m 018f4e7a-1c2d-7000-8000-000000000001
  stint job wait --until interrupt-acknowledged 018f4e7a-1c2d-7000-8000-000000000001`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, ids []string) error {
			far, err := parseEnum(stintv1.WaitUntil_value, "WAIT_UNTIL_", until)
			if err != nil {
				return usageError("--until %w", err)
			}
			return g.stay(c.Context(), func(ctx context.Context, c *client.Client) error {
				return g.waitAll(ctx, c, ids, stintv1.WaitUntil(far))
			})
		},
	}
	c.Flags().StringVar(&until, "until", "end", "how far they shall come: end, accepted or interrupt-acknowledged")
	_ = c.RegisterFlagCompletionFunc("until", cobra.FixedCompletions(
		[]string{"end", "accepted", "interrupt-acknowledged"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// waitAll waits for jobs, shows each when it has come so far, and ends with the worst outcome.
func (g *globals) waitAll(ctx context.Context, c *client.Client, ids []string, until stintv1.WaitUntil) error {
	l := g.newList("jobs", "ID", "QUEUE", "STATE", "RUNS")
	errs := itemErrors{g: g}
	ended := outcomes{}
	var failed error
	for w := range waitEach(ctx, c, ids, until) {
		if w.err != nil {
			if ctx.Err() != nil {
				failed = ctx.Err()
				continue
			}
			errs.tellError(w.id, w.err)
			continue
		}
		ended[w.job.GetState()]++
		g.tellOutcome(w.job)
		err := l.add(w.job, w.id, w.job.GetQueue(), stateName(w.job.GetState()), fmt.Sprint(w.job.GetRunCount()))
		failed = errors.Join(failed, err)
	}
	if err := errors.Join(l.end(), failed); err != nil {
		return err
	}
	if err := errs.exit(); err != nil {
		return err
	}
	return ended.exit()
}

// waited is one job that has come as far as asked, or why that is not known.
type waited struct {
	id  string
	job *stintv1.Job
	err error
}

// waitEach waits for many jobs, some at once. The channel brings one answer for each and is closed; read it to its end.
func waitEach(ctx context.Context, c *client.Client, ids []string, until stintv1.WaitUntil) <-chan waited {
	next, ends := make(chan string), make(chan waited)
	var working sync.WaitGroup
	for range min(waiters, len(ids)) {
		working.Go(func() {
			for id := range next {
				job, err := c.WaitUntil(ctx, id, until)
				ends <- waited{id, job, err}
			}
		})
	}
	go func() {
		for _, id := range ids {
			next <- id
		}
		close(next)
		working.Wait()
		close(ends)
	}()
	return ends
}

// tellOutcome says on standard error why a job did not succeed. One that goes on has no outcome to tell of.
func (g *globals) tellOutcome(job *stintv1.Job) {
	if (outcomes{job.GetState(): 1}).exit() == nil {
		return
	}
	why := ""
	switch {
	case job.GetState() == stintv1.JobState_JOB_STATE_PARKED:
		why = ": " + name(job.GetParkReason(), "PARK_REASON_")
		if message := job.GetFailure().GetMessage(); message != "" {
			why += ": " + message
		}
	case job.GetState() == stintv1.JobState_JOB_STATE_CANCELLED && job.GetInterrupt().GetReason() != "":
		why = ": " + job.GetInterrupt().GetReason()
	case job.GetFailure() != nil:
		why = ": " + job.GetFailure().GetMessage()
	}
	fmt.Fprintf(g.stderr, "%s is %s%s\n", job.GetId(), stateName(job.GetState()), plain(why))
	writeTail(g.stderr, "  ", job.GetFailure())
}
