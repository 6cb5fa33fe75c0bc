package job

import (
	"errors"
	"fmt"
)

// What the functions refuse with. A refused job is unchanged.
var (
	// ErrIllegal is the target of errors.Is for every *IllegalError.
	ErrIllegal = errors.New("job: the state does not allow this")
	// ErrRunActive refuses what acts on waiting or finished jobs only.
	ErrRunActive = errors.New("job: a run is active")
	// ErrTooLate refuses to interrupt a job that is terminal.
	ErrTooLate = errors.New("job: it has ended, there is nothing to interrupt")
	// ErrStartBy refuses to dispatch a job whose start_by has passed; Wake makes it EXPIRED.
	ErrStartBy = errors.New("job: start_by has passed")
	// ErrUpdateStart refuses a start that is still to come for a job that waits neither for a time nor for room.
	ErrUpdateStart = errors.New("job: it waits neither for a time nor for room")
	// ErrUpdateStartBy refuses a start_by for a job that has started once.
	ErrUpdateStartBy = errors.New("job: it has started before")
	// ErrNoOutcome refuses a finish without exactly one outcome; the run stays live.
	ErrNoOutcome = errors.New("job: a finish needs exactly one outcome")
	// ErrDowngrade refuses to interrupt a run at a lower level than it stands under.
	ErrDowngrade = errors.New("job: it is interrupted at a higher level")
	// ErrLevel refuses an interrupt without a known level, and a hard deadline of a run that nobody interrupted.
	ErrLevel = errors.New("job: an interrupt needs the level RETRY or CANCEL")
	// ErrReplaceParked refuses to replace a PARKED job by one that waits for a time or shall start by one: it waits for a
	// person, whose release starts it at once and for good.
	ErrReplaceParked = errors.New("job: it is parked, and waits for no time")
	// ErrHadRun refuses to replace a job that was handed out before, unless each such run was withdrawn.
	ErrHadRun = errors.New("job: it had a run before")
)

// IllegalError says that the table of transitions does not have this step.
type IllegalError struct {
	State State
	Event Event
	// To is StateNone if Event is illegal in State. Else the event is legal but must not lead to To, which is a bug in
	// this package.
	To State
}

func (e *IllegalError) Error() string {
	if e.To != StateNone {
		return fmt.Sprintf("job: %s must not lead from %s to %s", e.Event, e.State, e.To)
	}
	return fmt.Sprintf("job: %s is not possible in state %s", e.Event, e.State)
}

// Is makes every IllegalError match ErrIllegal.
func (e *IllegalError) Is(target error) bool { return target == ErrIllegal }
