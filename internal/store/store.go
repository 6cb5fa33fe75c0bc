// Package store names what must survive a crash.
//
// A store holds jobs and queues. It loads and puts whole versions of jobs; what may follow what is decided by package
// job alone. Everything a caller is told rests on synced writes: Update and View return, and Post calls back, only when
// every batch they could see is on disk.
package store

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
)

// Errors of a store. They are about the call, never about one item; bad items are values.
var (
	// ErrClosed answers calls to a store that is closed or whose disk failed. Nothing of the call was done.
	ErrClosed = errors.New("store: closed")
	// ErrFull answers Tx.Put of a new job when free space is under the reserve.
	ErrFull = errors.New("store: free space is under the reserve")
	// ErrTooManyQueues answers Tx.Queue when it would make one queue more than QueuesMax.
	ErrTooManyQueues = errors.New("store: too many queues")
	// ErrTooManyLimits answers Tx.PutLimit when it would make one limit more than LimitsMax.
	ErrTooManyLimits = errors.New("store: too many limits")
	// ErrResync answers Reader.Events when it does not have all events from the cursor on: they are too old, or the cursor
	// is of another store.
	ErrResync = errors.New("store: events at the cursor are not kept")
)

// How many queues and limits a store holds.
const (
	QueuesMax = 10_000
	LimitsMax = 10_000
)

// Store is what must survive a crash.
type Store interface {
	// Attach names the store's observer. It is called once, before the first Update.
	Attach(Observer)
	// Update runs fn as a transaction and returns when it is synced. fn may run more than once; it touches nothing
	// outside its Tx and what it returns through its own variables. If fn returns an error, nothing is written and
	// Update returns that error. If ctx ends first, Update returns its error at once: fn does not run any more, and what it
	// wrote, if it ran, may last.
	Update(ctx context.Context, fn func(Tx) error) error
	// Post is Update that does not wait: done is called exactly once, on a goroutine of the store, and must not block.
	// The transactions of one goroutine run, and are answered, in the order of its calls. Post blocks while the store's
	// queue is full; if ctx ends then, done gets its error.
	Post(ctx context.Context, fn func(Tx) error, done func(error))
	// View runs fn over a state that is at least as new as everything answered before the call. If ctx has ended, it
	// answers ctx's error and does not.
	View(ctx context.Context, fn func(Reader) error) error
	// AwaitEvents returns when there may be events at or after the cursor that were not there before, or with ctx's error.
	AwaitEvents(ctx context.Context, from Cursor) error
	// Events calls fn for the events on disk from the cursor on, in their order, with the cursor behind each, until fn returns
	// false for one it does not take. It takes no more than budget and returns where to go on from. With ErrResync it returns
	// the oldest cursor. The event is valid during the call. It waits for nothing: what is not on disk yet is not there.
	Events(from Cursor, budget int, fn func(Cursor, *event.Event) bool) (next Cursor, err error)
	// Secret is 32 random bytes made with the store, for sealing tokens.
	Secret() [32]byte
	// Full reports whether free space is under the reserve, so that new jobs are refused.
	Full() bool
	// Failed is closed when the disk failed: no call is answered any more and the process must end.
	Failed() <-chan struct{}
	// Close syncs, releases the directory and ends the store's goroutines. Calls after it answer ErrClosed.
	Close() error
}

// Observer follows a store. All calls come from the goroutine that commits, in the order of the commits, except Synced.
type Observer interface {
	// Applied tells of the changes of one transaction. The next reads see them; they are not synced yet. The slice is
	// valid during the call only, the jobs for ever.
	Applied([]Change)
	// Match may add changes to a batch before it is sealed: this is where ready jobs meet room, so that a submit and
	// its claim share one sync. It obeys the rules of an Update's function; Applied follows it.
	Match(Tx) error
	// Sealed tells that everything applied since the last call went into the batch of this number.
	Sealed(batch uint64)
	// Synced tells that the batch, and all before it, are on disk and may be shown. It is called on another goroutine
	// than the rest, before the calls that rest on the batch are answered.
	Synced(batch uint64)
}

// Change is a job's step from one version to the next. Old is nil for a new job, New for a deleted one. Both are
// read-only.
type Change struct {
	Old, New *job.Job

	// The store sets these for its observer.
	Left, Entered Lane     // that Old waited in, that New waits in, if they are READY
	Freed         []KeyUse // what the run that Old had gave back
}

