package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// ledger is what the client side saw. It is safe for concurrent use; one goroutine may wait on it.
type ledger struct {
	mu       sync.Mutex
	entries  []*entry // one for each file, in the files' order
	byID     map[string]*entry
	answered int // jobs whose submit was answered
	existing int // of them, those that the server had already when they were sent again
	accepted int // jobs of which a finish was accepted
	open     map[string]bool
	faults   []error
	changed  chan struct{}
}

// entry is what was seen of one file's job.
type entry struct {
	path     string
	id       string
	sent     time.Time // first handed to the submitter
	answered time.Time // submit acknowledged
	runs     []*run
}

// run is what was seen of one run.
type run struct {
	fence    uint64
	number   uint32
	worker   string
	assigned time.Time
	held     bool // over the crash
	adopted  time.Time
	acks     []ack
}

// ack is the answer to a finish.
type ack struct {
	at     time.Time
	status stintv1.FinishStatus
}

// accepted says that the server took the run's finish as the job's outcome: at once, or before and said again.
func (r *run) accepted() bool {
	for _, a := range r.acks {
		if a.status == stintv1.FinishStatus_FINISH_STATUS_RECORDED ||
			a.status == stintv1.FinishStatus_FINISH_STATUS_DUPLICATE {
			return true
		}
	}
	return false
}

// recorded counts the answers that said RECORDED.
func (r *run) recorded() int {
	n := 0
	for _, a := range r.acks {
		if a.status == stintv1.FinishStatus_FINISH_STATUS_RECORDED {
			n++
		}
	}
	return n
}

// newLedger opens a ledger of jobs with the given ids, one for each file.
func newLedger(files, ids []string) *ledger {
	l := &ledger{byID: map[string]*entry{}, open: map[string]bool{}, changed: make(chan struct{}, 1)}
	for i, path := range files {
		e := &entry{path: path, id: ids[i]}
		l.entries = append(l.entries, e)
		l.byID[e.id] = e
	}
	return l
}

// note changes the ledger and wakes the one who waits.
func (l *ledger) note(change func()) {
	l.mu.Lock()
	change()
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *ledger) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Errorf(format, args...))
}

// sending notes that a job is about to be sent.
func (l *ledger) sending(i int, at time.Time) {
	l.note(func() { l.entries[i].sent = at })
}

// submitted notes the answer to a submit.
func (l *ledger) submitted(s client.Submitted, at time.Time) {
	l.note(func() {
		e := l.byID[s.ID]
		switch {
		case e == nil:
			l.fault("a submit of an unknown job %s was answered", s.ID)
		case s.Err != nil:
			l.fault("%s: submit refused: %w", e.path, s.Err)
		case !e.answered.IsZero():
			l.fault("%s: submit answered twice", e.path)
		default:
			e.answered = at
			l.answered++
			if s.Existing {
				l.existing++
			}
		}
	})
}

// event notes what happened to a worker.
func (l *ledger) event(worker string, ev client.Event) {
	l.note(func() {
		switch ev.Kind {
		case client.SessionOpened:
			l.open[worker] = true
		case client.SessionLost:
			l.open[worker] = false
		case client.RunAssigned, client.RunAdopted, client.RunStopped, client.RunFinished:
			l.runEvent(worker, ev)
		default: // nothing that the report tells of
		}
	})
}

func (l *ledger) runEvent(worker string, ev client.Event) {
	e := l.byID[ev.Run.JobID]
	if e == nil {
		l.fault("%s was given the unknown job %s", worker, ev.Run.JobID)
		return
	}
	if ev.Kind == client.RunAssigned {
		e.runs = append(e.runs, &run{fence: ev.Run.Fence, number: ev.Run.Number, worker: worker, assigned: ev.Time})
		return
	}
	r := e.run(ev.Run.Fence)
	if r == nil {
		l.fault("%s: an event of run %d, which was never assigned", e.path, ev.Run.Number)
		return
	}
	if ev.Kind == client.RunAdopted {
		r.adopted = ev.Time
	}
	if ev.Kind == client.RunFinished {
		before := e.accepted()
		r.acks = append(r.acks, ack{ev.Time, ev.Status})
		if !before && e.accepted() {
			l.accepted++
		}
	}
}

func (e *entry) run(fence uint64) *run {
	for _, r := range e.runs {
		if r.fence == fence {
			return r
		}
	}
	return nil
}

func (e *entry) accepted() bool {
	for _, r := range e.runs {
		if r.accepted() {
			return true
		}
	}
	return false
}

// crossing marks the runs that are held now, while no session is open, as held over the crash. It returns how many
// there are.
func (l *ledger) crossing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.entries {
		for _, r := range e.runs {
			if r.held = len(r.acks) == 0; r.held {
				n++
			}
		}
	}
	return n
}

// sessions counts the open sessions.
func (l *ledger) sessions() int {
	n := 0
	for _, open := range l.open {
		if open {
			n++
		}
	}
	return n
}

// counts is a glance at the ledger for the progress bar.
func (l *ledger) counts() (answered, accepted int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered, l.accepted
}

// stallLimit is how long nothing may happen before the demo gives up.
const stallLimit = time.Minute

// await returns once the condition holds. It is called with the ledger locked.
func (l *ledger) await(ctx context.Context, what string, condition func() bool) error {
	stall := time.NewTimer(stallLimit)
	defer stall.Stop()
	for {
		l.mu.Lock()
		ok := condition()
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-l.changed:
			stall.Reset(stallLimit)
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		case <-stall.C:
			answered, accepted := l.counts()
			return fmt.Errorf("waiting for %s: nothing happened for %v, with %d of %d jobs submitted and %d finished",
				what, stallLimit, answered, len(l.entries), accepted)
		}
	}
}
