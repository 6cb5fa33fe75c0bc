package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// errSubmitterClosed answers a Send after Close.
var errSubmitterClosed = errors.New("stint: the submitter is closed")

// SubmitConfig says how a Submitter batches. The zero value is usable.
type SubmitConfig struct {
	// BatchSize is how many jobs go into one message, 1 to 1,000; 0 means 50.
	BatchSize int
	// Linger is how long a message that is not full waits for more jobs; 0 means 1 ms, negative means that it goes as
	// soon as the stream is free.
	Linger time.Duration
	// Window is how many messages may be unanswered; 0 means 64.
	Window int
	// OnResult gets the answer to every job that Send took, in the order of Send, from one goroutine at a time. While it
	// runs no other answer is read, so it should be quick; it must not call Send or Close. May be nil.
	OnResult func(Submitted)
}

// withDefaults fills in what was left out.
func (c SubmitConfig) withDefaults() SubmitConfig {
	if c.BatchSize <= 0 {
		c.BatchSize = 50
	}
	c.BatchSize = min(c.BatchSize, maxItems)
	if c.Linger == 0 {
		c.Linger = time.Millisecond
	}
	c.Linger = max(c.Linger, 0)
	if c.Window <= 0 {
		c.Window = 64
	}
	if c.OnResult == nil {
		c.OnResult = func(Submitted) {}
	}
	return c
}

// Submitter submits many jobs over one stream, in order, with a bounded number of unanswered messages. A stream that
// breaks is opened again with full jitter, and what was not answered is sent again under the same ids, so every job is
// stored once. Its methods are safe for concurrent use.
type Submitter struct {
	client *Client
	cfg    SubmitConfig
	ctx    context.Context
	wake   chan struct{} // one slot: there may be something to send
	done   chan struct{} // closed when nothing more will happen

	mu     sync.Mutex
	open   *batch        // being filled; nil: none
	window []*batch      // sealed and not answered, oldest first
	sent   int           // how many of window were sent on the present stream
	room   chan struct{} // closed when there is room in the window again; nil: nobody waits
	closed bool
	err    error // why it ended before its time
}

// batch is one message.
type batch struct {
	specs []*stintv1.JobSpec
	bytes int
	due   time.Time // when it goes even if it is not full
}

// SubmitStream starts a Submitter. It lives until Close, or until ctx ends; Close must be called in either case.
func (c *Client) SubmitStream(ctx context.Context, cfg SubmitConfig) *Submitter {
	s := &Submitter{
		client: c, cfg: cfg.withDefaults(), ctx: ctx, wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go s.run()
	return s
}

// Send hands over one job, whose trace is that of ctx. It blocks while the window is full, until ctx ends. A job that
// no message can carry (text that is not UTF-8, more than 4 MiB) is refused at once with an *ItemError, and the
// Submitter goes on; any other error says that the job was not taken, and OnResult will not hear of it.
func (s *Submitter) Send(ctx context.Context, job Job) error {
	spec, refused := job.spec(ctx)
	if refused != nil {
		return refused
	}
	for {
		room, err := s.place(spec)
		if room == nil || err != nil {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
		}
	}
}

// Close sends what was handed over, waits for all answers, and returns why the Submitter ended before its time, if it
// did. The jobs that were not answered then have had OnResult called with that error.
func (s *Submitter) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.poke()
	<-s.done
	return s.err
}

// place puts a job into the open batch. If the window is full it returns the channel to wait on instead.
func (s *Submitter) place(spec *stintv1.JobSpec) (room <-chan struct{}, err error) {
	n := size(spec)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if s.closed {
		return nil, errSubmitterClosed
	}
	if s.open != nil && s.open.bytes+n > maxBatchBytes {
		s.seal()
	}
	if s.open == nil {
		if len(s.window) >= s.cfg.Window {
			if s.room == nil {
				s.room = make(chan struct{})
			}
			return s.room, nil
		}
		s.open = &batch{specs: make([]*stintv1.JobSpec, 0, s.cfg.BatchSize), due: time.Now().Add(s.cfg.Linger)}
		s.poke()
	}
	s.open.specs, s.open.bytes = append(s.open.specs, spec), s.open.bytes+n
	if len(s.open.specs) == s.cfg.BatchSize {
		s.seal()
	}
	return nil, nil
}

