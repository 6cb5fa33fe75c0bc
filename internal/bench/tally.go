package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// tally follows every job of one set from its submit to its finish.
type tally struct {
	ids      ids
	jobs     []atomic.Uint32 // for each job, what happened to it: the bits below
	created  progress        // submits answered CREATED
	started  progress        // first assignments received
	recorded progress        // finishes answered RECORDED

	mu     sync.Mutex
	faults int
	first  []error // the first few faults
}

// What happened to a job, as bits of its word.
const (
	jobCreated = 1 << iota
	jobStarted
	jobRecorded
	jobTold
)

const faultsKept = 5

func newTally(jobs int) *tally {
	return &tally{ids: newIDs(), jobs: make([]atomic.Uint32, jobs)}
}

// fault counts something that may not happen.
func (t *tally) fault(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults++
	if len(t.first) < faultsKept {
		t.first = append(t.first, fmt.Errorf(format, args...))
	}
}

// mark notes that something happened to a job; the second time it is a fault.
func (t *tally) mark(id string, bit uint32) (job int, ok bool) {
	job, err := t.ids.number(id)
	if err == nil && job >= len(t.jobs) {
		err = fmt.Errorf("id %q is none of this run's", id)
	}
	if err != nil {
		t.fault("%w", err)
		return 0, false
	}
	if t.jobs[job].Or(bit)&bit != 0 {
		t.fault("job %s: %s twice", id, map[uint32]string{
			jobCreated: "created", jobStarted: "handed out", jobRecorded: "finished", jobTold: "interrupted",
		}[bit])
		return job, false
	}
	return job, true
}

// audit returns the number of faults of the set and the first few of them. Each of the first `created` jobs must have
// been created, and `recorded` jobs must have been handed out and finished.
func (t *tally) audit(created, recorded int) (int, error) {
	for what, counts := range map[string][2]int64{
		"acknowledged": {t.created.n.Load(), int64(created)},
		"handed out":   {t.started.n.Load(), int64(recorded)},
		"finished":     {t.recorded.n.Load(), int64(recorded)},
	} {
		if counts[0] != counts[1] {
			t.fault("%d jobs %s, expected %d", counts[0], what, counts[1])
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.faults, errors.Join(t.first...)
}

// progress counts towards a goal that one goroutine waits for.
type progress struct {
	n       atomic.Int64
	goal    atomic.Int64
	reached chan struct{}
	once    sync.Once
}

func (p *progress) signal() chan struct{} {
	p.once.Do(func() { p.reached = make(chan struct{}, 1) })
	return p.reached
}

func (p *progress) add(k int) {
	n := p.n.Add(int64(k))
	if goal := p.goal.Load(); goal > 0 && n >= goal {
		select {
		case p.signal() <- struct{}{}:
		default:
		}
	}
}

// stallLimit is how long nothing may move before a run is given up.
const stallLimit = 30 * time.Second

// wait returns once the count is at least goal, or with an error once ctx is done or nothing moved for stallLimit.
func (p *progress) wait(ctx context.Context, goal int) error {
	p.goal.Store(int64(goal))
	stall := time.NewTicker(stallLimit)
	defer stall.Stop()
	for last := int64(-1); ; {
		n := p.n.Load()
		if n >= int64(goal) {
			return nil
		}
		select {
		case <-p.signal():
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stall.C:
			if n == last {
				return fmt.Errorf("stalled: nothing happened for %v at %d of %d jobs", stallLimit, n, goal)
			}
			last = n
		}
	}
}
