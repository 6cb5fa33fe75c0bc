package event

import (
	"slices"
	"time"

	"github.com/stintrun/stint/internal/job"
)

// Of appends what a change of a job tells, in its order. Old is nil for a new job, now for a deleted one.
func Of(to []Event, was, now *job.Job, at time.Time) []Event {
	d := differ{was: was, now: now, to: to}
	switch {
	case was == nil:
		d.base = Event{Shape: Shape{Queue: now.Spec.Queue, State: now.State}, Time: at, Job: now.Spec.ID, Labels: hashes(now.Spec)}
		d.add(JobSubmitted, func(e *Event) { e.Until = now.DueTime })
	case now == nil:
		d.base = Event{Shape: Shape{Queue: was.Spec.Queue}, Time: at, Job: was.Spec.ID, Labels: hashes(was.Spec)}
		d.add(JobDeleted, nil)
	default:
		d.base = Event{Shape: Shape{Queue: now.Spec.Queue, State: now.State}, Time: at, Job: now.Spec.ID, Labels: hashes(now.Spec)}
		d.diff()
	}
	return d.to
}

// hashes are the hashes of the job's labels.
func hashes(s *job.Spec) []uint64 {
	if len(s.Labels) == 0 {
		return nil
	}
	all := make([]uint64, 0, len(s.Labels))
	for key, value := range s.Labels {
		all = append(all, LabelHash(key, value))
	}
	slices.Sort(all)
	return all
}

// differ tells two versions of a job apart.
type differ struct {
	was, now *job.Job
	base     Event
	to       []Event
}

func (d *differ) add(kind Kind, fill func(*Event)) {
	d.to = append(d.to, d.base)
	e := &d.to[len(d.to)-1]
	if e.Kind = kind; fill != nil {
		fill(e)
	}
}

func (d *differ) diff() {
	if d.was.Spec != d.now.Spec {
		d.add(JobUpdated, d.by)
	}
	d.interrupts()
	d.runs()
	if d.was.State != d.now.State || d.was.Epoch != d.now.Epoch {
		d.state()
	}
}

// by says who acted, if somebody did.
func (d *differ) by(e *Event) {
	is := d.now.Actions
	if n := len(is); n > 0 && (len(d.was.Actions) == 0 || d.was.Actions[len(d.was.Actions)-1] != is[n-1]) {
		e.Reason, e.Who = is[n-1].Reason, is[n-1].Requester
	}
}

// interrupts tells of an interrupt that was asked for, was sent, or is acted on. That it is over the run's end says.
func (d *differ) interrupts() {
	now := d.now.Interrupt
	if n := len(d.now.History); now == nil && n > 0 && d.was.Run.State.Live() && d.now.Run.Fence != d.was.Run.Fence {
		now = d.now.History[n-1].Interrupt // it ended with the run
	}
	if now == nil {
		return
	}
	was, is := d.was.Interrupted(), *now
	fill := func(e *Event) {
		e.Run, e.Level, e.Source, e.Reason, e.Who, e.Until = d.was.Run.Number, is.Level, is.Source, is.Reason, is.Requester, is.GraceTime
	}
	if is.Generation != was.Generation {
		was = job.Interrupt{}
		d.add(InterruptRequested, fill)
	}
	if !is.DeliverTime.IsZero() && was.DeliverTime.IsZero() {
		d.add(InterruptDelivered, fill)
	}
	if !is.AckTime.IsZero() && was.AckTime.IsZero() {
		d.add(InterruptAcknowledged, fill)
	}
}

// runs tells of a run that ended, one that began, and one that was accepted.
func (d *differ) runs() {
	was, is := &d.was.Run, &d.now.Run
	switch {
	case was.Fence == is.Fence:
		if was.State == job.RunDispatched && is.State == job.RunRunning {
			d.run(RunAccepted, is)
		}
	case was.State.Live():
		if ended := d.ended(was.Number); ended != nil {
			if was.State == job.RunDispatched && !ended.AcceptTime.IsZero() {
				d.acceptedBefore(ended)
			}
			d.run(RunEnded, ended)
		}
	}
	if was.Fence != is.Fence && is.State.Live() {
		d.run(RunDispatched, is)
	}
	if !was.State.Live() && d.was.RunCount == d.now.RunCount {
		for i := range d.now.History {
			if r := &d.now.History[i]; i < len(d.was.History) && d.was.History[i].Number == r.Number && d.was.History[i].State != r.State {
				d.run(RunEnded, r)
			}
		}
	}
}

// acceptedBefore tells of the acceptance that the end of a run implies: the job was RUNNING then.
func (d *differ) acceptedBefore(r *job.Run) {
	e := d.base
	e.Shape = Shape{
		Kind: RunAccepted, Queue: e.Queue, State: job.Running, Run: r.Number, RunState: job.RunRunning, Worker: r.Worker, Instance: r.Instance,
	}
	d.to = append(d.to, e)
}

// ended is the ended run of the number.
func (d *differ) ended(number uint32) *job.Run {
	for i := len(d.now.History) - 1; i >= 0; i-- {
		if d.now.History[i].Number == number {
			return &d.now.History[i]
		}
	}
	return nil
}

func (d *differ) run(kind Kind, r *job.Run) {
	d.add(kind, func(e *Event) {
		e.Run, e.RunState, e.Worker, e.Instance = r.Number, r.State, r.Worker, r.Instance
		if e.Reason = r.Note; r.Failure != nil {
			e.Reason = r.Failure.Message
		}
		if r.Interrupt != nil {
			e.Level, e.Source = r.Interrupt.Level, r.Interrupt.Source
		}
	})
}

// state tells where the job stands now. Of a job that runs its run tells.
func (d *differ) state() {
	kind := None
	switch d.now.State {
	case job.Ready:
		kind = JobReady
	case job.Scheduled, job.Backoff, job.Blocked:
		kind = JobDelayed
	case job.Parked:
		kind = JobParked
	case job.Succeeded, job.Failed, job.Cancelled, job.Expired:
		kind = JobEnded
	case job.Running, job.StateNone:
		return
	}
	d.add(kind, func(e *Event) {
		d.by(e)
		if e.Run = d.now.RunCount; kind == JobDelayed {
			e.Until = d.now.DueTime
		}
		if e.Reason == "" && d.now.Failure != nil && (kind == JobParked || d.now.State == job.Failed) {
			e.Reason = d.now.Failure.Message
		}
	})
}
