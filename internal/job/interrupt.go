package job

import "time"

// InterruptRequest asks a job to stop. Reason and Requester are free texts and kept. Request, with source USER only, is
// the caller's name for it, as in By. Policy is the queue's: when a job comes back whose run is withdrawn.
type InterruptRequest struct {
	Level        Level
	Source       Source
	Reason       string
	Requester    string
	Request      string
	Grace        *time.Duration // how long the worker may take; nil: by the level
	HardDeadline *time.Duration // after which the run is abandoned; nil: by the level
	Policy       Policy         // of the queue
}

// InterruptEffect says what an interrupt did.
type InterruptEffect uint8

// The effects. Zero comes with an error only.
const (
	EffectCancelled InterruptEffect = iota + 1 // the job waited and is CANCELLED now
	EffectNoRun                                // RETRY of a job that waits: nothing to stop, unchanged
	EffectRequested                            // the level has risen; the worker is to be told
	EffectUnchanged                            // the run had this level, with deadlines as early or earlier
	EffectWithdrawn                            // the run was taken back before its worker had named it
)

// RequestInterrupt interrupts a job. A waiting job is CANCELLED by CANCEL and unchanged by RETRY; a run that its worker
// has not named is withdrawn at once; else the level rises and the run's end decides. The same level again can only
// bring its deadlines forward. It returns j itself when nothing changes. Errors: ErrLevel, ErrTooLate, ErrDowngrade,
// ErrIllegal.
//
// A request with a name is remembered also when it had nothing to do, for its repeat would find a later run. The repeat
// returns j itself and the first effect, also when the job has ended. What is refused is not remembered: it did nothing,
// so its repeat is to the job what a first request is that comes late, and a job that has ended is not written again.
func (j *Job) RequestInterrupt(now time.Time, r InterruptRequest) (*Job, InterruptEffect, error) {
	if r.Level != LevelRetry && r.Level != LevelCancel {
		return nil, 0, ErrLevel
	}
	kind := r.Level.Action()
	if effect, did := j.Did(kind, r.Request); did {
		return j, effect, nil
	}
	if j.State.Terminal() {
		return nil, 0, ErrTooLate
	}
	next, effect, err := j.interrupt(now, r)
	if next == j && r.Request != "" {
		next, err = j.change(r.Level.event(), func(*Job) {})
	}
	if err != nil {
		return nil, 0, err
	}
	if next != j && r.Source == SourceUser {
		a := By{r.Reason, r.Requester, r.Request}.action(kind, now)
		a.Effect = effect
		next.record(a)
	}
	return next, effect, nil
}

// Action is as what a job remembers that somebody interrupted it at this level.
func (l Level) Action() ActionKind {
	if l == LevelCancel {
		return ActionInterruptCancel
	}
	return ActionInterruptRetry
}

// event is what an interrupt at this level is to the table.
func (l Level) event() Event {
	if l == LevelCancel {
		return EventInterruptCancel
	}
	return EventInterruptRetry
}

