package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

const (
	// maxQueues and maxRuns are the server's limits for one session.
	maxQueues = 64
	maxRuns   = 4096
	// forever is a grace that does not end.
	forever = time.Duration(math.MaxInt64)
)

// ErrEnded refuses to run a worker a second time: its Run has returned. Make a new one.
var ErrEnded = errors.New("stint: the worker was run before; make a new one")

// WorkerConfig describes a worker. The zero value is usable.
type WorkerConfig struct {
	// Name is the worker's name, for people; many processes may share it. Empty: the program's name.
	Name string
	// InstanceID names this worker in the whole cluster: a UUID made at random. Empty: one is made. Never derive it from
	// a host or pod name.
	InstanceID string
	// BuildID is which build of the worker's code it is. A new one releases the jobs that the one before has parked.
	BuildID string
	// Labels are for finding it.
	Labels map[string]string
	// Logger gets what is worth knowing; nil: nothing is logged.
	Logger *slog.Logger
	// ShutdownGrace is how long handlers may go on after a stop before they are interrupted; 0 means 15 s, negative
	// means not at all.
	ShutdownGrace time.Duration
	// CancelGrace is how long interrupted handlers have to return, and the server to acknowledge, before Run gives up;
	// 0 means 15 s.
	CancelGrace time.Duration
	// MaxRuns stops the worker after so many runs were assigned, never more; 0: no bound. It needs a worker with one
	// pool.
	MaxRuns int
	// OnEvent is a first listener to everything that happens; see Listen. May be nil.
	OnEvent func(Event)
}

