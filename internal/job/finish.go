package job

import (
	"slices"
	"time"
)

// FinishStatus says what became of a finish.
type FinishStatus uint8

// The statuses. Zero comes with an error only.
const (
	FinishRecorded   FinishStatus = iota + 1 // it decided its run's outcome
	FinishDuplicate                          // the same outcome was recorded before
	FinishConflict                           // another outcome was recorded before, and stands
	FinishSuperseded                         // its run no longer owns the job
)

// Finish records what a worker reports at its run's end. It implies acceptance. A late success or failure of a run that
// was taken for lost or undelivered counts while the job still waits: it becomes that run's outcome and what the loss
// had cost is taken back. A run that a long history has dropped is superseded. p is the queue's policy and rnd, in
// [0,1), the jitter; the outcome's parts belong to the job from then on. The job is j itself unless the status is
// FinishRecorded. Errors: ErrNoOutcome.
func (j *Job) Finish(now time.Time, fence uint64, o Outcome, p Policy, rnd float64) (*Job, FinishStatus, error) {
	e, ok := o.ending()
	if !ok {
		return j, 0, ErrNoOutcome
	}
	t := terms{now: now}
	if e.state != RunSucceeded {
		t = termsOf(j, now, p, rnd)
	}
	if j.State == Running && j.Run.Fence == fence {
		return j.recorded(finishEvents[e.state], func(n *Job) {
			if n.Run.State == RunDispatched {
				n.accept(now)
			}
			if e.note == "" && e.state == RunInterrupted {
				e.note = n.Interrupted().Reason
			}
			n.endRun(t, e)
		})
	}
	i := slices.IndexFunc(j.History, func(r Run) bool { return r.Fence == fence })
	switch {
	case i < 0:
		return j, FinishSuperseded, nil
	case j.History[i].State == e.state:
		return j, FinishDuplicate, nil
	case j.History[i].State.reported():
		return j, FinishConflict, nil
	case j.awaits(j.History[i]) && lateEvents[e.state] != 0:
		return j.recorded(lateEvents[e.state], func(n *Job) { n.endLate(t, i, e) })
	default:
		return j, FinishSuperseded, nil
	}
}

func (j *Job) recorded(event Event, do func(*Job)) (*Job, FinishStatus, error) {
	next, err := j.change(event, do)
	if err != nil {
		return j, 0, err
	}
	return next, FinishRecorded, nil
}

var finishEvents = [...]Event{
	RunSucceeded: EventSuccess, RunFailed: EventFailure, RunInterrupted: EventInterrupted, RunReleased: EventReleased,
}

// lateEvents has none for interrupted and released: the server has put such a job back already.
var lateEvents = [...]Event{
	RunSucceeded: EventLateSuccess, RunFailed: EventLateFailure, RunInterrupted: 0, RunReleased: 0,
}

// lateNotes tell readers of a history why such a run ended after its time.
var lateNotes = map[RunState]string{
	RunLost:        "came late: its lease had been lost",
	RunUndelivered: "came late: it had been taken back as undelivered",
}

// reported reports whether s was a worker's word.
func (s RunState) reported() bool { return s >= RunSucceeded && s <= RunReleased }

// awaits reports whether a late finish of the ended run still decides: it was the last one, j has not been reopened
// since, and waits for no other reason than that run's loss.
func (j *Job) awaits(run Run) bool {
	if run.Number != j.RunCount || run.Epoch != j.Epoch || run.State != RunLost && run.State != RunUndelivered {
		return false
	}
	switch j.State {
	case Ready, Scheduled, Backoff:
		return true
	case Parked:
		return j.ParkReason != ParkOperator
	default:
		return false
	}
}

// endLate gives an ended run another outcome, by the interrupt under which it was lost.
func (j *Job) endLate(t terms, i int, e ending) {
	j.History = slices.Clone(j.History)
	run := &j.History[i]
	if counter := j.Counters.of(run.Charged); counter != nil && *counter > 0 {
		*counter--
	}
	var interrupt Interrupt
	if run.Interrupt != nil {
		interrupt = *run.Interrupt
		ended := interrupt.ended(t.now, interruptEnds[e.state])
		run.Interrupt = &ended
	}
	if run.AcceptTime.IsZero() {
		run.AcceptTime = later(t.now, run.DispatchTime)
	}
	e.note = lateNotes[run.State]
	j.StartBy = time.Time{}
	j.freeKey()
	was, due := j.State, j.DueTime
	j.settle(t, interrupt, run, e)
	if was == Scheduled && !j.DueTime.IsZero() {
		j.DueTime = later(j.DueTime, due) // somebody chose that time
	}
}

// ending reads an outcome; false unless it is exactly one.
func (o Outcome) ending() (e ending, ok bool) {
	arms := 0
	if o.Success != nil {
		arms++
		e = ending{state: RunSucceeded, result: o.Success.Result}
	}
	if o.Failure != nil {
		arms++
		e = ending{state: RunFailed, failure: o.Failure}
	}
	if o.Stopped != nil {
		arms++
		e = ending{state: RunInterrupted, note: o.Stopped.Reason, delay: o.Stopped.Delay}
	}
	if o.Released != nil {
		arms++
		e = ending{state: RunReleased, note: o.Released.Reason, delay: o.Released.Delay, notMe: o.Released.NotMe, throttle: o.Released.Throttle}
	}
	return e, arms == 1
}
