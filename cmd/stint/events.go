package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// eventFlags say which events are wanted.
type eventFlags struct {
	queue, cursor       string
	jobs, kinds, labels []string
	follow, fromOldest  bool
}

func newEventsCommand(g *globals) *cobra.Command {
	s := &eventFlags{}
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happened, and follow what happens",
		Long: `Show the events that the server has kept, or with --follow what happens from now on: of jobs, runs, interrupts, queues,
limits, gates and workers. Each line of -o jsonl has a cursor: go on behind it with --cursor, and nothing is missed.

A server that goes away while it is followed is waited for.`,
		Example: `  stint events --follow
  stint events --queue 'media/*' --kind job-parked --kind job-ended -o jsonl
  stint events --job 018f4e7a-1c2d-7000-8000-000000000001`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := refuseEmpty(c, "queue", "cursor"); err != nil {
				return err
			}
			m, err := s.request()
			if err != nil {
				return err
			}
			if s.follow && g.output == jsons {
				return usageError("--follow never ends, so its output is no JSON document; use -o jsonl")
			}
			return g.stay(c.Context(), func(ctx context.Context, c *client.Client) error {
				return g.showEvents(ctx, c, m, func(*stintv1.Event) bool { return false }, !s.follow)
			})
		},
	}
	f := c.Flags()
	f.BoolVarP(&s.follow, "follow", "f", false, "go on with what happens")
	f.StringVar(&s.queue, "queue", "", "only of this queue, or of a pattern (media/*)")
	f.StringArrayVar(&s.jobs, "job", nil, "only of this job; may be repeated")
	f.StringArrayVar(&s.kinds, "kind", nil, "only of this kind (job-ended, run-dispatched, worker-gone…); may be repeated")
	f.StringArrayVar(&s.labels, "label", nil, "only of jobs with this label KEY=VALUE; may be repeated")
	f.StringVar(&s.cursor, "cursor", "", "begin behind this cursor (default: the oldest event, or now with --follow)")
	f.BoolVar(&s.fromOldest, "from-oldest", false, "with --follow, begin with the oldest event")
	c.MarkFlagsMutuallyExclusive("cursor", "from-oldest")
	_ = c.RegisterFlagCompletionFunc("queue", completeQueues(g, -1))
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(eventKinds(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

// eventKinds are the names of all kinds, as the command line has them.
func eventKinds() (names []string) {
	values := stintv1.EventKind(0).Descriptor().Values()
	for i := 1; i < values.Len(); i++ {
		names = append(names, kindName(stintv1.EventKind(values.Get(i).Number())))
	}
	return names
}

func kindName(k stintv1.EventKind) string {
	return strings.ToLower(strings.ReplaceAll(name(k, "EVENT_KIND_"), "_", "-"))
}

// request is what the flags ask for.
func (s *eventFlags) request() (*stintv1.WatchEventsRequest, error) {
	labels, err := parseLabels(s.labels)
	if err != nil {
		return nil, usageError("%w", err)
	}
	filter := &stintv1.EventFilter{Queue: s.queue, JobIds: s.jobs, Labels: labels}
	for _, k := range s.kinds {
		kind, err := parseEnum(stintv1.EventKind_value, "EVENT_KIND_", k)
		if err != nil {
			return nil, usageError("--kind %w", err)
		}
		filter.Kinds = append(filter.Kinds, stintv1.EventKind(kind))
	}
	oldest := s.cursor == "" && (!s.follow || s.fromOldest)
	return &stintv1.WatchEventsRequest{Cursor: s.cursor, FromOldest: oldest, Filter: filter}, nil
}

// showEvents shows events until one is the last, or, if it shall end there, until all that there are were shown.
func (g *globals) showEvents(ctx context.Context, c *client.Client, m *stintv1.WatchEventsRequest, last func(*stintv1.Event) bool, end bool) error {
	l := g.newList("events", "TIME", "EVENT", "QUEUE", "JOB", "STATE", "RUN", "DETAIL")
	err := c.Watch(ctx, m, func(resp *stintv1.WatchEventsResponse) error {
		for _, e := range resp.GetEvents() {
			if err := l.add(e, eventRow(e)...); err != nil {
				return err
			}
			if last(e) {
				return client.ErrStopWatching
			}
		}
		if end && resp.GetLive() {
			return client.ErrStopWatching
		}
		return l.flush()
	})
	if err != nil {
		return l.abort(err)
	}
	return l.end()
}

func eventRow(e *stintv1.Event) []string {
	state, run := "", ""
	if e.GetJobState() != 0 {
		state = stateName(e.GetJobState())
	}
	if e.GetRunState() != 0 {
		run = fmt.Sprintf("%d %s", e.GetRun(), name(e.GetRunState(), "RUN_STATE_"))
	}
	// Columns keep their width from message to message.
	return []string{
		e.GetTime().AsTime().Local().Format("2006-01-02 15:04:05.000"), fmt.Sprintf("%-18s", kindName(e.GetKind())), e.GetQueue(),
		fmt.Sprintf("%-36s", e.GetJobId()), fmt.Sprintf("%-9s", state), fmt.Sprintf("%-13s", run), eventDetail(e),
	}
}

// eventDetail is what else an event says.
func eventDetail(e *stintv1.Event) string {
	var parts []string
	add := func(format, value string) {
		if value != "" {
			parts = append(parts, fmt.Sprintf(format, value))
		}
	}
	if e.GetLevel() != 0 {
		add("%s", name(e.GetLevel(), "INTERRUPT_LEVEL_"))
	}
	add("worker %s", e.GetWorker())
	add("limit %s", e.GetLimit())
	add("key %s", e.GetKey())
	if t := e.GetUntil(); t != nil {
		add("until %s", t.AsTime().Local().Format(time.TimeOnly))
	}
	add("by %s", e.GetRequester())
	add("%q", e.GetReason())
	return plain(strings.Join(parts, " "))
}

func newJobWatchCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "watch ID",
		Short: "Show what happens to a job until it has ended or is parked",
		Long: `Show where a job stands and what happens to it, line by line, until it has ended or is parked. The exit code is its
outcome. A server that goes away in between is waited for.`,
		Example: "  stint job watch 018f4e7a-1c2d-7000-8000-000000000001",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, ids []string) error {
			if g.output == jsons {
				return usageError("what happens to a job is no JSON document; use -o jsonl")
			}
			return g.stay(c.Context(), func(ctx context.Context, c *client.Client) error { return g.watchJob(ctx, c, ids[0]) })
		},
	}
}

