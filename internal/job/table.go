package job

import "iter"

// phase is a job's state with RUNNING split in two, for what may happen to a run differs before and after its worker
// has named it.
type phase uint8

const (
	none phase = iota // before its submit, and once deleted
	scheduled
	ready
	blocked
	dispatched
	running
	backoff
	parked
	succeeded
	failed
	cancelled
	expired
	numberOfPhases
)

var phaseNames = [numberOfPhases]string{
	"NONE", "SCHEDULED", "READY", "BLOCKED", "DISPATCHED", "RUNNING", "BACKOFF", "PARKED",
	"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED",
}

func (p phase) String() string { return phaseNames[p] }

// phase is where j stands in the table; none for a state that does not exist.
func (j *Job) phase() phase {
	switch {
	case j.State > stateLast:
		return none
	case j.State == Running && j.Run.State == RunDispatched:
		return dispatched
	default:
		return phaseOf[j.State]
	}
}

var phaseOf = [NumberOfStates]phase{
	Scheduled: scheduled, Ready: ready, Blocked: blocked, Running: running, Backoff: backoff, Parked: parked,
	Succeeded: succeeded, Failed: failed, Cancelled: cancelled, Expired: expired,
}

// Event is something that happens to a job.
type Event uint8

// The events; zero is none. A finish is four of them, by its outcome; it is late when its run was taken for lost or undelivered.
const (
	EventSubmit Event = iota + 1
	EventDue          // run_at or the end of a delay
	EventStartBy
	EventUnblock // the last dependency succeeded
	EventDispatch
	EventAccept
	EventUndeliver
	EventSuccess
	EventFailure
	EventInterrupted
	EventReleased
	EventLose
	EventTimeout
	EventHardDeadline
	EventLateSuccess
	EventLateFailure
	EventInterruptRetry
	EventInterruptCancel
	EventDeliver     // the run's interrupt was sent to its worker
	EventAcknowledge // the worker acts on it
	EventPark
	EventRetry
	EventBuild   // a new build registers
	EventReplace // a submit takes the place of a job that no worker has begun
	EventUpdate
	EventDelete
	numberOfEvents
)

var eventNames = [numberOfEvents]string{
	"none", "submit", "due", "start_by", "unblock", "dispatch", "accept", "undeliver",
	"success", "failure", "interrupted", "released", "lose", "timeout", "hard deadline", "late success", "late failure",
	"interrupt RETRY", "interrupt CANCEL", "deliver", "acknowledge", "park", "retry", "new build", "replace", "update", "delete",
}

// String is the event's name for people.
func (e Event) String() string {
	if e < numberOfEvents {
		return eventNames[e]
	}
	return "unknown"
}

// phases is a set of them; empty means that the event is illegal.
type phases uint16

func to(list ...phase) (s phases) {
	for _, p := range list {
		s |= 1 << p
	}
	return s
}

func (s phases) has(p phase) bool { return s&(1<<p) != 0 }

func (s phases) all() iter.Seq[phase] {
	return func(yield func(phase) bool) {
		for p := range numberOfPhases {
			if s.has(p) && !yield(p) {
				return
			}
		}
	}
}

// table holds every legal step: where an event may lead from a phase. Every function of this package asks it before and
// after; nothing else decides what may follow what.
//
// An event that finds its work done leads back to where it came from. BLOCKED is left here, but no submit leads to it
// while jobs have no dependencies.
var table = [numberOfPhases][numberOfEvents]phases{
	none: {
		EventSubmit: to(scheduled, ready),
	},
	scheduled: {
		EventDue:             to(ready),
		EventStartBy:         to(expired),
		EventLateSuccess:     to(succeeded),
		EventLateFailure:     to(backoff, scheduled, parked, failed),
		EventInterruptRetry:  to(scheduled),
		EventInterruptCancel: to(cancelled),
		EventPark:            to(parked),
		EventRetry:           to(ready),
		EventReplace:         to(scheduled, ready),
		EventUpdate:          to(scheduled, ready),
		EventDelete:          to(none),
	},
	ready: {
		EventDispatch:        to(dispatched),
		EventStartBy:         to(expired),
		EventLateSuccess:     to(succeeded),
		EventLateFailure:     to(backoff, scheduled, parked, failed),
		EventInterruptRetry:  to(ready),
		EventInterruptCancel: to(cancelled),
		EventPark:            to(parked),
		EventReplace:         to(scheduled, ready),
		EventUpdate:          to(scheduled, ready),
		EventDelete:          to(none),
	},
	blocked: {
		EventUnblock:         to(scheduled, ready),
		EventStartBy:         to(expired),
		EventInterruptRetry:  to(blocked),
		EventInterruptCancel: to(cancelled),
		EventReplace:         to(blocked),
		EventUpdate:          to(blocked),
		EventDelete:          to(none),
	},
	dispatched: {
		EventAccept:          to(running),
		EventUndeliver:       to(ready, parked, expired),
		EventSuccess:         to(succeeded),
		EventFailure:         to(backoff, parked, failed),
		EventInterrupted:     to(scheduled, parked),
		EventReleased:        to(scheduled, ready, parked),
		EventInterruptRetry:  to(scheduled, parked),
		EventInterruptCancel: to(cancelled),
		EventPark:            to(parked),
		EventUpdate:          to(dispatched),
	},
	running: {
		EventAccept:          to(running),
		EventSuccess:         to(succeeded),
		EventFailure:         to(backoff, scheduled, parked, failed, cancelled),
		EventInterrupted:     to(backoff, scheduled, parked, failed, cancelled),
		EventReleased:        to(backoff, scheduled, ready, parked, failed, cancelled),
		EventLose:            to(backoff, scheduled, parked, failed, cancelled),
		EventTimeout:         to(running),
		EventHardDeadline:    to(backoff, scheduled, parked, failed, cancelled),
		EventInterruptRetry:  to(running),
		EventInterruptCancel: to(running),
		EventDeliver:         to(running),
		EventAcknowledge:     to(running),
		EventPark:            to(running),
		EventUpdate:          to(running),
	},
	backoff: {
		EventDue:             to(ready),
		EventLateSuccess:     to(succeeded),
		EventLateFailure:     to(backoff, parked, failed),
		EventInterruptRetry:  to(backoff),
		EventInterruptCancel: to(cancelled),
		EventPark:            to(parked),
		EventRetry:           to(ready),
		EventUpdate:          to(backoff, scheduled, ready),
		EventDelete:          to(none),
	},
	parked: {
		EventLateSuccess:     to(succeeded),
		EventLateFailure:     to(backoff, parked, failed),
		EventInterruptRetry:  to(parked),
		EventInterruptCancel: to(cancelled),
		EventPark:            to(parked),
		EventRetry:           to(ready),
		EventBuild:           to(ready, parked),
		EventReplace:         to(parked),
		EventUpdate:          to(parked),
		EventDelete:          to(none),
	},
	succeeded: {
		EventDelete: to(none),
	},
	failed: {
		EventRetry:  to(ready),
		EventDelete: to(none),
	},
	cancelled: {
		EventRetry:  to(ready),
		EventDelete: to(none),
	},
	expired: {
		EventRetry:  to(ready),
		EventDelete: to(none),
	},
}
