package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// pageSize is how many items one request of a list brings.
const pageSize = 1000

func newJobCommand(g *globals) *cobra.Command {
	return group("job", "Look at jobs and act on them",
		newJobGetCommand(g), newJobListCommand(g), newJobWaitCommand(g), newJobWatchCommand(g), newJobExplainCommand(g),
		newJobUpdateCommand(g), newJobInterruptCommand(g), newJobRetryCommand(g), newJobParkCommand(g), newJobDeleteCommand(g))
}

// jobSelection is what the flags of job list say.
type jobSelection struct {
	filterFlags
	limit       int
	newestFirst bool
}

func newJobListCommand(g *globals) *cobra.Command {
	s := &jobSelection{}
	c := &cobra.Command{
		Use:   "list",
		Short: "List jobs in the order of their submission",
		Example: `  stint job list --queue thumbnails --state failed --state parked
  stint job list --queue 'media/*' --label customer=7 --newest-first --limit 20 -o jsonl`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := s.filter()
			if err != nil {
				return err
			}
			if s.limit < 0 {
				return usageError("--limit %d: want 0 or more", s.limit)
			}
			// A list may be long: it has a deadline only if one is asked for, but each page has one.
			return g.connect(c.Context(), g.timeout, func(ctx context.Context, c *client.Client) error {
				return g.listJobs(ctx, c, filter, s)
			})
		},
	}
	s.register(g, c)
	f := c.Flags()
	f.IntVar(&s.limit, "limit", 0, "at most so many; 0: all")
	f.BoolVar(&s.newestFirst, "newest-first", false, "the other way round")
	return c
}

func (g *globals) listJobs(ctx context.Context, c *client.Client, filter *stintv1.JobFilter, s *jobSelection) error {
	l := g.newList("jobs", "ID", "QUEUE", "STATE", "PRIORITY", "RUNS", "SUBMITTED", "SUBJECT")
	token := ""
	for {
		size := pageSize
		if s.limit > 0 {
			size = min(size, s.limit-l.count)
		}
		page, err := listPage(ctx, c, &stintv1.ListJobsRequest{
			Filter: filter, PageSize: uint32(size), PageToken: token, NewestFirst: s.newestFirst, //nolint:gosec // at most pageSize
		})
		if err != nil {
			return l.abort(err)
		}
		for _, job := range page.GetJobs() {
			if err := l.add(job, jobRow(job)...); err != nil {
				return err
			}
		}
		if err := l.flush(); err != nil {
			return err
		}
		token = page.GetNextPageToken()
		if token == "" || s.limit > 0 && l.count >= s.limit {
			return l.end()
		}
	}
}

func listPage(ctx context.Context, c *client.Client, req *stintv1.ListJobsRequest) (*stintv1.ListJobsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.Jobs().ListJobs(ctx, req)
}

func jobRow(job *stintv1.Job) []string {
	return []string{
		job.GetId(), job.GetQueue(), stateName(job.GetState()), priorityName(job.GetPriority()),
		fmt.Sprint(job.GetRunCount()), timeText(job.GetSubmitTime()), dash(job.GetSubject()),
	}
}
