package client

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

const retry = stintv1.InterruptLevel_INTERRUPT_LEVEL_RETRY

// defaultLease stands in for a lease that an assignment does not name.
const defaultLease = 30 * time.Second

// held is a run from its receipt until its finish is acknowledged, or until it was stopped and its handler is gone.
type held struct {
	token  string
	run    *Run
	pool   *pool
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Guarded by Worker.mu.
	session  *session  // the one whose reports list it; nil: none yet
	unlisted bool      // it was claimed by a call, and no hello has listed it yet
	renewed  time.Time // send time of what the server's last CONTINUE answered; receipt at first
	lease    time.Duration
	goesOn   bool            // also when the server does not answer
	lost     bool            // its deadline has passed since the server's last CONTINUE
	told     uint32          // the newest generation of the server's interrupt that was obeyed
	graceEnd time.Time       // when the grace of its interrupts ends; zero: none has one
	stopped  bool            // the server said STOP; the result is dropped
	finish   *stintv1.Finish // the outcome, once the handler is gone; never changed, only replaced
	size     int             // about the bytes of finish on the wire
	rejected bool            // the server rejected a finish before
	counted  bool            // in Worker.spent
}

// deadline is when the worker must take the run for lost.
func (h *held) deadline() time.Time { return h.renewed.Add(h.lease - h.lease/10) }

// accept takes up an assignment. Caller holds mu, and starts the run afterwards.
func (w *Worker) accept(s *session, a *stintv1.Assignment, now time.Time) *held {
	s.received = max(s.received, a.GetAssignmentSeq())
	h := w.hold(a, now)
	if h == nil {
		return nil
	}
	h.session = s
	if i := int(a.GetPool()); i < len(w.pools) {
		h.pool = w.pools[i]
	}
	if w.cfg.MaxRuns > 0 && w.stats.Assigned >= uint64(w.cfg.MaxRuns) {
		w.drain(forever, SourceShutdown, "MaxRuns is reached")
	}
	return h
}

// hold makes a run one that the worker holds; nil if it was before. Caller holds mu.
func (w *Worker) hold(a *stintv1.Assignment, now time.Time) *held {
	if w.held[a.GetLeaseToken()] != nil {
		w.cfg.Logger.Warn("a run was assigned twice", slog.String("job_id", a.GetJobId()))
		return nil
	}
	h := &held{token: a.GetLeaseToken(), run: newRun(a), renewed: now}
	h.goesOn = a.GetLostContact() == stintv1.LostContact_LOST_CONTACT_CONTINUE
	if h.run.Lease <= 0 {
		h.run.Lease = defaultLease
	}
	h.lease = h.run.Lease
	h.ctx, h.cancel = context.WithCancelCause(w.base)
	if len(w.held) == 0 {
		w.stats.IdleSince = time.Time{}
	}
	w.held[h.token] = h
	w.stats.Assigned++
	w.expect(h)
	w.event(Event{Kind: RunAssigned, Run: h.run})
	if w.halt != nil {
		w.interrupt(h, w.halt)
	}
	return h
}

// expect has the supervisor look at a run's deadline when it comes. Caller holds mu.
func (w *Worker) expect(h *held) {
	if at := h.deadline(); w.deadline.IsZero() || at.Before(w.deadline) {
		w.deadline = at
		w.look()
	}
}

// start hands a run to its pool. A run the worker has no room for goes back at once.
func (w *Worker) start(h *held) {
	if h.pool != nil {
		select {
		case h.pool.queue <- h:
			return
		default:
		}
	}
	w.cfg.Logger.Warn("a run was assigned beyond the demand", slog.String("job_id", h.run.JobID))
	h.cancel(nil)
	w.finished(h, outcome(h.run, NotMe("the worker has no room for it"), nil))
}

