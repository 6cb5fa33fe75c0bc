package job

import (
	"slices"
	"time"
)

// terms are what follows an end by policy, and when.
type terms struct {
	now   time.Time
	retry RetryPolicy // in full; not read where a run was not delivered, or succeeded
	rnd   float64     // in [0,1)
}

func termsOf(j *Job, now time.Time, p Policy, rnd float64) terms {
	return terms{now: now, retry: Effective(j.Spec, p).Retry, rnd: rnd}
}

// ending is how a run ends, whatever it means for its job.
type ending struct {
	state   RunState
	note    string
	failure *Failure
	result  *Result
	delay   *time.Duration // as the worker asked
	notMe   bool

	throttle *Throttle
}

// rule is what a run's end means for its job.
type rule struct {
	to     State
	charge Counter
	park   ParkReason
	delay  *time.Duration // nil: by the retry policy
}

// Lose ends a run whose worker went silent or no longer lists it. A crash by default: BACKOFF, at the bound PARKED;
// under a level as that says. A run that its worker has not named is undelivered instead. note says why, for people. p
// is the queue's policy and rnd, in [0,1), the jitter. Errors: ErrIllegal.
func (j *Job) Lose(now time.Time, p Policy, rnd float64, note string) (*Job, error) {
	if j.phase() == dispatched {
		return j.Undeliver(now, note)
	}
	return j.change(EventLose, func(n *Job) {
		n.endRun(termsOf(n, now, p, rnd), ending{state: RunLost, note: note})
	})
}

// HardDeadline abandons an interrupted run that has not ended in time: its worker may still be executing. p is the
// queue's policy and rnd, in [0,1), the jitter. Errors: ErrLevel if nobody interrupted it, ErrIllegal.
func (j *Job) HardDeadline(now time.Time, p Policy, rnd float64) (*Job, error) {
	if j.phase() == running && j.Interrupted().Level == LevelNone {
		return nil, ErrLevel
	}
	return j.change(EventHardDeadline, func(n *Job) {
		n.endRun(termsOf(n, now, p, rnd), ending{state: RunAbandoned, note: "hard deadline passed"})
	})
}

// endRun ends the live run and moves it to the history.
func (j *Job) endRun(t terms, e ending) {
	run, interrupt := j.Run, j.Interrupted()
	j.Run, j.Interrupt = Run{}, nil
	if interrupt.Level != LevelNone {
		ended := interrupt.ended(t.now, interruptEnds[e.state])
		run.Interrupt = &ended
		if interrupt.Level == LevelCancel { // which belongs to the job
			j.Interrupt = &ended
		}
	}
	j.settle(t, interrupt, &run, e)
	run.Kept = nil
	j.History = appendRun(j.History, run)
}

// settle gives run its end and j its next state, by the interrupt the run stood under.
func (j *Job) settle(t terms, interrupt Interrupt, run *Run, e ending) {
	if interrupt.Source == SourceTimeout && e.state != RunSucceeded {
		e.failure = timedOut(e)
	}
	if e.failure != nil {
		j.Failure = e.failure
	}
	r := j.rule(t, interrupt, e)
	run.State, run.Note, run.Failure, run.Charged, run.Throttle = e.state, e.note, e.failure, r.charge, e.throttle
	run.EndTime = later(t.now, later(run.AcceptTime, run.DispatchTime))
	if e.notMe {
		j.Avoid, j.AvoidUntil = run.Instance, t.now.Add(NotMePeriod)
	}
	readyTime, readySeq := j.ReadyTime, j.ReadySeq
	r = j.charge(t, r)
	if interrupt.Park && !r.to.Terminal() {
		r.to, r.park = Parked, ParkOperator
	}
	j.enter(t.now, r.to)
	switch r.to {
	case Scheduled, Backoff:
		j.DueTime = t.now.Add(max(*r.delay, 0))
	case Ready:
		if e.state == RunUndelivered {
			j.ReadyTime, j.ReadySeq = readyTime, readySeq
		}
	case Succeeded:
		j.Result = e.result
	case Parked:
		j.park(r.park, run.Build, interrupt)
	default:
	}
}

