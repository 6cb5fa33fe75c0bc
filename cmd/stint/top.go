package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/top/screen"
	"github.com/stintrun/stint/internal/top/source"
)

// topMeasure is for how long a single snapshot measures.
const topMeasure = 2 * time.Second

func newTopCommand(g *globals) *cobra.Command {
	var once bool
	var filter string
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch a server on the whole screen: problems first, then queues, workers and limits",
		Long: `Show what a server does, on the whole screen and as it happens: problems first (queues that nobody serves, closed gates,
parked jobs, failures…), then queues, workers and limits, the worst and busiest on top. Press ? for the keys.

A server that goes away is waited for. Rates are means of the last five seconds, from events; the rest is what the server
lists, every second, or every half a minute if there are tens of thousands of queues.

With --once it measures for two seconds, prints what it sees and ends; -o json for scripts. NO_COLOR is respected.`,
		Example: `  stint top
  stint top --filter media/
  stint top --once
  stint top --once -o json | jq '.problems[].name'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if once {
				return g.stay(c.Context(), func(ctx context.Context, c *client.Client) error { return g.topOnce(ctx, c, filter) })
			}
			if g.output == jsons || g.output == jsonl {
				return usageError("-o %s goes with --once; to follow what happens: stint events -f -o jsonl", g.output)
			}
			if !isTerminal(g.stdout) || !isTerminal(g.stdin) || os.Getenv("TERM") == "dumb" {
				return usageError("stint top needs a terminal; without one: stint top --once, stint events -f -o jsonl, stint queue list")
			}
			return g.stay(c.Context(), func(ctx context.Context, c *client.Client) error { return g.topScreen(ctx, c, filter) })
		},
	}
	c.Flags().BoolVar(&once, "once", false, "print one snapshot after two seconds, and end")
	c.Flags().StringVar(&filter, "filter", "", "only queues, workers and limits whose name holds this")
	_ = c.RegisterFlagCompletionFunc("filter", completeQueues(g, -1))
	return c
}

// following runs show while a board is kept up to date. It ends when either does.
func following(ctx context.Context, c *client.Client, show func(context.Context, *source.Board) error) error {
	board := source.NewBoard(time.Now)
	ctx, cancel := context.WithCancelCause(ctx)
	var follower sync.WaitGroup
	follower.Go(func() { cancel(source.Follow(ctx, c, board)) })
	defer follower.Wait()
	defer cancel(nil)
	return show(ctx, board)
}

// topOnce prints one snapshot.
func (g *globals) topOnce(ctx context.Context, c *client.Client, filter string) error {
	return following(ctx, c, func(ctx context.Context, board *source.Board) error {
		select {
		case <-board.Live():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		measured := time.NewTimer(topMeasure)
		defer measured.Stop()
		select {
		case <-measured.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		s := board.Take(filter)
		if s.Away != nil {
			return status.Error(codes.Unavailable, s.Away.Why)
		}
		switch g.output {
		case jsons:
			w := json.NewEncoder(g.stdout)
			w.SetIndent("", "  ")
			return w.Encode(s)
		case jsonl:
			return json.NewEncoder(g.stdout).Encode(s)
		default:
			return screen.Print(g.stdout, s, g.server, filter)
		}
	})
}

// topScreen shows the screen.
func (g *globals) topScreen(ctx context.Context, c *client.Client, filter string) error {
	return following(ctx, c, func(ctx context.Context, board *source.Board) error {
		return screen.Run(ctx, screen.Config{
			Server: g.server, Take: board.Take, Filter: filter, Output: g.stdout, Input: g.stdin, Colours: os.Getenv("NO_COLOR") == "",
			Pause: func(ctx context.Context, queue string) error {
				return g.topAct(ctx, func(ctx context.Context) error {
					_, err := c.Queues().PauseQueue(ctx, &stintv1.PauseQueueRequest{Name: queue, Reason: "by stint top", Requester: requester()})
					return err
				})
			},
			Resume: func(ctx context.Context, queue string) error {
				return g.topAct(ctx, func(ctx context.Context) error {
					_, err := c.Queues().ResumeQueue(ctx, &stintv1.ResumeQueueRequest{Name: queue})
					return err
				})
			},
		})
	})
}

// topAct does something, with an error in the words of the other commands.
func (g *globals) topAct(ctx context.Context, act func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := act(ctx); err != nil {
		return errors.New(g.explain(err).message)
	}
	return nil
}
