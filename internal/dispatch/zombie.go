package dispatch

import (
	"slices"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// zombie is a run that was left behind at its hard deadline and may still be at work. It takes a place in its queue's
// max_running, unless the queue says otherwise, until a sign says that it is gone: its finish, a report or hello without
// it, or its session, or for a unary claim's any call that names it, missing for a full lease.
type zombie struct {
	ref
	queue    string
	keys     []store.KeyUse
	worker   *worker
	unary    bool // it belongs to no session
	lease    int64
	deadline deadline
}

// haunt follows a zombie from now on: it has a full lease.
func (d *Dispatcher) haunt(s *store.Zombie, now int64) {
	z := &zombie{ref: ref{s.Seq, s.Fence}, queue: s.Queue, keys: s.Keys, unary: s.Unary, lease: int64(s.Lease)}
	z.deadline.of = z
	z.worker = d.worker(s.Instance, now)
	if z.worker.info.Worker == "" {
		z.worker.info.Worker = s.Worker
	}
	z.worker.zombies = append(z.worker.zombies, z)
	d.zombies[z.fence] = z
	d.deadlines.set(&z.deadline, now+z.lease)
}

// bury forgets zombies; a ready job may have waited for their places.
func (d *Dispatcher) bury(fences []uint64) {
	for _, fence := range fences {
		z := d.zombies[fence]
		if z == nil {
			continue
		}
		delete(d.zombies, fence)
		z.worker.zombies = slices.DeleteFunc(z.worker.zombies, func(o *zombie) bool { return o == z })
		d.deadlines.drop(&z.deadline)
		d.vacated(z.queue)
		d.gaveBack(z.keys)
	}
}

// stir grants a zombie that its worker still names another lease.
func (d *Dispatcher) stir(fence uint64, now int64) {
	if z := d.zombies[fence]; z != nil {
		d.deadlines.set(&z.deadline, now+z.lease)
	}
}

// answerFor makes a session answer for a zombie that a hello lists, also for one that was claimed by a call.
func (d *Dispatcher) answerFor(fence uint64) {
	if z := d.zombies[fence]; z != nil {
		z.unary = false
	}
}

// vacated notes that a queue may have room for one more run.
func (d *Dispatcher) vacated(name string) {
	if q := d.queues[name]; q != nil {
		d.activate(q)
	}
}

// unlisted are the zombies of the turn's session that its worker no longer lists.
func (t *turn) unlisted() (gone []uint64) {
	d := t.d
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, z := range t.session.worker.zombies {
		if !z.unary && !slices.Contains(t.listed(), z.ref) {
			gone = append(gone, z.fence)
		}
	}
	return gone
}

// endZombies lets those go that finish with this turn, or that its report no longer lists.
func (t *turn) endZombies(tx store.Tx) {
	t.buried = nil
	for i, a := range t.answer.Acks {
		if fence := t.refs[i].fence; a.Status != AckRejected && tx.EndZombie(fence) {
			t.buried = append(t.buried, fence)
		}
	}
	if !t.complete {
		return
	}
	for _, fence := range t.unlisted() {
		tx.EndZombie(fence)
		t.buried = append(t.buried, fence)
	}
}

// reapZombies lets those go of which nothing was heard for a lease.
func (d *Dispatcher) reapZombies(due []*zombie) {
	if len(due) == 0 {
		return
	}
	var silent []uint64
	ok := d.judgeDue("let zombies go", func(tx store.Tx) error {
		silent = d.silent(due)
		for _, fence := range silent {
			tx.EndZombie(fence)
		}
		return nil
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if ok {
		d.bury(silent)
		d.nudge()
	}
	again := d.now() + int64(sweepEvery)
	for _, z := range due {
		if d.zombies[z.fence] == z && z.deadline.key == 0 {
			d.deadlines.set(&z.deadline, max(z.deadline.at, again))
		}
	}
}

// silent are those of the zombies whose time is still over. One whose session is open has another lease: its reports tell.
func (d *Dispatcher) silent(due []*zombie) (fences []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, z := range due {
		switch {
		case z.deadline.at > now:
		case !z.unary && z.worker.session != nil:
			d.deadlines.set(&z.deadline, now+z.lease)
		default:
			fences = append(fences, z.fence)
		}
	}
	return fences
}

// zombieOf is what a live run leaves behind at its hard deadline.
func zombieOf(j *job.Job, unary bool, now time.Time) *store.Zombie {
	return &store.Zombie{
		Fence: j.Run.Fence, Seq: j.Seq, Queue: j.Spec.Queue, Instance: j.Run.Instance, Worker: j.Run.Worker,
		Unary: unary, Lease: j.Run.Lease, Time: now, Limits: j.Taken(),
	}
}

// byCall reports whether no session answers for the run.
func (r *run) byCall() bool { return r.unary && r.session == nil }
