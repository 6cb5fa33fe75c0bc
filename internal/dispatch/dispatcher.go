package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// What sessions and calls are refused or ended with.
var (
	// ErrInstanceInUse refuses a hello: another session of the instance is alive and the resume token is not its own.
	ErrInstanceInUse = errors.New("dispatch: another session of this instance is alive")
	// ErrReplaced ends a session: a newer one of the same instance took over.
	ErrReplaced = errors.New("dispatch: a newer session of this instance took over")
	// ErrDelivery ends a session that did not acknowledge an assignment in time.
	ErrDelivery = errors.New("dispatch: an assignment was not acknowledged in time")
	// ErrSilent ends a session from which nothing came for longer than SessionLease.
	ErrSilent = errors.New("dispatch: nothing came on the session for too long")
	// ErrDraining refuses a claim of an instance that is draining.
	ErrDraining = errors.New("dispatch: the worker is draining")
	// ErrOtherRequest refuses a claim whose request was another one's.
	ErrOtherRequest = errors.New("dispatch: the request was a claim of other jobs")
	// ErrJobUnknown is for a chosen job that is not there.
	ErrJobUnknown = errors.New("dispatch: no job has this id")
	// ErrBlocked is for a chosen job that is READY and may not start.
	ErrBlocked = errors.New("dispatch: the job may not start now")
	// ErrAnswerFull is for a chosen job that does not fit into the answer.
	ErrAnswerFull = errors.New("dispatch: the answer is full")
	// ErrRunOver is for a chosen job that an earlier call of the request has claimed, and whose run is over.
	ErrRunOver = errors.New("dispatch: the run that this request has claimed is over")
	// ErrWorkerUnknown is for an instance id that no worker has.
	ErrWorkerUnknown = errors.New("dispatch: no worker has this instance id")
	// ErrClosed ends sessions and claims when the dispatcher closes.
	ErrClosed = errors.New("dispatch: closed")
	// ErrDemandVersion refuses a demand that is not newer than the one in force.
	ErrDemandVersion = errors.New("dispatch: the version must be larger than that of the demand before")
	// ErrNotHeld refuses a throttle of a key that the run does not hold.
	ErrNotHeld = errors.New("dispatch: the run holds no such key")
	// ErrSeen refuses a seen that names an assignment which was never sent.
	ErrSeen = errors.New("dispatch: no assignment of this number was sent")
)

// The times that sessions live by.
const (
	// DeliveryTimeout is how long a worker has to acknowledge an assignment.
	DeliveryTimeout = 10 * time.Second
	// GoneTimeout is the same once the stream is gone, so that a reconnecting worker can still list it.
	GoneTimeout = 5 * time.Second
	// Cadence is how often a worker that holds runs reports; never over a third of the shortest lease it holds.
	Cadence = 3 * time.Second
	// IdleCadence is how often a worker that holds none does.
	IdleCadence = 15 * time.Second
	// CadenceMin is the shortest cadence a worker may ask for.
	CadenceMin = time.Second
	// SessionLease is how long a session may be silent.
	SessionLease = 2 * IdleCadence

	sweepEvery = time.Second // the net under everything that is woken at once
	hungEvery  = 10          // sweeps, until one looks at keys, too: there may be many that lanes hang on
	stallAfter = Cadence     // a timer that is later than this says that the whole process stood still
	duePage    = 256         // jobs that one transaction wakes
)

// Dispatcher hands ready jobs to workers and ends the runs of those that are gone. Make one with New, before the store
// takes its first update. Its methods may be called from many goroutines at once.
type Dispatcher struct {
	store  store.Store
	log    *slog.Logger
	tokens tokens
	origin time.Time // the zero of its clock

	ctx    context.Context
	cancel context.CancelFunc
	loops  sync.WaitGroup
	look   chan struct{} // an earlier deadline than the clock goroutine waits for
	poked  bool          // an empty transaction is under way, so that Match runs
	pokes  chan struct{}

	tellings chan struct{} // interrupts were sent that are to be recorded

	mu        sync.Mutex
	closed    bool
	runs      map[uint64]*run // by fence
	zombies   map[uint64]*zombie
	queues    map[string]*queue
	active    []*queue
	looked    []cursor              // for the next match
	given     map[*store.Key]uint64 // units that the match under way is about to give
	freed     []*store.Key          // that lanes hang on, and maybe with room
	loosened  map[string]struct{}   // limits whose policy has changed
	rewritten map[string]struct{}   // queues whose policy has
	reserved  map[*store.Key]*reservation
	gates     gates
	reviewing bool // the next match looks at all of them

	revisiting bool // the next match looks at all keys that lanes hang on
	sweepsDone uint64
	waiting    int // pools that stand in lines
	workers    map[job.ID]*worker
	sessions   map[*Session]struct{}
	polls      map[*claim]struct{} // claims that wait
	claims     map[claimKey]*claim // claims that can be asked for again
	followers  map[uint64]map[*follower]struct{}
	deadlines  deadlines
	proposed   []*run        // by the last match
	notes      []event.Event // of workers, to be told
	told       []delivery    // sent, and to be recorded as delivered
	unsealed   group
	sealed     []group
	nextDue    time.Time // when a waiting job comes due; zero: never
	turns      uint64
	stats      Stats
	releaser   releaser
}

