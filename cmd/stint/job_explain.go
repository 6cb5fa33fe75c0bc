package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func newJobExplainCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "explain ID",
		Short: "Say why a job is not running, and what would change that",
		Long: `Say all that keeps a job from running, who has what it waits for, and the command that would take each of these away.
CMD in one of them stands for the work to do.`,
		Example: "  stint job explain 018f4e7a-1c2d-7000-8000-000000000001",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return g.call(c.Context(), func(ctx context.Context, c *client.Client) error {
				x, err := c.Jobs().ExplainJob(ctx, &stintv1.ExplainJobRequest{Id: args[0]})
				if err != nil {
					return err
				}
				return g.print(x, []proto.Message{x}, func(w io.Writer) { drawExplanation(w, x) })
			})
		},
	}
}

// drawExplanation writes one blocker after the other, each with the command that takes it away.
func drawExplanation(w io.Writer, x *stintv1.ExplainJobResponse) {
	row(w, "Job", x.GetId())
	row(w, "State", stateName(x.GetState()))
	for _, b := range x.GetBlockers() {
		row(w, "Blocker", b.GetText())
		if ids := b.GetJobIds(); len(ids) > 0 {
			row(w, "", "by "+strings.Join(ids, ", "))
		}
		for _, command := range b.GetCommands() {
			row(w, "", command)
		}
	}
	if len(x.GetBlockers()) == 0 {
		row(w, "Why", x.GetSummary())
	}
	if x.GetState() != stintv1.JobState_JOB_STATE_READY {
		return
	}
	most := ""
	if x.GetAheadIsEstimate() {
		most = "at most "
	}
	row(w, "Before it", fmt.Sprintf("%s%d of its kind; begun in its queue in the last minute: %d", most, x.GetAhead(), x.GetStartedLastMinute()))
	if x.GetEstimatedWait() != nil {
		row(w, "Estimate", fmt.Sprintf("%s at that rate", x.GetEstimatedWait().AsDuration().Round(time.Second)))
	}
}
