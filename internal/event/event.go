// Package event says what happened: an event for each transition, derived from what was and what is. It is pure.
package event

import (
	"time"

	"github.com/stintrun/stint/internal/job"
)

// Kind says what an event tells of.
type Kind uint8

// The kinds of events. The numbers are stored and never reused.
const (
	None Kind = 0

	JobSubmitted Kind = 1 // it was accepted
	JobReady     Kind = 2 // it may start when a worker has room, again or for the first time
	JobDelayed   Kind = 3 // it waits for a time, again or for the first time
	JobParked    Kind = 4 // it was set aside for a person
	JobEnded     Kind = 5 // it reached a terminal state, or another one
	JobUpdated   Kind = 6 // it is another job now: by an update, or a submit that replaced it
	JobDeleted   Kind = 7 // it and its id are gone

	RunDispatched Kind = 10 // a run was handed to a worker
	RunAccepted   Kind = 11 // its worker named it
	RunEnded      Kind = 12 // it has ended, or its end was revised by a late finish

	InterruptRequested    Kind = 20 // an interrupt of a new level, reason or grace
	InterruptDelivered    Kind = 21 // it was sent to the worker
	InterruptAcknowledged Kind = 22 // the worker acts on it

	QueueCreated Kind = 30
	QueueUpdated Kind = 31 // another policy
	QueuePaused  Kind = 32
	QueueResumed Kind = 33
	QueueDeleted Kind = 34

	LimitCreated Kind = 40
	LimitUpdated Kind = 41
	LimitDeleted Kind = 42

	GateClosed Kind = 50 // by a worker that is overloaded, or by a breaker
	GateOpened Kind = 51

	WorkerConnected Kind = 60 // a session was opened
	WorkerResumed   Kind = 61 // by an instance that was known
	WorkerDraining  Kind = 62 // it gets no more runs
	WorkerGone      Kind = 63 // its session ended

	ZombieLeft  Kind = 70 // a run was left behind at its hard deadline and may be at work
	ZombieEnded Kind = 71 // it is known not to be, or taken for it
)

// Event is a transition of a job, a run, an interrupt, a queue, a limit, a gate, a worker or a zombie. Fields that do not
// concern its kind are zero. Texts are cut to TextMax bytes.
type Event struct {
	Shape
	Time time.Time
	Job  job.ID
	// Reason is why: what somebody said, or a failure's message. Who is who asked for it.
	Reason, Who string
	Until       time.Time // until when it is delayed or closed; zero: not known
	Labels      []uint64  // of the job, by LabelHash, ascending
}

// Shape is what many events have in common: where they are kept or sent, it is written once for several.
type Shape struct {
	Kind       Kind
	Queue      string
	State      job.State // of the job, after it
	Run        uint32
	RunState   job.RunState // of the run, after it
	Worker     string       // the worker's name
	Instance   job.ID       // the worker process
	Level      job.Level    // of the interrupt
	Source     job.Source   // of the interrupt
	Limit, Key string       // the limit, and the gate's key
}

// TextMax bounds an event's texts.
const TextMax = 256

// LabelHash stands for a label in events (FNV-1a, of the key, a zero byte and the value).
func LabelHash(key, value string) uint64 {
	h := uint64(14695981039346656037)
	add := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	add(key)
	h *= 1099511628211 // the zero byte
	add(value)
	return h
}
