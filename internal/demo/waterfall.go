package demo

import (
	"fmt"
	"strings"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// phase is one bar of a waterfall.
type phase struct {
	name     string
	from, to time.Time
	note     string
}

const fallWidth = 40

// waterfall draws a job's history: its waiting and its runs as the server's history tells them, and the crash as the
// demo saw it.
func waterfall(e *entry, j *stintv1.Job, killed, ready time.Time) string {
	phases := []phase{{name: "submitted, waits", from: j.GetSubmitTime().AsTime()}}
	for _, h := range j.GetHistory() {
		dispatched := h.GetDispatchTime().AsTime()
		if last := &phases[len(phases)-1]; last.to.IsZero() {
			last.to = dispatched
		}
		state := strings.ToLower(strings.TrimPrefix(h.GetState().String(), "RUN_STATE_"))
		phases = append(phases, phase{
			name: fmt.Sprintf("run %d on %s", h.GetNumber(), h.GetWorker()), from: dispatched, to: h.GetEndTime().AsTime(),
			note: fmt.Sprintf("%s, fence %d", state, h.GetFence()),
		})
	}
	phases = append(phases, phase{name: "server away", from: killed, to: ready})
	for _, r := range e.runs {
		if r.wasAdopted() {
			phases = append(phases, phase{
				name: "adopted by new server", from: r.adopted, to: r.acks[0].at, note: fmt.Sprintf("fence %d", r.fence),
			})
		}
	}
	return fmt.Sprintf("one job's history: %s\n  %s, %s\n", e.path, e.id, strings.ToLower(
		strings.TrimPrefix(j.GetState().String(), "JOB_STATE_"))) + draw(phases)
}

// draw draws the phases to one scale, with times in ms from the beginning of the first.
func draw(phases []phase) string {
	begin, end := phases[0].from, phases[0].from
	for _, p := range phases {
		if p.to.After(end) {
			end = p.to
		}
	}
	whole := max(end.Sub(begin), 1)
	column := func(at time.Time) int {
		return int(min(max(at.Sub(begin), 0), whole) * (fallWidth - 1) / whole)
	}
	var b strings.Builder
	for _, p := range phases {
		from, to := column(p.from), column(p.to)
		to = max(to, from)
		fmt.Fprintf(&b, "  %-22s|%s%s%s|%9.1f to %9.1f ms  %s\n", p.name,
			strings.Repeat(" ", from), strings.Repeat("=", to-from+1), strings.Repeat(" ", fallWidth-1-to),
			p.from.Sub(begin).Seconds()*1e3, p.to.Sub(begin).Seconds()*1e3, p.note)
	}
	return b.String()
}