// withDefaults fills in what was left out.
func (c WorkerConfig) withDefaults() WorkerConfig {
	if c.Name == "" {
		c.Name = filepath.Base(os.Args[0])
	}
	if c.InstanceID == "" {
		c.InstanceID = uuid.NewString()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ShutdownGrace == 0 {
		c.ShutdownGrace = 15 * time.Second
	}
	c.ShutdownGrace = max(c.ShutdownGrace, 0)
	if c.CancelGrace <= 0 {
		c.CancelGrace = 15 * time.Second
	}
	return c
}

// Worker executes runs: it holds one session with the server, reconnects when it breaks, and keeps its runs across
// that. Its methods are safe for concurrent use, but Handle and HandlePool come before Run.
type Worker struct {
	client *Client
	cfg    WorkerConfig
	pools  []*pool
	base   context.Context // parent of all handlers' contexts; set by Run

	// changed has one slot: the supervisor shall look again.
	changed chan struct{}
	// stopped is closed when Run has returned, or will do nothing any more.
	stopped chan struct{}
	// heard are the kinds of events that somebody listens to, a bit for each.
	heard atomic.Uint64
	// handlers counts what executes runs.
	handlers sync.WaitGroup

	mu       sync.Mutex
	phase    phase
	result   error            // of Run, once it has ended
	closed   bool             // no more runs are started
	claims   int              // calls of Claim under way
	held     map[string]*held // by lease token
	session  *session         // the open stream; nil while there is none
	resume   string           // resume token of the last welcome
	version  uint64           // of the last demand
	spent    int              // runs whose slot the server may have given to another run
	deadline time.Time        // no held run's own deadline is earlier; zero: none is set
	draining bool             // no more runs are wanted
	drainer  *InterruptError  // who asked for that last, and why
	graceEnd time.Time        // when handlers are interrupted; zero: never
	halt     *InterruptError  // set once they were; runs that still come start interrupted
	giveUp   time.Time        // when Run no longer waits for them
	stats    Stats
	idle     chan struct{} // closed when nothing is held; nil: nobody asked

	listeners []*listener
}

// phase is how far a worker's life has come.
type phase int

const (
	phaseNew     phase = iota
	phaseRunning       // Run is under way
	phaseEnded         // Run has returned
)

// NewWorker makes a worker; Handle gives it work, Run starts it.
func (c *Client) NewWorker(cfg WorkerConfig) *Worker {
	w := &Worker{
		client:  c,
		cfg:     cfg.withDefaults(),
		changed: make(chan struct{}, 1),
		stopped: make(chan struct{}),
		held:    make(map[string]*held),
		stats:   Stats{IdleSince: time.Now()},
	}
	if cfg.OnEvent != nil {
		w.Listen(cfg.OnEvent)
	}
	return w
}

// ClaimOnly is the concurrency of a pool that the server gives nothing by itself: it executes what Claim brings.
const ClaimOnly = -1

// Handle lets h do the work of queue, at most concurrency runs at once: 1 is one at a time. Call it before Run, which
// reports mistakes.
func (w *Worker) Handle(queue string, concurrency int, h Handler) {
	w.HandlePool([]string{queue}, concurrency, h)
}

// HandlePool lets h do the work of several queues, at most concurrency runs of them all at once. Call it before Run,
// which reports mistakes.
func (w *Worker) HandlePool(queues []string, concurrency int, h Handler) {
	w.pools = append(w.pools, &pool{worker: w, queues: queues, concurrency: concurrency, handler: h})
}

// Run works until the worker has stopped gracefully: because ctx ended, Stop was called, an operator drained it, or
// MaxRuns was reached. A stop asks for no more runs, lets handlers go on for ShutdownGrace (as long as the operator
// says, or as they need, if it was not ctx or Stop), then interrupts them with RETRY, and waits until the server has
// acknowledged every outcome.
//
// It returns an error if it had to give up on handlers or acknowledgements after CancelGrace, if the configuration is
// wrong, or if the server refuses the worker for good (REASON_SESSION_REPLACED, REASON_INSTANCE_IN_USE). A server that
// is away is no error: Run waits for it.
//
// A worker runs once, and starting it twice is harmless. While Run is under way, also if the worker is stopping, a second
// Run starts nothing: it waits and returns what the first one does, or ctx's error if its own ctx ends before. After it has
// ended Run returns ErrEnded at once. After a Stop that came before it, Run returns nil at once.
func (w *Worker) Run(ctx context.Context) error {
	first, err := w.begin(ctx)
	switch {
	case err != nil:
		return err
	case !first:
		return w.follow(ctx)
	}
	err = w.work(ctx)
	w.awaitListeners()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(err)
	return err
}

// work is Run, once.
func (w *Worker) work(ctx context.Context) error {
	for _, p := range w.pools {
		p.start(&w.handlers)
	}
	sessions, leave := context.WithCancelCause(w.base)
	ended := make(chan error, 1)
	go func() { ended <- w.connect(sessions) }()
	err := w.supervise(ctx.Done(), ended, leave)
	leave(nil)
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	for _, p := range w.pools {
		close(p.queue)
	}
	if errors.Is(err, errGaveUp) {
		return w.leftBehind()
	}
	if err != nil {
		w.interruptAll(&InterruptError{Level: retry, Reason: "the session ended for good", Source: SourceShutdown})
	}
	return errors.Join(err, w.await())
}

// follow waits until the Run that is under way returns.
func (w *Worker) follow(ctx context.Context) error {
	select {
	case <-w.stopped:
	case <-ctx.Done():
		return ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.result
}

// end notes that the worker does nothing any more. Caller holds mu.
func (w *Worker) end(err error) {
	w.phase, w.result = phaseEnded, err
	if !w.hasStopped() {
		close(w.stopped)
	}
}

// hasStopped reports whether the worker does nothing any more.
func (w *Worker) hasStopped() bool {
	select {
	case <-w.stopped:
		return true
	default:
		return false
	}
}

// begin makes the worker a running one; first is false if it is already. It refuses a worker that has ended, and one with a
// wrong configuration.
func (w *Worker) begin(ctx context.Context) (first bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch w.phase {
	case phaseRunning:
		return false, nil
	case phaseEnded:
		return false, ErrEnded
	default:
	}
	if err := w.check(); err != nil {
		w.end(err)
		return false, err
	}
	w.phase = phaseRunning
	w.base = context.WithoutCancel(ctx)
	return true, nil
}

// check says what is wrong with the configuration.
func (w *Worker) check() error {
	if len(w.pools) == 0 {
		return errors.New("stint: the worker handles no queue; call Handle before Run")
	}
	if w.cfg.MaxRuns > 0 && len(w.pools) > 1 {
		return errors.New("stint: MaxRuns needs a worker with one pool; use HandlePool for several queues")
	}
	runs, queues := 0, make(map[string]bool)
	for _, p := range w.pools {
		if p.concurrency < 1 && p.concurrency != ClaimOnly || p.handler == nil || len(p.queues) == 0 {
			return fmt.Errorf("stint: the pool of %q needs a queue, a handler and a concurrency of at least 1", p.queues)
		}
		for _, q := range p.queues {
			if queues[q] {
				return fmt.Errorf("stint: queue %q is handled twice", q)
			}
			queues[q] = true
		}
		runs += max(p.concurrency, 0)
	}
	if len(queues) > maxQueues || runs > maxRuns {
		return fmt.Errorf("stint: a worker may handle %d queues and %d runs at once, not %d and %d", maxQueues, maxRuns, len(queues), runs)
	}
	return nil
}

// await waits for the handlers, at most CancelGrace.
func (w *Worker) await() error {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		w.handlers.Wait()
	}()
	timer := time.NewTimer(w.cfg.CancelGrace)
	defer timer.Stop()
	select {
	case <-gone:
		return nil
	case <-timer.C:
		return w.leftBehind()
	}
}

// leftBehind says what Run gave up on.
func (w *Worker) leftBehind() error {
	s := w.Stats()
	return fmt.Errorf("stint: the worker stopped with %d handlers still at work and %d outcomes not acknowledged",
		s.Held-s.Unacknowledged, s.Unacknowledged)
}

// Stop asks for a graceful stop and returns at once; Run returns when it is done, and Wait waits for that. A worker that
// was not started will not be: it has stopped.
func (w *Worker) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drain(w.cfg.ShutdownGrace, SourceShutdown, "the worker is stopping")
	if w.phase == phaseNew && !w.hasStopped() {
		close(w.stopped)
	}
}

