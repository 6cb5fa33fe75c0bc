package client

import (
	"fmt"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// EventKind says what happened to a worker.
type EventKind int

// The events of a worker.
const (
	// SessionOpened: the server welcomed the worker. Resumed says whether it knew it before.
	SessionOpened EventKind = iota + 1
	// SessionLost: the stream ended; Err says why. The worker keeps its runs and reconnects.
	SessionLost
	// Draining: the worker takes no more runs; Err is the *InterruptError that its runs get when the grace is over.
	Draining
	// RunAssigned: a run was received.
	RunAssigned
	// RunAdopted: a new session took over a run that an older one had.
	RunAdopted
	// RunInterrupted: a run was asked to stop; Err is the *InterruptError. Again when the level rises, when the grace ends
	// sooner, and when the lease runs out while the server does not answer.
	RunInterrupted
	// RunStopped: the server said STOP; the run's result is dropped. Stop says why.
	RunStopped
	// RunFinished: the server answered a run's finish; Status and JobState say what became of it.
	RunFinished
	// RunStarted: a run's handler is called. A run that was interrupted or stopped before that is not started.
	RunStarted
	// JobConsumed: after its run's outcome was recorded the job has ended, well or not; JobState says how. It follows
	// RunFinished.
	JobConsumed
	// JobAbandoned: after its run's outcome was recorded the job waits for another run: it was released, interrupted, or is
	// to be tried again. It follows RunFinished.
	JobAbandoned
	// JobParked: after its run's outcome was recorded the job is set aside for a person. It follows RunFinished.
	JobParked
)

// String returns the kind's name.
func (k EventKind) String() string {
	names := [...]string{
		"", "SessionOpened", "SessionLost", "Draining", "RunAssigned", "RunAdopted", "RunInterrupted", "RunStopped", "RunFinished",
		"RunStarted", "JobConsumed", "JobAbandoned", "JobParked",
	}
	if k < 1 || int(k) >= len(names) {
		return fmt.Sprintf("EventKind(%d)", int(k))
	}
	return names[k]
}

// whereabouts is the event that says where a job stands after its run; 0: it is not known.
func whereabouts(s stintv1.JobState) EventKind {
	switch s {
	case stintv1.JobState_JOB_STATE_SUCCEEDED, stintv1.JobState_JOB_STATE_FAILED, stintv1.JobState_JOB_STATE_CANCELLED,
		stintv1.JobState_JOB_STATE_EXPIRED:
		return JobConsumed
	case stintv1.JobState_JOB_STATE_PARKED:
		return JobParked
	case stintv1.JobState_JOB_STATE_UNSPECIFIED:
		return 0
	default:
		return JobAbandoned
	}
}

// Event is something that happened to a worker. Fields that do not concern its kind are zero.
type Event struct {
	// Kind is what happened.
	Kind EventKind
	// Time is when the worker learned of it.
	Time time.Time
	// Run is the run it happened to; its handler may be at work.
	Run *Run
	// Status is the server's answer to a finish.
	Status stintv1.FinishStatus
	// JobState is where the job stands after a finish; of RunFinished and of the events of jobs.
	JobState stintv1.JobState
	// Stop is why a run was stopped.
	Stop stintv1.StopReason
	// Resumed is true when a session is not the worker's first.
	Resumed bool
	// Err is why, where there is an error.
	Err error
	// Missed is how many events this listener was not told before this one, because it was too slow.
	Missed uint64
}

// Stats is a snapshot of a worker.
type Stats struct {
	// Connected is true while a session is open.
	Connected bool
	// Draining is true once the worker takes no more runs.
	Draining bool
	// Held is how many runs it holds: waiting, executing, and finished but not acknowledged.
	Held int
	// Unacknowledged is how many of the held ones are finished.
	Unacknowledged int
	// Sessions is how many sessions were opened.
	Sessions uint64
	// Assigned is how many runs were received.
	Assigned uint64
	// Adopted is how many times a session took over a run from an older one.
	Adopted uint64
	// Recorded is how many finishes became a run's outcome (RECORDED or DUPLICATE).
	Recorded uint64
	// Dropped is how many runs ended without: stopped, superseded, in conflict, unknown.
	Dropped uint64
	// IdleSince is when the worker last came to hold nothing; zero while it holds a run.
	IdleSince time.Time
}
