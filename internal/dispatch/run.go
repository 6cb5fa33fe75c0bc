package dispatch

import (
	"slices"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// run is a live run, or one that ended while its worker may still hold it.
type run struct {
	ref
	job     *job.Job // the newest version applied while it is live; nil before and after
	queue   string
	size    uint64 // of the payload
	worker  *worker
	session *Session // it was assigned to or adopted by; nil: a unary claim's, or its server has restarted
	claim   *claim   // nil: a session's
	pool    *pool    // it is counted in; nil: none
	share   *share   // that it is a run of; nil once it has ended
	demand  uint64   // the version of the demand it was matched under
	number  uint64   // its assignment's; 0: unary, adopted, or not sent
	unary   bool     // it lives by its lease alone

	applied  bool // its claim is in the store
	synced   bool // its claim is on disk: the worker may know
	sent     bool // it was handed to the sender
	accepted bool // its worker has named it
	ended    bool // it is no longer live; its slot is taken until its worker no longer lists it

	generation uint32   // of its interrupt, as applied; 0: none
	news       *Verdict // on disk and not yet told: a new generation of its interrupt, or that it must stop
	alarm      *alarm   // nil: its job has no timeout and it is not interrupted

	listed     uint64 // the last turn whose report listed it
	deadline   deadline
	prev, next *run // among its worker's runs
}

// live reports whether the run's claim is applied and it has not ended.
func (r *run) live() bool { return r.applied && !r.ended }

// lease is how long the run may be silent, on the dispatcher's clock.
func (r *run) lease() int64 { return int64(r.job.Run.Lease) }

// add makes a run known. It is counted in no pool.
func (d *Dispatcher) add(r *run, w *worker) *run {
	r.deadline.of = r
	d.runs[r.fence] = r
	w.add(r)
	return r
}

// free forgets a run and gives its slot back. It does nothing if the run was freed before.
func (d *Dispatcher) free(r *run) {
	if d.runs[r.fence] != r {
		return
	}
	delete(d.runs, r.fence)
	r.worker.remove(r)
	d.deadlines.drop(&r.deadline)
	d.disarm(r)
	r.ended, r.job = true, nil
	d.endTurn(r)
	d.unplace(r)
}

// unplace gives the run's slot back, which may be what a ready job waits for.
func (d *Dispatcher) unplace(r *run) {
	if p := r.pool; p != nil {
		p.give(r)
		d.line(p)
	}
}

// renew grants a run that its worker has named a full lease from now.
func (d *Dispatcher) renew(r *run, now int64) {
	if r.live() {
		r.accepted = true
		d.deadlines.set(&r.deadline, now+r.lease())
	}
}

// ran follows a job that has a live run.
func (d *Dispatcher) ran(j *job.Job, now int64) {
	r := d.runs[j.Run.Fence]
	if r == nil {
		r = d.add(newRun(j), d.worker(j.Run.Instance, now))
		d.resume(r)
		d.deadlines.set(&r.deadline, now+int64(j.Run.Lease))
	}
	r.job = j
	if !r.applied {
		r.applied = true
		d.unsealed.runs = append(d.unsealed.runs, r)
		d.claimed(r, now)
	}
	if j.Run.State == job.RunRunning && !r.accepted {
		d.renew(r, now)
	}
	d.follow(r, now)
}

// newRun is a run as the store knows it.
func newRun(j *job.Job) *run {
	return &run{
		ref: ref{j.Seq, j.Run.Fence}, job: j, queue: j.Spec.Queue, size: uint64(j.Spec.PayloadSize), unary: j.Run.Unary,
		applied: true, synced: true, sent: true, accepted: j.Run.State == job.RunRunning,
		generation: j.Interrupted().Generation,
	}
}

// ended follows a job whose live run has ended. A finish gives the slot back, and so does an end that the worker need
// not hear of; after any other end the worker may still be busy with it, so that the slot is taken until it is no
// longer listed.
func (d *Dispatcher) ended(fence uint64, j *job.Job, keys []store.KeyUse) {
	r := d.runs[fence]
	if r == nil {
		return
	}
	how := endOf(j, fence)
	switch how {
	case job.RunAbandoned:
		z := zombieOf(r.job, r.byCall(), d.wall())
		z.Keys = keys
		d.haunt(z, d.now())
	case job.RunLost:
		d.stats.Lost++
	case job.RunUndelivered:
		d.stats.Undelivered++
	default:
	}
	if finished(how) || !r.sent || r.session == nil || r.session.err != nil {
		d.free(r)
		return
	}
	r.ended, r.job = true, nil
	d.endTurn(r)
	d.deadlines.drop(&r.deadline)
	d.disarm(r)
	if how == job.RunUndelivered {
		d.unsealed.news = append(d.unsealed.news, news{run: r, unread: true})
		return
	}
	d.tell(r, Verdict{Action: Stop, Reason: stopReason(how)})
}

// endOf is how the run of the fence ended; RunNone if the job's history does not say.
func endOf(j *job.Job, fence uint64) job.RunState {
	if j == nil {
		return job.RunNone
	}
	for _, r := range slices.Backward(j.History) {
		if r.Fence == fence {
			return r.State
		}
	}
	return job.RunNone
}

// finished reports whether a run ended by its worker's word.
func finished(s job.RunState) bool { return s >= job.RunSucceeded && s <= job.RunReleased }

// weight is about how many bytes an assignment of the job takes on the wire.
func weight(j *job.Job) uint64 {
	n := j.Spec.PayloadSize + len(j.Spec.Queue) + len(j.Spec.Subject) + len(j.Spec.ContentType) + len(j.Spec.Tracestate) + len(j.Spec.FairnessKey) + 256
	for key, value := range j.Spec.Labels {
		n += len(key) + len(value) + 6
	}
	for _, u := range j.Spec.Limits {
		n += len(u.Limit) + len(u.Key) + 16
	}
	return uint64(n)
}
