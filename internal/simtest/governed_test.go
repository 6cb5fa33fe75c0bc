package simtest

import (
	"slices"
	"strings"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// What interrupts, deadlines and budgets did to a job must be what anybody asked for, in its time.

// span is a time in which the server was away or stood still.
type span struct{ from, to time.Time }

// troubled notes that the server was in trouble since from.
func (w *witness) troubled(from time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.troubles = append(w.troubles, span{from, time.Now()})
}

// quiet is the longest time between from and to in which the server was well. Caller holds mu.
func (w *witness) quiet(from, to time.Time) (longest time.Duration) {
	for _, trouble := range w.troubles { // in their order
		if trouble.to.Before(from) {
			continue
		}
		if !trouble.from.Before(to) {
			break
		}
		longest = max(longest, trouble.from.Sub(from))
		from = trouble.to
	}
	return max(longest, to.Sub(from))
}

// well is for how long the server was well since began.
func (w *witness) well(began time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := time.Since(began)
	for _, trouble := range w.troubles {
		all -= trouble.to.Sub(trouble.from)
	}
	return all.Round(time.Second)
}

// promptly is how long after its time a deadline is met in quiet: it is not met before a full lease after a trouble.
func promptly(l *life) time.Duration { return l.spec.GetLease().AsDuration() + 5*time.Second }

// demands notes an interrupt that somebody asks for. Caller holds mu.
func (w *witness) demands(m *stintv1.InterruptJobsRequest) {
	hard := m.GetHardDeadline().AsDuration()
	if hard == 0 && m.GetLevel() == stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL {
		hard = max(time.Minute, m.GetGrace().AsDuration())
	}
	if m.GetFilter() != nil {
		w.askedOfAll++
	}
	for _, id := range m.GetIds() {
		l := w.life(id)
		l.asked++
		if at := time.Now().Add(hard); hard > 0 && (l.hard.IsZero() || at.Before(l.hard)) {
			l.hard = at
		}
	}
}

// leased is until when a run that was assigned may count on its lease: a hard deadline ends it sooner.
func (l *life) leased(r *lease) time.Time {
	until := r.until
	if t := l.spec.GetTimeout().AsDuration(); t > 0 {
		until = earlier(until, r.received.Add(t+time.Minute))
	}
	if !l.hard.IsZero() {
		until = earlier(until, l.hard)
	}
	return until
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// governed judges a job that has ended by what was asked for. Caller holds mu.
func (w *witness) governed(l *life, j *stintv1.Job) {
	const cancel = stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL
	cancelled := j.GetState() == stintv1.JobState_JOB_STATE_CANCELLED
	switch succeeded := j.GetState() == stintv1.JobState_JOB_STATE_SUCCEEDED; {
	case cancelled != (j.GetInterrupt().GetLevel() == cancel) && !succeeded:
		w.blame("job %s is %s under %v", l.id, j.GetState(), j.GetInterrupt())
	case len(j.GetActions()) > l.asked+w.askedOfAll, len(j.GetActions()) < min(l.done, actionsMax):
		w.blame("job %s: of %d demands %d were answered as carried out, and it remembers %d: %v", l.id, l.asked, l.done, len(j.GetActions()), j)
	case j.GetState() == stintv1.JobState_JOB_STATE_EXPIRED && (l.spec.GetStartBy() == nil || j.GetEndTime().AsTime().Before(l.spec.GetStartBy().AsTime())):
		w.blame("job %s EXPIRED before its time: %v", l.id, j)
	}
	w.charged(l, j)
	for _, run := range j.GetHistory() {
		w.interrupted(l, run)
	}
}

// actionsMax is how many actions of people a job remembers.
const actionsMax = 20

// charged judges that every run but the one that ended the job is in one counter, and that no counter is over its bound.
func (w *witness) charged(l *life, j *stintv1.Job) {
	c := j.GetCounters()
	sum := c.GetAttempts() + c.GetCrashes() + c.GetInterrupts() + c.GetSnoozes() + c.GetDeliveries()
	if j.GetEpoch() == 1 && (j.GetRunCount() < sum || j.GetRunCount() > sum+1) {
		w.blame("job %s: its counters do not add up to its runs: %v", l.id, j)
	}
	if c.GetAttempts() > l.spec.GetRetry().GetMaxAttempts() || c.GetCrashes() > 3 || c.GetInterrupts() > 100 || c.GetSnoozes() > 1000 || c.GetDeliveries() > 100 {
		w.blame("job %s is over a bound: %v", l.id, j)
	}
}

// interrupted judges how a run of a job ended that was to be interrupted, or should have been.
func (w *witness) interrupted(l *life, run *stintv1.Run) {
	i, end := run.GetInterrupt(), run.GetEndTime().AsTime()
	hard := i.GetHardDeadlineTime()
	accepted, timeout := run.GetAcceptTime().AsTime(), l.spec.GetTimeout().AsDuration()
	byTimeout := i.GetSource() == stintv1.InterruptSource_INTERRUPT_SOURCE_TIMEOUT
	late := strings.HasPrefix(run.GetNote(), "came late") // it was lost before, when its history no longer tells
	wrong := ""
	switch {
	case i != nil && (i.GetEnd() == stintv1.InterruptEnd_INTERRUPT_END_UNSPECIFIED || i.GetEndTime() == nil):
		wrong = "its interrupt has not ended"
	case i.GetAcknowledgeTime() != nil && i.GetAcknowledgeTime().AsTime().Before(i.GetDeliverTime().AsTime()):
		wrong = "its interrupt was acknowledged before it was delivered"
	case run.GetState() == stintv1.RunState_RUN_STATE_ABANDONED && (hard == nil || end.Before(hard.AsTime())):
		wrong = "it was abandoned before its hard deadline"
	case hard != nil && !late && w.quiet(hard.AsTime(), end) > promptly(l):
		wrong = "its hard deadline was not kept"
	case byTimeout && (timeout == 0 || i.GetRequestTime().AsTime().Before(accepted.Add(timeout))):
		wrong = "it was interrupted before its timeout"
	case timeout > 0 && !late && run.GetAcceptTime() != nil && i == nil && w.quiet(accepted.Add(timeout), end) > promptly(l):
		wrong = "its timeout was not kept"
	}
	if wrong != "" {
		w.blame("job %s, run %d: %s: %v", l.id, run.GetNumber(), wrong, run)
	}
}

// carriedOut counts the requests that changed a job by somebody's word; one may name it twice. Caller holds mu.
func (w *witness) carriedOut(results []*stintv1.InterruptResult) {
	did := []stintv1.InterruptStatus{
		stintv1.InterruptStatus_INTERRUPT_STATUS_CANCELLED, stintv1.InterruptStatus_INTERRUPT_STATUS_REQUESTED,
		stintv1.InterruptStatus_INTERRUPT_STATUS_WITHDRAWN,
	}
	seen := map[string]bool{}
	for _, r := range results {
		if seen[r.GetId()] {
			continue
		}
		seen[r.GetId()] = true
		if r.GetError() == nil && slices.Contains(did, r.GetStatus()) {
			w.life(r.GetId()).done++
		}
	}
}