// group is what one batch lets out when it is on disk.
type group struct {
	batch    uint64
	runs     []*run
	news     []news
	followed []uint64
}

// New makes the dispatcher of a store, with everything that was running when the store was closed. Each of those runs
// has a full lease from now.
func New(st store.Store, log *slog.Logger) (*Dispatcher, error) {
	t, err := newTokens(st.Secret())
	if err != nil {
		return nil, err
	}
	d := &Dispatcher{
		store: st, log: log, tokens: t, origin: time.Now(),
		look: make(chan struct{}, 1), pokes: make(chan struct{}, 1), tellings: make(chan struct{}, 1),
		runs: map[uint64]*run{}, zombies: map[uint64]*zombie{}, queues: map[string]*queue{}, loosened: map[string]struct{}{}, rewritten: map[string]struct{}{}, given: map[*store.Key]uint64{}, reserved: map[*store.Key]*reservation{},
		gates: gates{all: map[store.GateName]*gate{}, emptied: map[store.GateName]int64{}, rates: map[store.GateName]rates{}}, workers: map[job.ID]*worker{},
		sessions: map[*Session]struct{}{}, polls: map[*claim]struct{}{}, claims: map[claimKey]*claim{},
		followers: map[uint64]map[*follower]struct{}{},
		releaser:  newReleaser(),
	}
	d.ctx, d.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // it begins here and ends with Close
	st.Attach(d)
	if err := st.View(d.ctx, d.restore); err != nil {
		d.cancel()
		return nil, err
	}
	d.loops.Go(d.keepTime)
	d.loops.Go(d.pokeLoop)
	d.loops.Go(d.releaseParked)
	return d, nil
}

// restore reads what was going on.
func (d *Dispatcher) restore(r store.Reader) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	d.restoreGates(r)
	r.Running(func(j *job.Job) bool {
		w := d.worker(j.Run.Instance, now)
		w.info.Worker, w.info.Build = j.Run.Worker, j.Run.Build
		made := d.add(newRun(j), w)
		d.resume(made)
		d.restoreProbe(j)
		d.deadlines.set(&made.deadline, now+made.lease())
		d.rearm(made, now)
		return true
	})
	r.Zombies(func(z *store.Zombie) bool {
		d.haunt(z, now)
		return true
	})
	r.Lanes(func(l store.Lane) { d.entered(l, l.First()) })
	for name, q := range d.queues {
		if known := r.Queue(name); known != nil {
			q.policy = known.Policy
		}
	}
	d.nextDue = r.Now() // look once; the store then says when next
	return nil
}

// Close ends what sessions and claims are left with ErrClosed, and waits for the dispatcher's goroutines. The store is
// closed after it.
func (d *Dispatcher) Close() {
	d.mu.Lock()
	d.closed = true
	for s := range d.sessions {
		d.end(s, ErrClosed)
	}
	for c := range d.polls {
		d.settle(c, ErrClosed)
	}
	d.mu.Unlock()
	d.cancel()
	d.loops.Wait()
}

// now is the dispatcher's clock: nanoseconds since it was made, plus one so that zero can mean never. It is monotonic.
func (d *Dispatcher) now() int64 { return int64(time.Since(d.origin)) + 1 }

// wall is the wall clock, for what people read and for when waiting jobs come due.
func (d *Dispatcher) wall() time.Time { return time.Now().UTC().Round(0) }

// until is how long it is to a caller's deadline.
func until(deadline time.Time) time.Duration { return time.Until(deadline) }

// Applied is part of [store.Observer]: memory follows the store.
func (d *Dispatcher) Applied(changes []store.Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, c := range changes {
		was, is := c.Old, c.New
		if was != nil && was.State == job.Running && (is == nil || is.Run.Fence != was.Run.Fence) {
			d.concluded(was, is, c.Freed)
			d.ended(was.Run.Fence, is, c.Freed)
			d.vacated(was.Spec.Queue)
			d.gaveBack(c.Freed)
		}
		if c.Left != nil {
			d.left(c.Left)
		}
		if len(d.followers) > 0 {
			d.followed(c)
		}
		switch {
		case is == nil:
		case is.State == job.Running:
			d.ran(is, now)
		case is.State == job.Ready:
			d.entered(c.Entered, is.ReadySeq)
			d.dueAt(is.StartBy)
		case is.State == job.Parked:
			d.releaser.parked(is)
		case is.State.Waiting():
			d.dueAt(is.DueTime)
			d.dueAt(is.StartBy)
		}
	}
}

