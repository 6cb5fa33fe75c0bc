package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// jobUpdate is what the flags of job update say.
type jobUpdate struct {
	submission
	now          bool
	clear        []string
	etag, reason string
}

// updatePaths are the fields that flags change.
var updatePaths = map[string]string{
	"priority": "priority", "run-at": "run_at", "delay": "run_at", "now": "run_at", "start-by": "start_by", "lease": "lease",
	"run-timeout": "timeout", "max-attempts": "retry", "retry": "retry", "label": "labels", "subject": "subject", "limit": "limits",
	"fairness-key": "fairness_key",
}

// updateClears are the flags whose fields --clear takes back; for a start that is --now.
var updateClears = []string{"priority", "start-by", "lease", "run-timeout", "retry", "label", "subject", "limit", "fairness-key"}

func newJobUpdateCommand(g *globals) *cobra.Command {
	u := &jobUpdate{}
	c := &cobra.Command{
		Use:   "update ID",
		Short: "Change what was asked for of a job that has not ended",
		Long: `Change what was asked for of a job that has not ended. What no flag names stays as it is. Labels and limits are replaced as a
whole, and so is how it is tried again: name all that shall hold. --clear takes back what the flags it names would set.

A waiting job is under the new words at once; one that takes other limits, or gets another priority or fairness key, goes to
the end of its new line. A running job's run goes on as it began: the change is for the next run.

` + retryHelp,
		Example: `  stint job update 018f4e7a-1c2d-7000-8000-000000000001 --priority high --now
  stint job update 018f4e7a-1c2d-7000-8000-000000000001 --limit 'db*1' --clear run-timeout,label --reason 'the audit is over'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := refuseEmpty(c, "run-at", "start-by", "etag"); err != nil {
				return err
			}
			req, err := u.request(args[0], c.Flags().Changed)
			if err != nil {
				return usageError("%w", err)
			}
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.Jobs().UpdateJob(ctx, req)
				if err != nil {
					return err
				}
				job := answer.GetJob()
				return g.print(answer, []proto.Message{job}, func(w io.Writer) { row(w, job.GetId(), stateText(job)) })
			})
		},
	}
	u.terms(c)
	f := c.Flags()
	f.BoolVar(&u.now, "now", false, "let it start at once")
	f.StringSliceVar(&u.clear, "clear", nil, "go back to the default of these: "+strings.Join(updateClears, ", "))
	f.StringVar(&u.etag, "etag", "", "refuse it if the job has changed since this was its etag (default: whatever it is now)")
	f.StringVar(&u.reason, "reason", "", "why; kept with the job")
	c.MarkFlagsMutuallyExclusive("run-at", "delay", "now")
	_ = c.RegisterFlagCompletionFunc("clear", cobra.FixedCompletions(updateClears, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// request is what the flags ask for.
func (u *jobUpdate) request(id string, changed func(string) bool) (*stintv1.UpdateJobRequest, error) {
	job, err := u.job("", nil)
	if err != nil {
		return nil, err
	}
	var paths []string
	for flag, path := range updatePaths {
		if changed(flag) && (flag != "now" || u.now) {
			paths = append(paths, path)
		}
	}
	for _, flag := range u.clear {
		switch {
		case !slices.Contains(updateClears, flag):
			return nil, fmt.Errorf("--clear %q: want some of %s", flag, strings.Join(updateClears, ", "))
		case slices.Contains(paths, updatePaths[flag]):
			return nil, fmt.Errorf("--clear %s: it is set by another flag", flag)
		}
		paths = append(paths, updatePaths[flag])
	}
	if len(paths) == 0 {
		return nil, errors.New("nothing to change: name it by flags")
	}
	slices.Sort(paths)
	m := &stintv1.JobUpdate{
		Priority: job.Priority, Retry: job.Retry, Labels: job.Labels, Subject: job.Subject, Limits: job.Limits,
		FairnessKey: job.FairnessKey, StartBy: timestamp(job.StartBy),
	}
	switch {
	case changed("delay"):
		m.Start = &stintv1.JobUpdate_Delay{Delay: durationpb.New(job.Delay)}
	case !job.RunAt.IsZero():
		m.Start = &stintv1.JobUpdate_RunAt{RunAt: timestamp(job.RunAt)}
	}
	if changed("lease") {
		m.Lease = durationpb.New(job.Lease)
	}
	if changed("run-timeout") {
		m.Timeout = durationpb.New(job.Timeout)
	}
	return &stintv1.UpdateJobRequest{
		Id: id, Update: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: slices.Compact(paths)}, Etag: u.etag, Reason: u.reason, Requester: requester(),
	}, nil
}

// timestamp is t on the wire; absent if it is not set.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
