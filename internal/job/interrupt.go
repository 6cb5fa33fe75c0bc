package job

import "time"

// InterruptRequest asks a job to stop. Reason and Requester are free texts and kept. Policy is the queue's: when a job
// comes back whose run is withdrawn.
type InterruptRequest struct {
	Level     Level
	Source    Source
	Reason    string
	Requester string
	Policy    Policy
}

// InterruptEffect says what an interrupt did.
type InterruptEffect uint8

// The effects. Zero comes with an error only.
const (
	EffectCancelled InterruptEffect = iota + 1 // the job waited and is CANCELLED now
	EffectNoRun                                // RETRY of a job that waits: nothing to stop, unchanged
	EffectRequested                            // the level has risen; the worker is to be told
	EffectUnchanged                            // the run had this level or a higher one
	EffectWithdrawn                            // the run was taken back before its worker had named it
)

// RequestInterrupt interrupts a job. A waiting job is CANCELLED by CANCEL and unchanged by RETRY; a run that its worker
// has not named is withdrawn at once; else the level rises and the run's end decides. It returns j itself when nothing
// changes. Errors: ErrLevel, ErrTooLate, ErrIllegal.
func (j *Job) RequestInterrupt(now time.Time, r InterruptRequest) (*Job, InterruptEffect, error) {
	if r.Level != LevelRetry && r.Level != LevelCancel {
		return nil, 0, ErrLevel
	}
	if j.State.Terminal() {
		return nil, 0, ErrTooLate
	}
	next, effect, err := j.interrupt(now, r)
	if err != nil {
		return nil, 0, err
	}
	return next, effect, nil
}

func (j *Job) interrupt(now time.Time, r InterruptRequest) (next *Job, effect InterruptEffect, err error) {
	event := EventInterruptRetry
	if r.Level == LevelCancel {
		event = EventInterruptCancel
	}
	switch {
	case j.phase() == dispatched:
		effect = EffectWithdrawn
		next, err = j.change(event, func(n *Job) { n.raise(now, r); n.withdraw(now, r.Policy) })
	case j.phase() == running && r.Level > j.Interrupt.Level:
		effect = EffectRequested
		next, err = j.change(event, func(n *Job) { n.raise(now, r) })
	case j.phase() == running:
		effect = EffectUnchanged
		next, err = j.unchanged(event)
	case r.Level == LevelCancel:
		effect = EffectCancelled
		next, err = j.change(event, func(n *Job) { n.raise(now, r); n.enter(now, Cancelled) })
	default:
		effect = EffectNoRun
		next, err = j.unchanged(event)
	}
	return next, effect, err
}

// Timeout interrupts a run that has taken longer than its job's timeout: level RETRY, source TIMEOUT, so that any end
// but a success is a failure of class TIMEOUT. It takes the place of another RETRY, which has no hard deadline and so
// might never end. It returns j itself if the run timed out before, or under CANCEL. Errors: ErrIllegal.
func (j *Job) Timeout(now time.Time) (*Job, error) {
	if j.Interrupt.Level == LevelCancel || j.Interrupt.Source == SourceTimeout {
		return j.unchanged(EventTimeout)
	}
	request := InterruptRequest{Level: LevelRetry, Source: SourceTimeout, Reason: "timeout"}
	if j.Interrupt.Park {
		request.Reason, request.Requester = j.Interrupt.Reason, j.Interrupt.Requester
	}
	return j.change(EventTimeout, func(n *Job) { n.raise(now, request) })
}

// Park sets a job aside for a person. A waiting one is PARKED now; so is one whose run its worker has not named, which
// is withdrawn; a running one is interrupted with RETRY and PARKED however its run ends short of a terminal state. It
// returns j itself if it is parked by an operator already, or about to be, or under CANCEL. Errors: ErrIllegal.
func (j *Job) Park(now time.Time, reason, requester string) (*Job, error) {
	request := InterruptRequest{Level: LevelRetry, Source: SourceUser, Reason: reason, Requester: requester}
	switch {
	case j.State.Terminal(), j.Interrupt.Park, j.Interrupt.Level == LevelCancel:
		return j.unchanged(EventPark)
	case j.phase() == dispatched:
		return j.change(EventPark, func(n *Job) { n.parkLater(now, request); n.withdraw(now, Policy{}) })
	case j.phase() == running:
		return j.change(EventPark, func(n *Job) { n.parkLater(now, request) })
	default:
		return j.change(EventPark, func(n *Job) {
			n.raise(now, request)
			n.enter(now, Parked)
			n.park(ParkOperator, "", n.Interrupt)
		})
	}
}

// parkLater makes the run's end park the job. The source and time of an interrupt that stands go on: a timeout stays one.
func (j *Job) parkLater(now time.Time, r InterruptRequest) {
	if j.Interrupt.Level == LevelRetry {
		r.Source, now = j.Interrupt.Source, j.Interrupt.RequestTime
	}
	j.raise(now, r)
	j.Interrupt.Park = true
}

// raise sets the interrupt. An operator's wish to park outlives other interrupts, but not CANCEL, which has no use for it.
func (j *Job) raise(now time.Time, r InterruptRequest) {
	j.Interrupt = Interrupt{
		Level: r.Level, Generation: j.Interrupt.Generation + 1, Source: r.Source,
		Reason: r.Reason, Requester: r.Requester, RequestTime: now,
		Park: j.Interrupt.Park && r.Level < LevelCancel,
	}
}

// withdraw takes a run back that its worker has not named: the interrupt acts at once.
func (j *Job) withdraw(now time.Time, p Policy) {
	j.endRun(termsOf(j, now, p, 0), ending{state: RunWithdrawn, note: j.Interrupt.Reason})
}
