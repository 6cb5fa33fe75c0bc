package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// waterfallWidth is the width of the drawing that shows when runs ran.
const waterfallWidth = 40

// drawRuns writes the runs of a job, each with its bar in the time from the job's submit to its end, or to now.
func drawRuns(w io.Writer, job *stintv1.Job, now time.Time) {
	runs := job.GetHistory()
	if job.GetRun() != nil {
		runs = append(slices.Clip(runs), job.GetRun())
	}
	if len(runs) == 0 {
		return
	}
	from, to := job.GetSubmitTime().AsTime(), now
	if job.GetEndTime() != nil {
		to = job.GetEndTime().AsTime()
	}
	// The tabs of the rows above are not to be aligned with these.
	fmt.Fprintf(w, "\nRuns (%d)\n", job.GetRunCount())
	row(w, "  RUN", "FENCE", "STATE", "WORKER", "HANDED OUT", "TOOK", "FROM SUBMIT TO "+endName(job))
	for i, run := range runs {
		if i > 0 && run.GetNumber() != runs[i-1].GetNumber()+1 {
			fmt.Fprintf(w, "  … %d runs are not kept\n", run.GetNumber()-runs[i-1].GetNumber()-1)
		}
		row(w, fmt.Sprintf("  %d", run.GetNumber()), fmt.Sprint(run.GetFence()), runStateName(run.GetState()), dash(run.GetWorker()),
			timeText(run.GetDispatchTime()), tookText(run, now), waterfall(run, from, to))
	}
	for _, run := range runs {
		drawEnd(w, run)
	}
}

func endName(job *stintv1.Job) string {
	if job.GetEndTime() != nil {
		return "END"
	}
	return "NOW"
}

// drawEnd writes why a run ended, if there is something to say.
func drawEnd(w io.Writer, run *stintv1.Run) {
	f := run.GetFailure()
	if f == nil && run.GetNote() == "" && run.GetInterrupt() == nil {
		return
	}
	if f == nil {
		text := run.GetNote()
		if text == "" {
			text = runStateName(run.GetState())
		}
		fmt.Fprintf(w, "\nRun %d: %s\n", run.GetNumber(), plain(text))
		drawRunInterrupt(w, run)
		return
	}
	text := name(f.GetClass(), "FAILURE_CLASS_") + " failure"
	if f.GetType() != "" {
		text += ", " + f.GetType()
	}
	fmt.Fprintf(w, "\nRun %d: %s: %s\n", run.GetNumber(), plain(text), plain(f.GetMessage()))
	for _, cause := range f.GetCauses() {
		fmt.Fprintf(w, "  caused by %s: %s\n", plain(cause.GetType()), plain(cause.GetMessage()))
	}
	for _, frame := range f.GetStack() {
		fmt.Fprintf(w, "  at %s (%s:%d)\n", plain(frame.GetFunction()), plain(frame.GetFile()), frame.GetLine())
	}
	drawRunInterrupt(w, run)
	writeTail(w, "  ", f)
}

// writeTail writes the end of a process's standard error, if a process failed and wrote any.
func writeTail(w io.Writer, indent string, f *stintv1.Failure) {
	tail := strings.TrimRight(f.GetProcess().GetStderrTail(), "\n")
	if tail == "" {
		return
	}
	for line := range strings.SplitSeq(tail, "\n") {
		fmt.Fprintf(w, "%s| %s\n", indent, plain(strings.ReplaceAll(line, "\t", "    ")))
	}
}

// tookText is how long a run took, or takes so far.
func tookText(run *stintv1.Run, now time.Time) string {
	end := now
	if run.GetEndTime() != nil {
		end = run.GetEndTime().AsTime()
	}
	return end.Sub(run.GetDispatchTime().AsTime()).Round(time.Millisecond).String()
}

// waterfall is a run's bar: dots from its being handed out to its acceptance, then hashes to its end.
func waterfall(run *stintv1.Run, from, to time.Time) string {
	column := func(t *timestamppb.Timestamp, otherwise int) int {
		span := to.Sub(from)
		if t == nil || span <= 0 {
			return otherwise
		}
		share := float64(t.AsTime().Sub(from)) / float64(span)
		return min(max(int(share*waterfallWidth), 0), waterfallWidth)
	}
	// A run is at least one column wide, also the shortest one at the very end.
	begin := min(column(run.GetDispatchTime(), 0), waterfallWidth-1)
	end := max(column(run.GetEndTime(), waterfallWidth), begin+1)
	accept := min(max(column(run.GetAcceptTime(), end), begin), end)
	if run.GetAcceptTime() != nil {
		accept = min(accept, end-1)
	}
	bar := strings.Repeat(".", accept-begin) + strings.Repeat("#", end-accept)
	return "|" + strings.Repeat(" ", begin) + bar + strings.Repeat(" ", waterfallWidth-end) + "|"
}
