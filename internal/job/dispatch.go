package job

import "time"

// Dispatch says to whom a run goes.
type Dispatch struct {
	Fence    uint64 // from the store; never used before
	Worker   string
	Instance ID
	Build    string
	Unary    bool
	Lease    time.Duration

	LostContact LostContact
}

// Dispatch hands a READY job out: it is RUNNING, its new run DISPATCHED. Errors: ErrStartBy, ErrIllegal.
func (j *Job) Dispatch(now time.Time, d Dispatch) (*Job, error) {
	if j.State == Ready && j.overdue(now) {
		return nil, ErrStartBy
	}
	return j.change(EventDispatch, func(n *Job) {
		n.State = Running
		n.RunCount++
		n.Run = Run{
			Number: n.RunCount, Fence: d.Fence, State: RunDispatched, Epoch: n.Epoch,
			Worker: d.Worker, Instance: d.Instance, Build: d.Build, Unary: d.Unary, Lease: d.Lease, LostContact: d.LostContact,
			DispatchTime: later(now, n.ReadyTime),
		}
	})
}

// Accept notes that the worker has named its run. It returns j itself if it had before. Errors: ErrIllegal.
func (j *Job) Accept(now time.Time) (*Job, error) {
	if j.phase() == running {
		return j.unchanged(EventAccept)
	}
	return j.change(EventAccept, func(n *Job) { n.accept(now) })
}

// Undeliver ends a run that its worker has not named: the job is READY again at its old place. At the bound of
// deliveries it is PARKED, after its start_by EXPIRED. note says why, for people. Errors: ErrIllegal.
func (j *Job) Undeliver(now time.Time, note string) (*Job, error) {
	return j.change(EventUndeliver, func(n *Job) {
		n.endRun(terms{now: now}, ending{state: RunUndelivered, note: note})
	})
}

// accept marks the live run as named by its worker; from then on start_by is met.
func (j *Job) accept(now time.Time) {
	j.Run.State = RunRunning
	j.Run.AcceptTime = later(now, j.Run.DispatchTime)
	j.StartBy = time.Time{}
	j.freeKey()
}