// Reader reads jobs and queues. What it returns is shared and read-only.
type Reader interface {
	// Now is the store's wall clock, read once per transaction.
	Now() time.Time
	// Find looks jobs up by id, in order. A Found is zero where nothing is known of the id.
	Find(ids []job.ID) ([]Found, error)
	// Load looks jobs up by sequence, in order; nil where there is none.
	Load(seqs []uint64) ([]*job.Job, error)
	// Payload and Result return the bytes of a job, wherever they are kept.
	Payload(*job.Job) ([]byte, error)
	Result(*job.Job) ([]byte, error)
	// Running calls fn for each job that has a live run, until it returns false.
	Running(fn func(*job.Job) bool)
	// Scan calls fn for jobs in the order of their sequence, from the given one on (or downwards from it, if reverse),
	// until fn returns false. It looks at no more than budget jobs and returns the sequence to go on from, 0 at the end.
	// It is for views: in a transaction it may miss what the transaction itself, and others of the same batch, have done.
	Scan(from uint64, reverse bool, budget int, fn func(*job.Job) bool) (next uint64, err error)
	// Horizon is the time before which ids may be forgotten.
	Horizon() time.Time
	// Queue returns the named queue; nil if there is none.
	Queue(name string) *Queue
	// Queues calls fn for the queues in the order of their names, from the given name on, until it returns false.
	Queues(from string, fn func(*Queue) bool)
	// Oldest is the READY job of the queue that became ready first; nil if there is none.
	Oldest(queue string) *job.Job
	// Zombies calls fn for each zombie, in the order of their fences, until it returns false.
	Zombies(fn func(*Zombie) bool)
	// Limit returns the named limit; nil if there is none.
	Limit(name string) *Limit
	// Limits calls fn for the limits in the order of their names, from the given name on, until it returns false.
	Limits(from string, fn func(*Limit) bool)
	// Keys returns the first n keys of a limit that are taken or waited for, in the order of their names, from the given
	// name on.
	Keys(limit, from string, n int) []KeyUsage
	// Key returns one key of a limit; of one that is neither taken nor waited for all but the name is zero.
	Key(limit, name string) KeyUsage
	// Gates calls fn for each gate, in no order.
	Gates(fn func(Gate))
	// Holder tells who holds a unique key of a queue: it follows from the jobs' KeyTerm and the time. It is zero if nobody
	// does. Finished jobs of a deleted queue hold theirs as long as the queue comes back with them.
	Holder(queue, key string) (Holder, error)
	// Position is where the events that are kept begin, and where those begin that this reader may not see the effects of.
	Position() (oldest, next Cursor)
	// Lanes calls fn for each lane that has READY jobs, in no order.
	Lanes(fn func(Lane))
}

// Cursor is a place among the events: before the one of the index (from 0) among those of a batch.
type Cursor struct {
	Batch uint64
	Index uint32
}

// Before reports whether c is an earlier place than o.
func (c Cursor) Before(o Cursor) bool {
	return c.Batch < o.Batch || c.Batch == o.Batch && c.Index < o.Index
}

// Found is what is known of an id: a job, or, past its retention, its final state only.
type Found struct {
	Job   *job.Job
	State job.State // StateNone: the id is unknown
}

// Holder is a job that holds a unique key. One that has ended may be past its retention: then Job is nil.
type Holder struct {
	Job   *job.Job
	ID    job.ID
	State job.State // StateNone: nobody holds the key
}

// Tx reads and writes. Its writes are seen by its own reads and handed over only when its function returns nil.
type Tx interface {
	Reader
	// Put writes jobs. Old is the version that this transaction read, or nil for a new job: then the store sets New.Seq
	// (the id must be unknown to it). New is the next version, or nil to delete the job and its id. A version with another
	// Spec has its payload in it, or as large a one as before. A READY job with ReadySeq 0 gets the next place in its lane; one
	// that comes to another lane must have that. A job that takes a unique key must be its only holder. The queue of a new
	// job, and of one that goes on after its end, must exist. The store owns the jobs from then on.
	Put(...Change) error
	// NextFence returns a number that no run of this store had before.
	NextFence() uint64
	// Heads returns up to n READY jobs of a lane, in their order.
	Heads(Lane, int) ([]*job.Job, error)
	// LaneOf is the lane that a READY job waits in, as this transaction found it; nil if there is none.
	LaneOf(*job.Job) Lane
	// EachKey calls fn for each key of a limit that is taken or waited for, in no order.
	EachKey(limit string, fn func(*Key))
	// Due returns up to n waiting jobs whose DueTime or StartBy has come, and when the next one comes (zero: none).
	Due(n int) ([]*job.Job, time.Time, error)
	// MakeQueue returns the named queue, making it if there is none.
	MakeQueue(name string) (*Queue, error)
	// PutQueue writes a queue's next version; the name must exist.
	PutQueue(*Queue) error
	// DeleteQueue removes a queue without jobs that are not terminal.
	DeleteQueue(name string) error
	// PutLimit writes a limit's next version, making it if there is none.
	PutLimit(*Limit) error
	// DeleteLimit removes a limit: jobs that name it are bound by it no more. It comes back with PutLimit.
	DeleteLimit(name string) error
	// PutGate keeps a gate's next version; one that is open is forgotten, and so is one of a queue or limit that is unknown.
	PutGate(Gate)
	// PutZombie keeps a run that was left behind until EndZombie. Its queue must exist.
	PutZombie(*Zombie) error
	// Note adds an event of something that the store does not hold. Its time is the transaction's.
	Note(event.Event)
	// EndZombie forgets the zombie of the fence; it reports whether there was one.
	EndZombie(fence uint64) bool
}

