package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// session is one Work stream of a lean worker: it finishes what it is given at once. One goroutine receives, one sends.
type session struct {
	load   *load
	stream stintv1.WorkerService_WorkClient
	wake   chan struct{} // there is something to send
	done   chan struct{} // closed once both goroutines are about to end

	mu      sync.Mutex
	seq     uint64
	demand  *stintv1.Demand   // to be sent
	version uint64            // of the last demand
	seen    uint64            // last assignment received
	said    uint64            // last one that seen was sent of
	pending []string          // tokens to finish
	held    map[string]string // token → job id
	every   time.Duration     // until the next report
	drain   bool              // to be sent
	drained bool              // echoed: nothing more comes
	acks    []*stintv1.InterruptAck
	waiting map[string]struct{} // tokens of runs that are held until they are interrupted
}

// outcome sets how a run ended. The values are shared by all finishes.
type outcome func(*stintv1.Finish)

var success = &stintv1.Finish_Success{Success: &stintv1.Success{}}

func successful(f *stintv1.Finish) { f.Outcome = success }

// openWorkers opens the load's Work streams; they ask for nothing yet.
func (l *load) openWorkers() error {
	for range l.workers {
		s := &session{
			load: l, wake: make(chan struct{}, 1), done: make(chan struct{}), held: map[string]string{},
		}
		if err := s.open(); err != nil {
			return fmt.Errorf("open a Work stream: %w", err)
		}
		l.sessions = append(l.sessions, s)
	}
	return nil
}

// want sets how many runs the load's workers have room for together.
func (l *load) want(room int) {
	for i, s := range l.sessions {
		share := room / len(l.sessions)
		if i < room%len(l.sessions) {
			share++
		}
		s.want(share)
	}
}

// closeWorkers drains the workers and waits until their streams have ended well.
func (l *load) closeWorkers() error {
	for _, s := range l.sessions {
		s.leave()
	}
	for _, s := range l.sessions {
		select {
		case <-s.done:
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		case <-time.After(stallLimit):
			return fmt.Errorf("a worker could not drain within %v", stallLimit)
		}
	}
	l.sessions = nil
	return nil
}

func (s *session) open() error {
	stream, err := s.load.target.workers.Work(s.load.ctx)
	if err != nil {
		return err
	}
	s.stream, s.seq = stream, 1
	host, _ := os.Hostname()
	if err := stream.Send(&stintv1.WorkRequest{Seq: 1, Hello: &stintv1.Hello{
		Worker: "bench", InstanceId: uuid.NewString(), Host: host, Pid: uint32(os.Getpid()), Sdk: "stint-bench",
	}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetWelcome() == nil {
		return fmt.Errorf("the first answer is no welcome: %v", first)
	}
	s.every = first.Welcome.GetNextReportIn().AsDuration()
	s.load.run(s.send)
	s.load.run(s.receive)
	return nil
}

func (s *session) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *session) want(room int) {
	s.mu.Lock()
	s.version++
	s.demand = &stintv1.Demand{Version: s.version}
	if room > 0 {
		s.demand.Pools = []*stintv1.Pool{{Queues: []string{s.load.queue}, MaxRuns: uint32(room)}}
	}
	s.mu.Unlock()
	s.nudge()
}

func (s *session) leave() {
	s.mu.Lock()
	s.version++
	s.demand, s.drain = &stintv1.Demand{Version: s.version}, true
	s.mu.Unlock()
	s.nudge()
}

// receive takes in what the server sends until the stream ends.
func (s *session) receive() error {
	defer close(s.done)
	for {
		m, err := s.stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && s.left():
			return nil
		case err != nil:
			return fmt.Errorf("work: %w", err)
		}
		s.take(m)
		s.nudge()
	}
}

func (s *session) take(m *stintv1.WorkResponse) {
	for _, a := range m.GetAssignments() {
		s.load.checkAssignment(a)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range m.GetAssignments() {
		s.seen = max(s.seen, a.GetAssignmentSeq())
		s.held[a.GetLeaseToken()] = a.GetJobId()
		if !s.hold(a.GetLeaseToken()) {
			s.pending = append(s.pending, a.GetLeaseToken())
		}
	}
	s.obey(m.GetInterrupts())
	for _, ack := range m.GetFinishAcks() {
		job, ok := s.held[ack.GetLeaseToken()]
		if !ok {
			s.load.fault("an acknowledgement came for a run that is not held: %s", ack.GetStatus())
			continue
		}
		delete(s.held, ack.GetLeaseToken())
		s.load.checkFinish(job, ack)
	}
	if r := m.GetReportAnswer(); r != nil {
		s.every = r.GetNextReportIn().AsDuration()
		s.obey(r.GetVerdicts())
		for _, v := range r.GetVerdicts() {
			if v.GetAction() == stintv1.VerdictAction_VERDICT_ACTION_STOP {
				s.load.fault("a run was stopped: %s", v.GetStopReason())
			}
		}
	}
	for _, e := range m.GetItemErrors() {
		s.load.fault("the server refused %s[%d]: %s", e.GetPart(), e.GetError().GetIndex(), e.GetError().GetMessage())
	}
	s.drained = s.drained || m.GetDrained()
}

// left says that the worker asked for a drain and holds nothing any more.
func (s *session) left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drained && len(s.held) == 0
}

// send sends finishes, demands and reports as they come up, and half-closes the stream once the worker has left.
func (s *session) send() error {
	report := time.NewTimer(s.interval())
	defer report.Stop()
	for {
		due := false
		select {
		case <-s.wake:
		case <-report.C:
			due = true
			report.Reset(s.interval())
		case <-s.done:
			return nil
		case <-s.load.ctx.Done():
			return nil
		}
		for m := s.compose(due); m != nil; m = s.compose(false) {
			if err := s.stream.Send(m); err != nil {
				return nil // the receiver learns why
			}
		}
		if s.left() {
			return s.stream.CloseSend()
		}
	}
}

func (s *session) interval() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.every, 100*time.Millisecond)
}

// compose makes the next message; nil means that there is nothing to say.
func (s *session) compose(report bool) *stintv1.WorkRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.seen != s.said && s.load.told != nil // else a finish says it
	if s.demand == nil && !s.drain && len(s.pending) == 0 && !report && !news {
		return nil
	}
	s.seq++
	m := &stintv1.WorkRequest{Seq: s.seq, Demand: s.demand, Seen: s.seen, InterruptAcks: s.acks}
	s.said, s.acks = s.seen, nil
	if s.drain {
		m.Drain = &stintv1.Drain{}
	}
	s.demand, s.drain = nil, false
	n := min(len(s.pending), s.load.batch)
	m.Finishes = finishesOf(s.pending[:n], s.load.outcome)
	if s.pending = s.pending[n:]; len(s.pending) == 0 {
		s.pending = nil
	}
	if report {
		m.Report = &stintv1.Report{Held: make([]string, 0, len(s.held))}
		for token := range s.held {
			m.Report.Held = append(m.Report.Held, token)
		}
	}
	return m
}

func finishesOf(tokens []string, o outcome) []*stintv1.Finish {
	slab := make([]stintv1.Finish, len(tokens))
	finishes := make([]*stintv1.Finish, len(tokens))
	for i, token := range tokens {
		slab[i].LeaseToken = token
		o(&slab[i])
		finishes[i] = &slab[i]
	}
	return finishes
}