// dueAt notes that a waiting job comes due.
func (d *Dispatcher) dueAt(t time.Time) {
	if !t.IsZero() && (d.nextDue.IsZero() || t.Before(d.nextDue)) {
		d.nextDue = t
		d.hurry()
	}
}

// Sealed is part of [store.Observer].
func (d *Dispatcher) Sealed(batch uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.unsealed.runs)+len(d.unsealed.news)+len(d.unsealed.followed) == 0 {
		return
	}
	d.unsealed.batch = batch
	d.sealed = append(d.sealed, d.unsealed)
	d.unsealed = group{}
}

// Synced is part of [store.Observer]: what waited for the batch may be shown.
func (d *Dispatcher) Synced(batch uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, g := range d.sealed {
		if g.batch > batch {
			break
		}
		n++
		for _, r := range g.runs {
			d.release(r)
		}
		for _, n := range g.news {
			d.spread(n)
		}
		for _, seq := range g.followed {
			d.signal(seq)
		}
	}
	rest := copy(d.sealed, d.sealed[n:])
	clear(d.sealed[rest:])
	d.sealed = d.sealed[:rest]
}

// release lets a run go to its worker.
func (d *Dispatcher) release(r *run) {
	r.synced = true
	if r.session != nil {
		r.session.wake()
	}
	if r.claim != nil {
		d.answer(r)
	}
}

// poke asks for a transaction, so that Match runs soon. What is under way already will do.
func (d *Dispatcher) poke() {
	if wakeUps {
		d.push()
	}
}

// push is poke, by the sweep.
func (d *Dispatcher) push() {
	if d.poked || d.closed {
		return
	}
	d.poked = true
	select {
	case d.pokes <- struct{}{}:
	default:
	}
}

// Wake makes the dispatcher look at a queue again whose pause has ended or whose policy has changed.
func (d *Dispatcher) Wake(queue string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !wakeUps {
		return
	}
	d.rewritten[queue] = struct{}{}
	if q := d.queues[queue]; q != nil {
		d.activate(q)
	}
	d.poke()
}

// WakeLimit makes the dispatcher look again at the lanes that wait for a limit whose policy has changed.
func (d *Dispatcher) WakeLimit(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !wakeUps {
		return
	}
	d.loosened[name] = struct{}{}
	d.poke()
}

// nudge has the next match run soon, if there is something for it to do.
func (d *Dispatcher) nudge() {
	if len(d.active)+len(d.freed) > 0 {
		d.poke()
	}
}

func (d *Dispatcher) pokeLoop() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.pokes:
			d.store.Post(d.ctx, nothing, func(error) {})
		case <-d.tellings:
			d.store.Post(d.ctx, d.recordDeliveries(), func(err error) {
				if err != nil {
					d.logFailure("record which interrupts were sent", err)
				}
			})
		}
	}
}

// nothing is the transaction of those who only want Match to run.
func nothing(store.Tx) error { return nil }

// logFailure tells of a transaction of the dispatcher's own that failed; it is tried again with the next sweep.
func (d *Dispatcher) logFailure(what string, err error) {
	if d.ctx.Err() == nil && !errors.Is(err, store.ErrClosed) {
		d.log.Error("a transaction of the dispatcher's own failed", "what", what, "error", err)
	}
}

// Stats is what the dispatcher counts.
type Stats struct {
	Sessions int // open
	Runs     int // known: live, and ended ones whose slot is still taken
	Waiting  int // pools with room: parts of sessions' demands and unary claims
	Workers  int // known

	ThrottledNow, TrippedNow int // gates that are closed

	Matched     uint64 // jobs taken from their lanes: handed out, or expired instead
	Lost        uint64 // runs whose lease was lost, or that were no longer listed
	Undelivered uint64 // runs that were never named by their workers
	Throttled   uint64 // times a worker's word closed a gate, or kept it closed for longer
	Tripped     uint64 // times failures closed one
	Stalls      uint64 // times the whole process was found to have stood still
}

// Stats returns the counts of the moment.
func (d *Dispatcher) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Sessions, s.Runs, s.Waiting, s.Workers = len(d.sessions), len(d.runs), d.waiting, len(d.workers)
	for _, g := range d.gates.all {
		if !g.ThrottledUntil.IsZero() {
			s.ThrottledNow++
		}
		if !g.TripTime.IsZero() {
			s.TrippedNow++
		}
	}
	return s
}
