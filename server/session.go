package server

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
)

// reconnectMin and reconnectSpread are when workers of a stopping server are asked to come back: not all at once.
const (
	reconnectMin    = 100 * time.Millisecond
	reconnectSpread = 400 * time.Millisecond
)

// errPayloadGone ends a session: its worker comes again and gets what is really there.
var errPayloadGone = errors.New("server: a job was deleted after it was handed out and before its payload was read")

// Work is one session. One goroutine reads and posts, this one sends: everything that became due while it was busy
// travels in the next message.
func (s *Server) Work(stream grpc.BidiStreamingServer[stintv1.WorkRequest, stintv1.WorkResponse]) error {
	p := &workPipe{
		server:   s,
		stream:   stream,
		first:    make(chan *stintv1.WorkRequest, 1),
		opened:   make(chan struct{}),
		window:   make(window, windowPlaces),
		answered: make(chan *heard, windowPlaces),
		read:     make(chan error, 1),
		wake:     make(chan struct{}, 1),
	}
	s.streams.Go(func() { p.read <- s.guard(stream.Context(), p.receive) })
	welcome, err := p.open()
	if err != nil {
		return err
	}
	defer p.session.Close()
	if err := stream.Send(&stintv1.WorkResponse{Welcome: welcome}); err != nil {
		return err
	}
	close(p.opened)
	return p.run()
}

// workPipe is one Work stream: messages go from receive through the dispatcher to run.
type workPipe struct {
	server   *Server
	stream   grpc.BidiStreamingServer[stintv1.WorkRequest, stintv1.WorkResponse]
	first    chan *stintv1.WorkRequest // the first message
	opened   chan struct{}             // closed when the session is open and welcomed
	session  *dispatch.Session         // set before opened is closed
	window   window
	answered chan *heard // in the order of posting; has room for all that the window admits, so the store never waits
	read     chan error  // how receive ended
	posts    atomic.Uint64
	wake     chan struct{} // one slot: Take may have something new

	// Owned by run.
	pending  []*heard // answered and not told yet
	told     uint64   // messages whose answers were sent or need not be
	recorded uint64   // the seq up to which everything is on disk
	reported uint64   // the seq of the last report whose answer was sent
	demand   uint64   // the demand_version sent last
	leaving  *stintv1.GoingAway
}

// heard is a message on its way through the dispatcher.
type heard struct {
	places  int
	refused []*stintv1.WorkItemError
	answer  dispatch.Answer
	err     error // the store's
}

// empty reports whether there is nothing to tell but that the message is recorded.
func (h *heard) empty() bool {
	a := &h.answer
	return len(a.Acks)+len(a.Errors)+len(h.refused) == 0 && !a.Reported
}

