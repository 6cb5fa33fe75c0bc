package main

import (
	"fmt"
	"io"
	"iter"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// filterFlags are the flags that select jobs.
type filterFlags struct {
	queue, subject, unique, since, before string
	states, labels                        []string

	command *cobra.Command // tells which of them are given
}

func (s *filterFlags) register(g *globals, c *cobra.Command) {
	s.command = c
	f := c.Flags()
	f.StringVar(&s.queue, "queue", "", "only of this queue, or of a pattern (media/*)")
	f.StringArrayVar(&s.states, "state", nil, "only in this state; may be repeated")
	f.StringArrayVar(&s.labels, "label", nil, "only with this label KEY=VALUE; may be repeated")
	f.StringVar(&s.subject, "subject", "", "only about this subject")
	f.StringVar(&s.unique, "unique", "", "only with this unique key, whether they hold it or not")
	f.StringVar(&s.since, "since", "", "only submitted at this time or later (2026-01-31T15:04:05Z)")
	f.StringVar(&s.before, "before", "", "only submitted before this time")
	_ = c.RegisterFlagCompletionFunc("state", completeStates)
	_ = c.RegisterFlagCompletionFunc("queue", completeQueues(g, -1))
}

// filter is what the flags select. Its errors are about the command line.
func (s *filterFlags) filter() (*stintv1.JobFilter, error) {
	if err := refuseEmpty(s.command, "queue", "subject", "unique", "since", "before"); err != nil {
		return nil, err
	}
	states, err := parseStates(s.states)
	if err != nil {
		return nil, usageError("--state %w", err)
	}
	labels, err := parseLabels(s.labels)
	if err != nil {
		return nil, usageError("%w", err)
	}
	filter := &stintv1.JobFilter{Queue: s.queue, States: states, Labels: labels, Subject: s.subject, UniqueKey: s.unique}
	for _, t := range []struct {
		flag, value string
		to          **timestamppb.Timestamp
	}{{"since", s.since, &filter.SubmittedFrom}, {"before", s.before, &filter.SubmittedBefore}} {
		at, err := parseTime(t.flag, t.value)
		if err != nil {
			return nil, usageError("%w", err)
		}
		if !at.IsZero() {
			*t.to = timestamppb.New(at)
		}
	}
	return filter, nil
}

// targetFlags say which jobs a command acts on that are not named by ids, and whether it acts at all.
type targetFlags struct {
	filterFlags
	all, dryRun bool
}

func (s *targetFlags) register(g *globals, c *cobra.Command) {
	s.filterFlags.register(g, c)
	c.Flags().BoolVar(&s.all, "all", false, "every job there is")
	c.Flags().BoolVar(&s.dryRun, "dry-run", false, "say what would happen, and change nothing")
}

// filter is what the flags select; nil if the jobs are named by ids.
func (s *targetFlags) filter(ids []string) (*stintv1.JobFilter, error) {
	filter, err := s.filterFlags.filter()
	if err != nil {
		return nil, err
	}
	selects := s.all || proto.Size(filter) > 0
	switch {
	case selects && len(ids) > 0:
		return nil, usageError("jobs are named by ids or selected by flags, not both")
	case selects:
		return filter, nil
	case len(ids) == 0:
		return nil, usageError("which jobs? name ids, select with flags like --queue and --state, or say --all")
	}
	return nil, nil
}

// noteDryRun tells of a dry run with ids that it was one: its output looks like that of the real one.
func (g *globals) noteDryRun(dry bool) {
	if dry {
		fmt.Fprintln(g.stderr, "dry run: nothing was changed")
	}
}

// deed is what a command does to jobs, for its last line.
type deed struct{ infinitive, participle string }

// sweep shows what became of each job that flags select, as JSON if that is asked for, and how many there were in the
// end. It tells the number too if it is stopped: what is done is done.
func sweep[Result proto.Message](g *globals, results iter.Seq2[Result, error], dry bool, d deed, changed func(Result) bool) error {
	l := g.newList("results")
	shown := g.output == jsons || g.output == jsonl
	var touched, left int
	for result, err := range results {
		if err != nil {
			if touched+left > 0 {
				tellSwept(g.stderr, touched, left, dry, d)
			}
			return l.abort(err)
		}
		if changed(result) {
			touched++
		} else {
			left++
		}
		if !shown {
			continue
		}
		if err := l.add(result); err != nil {
			return err
		}
	}
	if !shown {
		tellSwept(g.stdout, touched, left, dry, d)
		return nil
	}
	tellSwept(g.stderr, touched, left, dry, d)
	return l.end()
}

func tellSwept(w io.Writer, touched, left int, dry bool, d deed) {
	text := fmt.Sprintf("%s %s", jobCount(touched), d.participle)
	if dry {
		text = fmt.Sprintf("would %s %s", d.infinitive, jobCount(touched))
	}
	if left > 0 {
		text += fmt.Sprintf(", %d left as they are", left)
	}
	fmt.Fprintln(w, text)
}

func jobCount(n int) string {
	if n == 1 {
		return "1 job"
	}
	return fmt.Sprintf("%d jobs", n)
}