// seal moves the open batch into the window. Caller holds mu.
func (s *Submitter) seal() {
	s.window = append(s.window, s.open)
	s.open = nil
	s.poke()
}

func (s *Submitter) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run holds one stream after another while there is something to send.
func (s *Submitter) run() {
	defer close(s.done)
	var pause pacer
	for s.await() {
		err := s.stream(&pause)
		if err == nil {
			continue
		}
		if transient(s.ctx, err) {
			err = pause.wait(s.ctx, err)
		}
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// await waits until there is something to send; it returns false when there will be nothing more.
func (s *Submitter) await() bool {
	for {
		s.mu.Lock()
		work, closed := s.open != nil || len(s.window) > 0, s.closed
		s.mu.Unlock()
		if work || closed {
			return work
		}
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			s.fail(context.Cause(s.ctx))
			return false
		}
	}
}

// fail ends the Submitter: what was not answered is answered with err.
func (s *Submitter) fail(err error) {
	s.mu.Lock()
	s.err = err
	if s.open != nil {
		s.seal()
	}
	unanswered := s.window
	s.window = nil
	s.mu.Unlock()
	for _, b := range unanswered {
		for _, spec := range b.specs {
			s.cfg.OnResult(Submitted{ID: spec.GetId(), Err: err})
		}
	}
}

// stream sends the window and what follows over one stream. It returns nil when the Submitter is closed and everything
// is answered.
func (s *Submitter) stream(pause *pacer) error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	stream, err := s.client.jobs.Submit(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.sent = 0
	s.mu.Unlock()
	sender := make(chan struct{})
	go func() {
		defer close(sender)
		if err := s.send(ctx, stream); err != nil {
			cancel(err)
		}
	}()
	err = s.receive(stream, pause)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(nil)
	<-sender
	return err
}

// send is the stream's one sender.
func (s *Submitter) send(ctx context.Context, stream stintv1.JobService_SubmitClient) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		b, next, over := s.take(time.Now())
		switch {
		case b != nil:
			if err := stream.Send(&stintv1.SubmitRequest{Jobs: b.specs}); err != nil {
				return sendError(err)
			}
			continue
		case over:
			return stream.CloseSend()
		}
		timer.Reset(next)
		select {
		case <-s.wake:
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// take returns the next batch to send; if there is none, how long until the open one is due, and whether nothing more
// will come.
func (s *Submitter) take(now time.Time) (b *batch, next time.Duration, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = time.Hour
	if s.open != nil && s.sent == len(s.window) {
		if s.closed || !now.Before(s.open.due) {
			s.seal()
		} else {
			next = s.open.due.Sub(now)
		}
	}
	if s.sent < len(s.window) {
		b = s.window[s.sent]
		s.sent++
	}
	return b, next, s.closed && s.open == nil
}

// receive files answers until the stream ends. The end is no error if everything was answered.
func (s *Submitter) receive(stream stintv1.JobService_SubmitClient, pause *pacer) error {
	for {
		resp, err := stream.Recv()
		if err != nil {
			if s.finished() {
				return nil
			}
			return err
		}
		pause.reset()
		if err := s.answer(resp.GetResults()); err != nil {
			return err
		}
	}
}

// finished reports whether the Submitter is closed and everything answered.
func (s *Submitter) finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed && s.open == nil && len(s.window) == 0
}

// answer files the answer to the oldest message.
func (s *Submitter) answer(results []*stintv1.SubmitResult) error {
	s.mu.Lock()
	if s.sent == 0 {
		s.mu.Unlock()
		return errors.New("stint: the server answered a message that was not sent")
	}
	b := s.window[0]
	if len(results) != len(b.specs) {
		s.mu.Unlock()
		return fmt.Errorf("stint: the server answered %d of %d jobs", len(results), len(b.specs))
	}
	s.window[0] = nil
	s.window = s.window[1:]
	s.sent--
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	s.mu.Unlock()
	for i, result := range results {
		s.cfg.OnResult(submitted(i, result))
	}
	return nil
}