// watchJob shows the job's events so far, as far as they are kept, and those to come.
func (g *globals) watchJob(ctx context.Context, c *client.Client, id string) error {
	read, err := c.Jobs().GetJob(ctx, &stintv1.GetJobRequest{Id: id})
	if err != nil {
		return err
	}
	fmt.Fprintf(g.stderr, "%s in %s is %s\n", id, read.GetJob().GetQueue(), stateName(read.GetJob().GetState()))
	job := read.GetJob()
	if !settled(job.GetState()) {
		m := &stintv1.WatchEventsRequest{Cursor: read.GetAsOf(), Filter: &stintv1.EventFilter{JobIds: []string{id}}}
		if err := g.showEvents(ctx, c, m, endOfWatch, false); err != nil {
			return err
		}
		if job, err = c.Get(ctx, id); err != nil {
			return err
		}
	}
	g.tellOutcome(job)
	return outcomes{job.GetState(): 1}.exit()
}

// settled reports whether nothing more happens to a job by itself.
func settled(s stintv1.JobState) bool {
	switch s {
	case stintv1.JobState_JOB_STATE_PARKED, stintv1.JobState_JOB_STATE_SUCCEEDED, stintv1.JobState_JOB_STATE_FAILED,
		stintv1.JobState_JOB_STATE_CANCELLED, stintv1.JobState_JOB_STATE_EXPIRED:
		return true
	default:
		return false
	}
}

// endOfWatch reports whether an event is the last that a watch of its job is for.
func endOfWatch(e *stintv1.Event) bool {
	switch e.GetKind() {
	case stintv1.EventKind_EVENT_KIND_JOB_ENDED, stintv1.EventKind_EVENT_KIND_JOB_PARKED, stintv1.EventKind_EVENT_KIND_JOB_DELETED:
		return true
	default:
		return false
	}
}
