package job

import "time"

// ID is a job's or a worker instance's id: the 16 bytes of a UUID.
type ID [16]byte

// Spec is a job as its producer asked for it. It is shared by all versions of the job and never written to: an update, or a
// submit that replaces the job, gives the next version another one.
type Spec struct {
	ID          ID
	Queue       string
	Priority    Priority // a band, never 0
	Payload     []byte   // nil while the bytes are kept apart; see PayloadSize
	PayloadSize int      // the payload's length, also when Payload is nil
	ContentType string
	RunAt       time.Time     // zero: at once
	StartBy     time.Time     // zero: no bound
	Timeout     time.Duration // 0: none
	Lease       time.Duration // 0: by the queue
	Retry       *RetryPolicy  // nil, or zero fields: by the queue
	Limits      []LimitUse    // what its runs take, in the order of CompareUses
	FairnessKey string        // whose turn it takes; empty is a key too
	Unique      *Unique       // nil: it has no unique key
	Labels      map[string]string
	Subject     string
	Traceparent string
	Tracestate  string
	Digest      [16]byte // of the fields as submitted, without the trace context: what a repeated id is compared by
}

// Counters are what a job has used of its budgets in this epoch.
type Counters struct {
	Attempts, Crashes, Interrupts, Snoozes, Deliveries uint32
}

// Counter names one of the five.
type Counter uint8

// The counters. The numbers are stored and never reused.
const (
	CountNone       Counter = 0
	CountAttempts   Counter = 1 // failures of the work itself
	CountCrashes    Counter = 2 // workers that went silent
	CountInterrupts Counter = 3 // runs that were stopped
	CountSnoozes    Counter = 4 // runs given back, and failures of what the work needs
	CountDeliveries Counter = 5 // runs that never reached a worker
)

// Job is one version of a job. Versions are immutable once handed to a store: the functions of this package take one
// and return the next. All times are wall times in UTC without a monotonic reading; zero means "not set". Small fields
// stand together, for every change makes another version.
type Job struct {
	Spec       *Spec
	Seq        uint64 // place in the order of submission over the whole store, from 1; given by the store
	Version    uint64 // rises by one with each change
	State      State
	ParkReason ParkReason
	KeyFree    bool   // it held its unique key until its start, and was accepted
	RunCount   uint32 // runs so far, the live one included
	Epoch      uint32 // from 1
	Counters   Counters

	SubmitTime time.Time
	ReadyTime  time.Time // since when it is READY, or was when it was dispatched; what aging counts from
	DueTime    time.Time // while SCHEDULED or BACKOFF
	StartBy    time.Time // zero once a run was accepted or it was reopened, until a submit replaces it
	EndTime    time.Time // when it became terminal
	EpochTime  time.Time // when it was reopened or replaced last; zero: it began with its submit

	// ReadySeq is the place in the lane while READY. A job that becomes READY has 0 here and gets the next number from
	// the store; one that was never delivered keeps its number and so goes back to the head of its lane.
	ReadySeq uint64

	Run     Run   // the live run while RUNNING, else zero
	History []Run // ended runs, oldest first: the first and the last HistoryEdge

	Interrupt  *Interrupt // nil: none
	ParkBuild  string     // the build whose run parked it
	ReleasedBy []string   // the builds that released it from being parked, oldest first: the last ReleasesKept
	Avoid      ID         // after NOT_ME: not to this instance…
	AvoidUntil time.Time  // …before this time
	Failure    *Failure   // the last failure of this epoch
	Result     *Result    // of the accepted success
	Actions    []Action   // of people, oldest first: the last ActionsMax
}

// Interrupted is the job's interrupt as it stands; zero if there is none.
func (j *Job) Interrupted() Interrupt {
	if j.Interrupt == nil {
		return Interrupt{}
	}
	return *j.Interrupt
}

