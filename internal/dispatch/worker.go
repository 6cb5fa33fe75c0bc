package dispatch

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// worker is what is known of one worker process.
type worker struct {
	instance job.ID
	info     Hello
	session  *Session // its newest one while it is open
	since    time.Time
	heard    int64
	first    *run // its runs
	runs     int
	zombies  []*zombie
	calls    int // claims of its that wait

	connected bool // it has had a session

	draining bool
	drain    DrainNotice
	grace    deadline
}

// The life of what is known of a worker that is gone: a minute so that lists do not flicker, a day while it drains so
// that coming back does not undo the drain.
const (
	workerKept   = time.Minute
	drainingKept = 24 * time.Hour
)

// worker returns what is known of an instance, from now on if nothing was.
func (d *Dispatcher) worker(instance job.ID, now int64) *worker {
	w := d.workers[instance]
	if w == nil {
		w = &worker{instance: instance, since: d.wall(), heard: now}
		w.info.Instance = instance
		w.grace.of = w
		d.workers[instance] = w
	}
	return w
}

func (w *worker) add(r *run) {
	r.worker, r.prev, r.next = w, nil, w.first
	if w.first != nil {
		w.first.prev = r
	}
	w.first = r
	w.runs++
}

func (w *worker) remove(r *run) {
	if r.prev == nil {
		w.first = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.prev, r.next = nil, nil
	w.runs--
}

// all calls fn for each of the worker's runs; fn may free the one it gets.
func (w *worker) all(fn func(*run)) {
	for r := w.first; r != nil; {
		next := r.next
		fn(r)
		r = next
	}
}

// forgettable reports whether nothing is lost when w is forgotten.
func (w *worker) forgettable(now int64) bool {
	kept := workerKept
	if w.draining {
		kept = drainingKept
	}
	return w.session == nil && w.first == nil && len(w.zombies) == 0 && w.calls == 0 && now-w.heard > int64(kept)
}

// Worker is a worker process as reads show it.
type Worker struct {
	Hello     Hello // without held runs and token
	Connected bool
	Since     time.Time
	Heard     time.Time
	Runs      int // in flight
	Zombies   int // runs that were left behind at their hard deadline and may still be at work
	Pools     []Pool
	Drain     *DrainNotice // nil: it is not draining
}

// Workers returns up to n workers that have a session, hold runs or left zombies, by instance id, from the one after the
// given id on.
func (d *Dispatcher) Workers(after job.ID, n int) []Worker {
	d.mu.Lock()
	defer d.mu.Unlock()
	var found []*worker
	for id, w := range d.workers {
		if bytes.Compare(id[:], after[:]) > 0 && (w.session != nil || w.first != nil || len(w.zombies) > 0) {
			found = append(found, w)
		}
	}
	slices.SortFunc(found, func(a, b *worker) int { return bytes.Compare(a.instance[:], b.instance[:]) })
	found = found[:min(n, len(found))]
	now, wall := d.now(), d.wall()
	out := make([]Worker, len(found))
	for i, w := range found {
		out[i] = w.shown(wall.Add(time.Duration(w.heard - now)))
	}
	return out
}

func (w *worker) shown(heard time.Time) Worker {
	out := Worker{Hello: w.info, Connected: w.session != nil, Since: w.since, Heard: heard, Runs: w.runs, Zombies: len(w.zombies)}
	out.Hello.Held, out.Hello.ResumeToken = nil, ""
	if w.draining {
		drain := w.drain
		out.Drain = &drain
	}
	if w.session != nil {
		for _, p := range w.session.pools {
			shown := Pool{MaxRuns: p.max, MaxBytes: p.maxBytes}
			for _, s := range p.seats {
				shown.Queues = append(shown.Queues, s.queue.name)
			}
			out.Pools = append(out.Pools, shown)
		}
	}
	return out
}

// DrainNotice asks a worker to finish what it holds and go.
type DrainNotice struct {
	Reason, Requester string
	Grace             *time.Duration // what it still holds after this long is interrupted with RETRY; nil: nothing is
}

// Drained says what became of one worker of a Drain.
type Drained struct {
	Runs int   // how many it holds
	Err  error // ErrWorkerUnknown
}

// Drain gives workers no more runs for the life of their instances, and interrupts what they hold after the grace. Of
// a repeated drain the earlier end of the grace holds and the later reason.
func (d *Dispatcher) Drain(instances []job.ID, notice DrainNotice) []Drained {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	out := make([]Drained, len(instances))
	for i, id := range instances {
		w := d.workers[id]
		if w == nil {
			out[i].Err = ErrWorkerUnknown
			continue
		}
		out[i].Runs = w.runs
		d.drain(w, notice, now)
	}
	d.hurry()
	return out
}

func (d *Dispatcher) drain(w *worker, notice DrainNotice, now int64) {
	if !w.draining {
		d.note(event.WorkerDraining, w, notice.Reason, notice.Requester)
	}
	w.draining, w.drain = true, notice
	if notice.Grace != nil {
		if at := now + int64(*notice.Grace); w.grace.at == 0 || at < w.grace.at {
			d.deadlines.set(&w.grace, at)
		}
	}
	if s := w.session; s != nil {
		for _, p := range s.pools {
			d.line(p)
		}
		s.drainTold = false
		s.wake()
	}
	for c := range d.polls {
		if c.pool.worker == w {
			d.settle(c, ErrDraining)
		}
	}
}

// interruptAll interrupts what a draining worker holds after its grace.
func (d *Dispatcher) interruptAll(ctx context.Context, w *worker) {
	err := d.store.Update(ctx, func(tx store.Tx) error {
		notice, refs := d.held(w)
		b, err := openBook(tx, refs)
		if err != nil {
			return err
		}
		request := job.InterruptRequest{
			Level: job.LevelRetry, Source: job.SourceDrain, Reason: notice.Reason, Requester: notice.Requester,
		}
		for _, r := range refs {
			j := b.live(r)
			if j == nil {
				continue
			}
			request.Policy = b.policyOf(j)
			next, _, err := j.RequestInterrupt(b.now, request)
			if err != nil && !errors.Is(err, job.ErrDowngrade) {
				return err
			}
			b.put(next)
		}
		return b.close()
	})
	if err != nil {
		d.logFailure("interrupt what a draining worker holds", err)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.deadlines.set(&w.grace, d.now()+int64(sweepEvery))
	}
}

// held is what a draining worker has in flight, and why it drains.
func (d *Dispatcher) held(w *worker) (notice DrainNotice, refs []ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.all(func(r *run) {
		if r.live() {
			refs = append(refs, r.ref)
		}
	})
	return w.drain, refs
}