// finished files a run's outcome when its handler is gone, and has it sent.
func (w *Worker) finished(h *held, finish *stintv1.Finish) {
	size := 256
	if finish.GetSuccess().GetResult() != nil || finish.GetFailure() != nil {
		size += proto.Size(finish)
	}
	if size > maxSend-1024 {
		finish = failed(&stintv1.Failure{
			Type: "result_too_large", Message: "the result is larger than a message may be (4 MiB)", Final: true,
		})
		size = 512
	}
	finish.LeaseToken = h.token
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.stopped {
		w.remove(h)
	} else {
		h.finish, h.size = finish, size
		if w.session != nil {
			w.session.finishes = append(w.session.finishes, h)
		}
	}
	if w.session != nil {
		w.session.poke()
	}
}

// remove lets go of a run. Caller holds mu.
func (w *Worker) remove(h *held) {
	delete(w.held, h.token)
	w.spend(h)
	if len(w.held) == 0 {
		w.stats.IdleSince = time.Now()
		w.noteIdle()
		if w.draining {
			w.look()
		}
	}
}

// spend counts a run whose slot the server may give to another run. Caller holds mu.
func (w *Worker) spend(h *held) {
	if !h.counted {
		h.counted = true
		w.spent++
	}
}

// judge obeys a verdict that answers what was sent at the time given; by says which session lists the run from now on.
// Caller holds mu.
func (w *Worker) judge(h *held, v *stintv1.Verdict, sent time.Time, by *session) {
	switch v.GetAction() {
	case stintv1.VerdictAction_VERDICT_ACTION_CONTINUE:
		h.session, h.renewed = by, sent
		if lease := v.GetLease().AsDuration(); lease > 0 {
			h.lease = lease
		}
		if h.lost {
			h.lost = false
			w.expect(h)
		}
		w.obey(h, v.Interrupt, by)
	case stintv1.VerdictAction_VERDICT_ACTION_FINISHED:
		h.session = nil
		if h.finish == nil {
			w.stop(h, stintv1.StopReason_STOP_REASON_SUPERSEDED)
		}
	case stintv1.VerdictAction_VERDICT_ACTION_STOP:
		w.stop(h, v.GetStopReason())
	default:
		w.cfg.Logger.Warn("a verdict of a kind this SDK does not know is ignored",
			slog.String("job_id", h.run.JobID), slog.Int("action", int(v.GetAction())))
	}
}

// push obeys a verdict that came by itself and renews nothing. Caller holds mu.
func (w *Worker) push(s *session, v *stintv1.Verdict) {
	h := w.held[v.GetLeaseToken()]
	if h == nil {
		return
	}
	switch v.GetAction() {
	case stintv1.VerdictAction_VERDICT_ACTION_CONTINUE:
		w.obey(h, v.Interrupt, s)
	case stintv1.VerdictAction_VERDICT_ACTION_STOP:
		w.stop(h, v.GetStopReason())
	default:
	}
}

// obey acts on the server's interrupt of a run, and has it acknowledged. Caller holds mu.
func (w *Worker) obey(h *held, in *stintv1.Interrupt, s *session) {
	if in == nil {
		return
	}
	if g := in.GetGeneration(); g == 0 || g > h.told {
		h.told = g
		w.interrupt(h, interruptError(in))
	}
	s.acks = append(s.acks, &stintv1.InterruptAck{LeaseToken: h.token, Generation: in.GetGeneration()})
}

// interrupt asks a handler to stop, if the level is higher than before or its grace ends sooner. Caller holds mu.
func (w *Worker) interrupt(h *held, e *InterruptError) {
	raised, sooner := h.run.raise(e.Level), false
	if e.Grace > 0 {
		end := earlier(h.graceEnd, time.Now().Add(e.Grace))
		sooner = !end.Equal(h.graceEnd)
		h.graceEnd = end
	}
	if raised || sooner {
		w.interrupted(h, e)
	}
}

// interrupted tells a handler, and who listens, of an interrupt. Caller holds mu.
func (w *Worker) interrupted(h *held, e *InterruptError) {
	if h.finish != nil || h.stopped {
		return
	}
	h.cancel(e)
	w.event(Event{Kind: RunInterrupted, Run: h.run, Err: e})
}

