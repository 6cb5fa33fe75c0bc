package dispatch

import (
	"context"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Choice is what became of a chosen job: a run, or why there is none.
type Choice struct {
	Run *Assignment // nil: it was not claimed
	// Why not: ErrJobUnknown, job.ErrRunActive, job.ErrIllegal (it is not READY), ErrBlocked, ErrAnswerFull, ErrRunOver.
	Err      error
	State    job.State // of the job; none if nothing is known of it
	Worker   string    // who has it, if it is running
	Instance job.ID
	Why      any // what the caller of Choose made of a job that is blocked

	job *job.Job
}

// Choose claims chosen READY jobs, none of which is named twice; queues, Max, Wait and Quit of the request do not matter. A
// chosen job passes those that wait before it; it is under the same limits, pauses, gates and reservations as they are.
// explain is called in the transaction for each job that is ErrBlocked. A repeat of the request answers what the first was
// answered, as long as it claimed something. There is a choice for each id, in their order. Errors: as Claim.
func (d *Dispatcher) Choose(ctx context.Context, r ClaimRequest, ids []job.ID, explain func(store.Tx, *job.Job) (any, error)) ([]Choice, error) {
	r.Queues, r.Max = nil, len(ids)
	c, err := d.join(r, ids)
	if err != nil {
		return nil, err
	}
	if err = d.store.Update(ctx, d.choosing(c, explain)); err == nil {
		err = ctx.Err() // the answer would reach nobody
	}
	if err == nil {
		d.mu.Lock()
		d.settle(c, nil) // unless it got something
		d.mu.Unlock()
	}
	runs, err := d.leave(c, err)
	if err != nil {
		return nil, err
	}
	return c.outcome(runs), nil
}

// outcome is what is to be told of the choices, of which these runs are live.
func (c *claim) outcome(runs []Assignment) []Choice {
	live := make(map[uint64]*Assignment, len(runs))
	for i := range runs {
		live[runs[i].Job.Seq] = &runs[i]
	}
	out := make([]Choice, len(c.choices))
	for i, choice := range c.choices {
		if choice.Err == nil {
			if choice.Run = live[choice.job.Seq]; choice.Run == nil {
				choice.Err = ErrRunOver
			}
		}
		out[i] = choice
	}
	return out
}

// choosing is the transaction that looks at the jobs which the claim is for. It is done once, whoever of the claim's callers
// comes first: a repeat must not claim what the first could not.
func (d *Dispatcher) choosing(c *claim, explain func(store.Tx, *job.Job) (any, error)) func(store.Tx) error {
	mine := false
	return func(tx store.Tx) error {
		d.mu.Lock()
		d.takeBack()
		over := c.settled || c.choices != nil && !mine
		if !over {
			mine, c.choices = true, nil
		}
		d.mu.Unlock()
		if over {
			return nil
		}
		m := matcher{d: d, tx: tx, now: tx.Now(), clock: d.now(), failed: true}
		defer m.end()
		choices, err := m.chooseAll(c)
		if err == nil {
			err = tx.Put(m.changes...)
		}
		if err != nil {
			return err
		}
		for i := range choices {
			if choice := &choices[i]; choice.Err == ErrBlocked { //nolint:errorlint // as chooseAll says it
				if choice.Why, err = explain(tx, choice.job); err != nil {
					return err
				}
			}
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		c.choices, m.failed = choices, false
		return nil
	}
}

// chooseAll makes the runs of the chosen jobs that may start.
func (m *matcher) chooseAll(c *claim) ([]Choice, error) {
	found, err := m.tx.Find(c.chosen)
	if err != nil {
		return nil, err
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	choices := make([]Choice, len(found))
	for i, f := range found {
		choices[i] = m.choose(c.pool, f)
		choices[i].job = f.Job
	}
	return choices, nil
}

// choose makes the run of one chosen job, if it may start.
func (m *matcher) choose(p *pool, f store.Found) Choice {
	j := f.Job
	switch {
	case j == nil:
		return Choice{State: f.State, Err: ErrJobUnknown}
	case j.State == job.Running:
		return Choice{State: j.State, Worker: j.Run.Worker, Instance: j.Run.Instance, Err: job.ErrRunActive}
	case j.State != job.Ready:
		return Choice{State: j.State, Err: job.ErrIllegal}
	case !p.room():
		return Choice{State: j.State, Err: ErrAnswerFull}
	}
	blocked := Choice{State: j.State, Err: ErrBlocked}
	l, _ := m.tx.LaneOf(j).Mark().(*lane)
	if l == nil || l.share == nil || j.Avoid == p.to.Instance && m.now.Before(j.AvoidUntil) {
		return blocked
	}
	q := l.share.queue
	if !q.open && !m.admit(q) || q.room == 0 {
		return blocked
	}
	if _, full := m.full(l); full {
		return blocked
	}
	before := p.inFlight
	if !m.give(l, j, p) {
		return blocked
	}
	if !l.stands(&l.band().turns) {
		l.since = m.clock // it hangs still; it had its chance
	}
	m.turned(l)
	if p.inFlight == before { // its start_by has passed
		return Choice{State: job.Expired, Err: job.ErrIllegal}
	}
	return Choice{State: job.Running}
}
