package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

const (
	// handshakeTimeout is how long the server may take to answer hello.
	handshakeTimeout = 10 * time.Second
	// defaultCadence stands in for a cadence that the server does not name.
	defaultCadence = 3 * time.Second
	// farewell is how long a worker that holds nothing waits for the server's last words.
	farewell = 2 * time.Second
)

var (
	// errGoingAway ends a session whose server is stopping.
	errGoingAway = errors.New("stint: the server is stopping")
	// errClosed ends a worker whose connection its owner closed.
	errClosed = errors.New("stint: the client's connection is closed")
)

// session is one Work stream: one goroutine receives, one sends. What is to be sent is composed from state when the
// sender is free, so whatever became due meanwhile travels in one message.
type session struct {
	w        *Worker
	stream   grpc.BidiStreamingClient[stintv1.WorkRequest, stintv1.WorkResponse]
	wake     chan struct{} // one slot: there may be something to send
	watchdog *time.Timer   // ends the stream when the server is silent for too long; works while Send blocks

	// Guarded by Worker.mu.
	opened   bool // the welcome came
	closing  bool // this side has closed its half
	seq      uint64
	hello    time.Time // when it was sent
	received uint64    // highest assignment_seq
	seen     uint64    // highest one sent
	finishes []*held   // to be sent, once each; may hold runs that are gone meanwhile
	acks     []*stintv1.InterruptAck
	demanded bool
	limit    int    // of runs in the last demand
	demand   uint64 // the seq of the message that brought it

	cadence    time.Duration
	reportDue  time.Time // zero: before the welcome, and while one is unanswered
	reportSeq  uint64    // seq of the unanswered report; 0: none
	answered   uint64    // seq of the last answered one; 0: none
	reportSent time.Time

	drainSent time.Time // zero: not yet
	drained   bool      // the server echoed it
	leaveAt   time.Time // when to leave a server that is going away; zero: it is not
}

// live opens a session and lives in it until it ends. It returns errDrained when the worker is done.
func (w *Worker) live(ctx context.Context, pause *pacer) error {
	if w.idleAndDraining() {
		return errDrained
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := w.client.workers.Work(ctx, grpc.WaitForReady(true))
	if err != nil {
		if ctx.Err() == nil && status.Code(err) == codes.Canceled {
			return errClosed
		}
		return err
	}
	s := &session{w: w, stream: stream, wake: make(chan struct{}, 1)}
	s.watchdog = time.AfterFunc(handshakeTimeout, func() { cancel(errSilent) })
	defer s.watchdog.Stop()
	w.attach(s)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if err := s.send(ctx); err != nil {
			cancel(err)
		}
	}()
	err = s.receive(pause)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(err)
	<-sent
	if w.detach(s, err) {
		return errDrained
	}
	return err
}

// idleAndDraining reports whether there is nothing to open a session for.
func (w *Worker) idleAndDraining() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.draining && len(w.held)+w.claims == 0
}

// attach makes s the worker's session: finishes that were not acknowledged are to be sent on it.
func (w *Worker) attach(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.session = s
	for _, h := range w.held {
		if h.finish != nil {
			s.finishes = append(s.finishes, h)
		}
	}
}

// detach ends the worker's session; it reports whether the worker closed it because it is done.
func (w *Worker) detach(s *session, err error) (done bool) {
	w.mu.Lock()
	w.session = nil
	for _, h := range w.held {
		h.session = nil
	}
	done = s.closing
	if s.opened && !done {
		w.event(Event{Kind: SessionLost, Err: err})
	}
	w.look()
	w.mu.Unlock()
	return done
}