// Run is one attempt by one worker. Its small fields stand together, for every version of a running job holds one.
type Run struct {
	Number       uint32 // from 1, within the job; never starts again
	Epoch        uint32 // it was dispatched in
	Fence        uint64 // store-wide, never reused
	State        RunState
	Unary        bool        // claimed by a call, lives by its lease alone until a hello lists it
	LostContact  LostContact // what its worker does when the server does not answer
	Charged      Counter     // what its end cost the job; a late finish takes it back
	Worker       string      // the worker's name
	Instance     ID          // the worker process
	Build        string      // the worker's build
	Lease        time.Duration
	DispatchTime time.Time
	AcceptTime   time.Time // zero until accepted
	EndTime      time.Time
	Failure      *Failure
	Note         string     // why it ended, when no failure says it
	Interrupt    *Interrupt // under which it ended; nil: none
	Throttle     *Throttle  // that its worker asked for at its end; nil: none
	Kept         *Kept      // nil: it has what the job's spec says, or has ended
}

// Interrupt is a job's interrupt as it stands, immutable as the job. A job that an operator parked keeps the request here
// with Park set, at level none.
type Interrupt struct {
	Level       Level
	Generation  uint32 // counts the requests that changed something, from 1
	Source      Source
	Reason      string
	Requester   string
	RequestTime time.Time // when the level was reached
	GraceTime   time.Time // until when the worker may end by itself; the earliest that was asked for
	HardTime    time.Time // when the run is ABANDONED; zero: never
	DeliverTime time.Time // when this generation was first sent to the worker
	AckTime     time.Time // when the worker said that it acts on this generation
	End         InterruptEnd
	EndTime     time.Time
	Park        bool // however the run ends short of a terminal outcome, the job is PARKED(OPERATOR)
}

// Result is what an accepted run brought. Data is nil while the bytes are kept apart.
type Result struct {
	Data        []byte
	Size        int
	ContentType string
}

// Class says what kind of failure it was.
type Class uint8

// The classes. The numbers are stored and never reused.
const (
	Application    Class = 1
	Infrastructure Class = 2
	TimedOut       Class = 3
	Malformed      Class = 4
)

// Failure is a failure as a worker reported it.
type Failure struct {
	Class      Class
	Type       string
	Message    string
	Stack      []Frame
	Causes     []Cause
	Final      bool
	Park       bool
	RetryDelay *time.Duration // nil: by the policy
	Process    *ProcessExit
}

// Frame is one line of a stack.
type Frame struct {
	Function, File string
	Line           uint32
}

// Cause is one link of a chain of causes.
type Cause struct{ Type, Message string }

// ProcessExit says how a process ended.
type ProcessExit struct {
	Code       int32
	Signal     string
	StderrTail string
}

// Outcome is what a worker reports at a run's end: exactly one of Success, Failure, Stopped, Released.
type Outcome struct {
	Success  *Success
	Failure  *Failure
	Stopped  *Stopped
	Released *Released
}

// Success is the end that was wanted.
type Success struct{ Result *Result }

// Stopped is a run that was interrupted, by the server or by its worker itself.
type Stopped struct {
	Reason string
	Delay  *time.Duration // nil: by the policy
}

// Released is a run that its worker gives back.
type Released struct {
	Reason   string
	Delay    *time.Duration // nil: ReleaseDelay, or the throttle's cooldown
	Throttle *Throttle      // what it gives the job back for is overloaded
	NotMe    bool           // ready at once, but not for this instance for NotMePeriod
}

// Policy is what holds for a job's runs.
type Policy struct {
	Lease       time.Duration
	Retry       RetryPolicy
	LostContact LostContact
	MaxRunning  uint32   // runs of the queue at once; 0: any number
	OnZombie    OnZombie // whether a zombie takes the place of one of them
	Weights     *Weights // of its fairness keys
	Rate        Rate     // of its runs
	Breaker     Breaker
}

// RetryPolicy says whether, how often and how fast a failed job is tried again. A zero field means: see the next policy;
// a duration of -1 ns stands for an explicit zero.
type RetryPolicy struct {
	MaxAttempts uint32
	OnFailure   OnFailure
	Curve       Curve         // none where one of its numbers is set: Exponential
	Initial     time.Duration // the first delay; of Constant, all of them
	Max         time.Duration
	Multiplier  float64       // of Exponential
	Increment   time.Duration // of Linear

	// Deadline is the age, from the submit or the last reopening, from which on no failure or crash is followed by
	// another try. An explicit zero is none.
	Deadline time.Duration
	// InterruptDelay is how long an interrupted job stays away.
	InterruptDelay time.Duration
}
