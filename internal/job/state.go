package job

// State says where a job stands.
type State uint8

// The states of a job. The numbers are stored and never reused.
const (
	StateNone      State = 0
	Scheduled      State = 1  // waits for a time that somebody chose
	Ready          State = 2  // may start when a worker has room
	Blocked        State = 3  // waits for other jobs
	Running        State = 4  // handed to a worker
	Backoff        State = 5  // waits after a failure or crash
	Parked         State = 6  // set aside for a person
	Succeeded      State = 7  // terminal
	Failed         State = 8  // terminal, can be reopened
	Cancelled      State = 9  // terminal, can be reopened
	Expired        State = 10 // terminal, can be reopened
	stateLast            = Expired
	NumberOfStates       = int(stateLast) + 1 // for arrays indexed by State
)

var stateNames = [NumberOfStates]string{
	"NONE", "SCHEDULED", "READY", "BLOCKED", "RUNNING", "BACKOFF", "PARKED", "SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED",
}

// String is the state's name as the wire contract spells it.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "UNKNOWN"
}

// Terminal reports whether s is an end.
func (s State) Terminal() bool { return s >= Succeeded }

// Waiting reports whether a job in s has neither a run nor an end.
func (s State) Waiting() bool { return s != Running && !s.Terminal() && s != StateNone }

// RunState says where a run stands.
type RunState uint8

// The states of a run. The numbers are stored and never reused.
const (
	RunNone        RunState = 0
	RunDispatched  RunState = 1 // handed out, not yet named by its worker
	RunRunning     RunState = 2 // named by its worker
	RunSucceeded   RunState = 3
	RunFailed      RunState = 4
	RunInterrupted RunState = 5
	RunReleased    RunState = 6
	RunLost        RunState = 7  // its worker went silent or no longer listed it
	RunAbandoned   RunState = 8  // left behind at a hard deadline
	RunUndelivered RunState = 9  // never named by a worker
	RunWithdrawn   RunState = 10 // taken back before it was named
)

// Live reports whether a run in s still owns its job.
func (s RunState) Live() bool { return s == RunDispatched || s == RunRunning }

// Level is an interrupt's level. It only rises within a job's epoch.
type Level uint8

// The levels, with the numbers of 4CAT, where they come from.
const (
	LevelNone   Level = 0
	LevelRetry  Level = 1 // stop and come back; belongs to the run
	LevelCancel Level = 2 // stop for good; belongs to the job
)

// Source says who interrupted.
type Source uint8

// The sources of interrupts. The numbers are stored and never reused.
const (
	SourceNone    Source = 0
	SourceUser    Source = 1
	SourceDrain   Source = 2
	SourceTimeout Source = 3
)

// InterruptEnd says how an interrupt ended.
type InterruptEnd uint8

// The ends. The numbers are stored and never reused.
const (
	EndNone      InterruptEnd = 0 // it stands
	EndNoRun     InterruptEnd = 1 // nothing ran: it acted at once
	EndStopped   InterruptEnd = 2 // the worker stopped, or gave the run back
	EndFailed    InterruptEnd = 3 // the worker reported a failure
	EndCompleted InterruptEnd = 4 // the worker completed the job all the same
	EndLost      InterruptEnd = 5 // the worker went silent, or no longer listed the run
	EndAbandoned InterruptEnd = 6 // the run was left behind at the hard deadline
	EndWithdrawn InterruptEnd = 7 // the run was taken back before its worker had named it
)

// Priority is the band a job waits in; higher goes first.
type Priority uint8

// The bands.
const (
	VeryLow  Priority = 10
	Low      Priority = 20
	Normal   Priority = 30
	High     Priority = 40
	VeryHigh Priority = 50
)

// ParkReason says why a job is parked.
type ParkReason uint8

// The reasons. The numbers are stored and never reused.
const (
	ParkNone          ParkReason = 0
	ParkCrashes       ParkReason = 1
	ParkInterrupts    ParkReason = 2
	ParkSnoozes       ParkReason = 3
	ParkUndeliverable ParkReason = 4
	ParkMalformed     ParkReason = 5
	ParkWorker        ParkReason = 6 // a failure that asked for it
	ParkOperator      ParkReason = 7
	ParkPolicy        ParkReason = 8 // a failure under a retry policy with OnFailurePark
)

// Curve is how the delays before retries grow.
type Curve uint8

// The curves. The numbers are stored and never reused.
const (
	CurveNone   Curve = 0
	Exponential Curve = 1 // initial × multiplier^(n−1), at most max
	Linear      Curve = 2 // initial + (n−1) × increment, at most max
	Constant    Curve = 3 // initial
)

// LostContact says what a worker does with a run when the server does not answer for nearly its lease.
type LostContact uint8

// The alternatives. The numbers are stored and never reused.
const (
	LostContactNone     LostContact = 0 // as Stop
	LostContactStop     LostContact = 1
	LostContactContinue LostContact = 2
)

// OnFailure says what a failure of class APPLICATION or TIMEOUT means.
type OnFailure uint8

// The meanings. The numbers are stored and never reused.
const (
	OnFailureNone  OnFailure = 0
	OnFailureRetry OnFailure = 1 // another try while attempts are left
	OnFailurePark  OnFailure = 2 // PARKED at once
	OnFailureFail  OnFailure = 3 // FAILED at once
)
