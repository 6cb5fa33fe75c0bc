package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// preview is how much of a payload is shown.
const preview = 400

func newJobGetCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "get ID",
		Short:   "Show a job with the history of its runs and what people did to it",
		Example: "  stint job get 018f4e7a-1c2d-7000-8000-000000000001",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.Jobs().GetJob(ctx, &stintv1.GetJobRequest{Id: args[0], View: stintv1.JobView_JOB_VIEW_FULL})
				if err != nil {
					return err
				}
				return g.print(answer, []proto.Message{answer.GetJob()}, func(w io.Writer) {
					drawJob(w, answer.GetJob(), time.Now())
				})
			})
		},
	}
}

// drawJob writes all that is known of a job.
func drawJob(w io.Writer, job *stintv1.Job, now time.Time) {
	field := func(label, value string) {
		if value != "" {
			row(w, label, value)
		}
	}
	field("Job", job.GetId())
	field("Queue", job.GetQueue())
	field("State", stateText(job))
	field("Priority", priorityName(job.GetPriority()))
	field("Subject", job.GetSubject())
	field("Labels", labelText(job.GetLabels()))
	field("Limits", usesText(job.GetLimits()))
	field("Fairness key", job.GetFairnessKey())
	field("Unique", uniqueText(job.GetUnique()))
	field("Submitted", timeText(job.GetSubmitTime()))
	field("Due", timeText(job.GetDueTime()))
	field("Start by", timeText(job.GetStartBy()))
	if job.GetTimeout() != nil {
		field("Timeout", job.GetTimeout().AsDuration().String())
	}
	field("Ended", timeText(job.GetEndTime()))
	if job.GetEpoch() > 1 {
		field("Epoch", fmt.Sprint(job.GetEpoch()))
	}
	field("Counters", counterText(job.GetCounters()))
	field("Policy", jobPolicyText(job.GetPolicy()))
	drawInterrupt(w, job.GetInterrupt())
	field("Trace", job.GetTraceContext().GetTraceparent())
	field("Payload", payloadText(job.GetPayload()))
	field("Result", payloadText(job.GetResult()))
	drawRuns(w, job, now)
	drawActions(w, job.GetActions())
}

func stateText(job *stintv1.Job) string {
	state := stateName(job.GetState())
	if job.GetState() == stintv1.JobState_JOB_STATE_PARKED {
		state += " (" + name(job.GetParkReason(), "PARK_REASON_") + ")"
	}
	return state
}

func labelText(labels map[string]string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, " ")
}

// counterText lists the budgets that were used.
func counterText(c *stintv1.JobCounters) string {
	var used []string
	for _, counter := range []struct {
		name  string
		count uint32
	}{
		{"attempts", c.GetAttempts()},
		{"crashes", c.GetCrashes()},
		{"interrupts", c.GetInterrupts()},
		{"snoozes", c.GetSnoozes()},
		{"deliveries", c.GetDeliveries()},
	} {
		if counter.count > 0 {
			used = append(used, fmt.Sprintf("%s %d", counter.name, counter.count))
		}
	}
	return strings.Join(used, ", ")
}

func jobPolicyText(p *stintv1.JobPolicy) string {
	return policyText(&stintv1.QueuePolicy{Lease: p.GetLease(), Retry: p.GetRetry()})
}

// policyText lists what a policy says; empty if it leaves all to the defaults.
func policyText(p *stintv1.QueuePolicy) string {
	var parts []string
	if p.GetLease() != nil {
		parts = append(parts, "lease "+p.GetLease().AsDuration().String())
	}
	if retry := retryText(p.GetRetry()); retry != "" {
		parts = append(parts, "retry "+retry)
	}
	if c := p.GetLostContact(); c != 0 {
		parts = append(parts, "on lost contact "+strings.ToLower(name(c, "LOST_CONTACT_")))
	}
	if n := p.GetMaxRunning(); n != 0 {
		parts = append(parts, fmt.Sprintf("at most %d running", n))
	}
	if z := p.GetOnZombie(); z != 0 {
		parts = append(parts, "on zombie "+strings.ToLower(name(z, "ON_ZOMBIE_")))
	}
	if r := p.GetRate(); r != nil {
		parts = append(parts, "rate "+rateText(r))
	}
	if b := p.GetCircuitBreaker(); b != nil {
		parts = append(parts, "circuit breaker "+breakerText(b))
	}
	for _, key := range slices.Sorted(maps.Keys(p.GetFairnessWeights())) {
		parts = append(parts, fmt.Sprintf("weight %d of %s", p.GetFairnessWeights()[key], keyText(key)))
	}
	return strings.Join(parts, ", ")
}

// payloadText is the beginning of a payload if it is text, and its size.
func payloadText(p *stintv1.Payload) string {
	if p == nil {
		return ""
	}
	bytes := content(p)
	text := fmt.Sprintf("%d bytes", len(bytes))
	if p.GetContentType() != "" {
		text += ", " + p.GetContentType()
	}
	if len(bytes) == 0 || !utf8.Valid(bytes) {
		return text
	}
	shown := string(bytes)
	if len(shown) > preview {
		shown = strings.ToValidUTF8(shown[:preview], "") + "…"
	}
	return text + ": " + strings.TrimRight(shown, "\n")
}

// content is a payload's bytes, whichever way they came.
func content(p *stintv1.Payload) []byte {
	if p.GetData() == nil && p.GetText() != "" {
		return []byte(p.GetText())
	}
	return p.GetData()
}

// timeText is a time for people and for the next command's flags; empty for none.
func timeText(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format("2006-01-02T15:04:05.000Z")
}

// dash stands for nothing in a table.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
