package dispatch

import (
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// hurry makes the clock goroutine look again, because something may come before what it waits for.
func (d *Dispatcher) hurry() {
	if !wakeUps {
		return
	}
	select {
	case d.look <- struct{}{}:
	default:
	}
}

// keepTime acts on every deadline. It wakes at least once a sweep, so that it knows when the process stood still.
func (d *Dispatcher) keepTime() {
	sweep := d.now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		planned := d.plan(sweep)
		timer.Reset(time.Duration(planned - d.now()))
		select {
		case <-d.ctx.Done():
			return
		case <-d.look:
		case <-timer.C:
		}
		if d.now() >= sweep {
			d.awaitStore()
		}
		now := d.now()
		if now-planned > int64(stallAfter) {
			d.grant(now)
		}
		if now >= sweep {
			d.sweep(now)
			sweep = now + int64(sweepEvery)
		}
		d.reap(now)
		d.wakeDue()
	}
}

// awaitStore makes the clock goroutine as late as the answers of a store that hangs: who waits for one must not pay for
// it with a lease.
func (d *Dispatcher) awaitStore() {
	d.mu.Lock()
	idle := len(d.runs)+len(d.zombies) == 0
	d.mu.Unlock()
	if idle {
		return
	}
	if err := d.store.Update(d.ctx, nothing); err != nil {
		d.logFailure("reach the store", err)
	}
}

// plan is when to look next.
func (d *Dispatcher) plan(sweep int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := sweep
	if next, ok := d.deadlines.next(); ok {
		at = min(at, next)
	}
	if !d.nextDue.IsZero() {
		at = min(at, d.now()+max(0, int64(d.nextDue.Sub(d.wall())))) // a wall clock that jumped is no stall
	}
	return at
}

// grant gives everybody a full lease: the process stood still, and what workers sent meanwhile is still unread.
func (d *Dispatcher) grant(now int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Stalls++
	d.log.Warn("the process stood still; every run gets a full lease")
	for _, r := range d.runs {
		if r.live() && r.deadline.at != 0 {
			lease := r.lease()
			if !r.accepted && !r.unary {
				lease = int64(DeliveryTimeout)
			}
			d.deadlines.set(&r.deadline, max(r.deadline.at, now+lease))
		}
		if r.live() && r.alarm != nil {
			r.alarm.postpone(d, now+r.lease())
		}
	}
	for _, z := range d.zombies {
		d.deadlines.set(&z.deadline, max(z.deadline.at, now+z.lease))
	}
	for s := range d.sessions {
		s.heard = now
	}
}

// sweep is the net under everything that is woken at once: it ends silent sessions, forgets what is over, and has Match
// look at every queue that may have something to hand out.
func (d *Dispatcher) sweep(now int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.sessions {
		if s.pending == 0 && now-s.heard > int64(SessionLease) {
			d.end(s, ErrSilent)
		}
	}
	for id, w := range d.workers {
		if w.forgettable(now) {
			d.deadlines.drop(&w.grace)
			delete(d.workers, id)
		}
	}
	wall := d.wall()
	for _, q := range d.queues {
		if sweeps {
			d.visit(q)
		}
		if q.starts != nil && q.starts.over(wall) {
			q.starts = nil
			d.forget(q)
		}
	}
	d.sweepGates(now)
	d.reviewing = len(d.reserved) > 0
	if d.sweepsDone++; sweeps && d.sweepsDone%hungEvery == 0 {
		d.revisiting = true
	}
	d.poked = false // one that was lost is not waited for
	if d.reviewing || d.revisiting || sweeps && len(d.active)+len(d.freed) > 0 {
		d.push()
	}
}

// due is a page of what has come.
type due struct {
	runs    []*run
	alarms  []*run
	zombies []*zombie
	graces  []*worker
}

func (p *due) len() int { return len(p.runs) + len(p.alarms) + len(p.zombies) + len(p.graces) }

// reap acts on the deadlines that have come.
func (d *Dispatcher) reap(now int64) {
	for {
		page := d.dueNow(now)
		for _, w := range page.graces {
			d.interruptAll(d.ctx, w)
		}
		d.soundAlarms(page.alarms)
		d.reapRuns(page.runs)
		d.reapZombies(page.zombies)
		if page.len() < duePage {
			return
		}
	}
}

