package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func newQueueCommand(g *globals) *cobra.Command {
	return group("queue", "Look at queues and act on them",
		newQueueListCommand(g), newQueueGetCommand(g), newQueueSetCommand(g),
		newQueuePauseCommand(g), newQueueResumeCommand(g), newQueueOpenCommand(g), newQueueDeleteCommand(g))
}

// queueCommand is a command about one queue that exists.
func queueCommand(g *globals, use, short, example string, act func(ctx context.Context, c *client.Client, queue string) error) *cobra.Command {
	return &cobra.Command{
		Use:               use + " NAME",
		Short:             short,
		Example:           example,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeQueues(g, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error { return act(ctx, c, args[0]) })
		},
	}
}

func newQueueGetCommand(g *globals) *cobra.Command {
	return queueCommand(g, "get", "Show a queue with its counts", "  stint queue get thumbnails",
		func(ctx context.Context, c *client.Client, queue string) error {
			answer, err := c.Queues().GetQueue(ctx, &stintv1.GetQueueRequest{Name: queue})
			if err != nil {
				return err
			}
			return g.printQueue(answer, answer.GetQueue())
		})
}

func newQueueListCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "list [PATTERN]",
		Short:   "List queues with their counts",
		Example: "  stint queue list 'media/*'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			pattern := ""
			if len(args) > 0 {
				pattern = args[0]
			}
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error { return g.listQueues(ctx, c, pattern) })
		},
	}
}

func (g *globals) listQueues(ctx context.Context, c *client.Client, pattern string) error {
	l := g.newList("queues", "NAME", "READY", "RUNNING", "SCHEDULED", "BACKOFF", "PARKED", "SUCCEEDED", "FAILED", "CANCELLED",
		"EXPIRED", "OLDEST READY", "PAUSED")
	token := ""
	for {
		page, err := c.Queues().ListQueues(ctx, &stintv1.ListQueuesRequest{Queue: pattern, PageSize: pageSize, PageToken: token})
		if err != nil {
			return l.abort(err)
		}
		for _, q := range page.GetQueues() {
			if err := l.add(q, queueRow(q)...); err != nil {
				return err
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			return l.end()
		}
	}
}

func queueRow(q *stintv1.Queue) []string {
	cells := []string{q.GetName()}
	for _, count := range stateCounts(q.GetCounts()) {
		cells = append(cells, fmt.Sprint(count.count))
	}
	paused := "no"
	if q.GetPause() != nil {
		paused = "yes"
	}
	return append(cells, dash(ageText(q)), paused)
}

// stateCount is how many jobs are in a state.
type stateCount struct {
	state string
	count uint64
}

// stateCounts lists all counts: first what is under way, then what has ended.
func stateCounts(c *stintv1.JobCounts) []stateCount {
	return []stateCount{
		{"READY", c.GetReady()},
		{"RUNNING", c.GetRunning()},
		{"SCHEDULED", c.GetScheduled()},
		{"BACKOFF", c.GetBackoff()},
		{"PARKED", c.GetParked()},
		{"SUCCEEDED", c.GetSucceeded()},
		{"FAILED", c.GetFailed()},
		{"CANCELLED", c.GetCancelled()},
		{"EXPIRED", c.GetExpired()},
	}
}

func ageText(q *stintv1.Queue) string {
	if q.GetOldestReadyAge() == nil {
		return ""
	}
	return q.GetOldestReadyAge().AsDuration().String()
}

// printQueue shows one queue.
func (g *globals) printQueue(answer proto.Message, q *stintv1.Queue) error {
	return g.print(answer, []proto.Message{q}, func(w io.Writer) {
		row(w, "Queue", q.GetName())
		if p := q.GetPause(); p != nil {
			row(w, "Paused", fmt.Sprintf("since %s by %s: %s", timeText(p.GetPauseTime()), dash(p.GetRequester()), dash(p.GetReason())))
		}
		if policy := policyText(q.GetPolicy()); policy != "" {
			row(w, "Policy", policy)
		}
		gateRows(w, q.GetGate())
		row(w, "Created", timeText(q.GetCreateTime()))
		if age := ageText(q); age != "" {
			row(w, "Oldest ready", age)
		}
		for _, count := range stateCounts(q.GetCounts()) {
			row(w, count.state, fmt.Sprint(count.count))
		}
		if n := q.GetZombies(); n > 0 {
			row(w, "Zombies", fmt.Sprintf("%d left behind at their hard deadline and maybe still at work", n))
		}
	})
}

func newQueuePauseCommand(g *globals) *cobra.Command {
	var reason string
	c := queueCommand(g, "pause", "Stop handing out a queue's jobs; runs under way go on", "  stint queue pause thumbnails --reason 'disk is full'",
		func(ctx context.Context, c *client.Client, queue string) error {
			answer, err := c.Queues().PauseQueue(ctx, &stintv1.PauseQueueRequest{Name: queue, Reason: reason, Requester: requester()})
			if err != nil {
				return err
			}
			return g.printQueue(answer, answer.GetQueue())
		})
	c.Flags().StringVar(&reason, "reason", "", "why; shown by queue get")
	return c
}

func newQueueResumeCommand(g *globals) *cobra.Command {
	return queueCommand(g, "resume", "Hand out a queue's jobs again", "  stint queue resume thumbnails",
		func(ctx context.Context, c *client.Client, queue string) error {
			answer, err := c.Queues().ResumeQueue(ctx, &stintv1.ResumeQueueRequest{Name: queue})
			if err != nil {
				return err
			}
			return g.printQueue(answer, answer.GetQueue())
		})
}

func newQueueDeleteCommand(g *globals) *cobra.Command {
	var force bool
	c := queueCommand(g, "delete", "Delete a queue that has no unfinished jobs", "  stint queue delete thumbnails --force",
		func(ctx context.Context, c *client.Client, queue string) error {
			answer, err := c.Queues().DeleteQueue(ctx, &stintv1.DeleteQueueRequest{Name: queue, Force: force})
			if err != nil {
				return err
			}
			return g.print(answer, []proto.Message{answer}, func(w io.Writer) {
				row(w, queue, "DELETED")
				if n := answer.GetDeletedJobs(); n > 0 {
					row(w, "Jobs", fmt.Sprintf("%d deleted with it", n))
				}
			})
		})
	c.Flags().BoolVar(&force, "force", false, "delete its unfinished jobs too; refused while some of them run")
	return c
}
