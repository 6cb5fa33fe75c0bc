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
)

// Action is what somebody did to a job, and why. Reason and Requester are free texts.
type Action struct {
	Kind              ActionKind
	Reason, Requester string
	Time              time.Time
}

// record adds a to the actions of a version that was not handed out yet.
func (j *Job) record(a Action) {
	list := j.Actions
	if len(list) >= ActionsMax {
		list = list[len(list)-ActionsMax+1:]
	}
	j.Actions = append(slices.Clip(list), a)
}