// dueNow takes a page of what has come.
func (d *Dispatcher) dueNow(now int64) (page due) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for page.len() < duePage {
		next := d.deadlines.due(now)
		if next == nil {
			break
		}
		switch of := next.of.(type) {
		case *run:
			page.runs = append(page.runs, of)
		case *alarm:
			page.alarms = append(page.alarms, of.run)
		case *zombie:
			page.zombies = append(page.zombies, of)
		case *worker:
			of.grace.at = 0
			page.graces = append(page.graces, of)
		case *claim:
			d.unremember(of)
		case *gate:
			d.ajar(of, now)
		}
	}
	return page
}

// reapRuns ends runs whose time is over.
func (d *Dispatcher) reapRuns(due []*run) {
	if len(due) == 0 {
		return
	}
	d.judgeDue("end runs whose time is over", func(tx store.Tx) error {
		ended, notes := d.overdue(due)
		return reapAll(tx, ended, notes)
	})
	d.reaped(due)
}

// judgeDue runs a transaction that acts on deadlines; it reports whether it did. fn looks at them again: it runs after every
// message that was received before. A transaction that took too long to begin says that the store stood still; then
// nobody is judged.
func (d *Dispatcher) judgeDue(what string, fn func(store.Tx) error) bool {
	posted := d.now()
	var stalled bool
	err := d.store.Update(d.ctx, func(tx store.Tx) error {
		if stalled = d.now()-posted > int64(stallAfter); stalled {
			return nil
		}
		return fn(tx)
	})
	if err != nil {
		d.logFailure(what, err)
	}
	if stalled {
		d.grant(d.now())
	}
	return err == nil && !stalled
}

// overdue are those of the runs whose time is still over, and what their end is to be called.
func (d *Dispatcher) overdue(due []*run) (over []*run, notes []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, r := range due {
		if !r.live() || r.deadline.at > now {
			continue
		}
		note := "lease lost"
		switch {
		case !r.sent:
			note = "never sent: its session or call was over"
		case !r.accepted:
			note = "not acknowledged in time"
		}
		over, notes = append(over, r), append(notes, note)
	}
	return over, notes
}

func reapAll(tx store.Tx, runs []*run, notes []string) error {
	refs := make([]ref, len(runs))
	for i, r := range runs {
		refs[i] = r.ref
	}
	b, err := openBook(tx, refs)
	if err != nil {
		return err
	}
	for i, r := range refs {
		if err := b.lose(r, notes[i]); err != nil {
			return err
		}
	}
	return b.close()
}

// reaped puts back what was not ended after all.
func (d *Dispatcher) reaped(due []*run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	again := d.now() + int64(sweepEvery)
	for _, r := range due {
		if r.live() && r.deadline.key == 0 {
			d.deadlines.set(&r.deadline, max(r.deadline.at, again))
		}
	}
}

// wakeDue moves the waiting jobs whose time has come, page by page.
func (d *Dispatcher) wakeDue() {
	for d.takeDue() {
		var next time.Time
		var woken int
		err := d.store.Update(d.ctx, func(tx store.Tx) error {
			jobs, upcoming, err := tx.Due(duePage)
			if err != nil {
				return err
			}
			next = upcoming
			woken, err = wakeAll(tx, jobs)
			return err
		})
		if err != nil {
			d.logFailure("wake jobs whose time has come", err)
		}
		d.mu.Lock()
		wall := d.wall()
		switch {
		case woken > 0 && err == nil:
			d.dueAt(wall) // there may be more
		case err != nil || !next.IsZero() && !next.After(wall):
			d.dueAt(wall.Add(sweepEvery)) // the store's clock is behind this one
		default:
			d.dueAt(next)
		}
		d.mu.Unlock()
	}
}

// takeDue reports whether a job may be due. It forgets when the next one is: whatever changes from now on tells anew.
func (d *Dispatcher) takeDue() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.nextDue.IsZero() || d.wall().Before(d.nextDue) {
		return false
	}
	d.nextDue = time.Time{}
	return true
}

// wakeAll wakes the jobs and tells how many there were that it changed.
func wakeAll(tx store.Tx, jobs []*job.Job) (int, error) {
	changes := make([]store.Change, 0, len(jobs))
	for _, j := range jobs {
		next, err := j.Wake(tx.Now())
		if err != nil {
			return 0, err
		}
		if next != j {
			changes = append(changes, store.Change{Old: j, New: next})
		}
	}
	return len(changes), tx.Put(changes...)
}
