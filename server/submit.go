package server

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// SubmitJobs answers when the jobs are on disk.
func (s *Server) SubmitJobs(ctx context.Context, m *stintv1.SubmitJobsRequest) (*stintv1.SubmitJobsResponse, error) {
	if err := checkCount("jobs", len(m.GetJobs())); err != nil {
		return nil, err
	}
	b := s.newBatch(m.GetJobs(), traceOf(ctx))
	if err := s.store.Update(ctx, b.submit); err != nil {
		return nil, err
	}
	return &stintv1.SubmitJobsResponse{Results: b.answers(s.metrics)}, nil
}

// Submit answers each message, in order, when its jobs are on disk. One goroutine reads and posts, this one answers.
func (s *Server) Submit(stream grpc.BidiStreamingServer[stintv1.SubmitRequest, stintv1.SubmitResponse]) error {
	p := &submitPipe{
		server:   s,
		stream:   stream,
		trace:    traceOf(stream.Context()),
		window:   make(window, windowPlaces),
		answered: make(chan *posted, windowPlaces),
		read:     make(chan error, 1),
	}
	s.streams.Go(func() { p.read <- s.guard(stream.Context(), p.receive) })
	return p.answer()
}

// submitPipe is one Submit stream: messages go from receive through the store to answer.
type submitPipe struct {
	server   *Server
	stream   grpc.BidiStreamingServer[stintv1.SubmitRequest, stintv1.SubmitResponse]
	trace    traceContext
	window   window
	answered chan *posted // in the order of posting; has room for all that the window admits, so the store never waits
	read     chan error   // how receive ended
	posts    atomic.Uint64
}

// posted is a message on its way through the store.
type posted struct {
	batch  *batch
	places int
	err    error
}

// receive posts what comes until the stream ends, with nil at its proper end.
func (p *submitPipe) receive() error {
	ctx := p.stream.Context()
	for {
		m := &stintv1.SubmitRequest{}
		size, err := receive(p.stream, m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		message := &posted{places: places(size)}
		if err := p.window.enter(ctx, message.places, p.server.stopping); err != nil {
			return err
		}
		message.batch = p.server.newBatch(m.GetJobs(), p.trace)
		p.server.store.Post(ctx, message.batch.submit, func(err error) {
			message.err = err
			p.answered <- message
		})
		p.posts.Add(1)
	}
}

// answer sends the answers, and ends when all are sent of what was posted before the stream ended. What a stopping
// server has read and not answered is sent again by the client, under the same ids.
func (p *submitPipe) answer() error {
	read, stopping := p.read, p.server.stopping
	var end error
	for sent := uint64(0); read != nil || sent < p.posts.Load(); {
		select {
		case message := <-p.answered:
			if message.err != nil {
				return message.err
			}
			if err := p.stream.SendMsg(encodeResults(message.batch.answers(p.server.metrics))); err != nil {
				return err
			}
			sent++
			p.window.leave(message.places)
		case end = <-read:
			read = nil
		case <-stopping:
			// The reader may be waiting for the client. It ends with the stream, when this function has returned.
			end, read, stopping = errStopping, nil, nil
		}
	}
	return end
}

// traceContext is a W3C trace context, empty if there is none.
type traceContext struct{ parent, state string }

// traceOf is the trace context of a call's metadata.
func traceOf(ctx context.Context) traceContext {
	var t traceContext
	if parent := metadata.ValueFromIncomingContext(ctx, "traceparent"); len(parent) == 1 {
		t.parent = parent[0]
	}
	if state := metadata.ValueFromIncomingContext(ctx, "tracestate"); len(state) == 1 {
		t.state = state[0]
	}
	t.parent, t.state = traceFrom(t.parent, t.state)
	return t
}
