package job

import (
	"slices"
	"time"
)

// ActionsMax is how many actions a job remembers: the last ones.
const ActionsMax = 20

// ActionKind says what somebody did to a job.
type ActionKind uint8

// The kinds. The numbers are stored and never reused.
const (
	ActionRetry           ActionKind = 1
	ActionPark            ActionKind = 2
	ActionInterruptRetry  ActionKind = 3
	ActionInterruptCancel ActionKind = 4
	ActionUpdate          ActionKind = 5
)

// Action is what somebody did to a job, and why. Reason and Requester are free texts.
type Action struct {
	Kind              ActionKind
	Reason, Requester string
	Time              time.Time
	Request           string          // the caller's name for the request; empty: none
	Effect            InterruptEffect // of an interrupt
}

// By says who asks something of a job, and why, in free texts. Request is the caller's name for the request: a repeat
// with the same name finds its work done. Empty: each request is one of its own.
type By struct {
	Reason, Requester, Request string
}

func (b By) action(kind ActionKind, now time.Time) Action {
	return Action{Kind: kind, Reason: b.Reason, Requester: b.Requester, Time: now, Request: b.Request}
}

// Did reports whether the job remembers an action of this kind by the request of this name, and what effect it had.
func (j *Job) Did(kind ActionKind, request string) (effect InterruptEffect, did bool) {
	if request == "" {
		return 0, false
	}
	for _, a := range j.Actions {
		if a.Kind == kind && a.Request == request {
			return a.Effect, true
		}
	}
	return 0, false
}

// record adds a to the actions of a version that was not handed out yet.
func (j *Job) record(a Action) {
	list := j.Actions
	if len(list) >= ActionsMax {
		list = list[len(list)-ActionsMax+1:]
	}
	j.Actions = append(slices.Clip(list), a)
}
