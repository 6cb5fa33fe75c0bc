package client

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

var (
	// errDrained ends the sessions of a worker that has nothing left to do.
	errDrained = errors.New("stint: the worker is drained")
	// errGaveUp ends the sessions of a worker whose handlers or acknowledgements do not come.
	errGaveUp = errors.New("stint: the worker gave up waiting")
)

// idleCadence is the longest time between two reports that a server asks for.
const idleCadence = 15 * time.Second

// supervise watches over deadlines and the stop until the sessions have ended, and returns their error.
func (w *Worker) supervise(stop <-chan struct{}, ended <-chan error, leave context.CancelCauseFunc) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-stop:
			w.Stop()
			stop = nil
		case <-w.changed:
		case <-timer.C:
		}
		now := time.Now()
		next, reason := w.tend(now)
		if reason != nil {
			leave(reason)
		}
		timer.Reset(max(next.Sub(now), 0))
	}
}

// tend does what is due by now, and returns when to look again and, if the sessions shall end, why.
func (w *Worker) tend(now time.Time) (next time.Time, leave error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire(now)
	next = now.Add(time.Hour)
	if !w.deadline.IsZero() {
		next = w.deadline
	}
	if !w.draining {
		return next, nil
	}
	if w.halt == nil && !w.graceEnd.IsZero() && !now.Before(w.graceEnd) {
		w.giveUp = now.Add(w.cfg.CancelGrace)
		w.halt = w.drainer
		for _, h := range w.held {
			w.interrupt(h, w.halt)
		}
	}
	switch {
	case len(w.held)+w.claims == 0 && w.session == nil:
		return next, errDrained
	case w.halt != nil && !now.Before(w.patience()):
		return next, errGaveUp
	case w.halt != nil:
		next = earlier(next, w.patience())
	case !w.graceEnd.IsZero():
		next = earlier(next, w.graceEnd)
	}
	return next, nil
}

// patience is when an interrupted worker gives up. After a drain its handlers have the grace that the server gave them.
// Caller holds mu.
func (w *Worker) patience() time.Time {
	until := w.giveUp
	for _, h := range w.held {
		if end := h.graceEnd.Add(w.cfg.CancelGrace); w.halt.Source == SourceDrain && !h.graceEnd.IsZero() && end.After(until) {
			until = end
		}
	}
	return until
}

// expire interrupts the runs whose own deadline has passed, also those that are interrupted already and still have their
// grace, and finds the next one. Caller holds mu.
func (w *Worker) expire(now time.Time) {
	if w.deadline.IsZero() || now.Before(w.deadline) {
		return
	}
	w.deadline = time.Time{}
	for _, h := range w.held {
		if h.finish != nil || h.stopped || h.lost || h.goesOn {
			continue
		}
		if at := h.deadline(); now.Before(at) {
			w.deadline = earlier(w.deadline, at)
			continue
		}
		w.cfg.Logger.Warn("a run's lease ran out while the server did not answer", slog.String("job_id", h.run.JobID))
		h.lost = true
		h.run.raise(retry)
		w.interrupted(h, &InterruptError{Level: retry, Reason: "no answer from the server", Source: SourceLostContact})
	}
}

// interruptAll interrupts every run.
func (w *Worker) interruptAll(e *InterruptError) {
	w.mu.Lock()
	for _, h := range w.held {
		w.interrupt(h, e)
	}
	w.mu.Unlock()
}

// drain asks for no more runs, and for the interruption of those held after grace. A later call can only shorten the
// grace. Caller holds mu.
func (w *Worker) drain(grace time.Duration, source Source, reason string) {
	w.drainer = &InterruptError{Level: retry, Reason: reason, Source: source}
	if grace != forever {
		w.graceEnd = earlier(w.graceEnd, time.Now().Add(grace))
	}
	if !w.draining {
		w.draining = true
		w.event(Event{Kind: Draining, Err: w.drainer})
		if w.session != nil {
			w.session.poke()
		}
	}
	w.look()
}

// look has the supervisor look again.
func (w *Worker) look() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// connect holds one session after another until the worker is drained, ctx ends, or the server refuses it for good.
func (w *Worker) connect(ctx context.Context) error {
	var pause pacer
	var inUse time.Time // since when the server says INSTANCE_IN_USE
	for {
		err := w.live(ctx, &pause)
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if errors.Is(err, errDrained) {
			return nil
		}
		if ReasonOf(err) != stintv1.Reason_REASON_INSTANCE_IN_USE {
			inUse = time.Time{}
		} else if inUse.IsZero() {
			inUse = time.Now()
		}
		if w.fatal(err, inUse) {
			return err
		}
		w.cfg.Logger.Info("the session ended; reconnecting", slog.Any("error", err))
		if pause.wait(ctx, err) != nil {
			continue
		}
	}
}

// fatal reports whether err ends the worker rather than its session only.
func (w *Worker) fatal(err error, inUse time.Time) bool {
	var refused *ItemError
	if errors.Is(err, errGaveUp) || errors.Is(err, errClosed) || errors.As(err, &refused) {
		return true
	}
	switch ReasonOf(err) {
	case stintv1.Reason_REASON_SESSION_REPLACED:
		return true
	case stintv1.Reason_REASON_INSTANCE_IN_USE:
		// A session whose welcome was lost on the way holds the id until the server notices, within two cadences.
		return time.Since(inUse) > 2*idleCadence
	default:
	}
	if w.Stats().Sessions > 0 {
		return false
	}
	// Before the first welcome these say that the configuration is wrong; later, that something between is.
	switch status.Code(err) {
	case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return true
	default:
		return false
	}
}

// earlier returns the earlier of two times, of which a may be zero for none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
