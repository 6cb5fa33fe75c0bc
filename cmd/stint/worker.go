package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func newWorkerCommand(g *globals) *cobra.Command {
	return group("worker", "Look at workers and drain them", newWorkerListCommand(g), newWorkerDrainCommand(g))
}

func newWorkerListCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the worker processes that the server knows",
		Example: "  stint worker list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return g.call(c.Context(), g.listWorkers)
		},
	}
}

func (g *globals) listWorkers(ctx context.Context, c *client.Client) error {
	l := g.newList("workers", "INSTANCE", "WORKER", "HOST", "PID", "STATE", "RUNS", "ROOM", "QUEUES", "SINCE", "HEARD")
	token := ""
	for {
		page, err := c.Workers().ListWorkers(ctx, &stintv1.ListWorkersRequest{PageSize: pageSize, PageToken: token})
		if err != nil {
			return l.abort(err)
		}
		for _, w := range page.GetWorkers() {
			if err := l.add(w, workerRow(w)...); err != nil {
				return err
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			return l.end()
		}
	}
}

func workerRow(w *stintv1.Worker) []string {
	state := "connected"
	switch {
	case w.GetDraining():
		state = "draining"
	case !w.GetConnected():
		state = "away"
	}
	var queues []string
	room := uint32(0)
	for _, pool := range w.GetPools() {
		queues = append(queues, pool.GetQueues()...)
		room += pool.GetMaxRuns()
	}
	return []string{
		w.GetInstanceId(), w.GetWorker(), dash(w.GetHost()), fmt.Sprint(w.GetPid()), state, fmt.Sprint(w.GetRuns()), fmt.Sprint(room),
		dash(strings.Join(queues, ",")), timeText(w.GetSince()), timeText(w.GetHeardTime()),
	}
}

func newWorkerDrainCommand(g *globals) *cobra.Command {
	var grace time.Duration
	var reason string
	c := &cobra.Command{
		Use:   "drain INSTANCE...",
		Short: "Let workers finish what they hold and go",
		Long: `Let workers finish what they hold and go: they get no more runs. What they still hold after the grace is interrupted and
comes back later; without --grace it is never.`,
		Example: "  stint worker drain 5f0c6a1e-3c1b-4a57-9d1e-0a6f0d2b8c11 --grace 5m --reason 'kernel update'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, instances []string) error {
			req := &stintv1.DrainWorkersRequest{InstanceIds: instances, Reason: reason, Requester: requester()}
			if c.Flags().Changed("grace") {
				req.Grace = durationpb.New(grace)
			}
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error { return g.drainWorkers(ctx, c, req) })
		},
	}
	c.Flags().DurationVar(&grace, "grace", 0, "interrupt what they still hold after this long (default: never)")
	c.Flags().StringVar(&reason, "reason", "", "why; shown to the workers")
	return c
}

func (g *globals) drainWorkers(ctx context.Context, c *client.Client, req *stintv1.DrainWorkersRequest) error {
	answer, err := c.Workers().DrainWorkers(ctx, req)
	if err != nil {
		return err
	}
	err = g.print(answer, messages(answer.GetResults()), func(w io.Writer) {
		for _, r := range answer.GetResults() {
			if r.GetError() == nil {
				row(w, r.GetInstanceId(), "DRAINING", fmt.Sprintf("%d runs", r.GetRuns()))
			}
		}
	})
	if err != nil {
		return err
	}
	errs := itemErrors{g: g}
	for _, r := range answer.GetResults() {
		errs.tell(r.GetInstanceId(), r.GetError())
	}
	return errs.exit()
}
