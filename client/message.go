package client

import (
	"math"
	"os"
	"slices"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// compose puts everything that is due into one message; nil if nothing is, and then next says when to look again. It
// returns errDrained when the worker is done, and errGoingAway when it is time to leave a stopping server.
func (s *session) compose(now time.Time) (req *stintv1.WorkRequest, next time.Time, err error) {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.done(now) {
		s.closing = true
		return nil, next, errDrained
	}
	if !s.leaveAt.IsZero() && !now.Before(s.leaveAt) {
		return nil, next, errGoingAway
	}
	req = &stintv1.WorkRequest{Seq: s.seq + 1}
	first := s.seq == 0
	if first {
		req.Hello = w.hello()
		s.hello = now
	} else {
		// Not with hello: a long list of held runs and large results might not fit into one message.
		req.Finishes = s.takeFinishes()
	}
	req.Demand = s.takeDemand()
	if s.seen != s.received {
		s.seen = s.received
		req.Seen = s.seen
	}
	req.InterruptAcks, s.acks = s.acks, nil
	req.Report = s.takeReport(req.Seq, now)
	if w.draining && s.drainSent.IsZero() {
		s.drainSent = now
		req.Drain = &stintv1.Drain{}
	}
	if !first && req.Demand == nil && req.Seen == 0 && len(req.Finishes)+len(req.InterruptAcks) == 0 && req.Report == nil && req.Drain == nil {
		return nil, s.next(now), nil
	}
	s.seq++
	return req, next, nil
}

// done reports whether the worker has nothing left to do here: it drains, holds nothing, and the server has said that
// nothing follows, or had its time to. Caller holds mu.
func (s *session) done(now time.Time) bool {
	if s.drainSent.IsZero() || len(s.w.held)+s.w.claims > 0 {
		return false
	}
	return s.drained || now.Sub(s.drainSent) >= farewell
}

// next returns when something will be due. Caller holds mu.
func (s *session) next(now time.Time) time.Time {
	next := now.Add(time.Hour)
	for _, at := range [...]time.Time{s.reportDue, s.leaveAt} {
		if !at.IsZero() {
			next = earlier(next, at)
		}
	}
	if !s.drainSent.IsZero() && len(s.w.held)+s.w.claims == 0 {
		next = earlier(next, s.drainSent.Add(farewell))
	}
	return next
}

// hello says who the worker is and what it holds. Caller holds mu.
func (w *Worker) hello() *stintv1.Hello {
	host, _ := os.Hostname() // for people; empty is fine
	hello := &stintv1.Hello{
		Worker:      w.cfg.Name,
		InstanceId:  w.cfg.InstanceID,
		ResumeToken: w.resume,
		Host:        clean(host, 255),
		Pid:         uint32(os.Getpid()), //nolint:gosec // a process id
		Labels:      w.cfg.Labels,
		BuildId:     w.cfg.BuildID,
		Sdk:         Version,
		Held:        make([]string, 0, len(w.held)),
	}
	for token, h := range w.held {
		hello.Held = append(hello.Held, token)
		h.unlisted = false
	}
	return hello
}

// takeDemand returns the demand if it changed since the last one on this stream. Caller holds mu.
func (s *session) takeDemand() *stintv1.Demand {
	w := s.w
	limit := math.MaxInt
	switch {
	case w.draining:
		limit = 0
	case w.cfg.MaxRuns > 0:
		// The server has at most `limit` in flight and has freed at most `spent` slots, so it never assigned more than
		// MaxRuns. Finishes that free slots travel with, and are applied after, the demand that accounts for them.
		limit = min(max(w.cfg.MaxRuns-w.spent, 0), w.pools[0].concurrency)
	}
	if s.demanded && limit == s.limit {
		return nil
	}
	s.demanded, s.limit, s.demand = true, limit, s.seq+1
	w.version++
	demand := &stintv1.Demand{Version: w.version}
	if limit == 0 {
		return demand
	}
	for _, p := range w.pools {
		demand.Pools = append(demand.Pools, &stintv1.Pool{
			Queues: p.queues, MaxRuns: uint32(max(0, min(limit, p.concurrency))), //nolint:gosec // at most maxRuns
		})
	}
	return demand
}

// takeFinishes returns the next finishes to send, as many as one message may carry. Caller holds mu.
func (s *session) takeFinishes() []*stintv1.Finish {
	if len(s.finishes) == 0 {
		return nil
	}
	finishes := make([]*stintv1.Finish, 0, min(len(s.finishes), maxItems))
	taken, bytes := 0, 0
	for _, h := range s.finishes {
		if len(finishes) == maxItems || len(finishes) > 0 && bytes+h.size > maxBatchBytes {
			break
		}
		taken++
		if s.w.held[h.token] == h {
			finishes, bytes = append(finishes, h.finish), bytes+h.size
			s.w.spend(h)
		}
	}
	s.finishes = slices.Delete(s.finishes, 0, taken)
	return finishes
}

// takeReport returns the report if it is due: every run that this session lists. Caller holds mu.
func (s *session) takeReport(seq uint64, now time.Time) *stintv1.Report {
	if s.reportDue.IsZero() || now.Before(s.reportDue) {
		return nil
	}
	report := &stintv1.Report{}
	for token, h := range s.w.held {
		if h.session == s {
			report.Held = append(report.Held, token)
		}
	}
	s.reportDue, s.reportSeq, s.reportSent = time.Time{}, seq, now
	s.watchdog.Reset(2 * s.cadence)
	return report
}