// open waits for hello and opens the session.
func (p *workPipe) open() (*stintv1.Welcome, error) {
	patience := time.NewTimer(helloMax)
	defer patience.Stop()
	var hello *stintv1.Hello
	select {
	case m := <-p.first:
		hello = m.GetHello()
	case err := <-p.read:
		if err == nil {
			err = sessionOrder("the stream ended before hello")
		}
		return nil, err
	case <-patience.C:
		return nil, sessionOrder("no hello came within ten seconds")
	case <-p.server.stopping:
		return nil, errStopping
	}
	if hello == nil {
		return nil, sessionOrder("the first message must carry hello")
	}
	who, err := helloFrom(hello)
	if err != nil {
		return nil, err
	}
	session, welcome, err := p.server.dispatch.Open(p.stream.Context(), who, func() {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	p.session = session
	return &stintv1.Welcome{
		ResumeToken:   welcome.ResumeToken,
		Verdicts:      wireVerdicts(welcome.Verdicts),
		NextReportIn:  durationpb.New(welcome.NextReport),
		ServerVersion: p.server.cfg.Version,
	}, nil
}

// receive posts what comes until the stream ends, with nil at its proper end.
func (p *workPipe) receive() error {
	ctx := p.stream.Context()
	m := &stintv1.WorkRequest{}
	size, err := receive(p.stream, m)
	if err != nil {
		return endOfStream(err)
	}
	p.first <- m
	select {
	case <-p.opened:
	case <-ctx.Done():
		return ctx.Err()
	}
	m.Hello = nil // it is answered; the rest of the message is as any other
	for first := true; ; first = false {
		if err := p.post(ctx, m, size, first); err != nil {
			return err
		}
		m = &stintv1.WorkRequest{}
		if size, err = receive(p.stream, m); err != nil {
			return endOfStream(err)
		}
	}
}

// endOfStream is nil if the client closed its half properly.
func endOfStream(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// post hands a message of so many bytes to the dispatcher; first says that it is the one that brought hello.
func (p *workPipe) post(ctx context.Context, m *stintv1.WorkRequest, size int, first bool) error {
	h := &heard{places: places(size)}
	if err := p.window.enter(ctx, h.places, nil); err != nil {
		return err
	}
	message := p.message(m, h)
	message.First = first
	p.session.Receive(ctx, message, func(a dispatch.Answer, err error) {
		h.answer, h.err = a, err
		p.answered <- h
	})
	p.posts.Add(1)
	return nil
}

// message is what a worker says, without the parts that are refused.
func (p *workPipe) message(m *stintv1.WorkRequest, h *heard) dispatch.Message {
	out := dispatch.Message{
		Seq: m.GetSeq(), Seen: m.GetSeen(), Drain: m.GetDrain() != nil,
	}
	refuse := func(part string, index int, err error) {
		h.refused = append(h.refused, &stintv1.WorkItemError{
			Seq: m.GetSeq(), Part: part, Error: p.server.refuseItem(index, err),
		})
	}
	if m.GetHello() != nil {
		refuse("hello", 0, sessionOrder("hello comes once, in the first message"))
	}
	if m.GetDemand() != nil {
		if index, err := checkDemand(m.GetDemand()); err != nil {
			refuse("demand", index, err)
		} else {
			out.Demand = demandFrom(m.GetDemand())
		}
	}
	if err := checkInterruptAcks(m.GetInterruptAcks()); err != nil {
		refuse("interrupt_acks", 0, err)
	} else {
		out.Acks = interruptAcksFrom(m.GetInterruptAcks())
	}
	if n := len(m.GetFinishes()); n > runsOfWorker {
		refuse("finishes", 0, sessionLimit("", "a session has at most %d runs; these are %d", runsOfWorker, n))
	} else {
		out.Finishes = p.server.finishesFrom(m.GetFinishes())
	}
	if m.GetReport() != nil {
		if err := checkHeld("held", m.GetReport().GetHeld()); err != nil {
			refuse("report", 0, err)
		} else {
			out.Report, out.Held = true, m.GetReport().GetHeld()
		}
	}
	return out
}

// run sends until the session or the stream ends. When the client has closed its half, what it had said is still
// answered. A stopping server says so and leaves it to the worker to go.
func (p *workPipe) run() error {
	read, stopping := p.read, p.server.stopping
	for {
		sent, err := p.say()
		if err != nil {
			return err
		}
		if sent {
			continue
		}
		if read == nil && p.told == p.posts.Load() {
			return nil
		}
		select {
		case h := <-p.answered:
			if h.err != nil {
				return h.err
			}
			p.pending = append(p.pending, h)
		case <-p.wake:
		case <-p.session.Done():
			return p.session.Err()
		case err := <-read:
			if err != nil {
				return err
			}
			read = nil
		case <-stopping:
			stopping = nil
			p.session.Quiet()
			wait := reconnectMin + rand.N(reconnectSpread)
			p.leaving = &stintv1.GoingAway{ReconnectIn: durationpb.New(wait)}
		}
	}
}

// say sends one message with what is due; false if nothing is.
func (p *workPipe) say() (bool, error) {
	if err := p.gather(); err != nil {
		return false, err
	}
	out := p.session.Take(assignmentsBytes)
	items, err := p.server.appendAssignments(p.stream.Context(), out.Assignments)
	if err != nil {
		return false, err
	}
	m := &stintv1.WorkResponse{
		DemandVersion: out.Demand, Drain: wireDrain(out.Drain), Drained: out.Drained, GoingAway: p.leaving, Interrupts: wireNews(out.News),
	}
	due := len(out.Assignments)+len(m.Interrupts) > 0 || m.Drain != nil || m.Drained || m.GoingAway != nil || out.Demand != p.demand
	if p.tell(m) {
		due = true
	}
	if out.Hurry > 0 {
		p.hurry(m, out.Hurry)
	}
	if !due {
		return false, nil
	}
	m.RecordedSeq = p.recorded
	p.demand, p.leaving = out.Demand, nil
	items, m.FinishAcks = appendAcks(items, m.FinishAcks)
	return true, p.stream.SendMsg(encoded{[][]byte{items}, m})
}

// gather takes the answers that wait already. Its error is the store's.
func (p *workPipe) gather() error {
	for {
		select {
		case h := <-p.answered:
			if h.err != nil {
				return h.err
			}
			p.pending = append(p.pending, h)
		default:
			return nil
		}
	}
}

// tell adds answers to m, as many as go into one message: one report's, and acksMax acknowledgements. It returns false
// if it added nothing.
func (p *workPipe) tell(m *stintv1.WorkResponse) bool {
	told := false
	for len(p.pending) > 0 {
		h := p.pending[0]
		a := &h.answer
		full := a.Reported && m.ReportAnswer != nil || len(m.FinishAcks) > 0 && len(m.FinishAcks)+len(a.Acks) > acksMax
		if full {
			break
		}
		p.pending[0], p.pending = nil, p.pending[1:]
		p.told++
		p.recorded = max(p.recorded, a.Seq)
		p.window.leave(h.places)
		if h.empty() {
			continue
		}
		told = true
		m.FinishAcks = p.server.wireAcks(m.FinishAcks, a.Acks, 0)
		m.ItemErrors = append(m.ItemErrors, h.refused...)
		for _, e := range a.Errors {
			m.ItemErrors = append(m.ItemErrors, &stintv1.WorkItemError{
				Seq: a.Seq, Part: e.Part, Error: p.server.refuseItem(0, e.Err),
			})
		}
		if a.Reported {
			p.reported = a.Seq
			m.ReportAnswer = &stintv1.ReportAnswer{
				Seq: a.Seq, Verdicts: wireVerdicts(a.Verdicts), NextReportIn: durationpb.New(a.NextReport),
			}
		}
	}
	return told
}

// hurry asks for the next report sooner than was said before, because of what is assigned. It repeats the last answer,
// never that of a report whose verdicts are still to come.
func (p *workPipe) hurry(m *stintv1.WorkResponse, in time.Duration) {
	if m.ReportAnswer == nil {
		m.ReportAnswer = &stintv1.ReportAnswer{Seq: p.reported}
	}
	m.ReportAnswer.NextReportIn = durationpb.New(in)
}
