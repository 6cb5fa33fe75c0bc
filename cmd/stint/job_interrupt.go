package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// whoText says how far an interrupt goes and who asked: at no level, for the job to be parked.
func whoText(i *stintv1.Interrupt) string {
	level := name(i.GetLevel(), "INTERRUPT_LEVEL_")
	if i.GetLevel() == stintv1.InterruptLevel_INTERRUPT_LEVEL_NONE {
		level = "PARK"
	}
	text := fmt.Sprintf("%s by %s", level, name(i.GetSource(), "INTERRUPT_SOURCE_"))
	if i.GetRequester() != "" {
		text += " " + i.GetRequester()
	}
	return text
}

// drawInterrupt writes an interrupt, and in a second row what was to become of it and what became of it.
func drawInterrupt(w io.Writer, i *stintv1.Interrupt) {
	if i.GetSource() == stintv1.InterruptSource_INTERRUPT_SOURCE_UNSPECIFIED {
		return
	}
	text := whoText(i) + " at " + timeText(i.GetRequestTime())
	if i.GetReason() != "" {
		text += ": " + i.GetReason()
	}
	row(w, "Interrupt", text)
	if phases := phaseText(i); phases != "" {
		row(w, "", phases)
	}
}

// phaseText lists the deadlines of an interrupt and what became of it, as times from its request.
func phaseText(i *stintv1.Interrupt) string {
	var parts []string
	for _, phase := range []struct {
		name string
		at   *timestamppb.Timestamp
	}{
		{"grace", i.GetGraceTime()},
		{"hard deadline", i.GetHardDeadlineTime()},
		{"delivered after", i.GetDeliverTime()},
		{"acknowledged after", i.GetAcknowledgeTime()},
		{name(i.GetEnd(), "INTERRUPT_END_") + " after", i.GetEndTime()},
	} {
		if phase.at != nil {
			took := phase.at.AsTime().Sub(i.GetRequestTime().AsTime())
			parts = append(parts, phase.name+" "+took.Round(time.Millisecond).String())
		}
	}
	return strings.Join(parts, ", ")
}

// drawRunInterrupt writes the interrupt that a run ended under.
func drawRunInterrupt(w io.Writer, run *stintv1.Run) {
	i := run.GetInterrupt()
	if i.GetSource() == stintv1.InterruptSource_INTERRUPT_SOURCE_UNSPECIFIED {
		return
	}
	fmt.Fprintf(w, "  interrupted: %s\n", plain(whoText(i)))
	if phases := phaseText(i); phases != "" {
		fmt.Fprintf(w, "  %s\n", plain(phases))
	}
}

// drawActions writes what people did to a job.
func drawActions(w io.Writer, actions []*stintv1.Action) {
	if len(actions) == 0 {
		return
	}
	// As with the runs, other columns than those above.
	fmt.Fprintf(w, "\nActions\n")
	row(w, "  WHEN", "WHAT", "WHO", "WHY")
	for _, a := range actions {
		what := name(a.GetKind(), "ACTION_KIND_")
		switch a.GetStatus() {
		case stintv1.InterruptStatus_INTERRUPT_STATUS_NO_RUN, stintv1.InterruptStatus_INTERRUPT_STATUS_UNCHANGED: // it did nothing
			what += ": " + name(a.GetStatus(), "INTERRUPT_STATUS_")
		default:
		}
		row(w, "  "+timeText(a.GetTime()), what, dash(a.GetRequester()), dash(a.GetReason()))
	}
}