// Wait waits at most timeout for the worker to stop, and reports whether it has: Run has returned, or the worker was stopped
// before it was started. 0 only looks; a negative timeout waits as long as it takes. It stops nothing: a worker that is not
// started yet is waited for, too. Safe to call often and from many goroutines, but a handler that waits for its own worker
// keeps it from stopping.
func (w *Worker) Wait(timeout time.Duration) bool {
	if timeout < 0 {
		<-w.stopped
		return true
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-w.stopped:
	case <-timer.C:
	}
	return w.hasStopped()
}

// Dispatching reports whether the worker takes jobs: Run is under way, and nothing has told it to stop: neither Stop, nor
// the end of its context, nor MaxRuns, nor an operator. Runs that it holds may go on for a while when it no longer does
// (Stats.Held); that it does says nothing of whether the server can be reached (Stats.Connected).
func (w *Worker) Dispatching() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.phase == phaseRunning && !w.draining
}

// Stats returns a snapshot.
func (w *Worker) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Connected = w.session != nil && w.session.opened
	s.Draining = w.draining
	s.Held = len(w.held)
	for _, h := range w.held {
		if h.finish != nil {
			s.Unacknowledged++
		}
	}
	return s
}

// Idle returns a channel that is closed when the worker next holds no run; it is closed already if it holds none now.
// Stats().IdleSince says since when that has been so.
func (w *Worker) Idle() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	idle := w.idle
	if idle == nil {
		idle = make(chan struct{})
		w.idle = idle
	}
	w.noteIdle()
	return idle
}

// noteIdle closes the channel of those who wait for idleness, if nothing is held. Caller holds mu.
func (w *Worker) noteIdle() {
	if w.idle != nil && len(w.held) == 0 {
		close(w.idle)
		w.idle = nil
	}
}

// InstanceID returns the worker's instance id.
func (w *Worker) InstanceID() string { return w.cfg.InstanceID }
