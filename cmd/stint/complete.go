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
	return completeNames(g, arguments, func(ctx context.Context, c *client.Client) (names []string, err error) {
		page, err := c.Queues().ListQueues(ctx, &stintv1.ListQueuesRequest{PageSize: pageSize})
		for _, q := range page.GetQueues() {
			names = append(names, q.GetName())
		}
		return names, err
	})
}

// completeLimits completes the name of a limit.
func completeLimits(g *globals) cobra.CompletionFunc {
	return completeNames(g, 1, func(ctx context.Context, c *client.Client) (names []string, err error) {
		page, err := c.Queues().ListLimits(ctx, &stintv1.ListLimitsRequest{PageSize: pageSize})
		for _, l := range page.GetLimits() {
			names = append(names, l.GetName())
		}
		return names, err
	})
}

// completeNames completes names that the server lists, none twice.
func completeNames(g *globals, arguments int, list func(context.Context, *client.Client) ([]string, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if arguments >= 0 && len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		err := g.connect(context.WithoutCancel(c.Context()), completeTimeout, func(ctx context.Context, c *client.Client) (err error) {
			names, err = list(ctx, c)
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError | cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(names, func(name string) bool {
			return !strings.HasPrefix(name, begun) || slices.Contains(args, name)
		}), cobra.ShellCompDirectiveNoFileComp
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
