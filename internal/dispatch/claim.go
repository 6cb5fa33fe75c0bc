package dispatch

import (
	"context"
	"slices"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// claimMargin is how long before its caller's deadline a waiting claim is answered, so that the answer arrives.
const claimMargin = 500 * time.Millisecond

// claimWeight is how many bytes the runs of one claim may take on the wire, overshot by at most one run.
const claimWeight = 256 << 10

// claimsKept bounds how many claims can be asked for again.
const claimsKept = 100_000

// ClaimRequest asks for runs by a call.
type ClaimRequest struct {
	Worker   string
	Instance job.ID
	Queues   []string
	Max      int           // runs
	Wait     time.Duration // for the first of them; 0: not at all
	Request  string        // a repeat within the lease answers the same runs; empty: none

	// Quit ends the wait early when it is closed; nil: nothing does.
	Quit <-chan struct{}
}

type claimKey struct {
	instance job.ID
	request  string
}

// claim is a unary claim: one pool that is filled once.
type claim struct {
	key     claimKey
	pool    *pool
	callers int
	runs    []*run
	chosen  []job.ID      // it is for these jobs alone; nil: for what comes
	choices []Choice      // what became of them; nil: they were not looked at yet
	err     error         // why it got none
	ready   chan struct{} // closed when runs are on disk, or err is set
	settled bool          // ready is closed
	over    bool          // nobody waits any more
	expiry  deadline
}

// Claim waits for runs. It returns none when the wait is over, or 500 ms before ctx's deadline. If ctx ends first, runs
// that were on their way are undelivered at once. Errors: ErrDraining, ErrOtherRequest, ErrClosed, ctx's, and those of the
// store.
func (d *Dispatcher) Claim(ctx context.Context, r ClaimRequest) ([]Assignment, error) {
	wait := r.Wait
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, until(end)-claimMargin)
	}
	c, err := d.join(r, nil)
	if err != nil {
		return nil, err
	}
	// The claim is in line: one transaction, and Match has looked at it.
	err = d.store.Update(ctx, func(tx store.Tx) error {
		for _, name := range r.Queues {
			if _, err := tx.MakeQueue(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = c.await(ctx, d, wait, r.Quit)
	}
	if err == nil {
		err = ctx.Err() // the answer would reach nobody
	}
	return d.leave(c, err)
}

// join puts a claim in line, or returns the one with the same request. One for chosen jobs stands in no line.
func (d *Dispatcher) join(r ClaimRequest, chosen []job.ID) (*claim, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	now := d.now()
	w := d.worker(r.Instance, now)
	w.heard = now
	if w.session == nil {
		w.info.Worker = r.Worker
	}
	key := claimKey{r.Instance, r.Request}
	if c := d.claims[key]; c != nil && r.Request != "" {
		if !slices.Equal(c.chosen, chosen) {
			return nil, ErrOtherRequest
		}
		c.callers++
		c.pool.worker.calls++
		return c, nil
	}
	if w.draining {
		return nil, ErrDraining
	}
	w.calls++
	c := &claim{key: key, callers: 1, chosen: chosen, ready: make(chan struct{})}
	c.expiry.of = c
	c.pool = d.newPool(pool{
		to:     job.Dispatch{Worker: r.Worker, Instance: r.Instance, Unary: true},
		worker: w, claim: c, max: r.Max, maxBytes: claimWeight,
	}, r.Queues)
	d.polls[c] = struct{}{}
	if r.Request != "" && len(d.claims) < claimsKept {
		d.claims[key] = c
	}
	d.line(c.pool)
	return c, nil
}

// await waits for the claim's runs.
func (c *claim) await(ctx context.Context, d *Dispatcher, wait time.Duration, quit <-chan struct{}) error {
	timer := time.NewTimer(max(0, wait))
	defer timer.Stop()
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-quit:
	case <-timer.C:
	}
	if !d.giveUp(c) {
		return nil
	}
	// Runs are on their way to the disk.
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// giveUp takes a claim that got nothing out of line; true if it got something that is not on disk yet.
func (d *Dispatcher) giveUp(c *claim) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.settled {
		return false
	}
	if c.pool.inFlight > 0 {
		return true
	}
	if c.callers == 1 {
		d.settle(c, nil)
	}
	return false
}

// leave ends a caller's part in a claim.
func (d *Dispatcher) leave(c *claim, err error) ([]Assignment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.callers--
	c.pool.worker.calls--
	told := slices.ContainsFunc(c.runs, func(r *run) bool { return r.sent })
	if err != nil && c.callers == 0 && !told {
		c.over = true
		d.close(c.pool)
		delete(d.polls, c)
		d.unremember(c)
		for _, r := range c.runs {
			d.withdraw(r, d.now())
		}
	}
	if err == nil {
		err = c.err
	}
	if err != nil {
		return nil, err
	}
	var out []Assignment
	for _, r := range c.runs {
		if r.live() && r.synced {
			r.sent = true
			out = append(out, Assignment{Token: d.tokens.seal(r.ref), Job: r.job})
		}
	}
	return out, nil
}

// claimed follows a run whose claim was just applied: a claim takes what one batch gives it, and what nobody waits for
// any more goes back.
func (d *Dispatcher) claimed(r *run, now int64) {
	if s := r.session; s != nil && s.err != nil {
		d.withdraw(r, now)
	}
	c := r.claim
	if c == nil {
		return
	}
	c.runs = append(c.runs, r)
	d.close(c.pool)
	delete(d.polls, c)
	if c.over {
		d.withdraw(r, now)
	}
}

// answer lets a claim's callers have its runs, whose leases begin now.
func (d *Dispatcher) answer(r *run) {
	c, at := r.claim, d.now() // a run that was taken back on its way is not remembered
	if r.live() && !c.over {
		at += r.lease()
		d.deadlines.set(&r.deadline, at)
	}
	if d.claims[c.key] == c && at > c.expiry.at {
		d.deadlines.set(&c.expiry, at)
	}
	if !c.settled {
		c.settled = true
		close(c.ready)
	}
}

// settle ends a claim that got no runs.
func (d *Dispatcher) settle(c *claim, err error) {
	if c.settled || c.pool.inFlight > 0 {
		return
	}
	c.settled, c.err = true, err
	d.close(c.pool)
	delete(d.polls, c)
	d.unremember(c)
	close(c.ready)
}

// unremember makes a claim one that cannot be asked for again.
func (d *Dispatcher) unremember(c *claim) {
	if d.claims[c.key] == c {
		delete(d.claims, c.key)
	}
	d.deadlines.drop(&c.expiry)
}

// Heartbeat keeps runs alive and takes acknowledgements of interrupts. It returns a verdict for each token, in their
// order, and when to call again. Errors: those of the store.
func (d *Dispatcher) Heartbeat(ctx context.Context, held []string, acks []InterruptAck) ([]Verdict, time.Duration, error) {
	t := d.newTurn(held)
	t.acks = acks
	d.called(t)
	if err := d.store.Update(ctx, t.apply); err != nil {
		return nil, 0, err
	}
	next := job.DefaultLease
	for _, v := range t.answer.Verdicts {
		if v.Action == Continue {
			next = min(next, v.Lease)
		}
	}
	return t.answer.Verdicts, min(jitter(next/3), next/3), nil
}

// Finish ends runs. It returns an answer for each, in their order. Errors: those of the store.
func (d *Dispatcher) Finish(ctx context.Context, finishes []Finish) ([]Ack, error) {
	t := d.newTurn(nil)
	t.finish(finishes)
	d.called(t)
	if err := d.store.Update(ctx, t.apply); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t.settle()
	return t.answer.Acks, nil
}

// called does at the receipt of a unary call what a session does at that of a message.
func (d *Dispatcher) called(t *turn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	t.renew(now)
	for _, r := range t.refs {
		if known := d.runs[r.fence]; known != nil {
			known.worker.heard = now
		}
	}
}

// Lease is what CheckLease tells of a run.
type Lease struct {
	Live   bool
	Level  job.Level // of the job's interrupt
	Newest uint64    // the fence of the job's newest run; 0: it never ran
}

// CheckLease tells whether a run owns its job; false if nothing is known of the job. Errors: those of the store.
func (d *Dispatcher) CheckLease(ctx context.Context, id job.ID, fence uint64) (l Lease, found bool, err error) {
	err = d.store.View(ctx, func(r store.Reader) error {
		jobs, err := r.Find([]job.ID{id})
		if err != nil || jobs[0].Job == nil {
			return err
		}
		j := jobs[0].Job
		found = true
		l = Lease{Live: j.State == job.Running && j.Run.Fence == fence, Level: j.Interrupted().Level, Newest: j.Run.Fence}
		if j.Run.Fence == 0 && len(j.History) > 0 {
			l.Newest = slices.MaxFunc(j.History, func(a, b job.Run) int { return int(int64(a.Fence) - int64(b.Fence)) }).Fence
		}
		return nil
	})
	return l, found, err
}
