package dispatch

import (
	"math/rand/v2"
	"slices"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// newsMax is how many pieces of news one message takes to a worker.
const newsMax = 1000

// news is what a worker has to be told of one of its runs once it is on disk.
type news struct {
	run     *run
	verdict Verdict
	unread  bool // instead: the run ended because it was never acknowledged
}

// InterruptAck is a worker's word that it acts on an interrupt.
type InterruptAck struct {
	Token      string
	Generation uint32
}

// tell has the run's worker told when the batch under construction is on disk.
func (d *Dispatcher) tell(r *run, v Verdict) {
	v.Token = d.tokens.seal(r.ref)
	d.unsealed.news = append(d.unsealed.news, news{run: r, verdict: v})
}

// spread hands news to the run's session; without one it waits for the session that adopts the run. Older news of the
// same run that was not told yet is no news any more. A session that does not acknowledge what it was sent is not read:
// it ends.
func (d *Dispatcher) spread(n news) {
	r, s := n.run, n.run.session
	open := s != nil && s.err == nil
	switch {
	case d.runs[r.fence] != r:
		return
	case n.unread:
		if open {
			d.end(s, ErrDelivery)
		}
		return
	case !open:
		r.news = &n.verdict
		return
	}
	if r.news == nil {
		s.news = append(s.news, r)
	}
	r.news = &n.verdict
	s.wake()
}

// catchUp has the worker told of what came after its welcome was composed and before the run was the session's. told is
// the generation in the welcome.
func (s *Session) catchUp(r *run, told uint32) {
	if r.news != nil && r.news.Interrupt.Generation <= told {
		r.news = nil
	}
	if r.news != nil {
		s.news = append(s.news, r)
		s.wake()
	}
}

// takeNews returns what the session's worker is to be told now.
func (s *Session) takeNews() (told []Verdict) {
	for len(s.news) > 0 && len(told) < newsMax {
		r := s.news[0]
		s.news[0], s.news = nil, s.news[1:]
		v := r.news
		if r.news = nil; v == nil || r.session != s || v.Action == Continue && r.ended {
			continue
		}
		if v.Action == Continue {
			v.GraceLeft = max(0, v.Interrupt.GraceTime.Sub(s.d.wall()))
			s.d.told = append(s.d.told, delivery{r.ref, v.Interrupt.Generation})
		}
		told = append(told, *v)
	}
	if len(s.d.told) > 0 {
		select {
		case s.d.tellings <- struct{}{}:
		default:
		}
	}
	return told
}

// delivery is a generation of an interrupt that was sent to its run's worker.
type delivery struct {
	ref
	generation uint32
}

// recordDeliveries is the transaction that notes what was sent since the last one.
func (d *Dispatcher) recordDeliveries() func(store.Tx) error {
	d.mu.Lock()
	told := d.told
	d.told = nil
	d.mu.Unlock()
	return func(tx store.Tx) error {
		b, err := openBook(tx, nil)
		if err != nil {
			return err
		}
		for _, t := range told {
			if err := b.load([]ref{t.ref}); err != nil {
				return err
			}
			if j := b.live(t.ref); j != nil {
				next, err := j.Deliver(b.now, t.fence, t.generation)
				if err != nil {
					return err
				}
				b.put(next)
			}
		}
		return b.close()
	}
}

// applyAcks notes which interrupts the worker acts on.
func (t *turn) applyAcks(b *book) error {
	for _, a := range t.acks {
		r, ok := t.d.tokens.open(a.Token)
		if !ok {
			continue
		}
		if err := b.load([]ref{r}); err != nil {
			return err
		}
		if j := b.live(r); j != nil {
			next, err := j.Acknowledge(b.now, r.fence, a.Generation)
			if err != nil {
				return err
			}
			b.put(next)
		}
	}
	return nil
}

// alarm is when a run has to be interrupted or left behind, whatever its worker says.
type alarm struct {
	deadline
	run     *run
	timeout int64 // when its job's timeout is over, on the dispatcher's clock; 0: never, or it is
	hard    int64 // when it is abandoned; 0: never
	floor   int64 // neither comes before this: the server was away, or stood still
}

// arm is the run's alarm, which it has from now on.
func (r *run) arm() *alarm {
	if r.alarm == nil {
		r.alarm = &alarm{run: r}
		r.alarm.of = r.alarm
	}
	return r.alarm
}

// disarm takes the alarm of a run away that has ended.
func (d *Dispatcher) disarm(r *run) {
	if r.alarm != nil {
		d.deadlines.drop(&r.alarm.deadline)
	}
}

// follow has the worker told of a new generation of the run's interrupt, and sets the run's alarm.
func (d *Dispatcher) follow(r *run, now int64) {
	j := r.job
	if i := j.Interrupt; i != nil && i.Generation != r.generation {
		r.generation = i.Generation
		v := Verdict{Action: Continue}
		v.interrupt(j)
		d.tell(r, v)
		a := r.arm()
		if !i.HardTime.IsZero() {
			a.hard = max(a.floor, now+max(1, int64(i.HardTime.Sub(d.wall()))))
		}
		a.ring(d)
	}
	timeout := int64(j.RunTimeout())
	if timeout > 0 && j.Run.State == job.RunRunning && j.Interrupted().Source != job.SourceTimeout {
		if a := r.arm(); a.timeout == 0 {
			a.timeout = now + timeout
			a.ring(d)
		}
	}
}

// ring sets when the clock goroutine has to look at the run.
func (a *alarm) ring(d *Dispatcher) {
	if i := a.run.job.Interrupted(); i.Source == job.SourceTimeout || i.Level == job.LevelCancel {
		a.timeout = 0
	}
	at := a.hard
	if at == 0 || a.timeout != 0 && a.timeout < at {
		at = a.timeout
	}
	if at != 0 {
		d.deadlines.set(&a.deadline, at)
		d.hurry()
	}
}

// postpone lets no alarm ring before the given time: who could not hear must not pay for it.
func (a *alarm) postpone(d *Dispatcher, at int64) {
	a.floor = max(a.floor, at)
	if a.hard != 0 {
		a.hard = max(a.hard, at)
	}
	if a.timeout != 0 {
		a.timeout = max(a.timeout, at)
	}
	a.ring(d)
}

// rearm sets the alarm of a run that was live when the server started: not before a full lease is over.
func (d *Dispatcher) rearm(r *run, now int64) {
	j, wall := r.job, d.wall()
	timeout, i := j.RunTimeout(), j.Interrupted()
	if timeout == 0 && i.HardTime.IsZero() {
		return
	}
	a := r.arm()
	if !i.HardTime.IsZero() {
		a.hard = now + max(1, int64(i.HardTime.Sub(wall)))
	}
	if timeout > 0 && j.Run.State == job.RunRunning {
		a.timeout = now + max(1, int64(j.Run.AcceptTime.Add(timeout).Sub(wall)))
	}
	a.postpone(d, now+r.lease())
}

// soundAlarms interrupts the runs whose timeout is over, and leaves those behind whose hard deadline is.
func (d *Dispatcher) soundAlarms(due []*run) {
	if len(due) == 0 {
		return
	}
	ok := d.judgeDue("act on timeouts and hard deadlines", func(tx store.Tx) error {
		timedOut, bySession, byCall := d.alarmed(due)
		b, err := openBook(tx, slices.Concat(timedOut, bySession, byCall))
		if err != nil {
			return err
		}
		for _, r := range timedOut {
			if err := b.timeout(r); err != nil {
				return err
			}
		}
		for _, r := range bySession {
			if err := b.abandon(r, false); err != nil {
				return err
			}
		}
		for _, r := range byCall {
			if err := b.abandon(r, true); err != nil {
				return err
			}
		}
		return b.close()
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range due {
		if r.live() && r.alarm.key == 0 {
			if !ok {
				r.alarm.postpone(d, d.now()+int64(sweepEvery))
			} else {
				r.alarm.ring(d)
			}
		}
	}
}

// alarmed are those of the runs that are live and whose time is still over: their timeout, or their hard deadline.
func (d *Dispatcher) alarmed(due []*run) (timedOut, bySession, byCall []ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, r := range due {
		switch a := r.alarm; {
		case !r.live():
		case a.hard != 0 && a.hard <= now && r.byCall():
			byCall = append(byCall, r.ref)
		case a.hard != 0 && a.hard <= now:
			bySession = append(bySession, r.ref)
		case a.timeout != 0 && a.timeout <= now:
			timedOut = append(timedOut, r.ref)
		}
	}
	return timedOut, bySession, byCall
}

// timeout interrupts a run that has taken longer than its job allows.
func (b *book) timeout(r ref) error {
	j := b.live(r)
	if j == nil {
		return nil
	}
	next, err := j.Timeout(b.now)
	b.put(next)
	return err
}

// abandon leaves a run behind: from now on it is a zombie.
func (b *book) abandon(r ref, unary bool) error {
	j := b.live(r)
	if j == nil {
		return nil
	}
	next, err := j.HardDeadline(b.now, b.policyOf(j), rand.Float64())
	if err != nil {
		return err
	}
	b.put(next)
	return b.tx.PutZombie(zombieOf(j, unary, b.now))
}