// graceOf is how much is left of the grace that a run's interrupts gave it, less than 0 if it is over; 0: it has none.
func (w *Worker) graceOf(h *held) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.graceEnd.IsZero() {
		return 0
	}
	return cmp.Or(time.Until(h.graceEnd), -1)
}

// stop ends a run that is no longer this worker's; what it brings is dropped. Caller holds mu.
func (w *Worker) stop(h *held, why stintv1.StopReason) {
	if h.stopped {
		return
	}
	h.stopped = true
	h.cancel(ErrStopped)
	w.stats.Dropped++
	w.event(Event{Kind: RunStopped, Run: h.run, Stop: why})
	w.cfg.Logger.Warn("a run was stopped by the server", slog.String("job_id", h.run.JobID),
		slog.Uint64("run", uint64(h.run.Number)), slog.String("why", why.String()))
	if h.finish != nil {
		w.remove(h)
	}
}

// acknowledged ends a run whose finish was answered. Caller holds mu.
func (w *Worker) acknowledged(s *session, ack *stintv1.FinishAck) {
	h := w.held[ack.GetLeaseToken()]
	if h == nil || h.finish == nil {
		return
	}
	err := itemError(ack.GetError())
	switch ack.GetStatus() {
	case stintv1.FinishStatus_FINISH_STATUS_RECORDED, stintv1.FinishStatus_FINISH_STATUS_DUPLICATE:
		w.stats.Recorded++
	case stintv1.FinishStatus_FINISH_STATUS_REJECTED:
		w.cfg.Logger.Error("an outcome was rejected", slog.String("job_id", h.run.JobID),
			slog.Uint64("run", uint64(h.run.Number)), slog.Any("error", err), slog.Bool("again", h.rejected))
		if !h.rejected {
			h.rejected = true
			h.finish = fallback(h.finish, err)
			h.size = 256 + proto.Size(h.finish)
			s.finishes = append(s.finishes, h)
			return
		}
		w.stats.Dropped++
	default:
		w.stats.Dropped++
		w.cfg.Logger.Warn("an outcome did not count", slog.String("job_id", h.run.JobID),
			slog.Uint64("run", uint64(h.run.Number)), slog.String("status", ack.GetStatus().String()))
	}
	w.remove(h)
	e := Event{Kind: RunFinished, Run: h.run, Status: ack.GetStatus(), JobState: ack.GetJobState()}
	if err != nil {
		e.Err = err
	}
	w.event(e)
	if kind := whereabouts(ack.GetJobState()); kind != 0 && counts(ack.GetStatus()) {
		w.event(Event{Kind: kind, Run: h.run, JobState: ack.GetJobState()})
	}
}

// counts reports whether a finish with this answer is the run's outcome.
func counts(s stintv1.FinishStatus) bool {
	return s == stintv1.FinishStatus_FINISH_STATUS_RECORDED || s == stintv1.FinishStatus_FINISH_STATUS_DUPLICATE
}

// fallback is a plainer form of a finish that the server rejected, the most it can be trusted to take: a result it will
// not store ends the job as a failure that says so, the others lose their settings.
func fallback(f *stintv1.Finish, why *ItemError) *stintv1.Finish {
	plain := &stintv1.Finish{LeaseToken: f.GetLeaseToken()}
	switch o := f.GetOutcome().(type) {
	case *stintv1.Finish_Failure:
		plain.Outcome = &stintv1.Finish_Failure{Failure: &stintv1.Failure{
			Class: o.Failure.GetClass(), Type: o.Failure.GetType(), Message: o.Failure.GetMessage(),
			Final: o.Failure.GetFinal(), Park: o.Failure.GetPark(),
		}}
	case *stintv1.Finish_Interrupted:
		plain.Outcome = &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{}}
	case *stintv1.Finish_Released:
		plain.Outcome = &stintv1.Finish_Released{Released: &stintv1.Released{}}
	default:
		message := "the server rejected the result"
		if why != nil {
			message += ": " + why.Error()
		}
		plain.Outcome = &stintv1.Finish_Failure{Failure: &stintv1.Failure{
			Type: "result_rejected", Message: message, Final: true,
		}}
	}
	return plain
}
