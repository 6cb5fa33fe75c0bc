package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// completeTimeout is how long a shell waits for the server's names.
const completeTimeout = time.Second

// completeQueues completes the names of queues, for as many arguments; -1: any number.
func completeQueues(g *globals, arguments int) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if arguments >= 0 && len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		err := g.connect(context.WithoutCancel(c.Context()), completeTimeout, func(ctx context.Context, c *client.Client) error {
			page, err := c.Queues().ListQueues(ctx, &stintv1.ListQueuesRequest{PageSize: pageSize})
			for _, q := range page.GetQueues() {
				if strings.HasPrefix(q.GetName(), begun) && !slices.Contains(args, q.GetName()) {
					names = append(names, q.GetName())
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError | cobra.ShellCompDirectiveNoFileComp
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeLimits completes the name of a limit.
func completeLimits(g *globals) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		err := g.connect(context.WithoutCancel(c.Context()), completeTimeout, func(ctx context.Context, c *client.Client) error {
			page, err := c.Queues().ListLimits(ctx, &stintv1.ListLimitsRequest{PageSize: pageSize})
			for _, l := range page.GetLimits() {
				if strings.HasPrefix(l.GetName(), begun) {
					names = append(names, l.GetName())
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError | cobra.ShellCompDirectiveNoFileComp
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeStates completes the states of jobs.
func completeStates(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var states []string
	for value := range stintv1.JobState_name {
		if value != 0 {
			states = append(states, strings.ToLower(stateName(stintv1.JobState(value))))
		}
	}
	slices.Sort(states)
	return states, cobra.ShellCompDirectiveNoFileComp
}

// completeOutput completes the global flag --output.
func completeOutput(root *cobra.Command) {
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{string(table), string(jsons), string(jsonl)}, cobra.ShellCompDirectiveNoFileComp))
}