// rule is the table of outcomes and levels.
func (j *Job) rule(t terms, interrupt Interrupt, e ending) rule {
	stopped := rule{to: Scheduled, charge: CountInterrupts, delay: orDelay(e.delay, t.retry.InterruptDelay)}
	switch {
	case e.state == RunSucceeded:
		return rule{to: Succeeded}
	case e.state == RunUndelivered && j.overdue(t.now):
		return rule{to: Expired, charge: CountDeliveries}
	case e.state == RunUndelivered:
		return rule{to: Ready, charge: CountDeliveries}
	case interrupt.Level == LevelCancel:
		return rule{to: Cancelled}
	case interrupt.Source == SourceTimeout:
		return failureRule(e.failure, t.retry.OnFailure)
	case e.state == RunFailed && interrupt.Level == LevelRetry:
		// The interrupt may be why it failed, so that only the worker's own word on what follows is obeyed.
		if r := failureRule(e.failure, OnFailureRetry); r.to != Backoff {
			return r
		}
		return stopped
	case e.state == RunFailed:
		return failureRule(e.failure, t.retry.OnFailure)
	case e.state == RunReleased && e.notMe:
		return rule{to: Ready, charge: CountSnoozes}
	case e.state == RunReleased:
		delay := ReleaseDelay
		if e.throttle != nil {
			delay = e.throttle.Cooldown
		}
		return rule{to: Scheduled, charge: CountSnoozes, delay: orDelay(e.delay, delay)}
	case e.state == RunLost && interrupt.Level == LevelNone:
		return rule{to: Backoff, charge: CountCrashes}
	default:
		return stopped
	}
}

// failureRule is what a failure means when no interrupt says otherwise: as its worker says, else as the policy does.
func failureRule(f *Failure, policy OnFailure) rule {
	r := rule{to: Backoff, charge: CountAttempts, delay: f.RetryDelay}
	if f.Class == Infrastructure {
		r.charge = CountSnoozes
	}
	switch {
	case f.Class == Malformed:
		r.to, r.park = Parked, ParkMalformed
	case f.Park:
		r.to, r.park = Parked, ParkWorker
	case f.Final:
		r.to = Failed
	case f.Class == Infrastructure: // says nothing about the work
	case policy == OnFailurePark:
		r.to, r.park = Parked, ParkPolicy
	case policy == OnFailureFail:
		r.to = Failed
	}
	return r
}

// charge counts what the end costs. A job that would come back but has used up that budget is PARKED, or FAILED when
// it was the attempts; so is one that failed or crashed after its deadline. One that comes back after a failure without
// a delay of its own gets it from the policy.
func (j *Job) charge(t terms, r rule) rule {
	counter := j.Counters.of(r.charge)
	if counter == nil {
		return r
	}
	*counter++
	bound, reason := r.charge.bound(t.retry)
	switch {
	case r.to.Terminal() || r.to == Parked:
	case r.to == Backoff && j.outOfTime(t):
		r.to = Failed
	case *counter < bound:
		if r.delay == nil {
			d := t.retry.delay(*counter, t.rnd)
			r.delay = &d
		}
	case r.charge == CountAttempts:
		r.to = Failed
	default:
		r.to, r.park = Parked, reason
	}
	return r
}

// outOfTime reports whether the policy's deadline has passed: a failure or crash is the end then.
func (j *Job) outOfTime(t terms) bool {
	began := j.EpochTime
	if began.IsZero() {
		began = j.SubmitTime
	}
	return t.retry.Deadline > 0 && !t.now.Before(began.Add(t.retry.Deadline))
}

// park notes why j is PARKED. After an operator's request it keeps who asked and why, and no build releases it.
func (j *Job) park(reason ParkReason, build string, request Interrupt) {
	j.ParkReason, j.ParkBuild = reason, build
	if reason == ParkOperator {
		j.Interrupt = &Interrupt{
			Source: request.Source, Reason: request.Reason, Requester: request.Requester,
			RequestTime: request.RequestTime, Park: true,
		}
		j.ParkBuild = ""
	}
}

// timedOut is the failure a run has had when it ended after its timeout, with what its worker said of it.
func timedOut(e ending) *Failure {
	if e.failure == nil {
		return &Failure{Class: TimedOut, Type: "timeout", Message: "the run took longer than its timeout"}
	}
	f := *e.failure
	f.Class = TimedOut
	return &f
}

func orDelay(d *time.Duration, fallback time.Duration) *time.Duration {
	if d != nil {
		return d
	}
	return &fallback
}

// appendRun returns a new history with run at its end, without the middle of a long one.
func appendRun(history []Run, run Run) []Run {
	if len(history) < 2*HistoryEdge {
		return append(slices.Clip(history), run)
	}
	next := make([]Run, 0, 2*HistoryEdge)
	next = append(next, history[:HistoryEdge]...)
	next = append(next, history[HistoryEdge+1:]...)
	return append(next, run)
}