// Lane is a line of READY jobs that fit or wait together, first come first served: those of one queue, band and fairness
// key that take the same of the same keys. The observer alone calls its methods, in its own calls.
type Lane interface {
	Queue() string
	Priority() job.Priority
	// FairnessKey says whose turns its jobs take.
	FairnessKey() string
	// Keys are what each of its jobs takes while it runs, none twice.
	Keys() []KeyUse
	// Len is how many READY jobs it has. A lane that has none may be gone after the batch: another one comes in its place.
	Len() int
	// First is not above the place (ReadySeq) of its first job.
	First() uint64
	// Mark is what the observer's SetMark left; nil at first.
	Mark() any
	SetMark(any)
}

// KeyUse is a LimitUse, by the key itself.
type KeyUse struct {
	Key   *Key
	Units uint32
}

// Key is a key of a limit while it is taken or waited for. The store changes it with each commit, and the observer alone
// reads it, in its own calls.
type Key struct {
	Limit         *KeyLimit
	Name          string
	Live, Zombies uint64 // units that live runs and zombies have
	Waiting       uint32 // READY jobs that name it
	Refs          uint32 // the store's own: the lanes, live runs and zombies that name the key
	Mark          any    // the observer's own
}

// KeyLimit is a limit as its keys see it.
type KeyLimit struct {
	Name   string
	Policy *job.LimitPolicy // in force; nil: the limit was deleted
}

// Room is how many more units may be given, if so many are about to be.
func (k *Key) Room(given uint64) uint64 {
	if k.Limit.Policy == nil {
		return math.MaxUint64
	}
	return k.Limit.Policy.Room(k.Name, k.Live+given, k.Zombies)
}

// KeyUsage is what a key is at the moment.
type KeyUsage struct {
	Name          string
	Live, Zombies uint64 // units
	Waiting       uint64 // READY jobs
}

// Limit bounds what runs take of its keys at once, over all queues. Versions are immutable; Jobs is that of the moment.
type Limit struct {
	Name       string
	Version    uint64
	Policy     job.LimitPolicy
	CreateTime time.Time
	Jobs       uint64 // that name it and are not terminal
}

// Queue is a queue's settings and counts. Versions are immutable, as those of jobs; Counts and Zombies are those of the
// moment.
type Queue struct {
	Name       string
	Version    uint64 // of the settings
	Policy     job.Policy
	Pause      *Pause // nil: not paused
	CreateTime time.Time
	Counts     [job.NumberOfStates]uint64
	Zombies    uint64 // of the moment, as Counts
}

// Gate keeps jobs from starting, whatever room there is: those of a queue, or those that take a key of a limit.
type Gate struct {
	Of GateName
	// What a worker asked for, its reason and its job.
	ThrottledUntil time.Time
	ThrottleReason string
	ThrottledBy    job.ID
	// Of a breaker: since when failures keep it closed, from when on one run tries, and the last failure before.
	TripTime, TryTime time.Time
	Failures          uint32 // in a row
	Failure           string
}

// GateName is what a gate is of.
type GateName struct {
	Limit string // empty: the gate is of a queue
	Name  string // of the queue, or the limit's key
}

// Open reports whether nothing keeps the gate closed.
func (g *Gate) Open() bool { return g.ThrottledUntil.IsZero() && g.TripTime.IsZero() }

// Zombie is a run that was left behind at its hard deadline and may still be at work. It outlives its job.
type Zombie struct {
	Fence    uint64
	Seq      uint64 // of its job
	Queue    string
	Instance job.ID // of the worker
	Worker   string
	Unary    bool // it belongs to no session: it is known by its token alone
	Lease    time.Duration
	Time     time.Time      // when it was left behind
	Limits   []job.LimitUse // what it takes
	Keys     []KeyUse       // the same, set by the store
}

// Pause says who paused a queue.
type Pause struct {
	Reason, Requester string
	Time              time.Time
}