// poke wakes the sender.
func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// send is the stream's one sender. A nil return leaves the stream's end to the receiver.
func (s *session) send(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		req, next, err := s.compose(time.Now())
		switch {
		case errors.Is(err, errDrained):
			s.watchdog.Reset(farewell)
			return s.stream.CloseSend()
		case err != nil:
			return err
		case req != nil:
			if err := s.stream.Send(req); err != nil {
				return sendError(err)
			}
			continue
		}
		timer.Reset(time.Until(next))
		select {
		case <-s.wake:
			// Handlers that are about to end get the chance to travel in the same message.
			runtime.Gosched()
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// sendError drops the io.EOF that says the stream is over, for the receiver learns why.
func sendError(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return nil
}

// receive applies what the server says until the stream ends.
func (s *session) receive(pause *pacer) error {
	for {
		resp, err := s.stream.Recv()
		if err != nil {
			return err
		}
		if resp.GetWelcome() != nil {
			pause.reset()
		}
		if err := s.apply(resp, time.Now()); err != nil {
			return err
		}
	}
}

// apply applies one message: state first, then events, then handlers, then what is to be said about it.
func (s *session) apply(resp *stintv1.WorkResponse, now time.Time) error {
	w := s.w
	var started []*held
	w.mu.Lock()
	err := s.applyWelcome(resp.GetWelcome(), now)
	for _, a := range resp.GetAssignments() {
		if s.closing {
			break // never seen, so the server gives them to others
		}
		if h := w.accept(s, a, now); h != nil {
			started = append(started, h)
			s.hasten(h)
		}
	}
	for _, ack := range resp.GetFinishAcks() {
		w.acknowledged(s, ack)
	}
	s.applyAnswer(resp.GetReportAnswer(), resp.GetDemandVersion(), now)
	for _, v := range resp.GetInterrupts() {
		w.push(s, v)
	}
	err = errors.Join(err, s.applyErrors(resp.GetItemErrors()))
	s.applyNotices(resp, now)
	quiet := len(started)+len(s.finishes)+len(s.acks) == 0 && !w.draining &&
		resp.GetWelcome() == nil && resp.GetReportAnswer() == nil && resp.GetGoingAway() == nil
	w.mu.Unlock()
	for _, h := range started {
		w.start(h)
	}
	if !quiet {
		s.poke()
	}
	return err
}

// applyWelcome opens the session. Caller holds mu.
func (s *session) applyWelcome(welcome *stintv1.Welcome, now time.Time) error {
	w := s.w
	if s.opened {
		return nil
	}
	if welcome == nil {
		return errors.New("stint: the server's first message is no welcome")
	}
	s.opened = true
	w.resume = welcome.GetResumeToken()
	w.stats.Sessions++
	w.event(Event{Kind: SessionOpened, Resumed: w.stats.Sessions > 1})
	w.cfg.Logger.Info("session opened", slog.String("instance_id", w.cfg.InstanceID),
		slog.String("server", welcome.GetServerVersion()), slog.Int("held", len(welcome.GetVerdicts())))
	for _, v := range welcome.GetVerdicts() {
		h := w.held[v.GetLeaseToken()]
		if h == nil {
			continue
		}
		w.judge(h, v, s.hello, s)
		if h.session == s {
			w.stats.Adopted++
			w.event(Event{Kind: RunAdopted, Run: h.run})
		}
	}
	for _, h := range w.held {
		if h.unlisted { // it was claimed after hello was sent
			h.session, h.unlisted = s, false
		}
	}
	s.schedule(now, welcome.GetNextReportIn().AsDuration())
	return nil
}

// applyAnswer applies the verdicts of the report that awaits them, or a repeated answer, which says only that the next
// report is due at another time. demand is the version of the demand in force. Caller holds mu.
func (s *session) applyAnswer(answer *stintv1.ReportAnswer, demand uint64, now time.Time) {
	switch {
	case answer == nil:
		return
	case s.reportSeq == 0:
		if answer.GetSeq() != s.answered {
			return
		}
	case answer.GetSeq() != s.reportSeq:
		return
	default:
		for _, v := range answer.GetVerdicts() {
			if h := s.w.held[v.GetLeaseToken()]; h != nil && h.session == s {
				s.w.judge(h, v, s.reportSent, s)
			}
		}
		s.answered, s.reportSeq = s.reportSeq, 0
		if s.demanded && s.demand <= s.answered && demand < s.w.version {
			s.w.cfg.Logger.Warn("the server does not know the worker's demand; saying it again")
			s.demanded = false
		}
	}
	s.schedule(now, answer.GetNextReportIn().AsDuration())
}

// schedule sets the time of the next report. A run whose lease is short for that cadence, because it came after the
// server had chosen it, brings it forward. Caller holds mu.
func (s *session) schedule(now time.Time, in time.Duration) {
	if in <= 0 {
		in = defaultCadence
	}
	s.cadence = in
	s.reportDue = now.Add(in)
	for _, h := range s.w.held {
		if h.session == s {
			s.hasten(h)
		}
	}
	s.watchdog.Reset(in + 2*s.cadence)
}

// hasten brings the next report forward to half of a run's lease, if it is later. A run that was stopped has no lease to
// keep. Caller holds mu.
func (s *session) hasten(h *held) {
	if h.stopped {
		return
	}
	if at := h.renewed.Add(h.lease / 2); at.Before(s.reportDue) {
		s.cadence = min(s.cadence, h.lease/2)
		s.reportDue = at
	}
}

// applyErrors reports what the server refused. A refused demand would leave the worker without work for ever, so it
// ends the worker. Caller holds mu.
func (s *session) applyErrors(refused []*stintv1.WorkItemError) error {
	for _, e := range refused {
		err := itemError(e.GetError())
		if err == nil {
			continue
		}
		if err.Reason == stintv1.Reason_REASON_DRAINING {
			s.w.drain(forever, SourceDrain, err.Message)
			continue
		}
		s.w.cfg.Logger.Error("the server refused a part of a message", slog.String("part", e.GetPart()), slog.Any("error", err))
		if e.GetPart() == "demand" || e.GetPart() == "hello" {
			return fmt.Errorf("stint: the server refused the worker's %s: %w", e.GetPart(), err)
		}
	}
	return nil
}

// applyNotices takes note of drain and going away. Caller holds mu.
func (s *session) applyNotices(resp *stintv1.WorkResponse, now time.Time) {
	if d := resp.GetDrain(); d != nil {
		grace := forever
		if d.GetGrace() != nil {
			grace = max(d.GetGrace().AsDuration(), 0)
		}
		s.w.drain(grace, SourceDrain, d.GetReason())
	}
	s.drained = s.drained || resp.GetDrained()
	if g := resp.GetGoingAway(); g != nil && s.leaveAt.IsZero() {
		s.leaveAt = now.Add(max(g.GetReconnectIn().AsDuration(), 0))
	}
}
