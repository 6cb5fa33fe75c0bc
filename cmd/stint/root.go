package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

const (
	// defaultServer is where serve listens when it is not told otherwise.
	defaultServer = "127.0.0.1:7707"
	// callTimeout bounds commands that ask and answer, when --timeout is not given.
	callTimeout = 30 * time.Second
)

// globals is what all commands share: the global flags and the streams.
type globals struct {
	server  string
	output  format
	timeout time.Duration // 0: not given.

	stdin          io.Reader
	stdout, stderr io.Writer

	started bool // A command's own code was reached: errors are no longer about the command line.
}

// newRootCommand returns the whole command tree.
func newRootCommand(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "stint",
		Short: "A job-execution service over gRPC",
		Long: `Stint runs jobs: producers submit them, workers in any language do them, the server keeps them safe in between.

Flags go before the environment (STINT_SERVER), the environment goes before the defaults.`,
		Example: `  stint serve
  seq 100 | stint submit numbers --lines
  stint work numbers --until-empty -- sh -c 'cat >/dev/null'
  stint queue get numbers`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			// Cobra would look for flags that exclude each other only after this.
			if err := c.ValidateFlagGroups(); err != nil {
				return err
			}
			if g.timeout < 0 {
				return fmt.Errorf("--timeout %s: must not be negative", g.timeout)
			}
			g.started = true
			return nil
		},
	}
	root.SetIn(g.stdin)
	root.SetOut(g.stdout)
	root.SetErr(g.stderr)
	server := os.Getenv("STINT_SERVER")
	if server == "" {
		server = defaultServer
	}
	flags := root.PersistentFlags()
	flags.StringVar(&g.server, "server", server, "address of the server (STINT_SERVER)")
	flags.VarP(&g.output, "output", "o", "what standard output shows: table, json, jsonl")
	flags.DurationVar(&g.timeout, "timeout", 0, "give up after this long (default 30s; commands that wait or work: never)")
	root.AddGroup(
		&cobra.Group{ID: "jobs", Title: "Jobs:"},
		&cobra.Group{ID: "operate", Title: "Operation:"},
		&cobra.Group{ID: "server", Title: "Server:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("jobs", newSubmitCommand(g), newWorkCommand(g), newJobCommand(g))
	add("operate", newQueueCommand(g), newLimitCommand(g), newWorkerCommand(g), newEventsCommand(g), newTopCommand(g))
	add("server", newServeCommand(g), newDemoCommand(g), newBenchCommand(g))
	root.AddCommand(newVersionCommand(g), newExitCodesTopic())
	completeOutput(root)
	return root
}

// group returns a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		if err := c.Help(); err != nil {
			return err
		}
		return exitWith(exitUsage)
	}}
	c.AddCommand(commands...)
	return c
}

// call runs a command that asks the server and answers: it has a deadline.
func (g *globals) call(parent context.Context, ask func(context.Context, *client.Client) error) error {
	timeout := g.timeout
	if timeout == 0 {
		timeout = callTimeout
	}
	return g.connect(parent, timeout, ask)
}

// stay runs a command that waits or works: it has no deadline unless asked for. It looks first whether the server is
// there at all; from then on the SDK outlasts its absence.
func (g *globals) stay(parent context.Context, use func(context.Context, *client.Client) error) error {
	return g.connect(parent, g.timeout, func(ctx context.Context, c *client.Client) error {
		if err := look(ctx, c); err != nil {
			return err
		}
		return use(ctx, c)
	})
}

// look fails when the server is not there, while the SDK would wait for it.
func look(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.Queues().ListQueues(ctx, &stintv1.ListQueuesRequest{PageSize: 1})
	return err
}

func (g *globals) connect(ctx context.Context, timeout time.Duration, use func(context.Context, *client.Client) error) error {
	c, err := client.Dial(g.server, grpc.WithUserAgent("stint-cli/"+version()))
	if err != nil {
		return usageError("--server %q: %w", g.server, err)
	}
	defer c.Close()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return use(ctx, c)
}