func (j *Job) interrupt(now time.Time, r InterruptRequest) (next *Job, effect InterruptEffect, err error) {
	event := r.Level.event()
	switch {
	case j.phase() == dispatched:
		effect = EffectWithdrawn
		next, err = j.change(event, func(n *Job) { n.raise(now, r); n.withdraw(now, r.Policy) })
	case j.phase() == running && r.Level > j.Interrupted().Level:
		effect = EffectRequested
		next, err = j.change(event, func(n *Job) { n.raise(now, r) })
	case j.phase() == running && r.Level < j.Interrupted().Level:
		err = ErrDowngrade
	case j.phase() == running && j.Interrupted().hastened(now, r) != j.Interrupted():
		effect = EffectRequested
		next, err = j.change(event, func(n *Job) { n.Interrupt = new(j.Interrupted().hastened(now, r)) })
	case j.phase() == running:
		effect = EffectUnchanged
		next, err = j.unchanged(event)
	case r.Level == LevelCancel:
		effect = EffectCancelled
		next, err = j.change(event, func(n *Job) {
			n.raise(now, r)
			ended := n.Interrupted().ended(now, EndNoRun)
			ended.GraceTime, ended.HardTime = time.Time{}, time.Time{} // nobody has to hurry
			n.Interrupt = &ended
			n.enter(now, Cancelled)
		})
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
	if j.Interrupted().Level == LevelCancel || j.Interrupted().Source == SourceTimeout {
		return j.unchanged(EventTimeout)
	}
	grace, hard := TimeoutGrace, TimeoutHard
	request := InterruptRequest{Level: LevelRetry, Source: SourceTimeout, Reason: "timeout", Grace: &grace, HardDeadline: &hard}
	if j.Interrupted().Park {
		request.Reason, request.Requester = j.Interrupted().Reason, j.Interrupted().Requester
	}
	return j.change(EventTimeout, func(n *Job) { n.raise(now, request) })
}

// Park sets a job aside for a person. A waiting one is PARKED now; so is one whose run its worker has not named, which
// is withdrawn; a running one is interrupted with RETRY and PARKED however its run ends short of a terminal state. It
// returns j itself if it is parked by an operator already, or about to be, or under CANCEL, unless the request has a name
// and is to be remembered; and for the repeat of a request. Errors: ErrIllegal.
func (j *Job) Park(now time.Time, by By) (*Job, error) {
	if _, did := j.Did(ActionPark, by.Request); did {
		return j, nil
	}
	done := j.State.Terminal() || j.Interrupted().Park || j.Interrupted().Level == LevelCancel
	if done && by.Request == "" {
		return j.unchanged(EventPark)
	}
	request := InterruptRequest{Level: LevelRetry, Source: SourceUser, Reason: by.Reason, Requester: by.Requester}
	return j.change(EventPark, func(n *Job) {
		n.record(by.action(ActionPark, now))
		switch {
		case done:
		case j.phase() == dispatched:
			n.parkLater(now, request)
			n.withdraw(now, Policy{})
		case j.phase() == running:
			n.parkLater(now, request)
		default:
			n.raise(now, request)
			n.enter(now, Parked)
			n.park(ParkOperator, "", n.Interrupted())
		}
	})
}

// parkLater makes the run's end park the job. The source and time of an interrupt that stands go on: a timeout stays one.
func (j *Job) parkLater(now time.Time, r InterruptRequest) {
	if j.Interrupted().Level == LevelRetry {
		r.Source, now = j.Interrupted().Source, j.Interrupted().RequestTime
	}
	j.raise(now, r)
	j.Interrupt.Park = true
}

// raise sets the interrupt. Of two deadlines the earlier holds. An operator's wish to park outlives other interrupts, but
// not CANCEL, which has no use for it.
func (j *Job) raise(now time.Time, r InterruptRequest) {
	was := j.Interrupted()
	if was.Level == LevelNone {
		was.GraceTime, was.HardTime = time.Time{}, time.Time{}
	}
	grace, hard := r.deadlines(now)
	j.Interrupt = &Interrupt{
		Level: r.Level, Generation: was.Generation + 1, Source: r.Source,
		Reason: r.Reason, Requester: r.Requester, RequestTime: now,
		GraceTime: earlier(was.GraceTime, grace), HardTime: earlier(was.HardTime, hard),
		Park: was.Park && r.Level < LevelCancel,
	}
}

// hastened is i with the request's deadlines where those are earlier: then it is a new generation, to be delivered anew.
func (i Interrupt) hastened(now time.Time, r InterruptRequest) Interrupt {
	grace, hard := r.deadlines(now)
	grace, hard = earlier(i.GraceTime, grace), earlier(i.HardTime, hard)
	if grace.Equal(i.GraceTime) && hard.Equal(i.HardTime) {
		return i
	}
	i.GraceTime, i.HardTime = grace, hard
	i.Generation++
	i.DeliverTime, i.AckTime = time.Time{}, time.Time{}
	return i
}

// deadlines are the times that the request asks for; a zero one asks for none.
func (r InterruptRequest) deadlines(now time.Time) (grace, hard time.Time) {
	after, bound := RetryGrace, time.Duration(0)
	if r.Level == LevelCancel {
		after, bound = CancelGrace, CancelHard
	}
	if r.Grace != nil {
		after = max(*r.Grace, 0)
	}
	if r.HardDeadline != nil {
		bound = max(*r.HardDeadline, 1)
	} else if bound > 0 {
		bound = max(bound, after)
	}
	if bound > 0 {
		hard = now.Add(bound)
	}
	return now.Add(after), hard
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// ended is i with its end.
func (i Interrupt) ended(now time.Time, how InterruptEnd) Interrupt {
	i.End, i.EndTime = how, later(now, i.RequestTime)
	return i
}

// interruptEnds tells what a run's end is to the interrupt it stood under.
var interruptEnds = [...]InterruptEnd{
	RunSucceeded: EndCompleted, RunFailed: EndFailed, RunInterrupted: EndStopped, RunReleased: EndStopped,
	RunLost: EndLost, RunAbandoned: EndAbandoned, RunUndelivered: EndWithdrawn, RunWithdrawn: EndWithdrawn,
}

// Deliver notes that this generation of the live run's interrupt was sent to its worker. It returns j itself if that
// was known, or if the run or the generation is another by now. Errors: ErrIllegal.
func (j *Job) Deliver(now time.Time, fence uint64, generation uint32) (*Job, error) {
	if !j.interruptedAt(fence, generation) || !j.Interrupted().DeliverTime.IsZero() {
		return j, nil
	}
	i := j.Interrupted()
	i.DeliverTime = later(now, i.RequestTime)
	return j.change(EventDeliver, func(n *Job) { n.Interrupt = &i })
}

// Acknowledge notes that the live run's worker acts on this generation of its interrupt. It returns j itself if that was
// known, or if the run or the generation is another by now. Errors: ErrIllegal.
func (j *Job) Acknowledge(now time.Time, fence uint64, generation uint32) (*Job, error) {
	if !j.interruptedAt(fence, generation) || !j.Interrupted().AckTime.IsZero() {
		return j, nil
	}
	i := j.Interrupted()
	if i.DeliverTime.IsZero() {
		i.DeliverTime = later(now, i.RequestTime)
	}
	i.AckTime = later(now, i.DeliverTime)
	return j.change(EventAcknowledge, func(n *Job) { n.Interrupt = &i })
}

// interruptedAt reports whether the run is live and stands under this generation of its interrupt.
func (j *Job) interruptedAt(fence uint64, generation uint32) bool {
	return j.phase() == running && j.Run.Fence == fence && j.Interrupted().Level != LevelNone && j.Interrupted().Generation == generation
}

// withdraw takes a run back that its worker has not named: the interrupt acts at once.
func (j *Job) withdraw(now time.Time, p Policy) {
	j.endRun(termsOf(j, now, p, 0), ending{state: RunWithdrawn, note: j.Interrupted().Reason})
}
