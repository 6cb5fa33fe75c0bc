package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/stintrun/stint/internal/bench"
)

func newBenchCommand(g *globals) *cobra.Command {
	c := bench.Config{Version: version()}
	cmd := &cobra.Command{
		Use:   "bench [SCENARIO...]",
		Short: "Measure how fast a server is on this machine",
		Long: `Start a server as a process of its own, on a store of its own, drive it, and show what was seen: jobs a second whose
acknowledgement came back, processor time for a job, latencies. Figures are medians of several runs.

Scenarios, all by default:
  submit   submit durably over streams; then drain what was submitted
  life     submit, dispatch and finish all jobs at once
  latency  submit to start at 200 jobs/s, counted from when each job was due
  interrupt  interrupt to the worker's receipt at 200 jobs/s, counted the same way
  single   submit and drain, then life, with one job a message
  unary    submit and drain by unary calls, one job a call

With --backlog N it also measures what N waiting jobs cost: memory, drain rate, time to start. With --blocked N it measures,
in as many pairs as there are runs, what N jobs that wait for a full key of a limit cost those of another key behind them.
With --events N it measures how far behind followers of N events a second are, over a kill of the server, and whether each has
had every event once. With --watchers N so many follow while the scenarios run: what they cost is in the figures, and how many
events each had is told.

It ends with 1 if any job was refused, lost, or finished other than once, and if a run could not be carried to its end.

A running server is used only if --server is on the command line. Its finished jobs then stay there.`,
		Example: `  stint bench
  stint bench life latency -o json
  stint bench --jobs 2000 --runs 1`,
		ValidArgs: append(bench.Scenarios(), "all"),
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(args, "all") {
				c.Scenarios = args
			}
			if cmd.Flags().Changed("server") {
				c.Server = g.server
			}
			if isTerminal(g.stderr) {
				c.Note = func(text string) { fmt.Fprintln(g.stderr, text) }
			}
			return g.bench(cmd.Context(), c)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Data, "data", "", "directory for the stores, on the disk to measure (default: the working directory)")
	flags.IntVar(&c.Jobs, "jobs", 0, "jobs a run; latency takes at most 2000 (default: as suits the scenario)")
	flags.IntVar(&c.Payload, "payload", 100, "bytes a job")
	flags.IntVar(&c.Batch, "batch", 50, "jobs a message")
	flags.IntVar(&c.Streams, "streams", 4, "submit streams")
	flags.IntVar(&c.Workers, "workers", 8, "worker streams")
	flags.IntVar(&c.Runs, "runs", 5, "runs of each scenario")
	flags.IntVar(&c.Limits, "limits", 0, "limits that each job names, at most 8; nothing waits for them")
	flags.IntVar(&c.Keys, "keys", 1000, "keys of each limit")
	flags.IntVar(&c.Backlog, "backlog", 0, "also measure with so many jobs waiting")
	flags.IntVar(&c.Events, "events", 0, "also measure the followers of so many events a second; a tenth as many follow")
	flags.IntVar(&c.Watchers, "watchers", 0, "followers of all events while the scenarios run, over a connection each")
	flags.BoolVar(&c.WatchEnds, "watch-ends", false, "the followers want the ends of jobs only")
	flags.IntVar(&c.Blocked, "blocked", 0, "also measure behind so many jobs that wait for a full key")
	return cmd
}

// bench measures and shows what was measured, also when a run failed in the middle.
func (g *globals) bench(ctx context.Context, c bench.Config) error {
	if err := c.Validate(); err != nil {
		return usageError("%w", err)
	}
	if g.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.timeout)
		defer cancel()
	}
	report, err := bench.Run(ctx, c)
	if len(report.Results) > 0 || report.Backlog != nil || report.Blocked != nil || report.Events != nil {
		err = errors.Join(err, g.printBench(report))
	}
	if err != nil && ctx.Err() == nil && c.Server == "" {
		// The server was bench's own: that it is away is no matter of where to look for it.
		return &exitError{exitFailed, err.Error()}
	}
	return err
}

func (g *globals) printBench(r bench.Report) error {
	switch g.output {
	case jsons:
		return r.WriteJSON(g.stdout)
	case jsonl:
		lines := json.NewEncoder(g.stdout)
		for _, result := range r.Results {
			if err := lines.Encode(result); err != nil {
				return err
			}
		}
		return nil
	default:
		return r.WriteTable(g.stdout)
	}
}
