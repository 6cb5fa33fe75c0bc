package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
)

// Hello is who a worker is and what it holds.
type Hello struct {
	Worker      string
	Instance    job.ID
	ResumeToken string
	Host        string
	PID         uint32
	Labels      map[string]string
	Build       string
	SDK         string
	Held        []string      // lease tokens
	MaxSilence  time.Duration // ask for reports at least this often; 0: as the server likes
}

// Welcome answers a hello.
type Welcome struct {
	ResumeToken string
	Verdicts    []Verdict // one for each held run, in their order
	NextReport  time.Duration
}

// Session is one stream of a worker. Its methods may be called from many goroutines at once; messages are to be handed
// in by one, in their order.
type Session struct {
	d      *Dispatcher
	worker *worker
	hello  Hello
	token  string // of resumption
	wake   func()
	done   chan struct{}

	// Guarded by the dispatcher's mutex.
	err       error // why it ended; nil while it is open
	pools     []*pool
	demand    uint64 // the version of the demand in force
	outbox    []*run // matched and not yet taken by the sender, in their order
	news      []*run // of which there is something to tell
	sent      uint64 // assignments
	unseen    []*run // sent and not yet covered by seen
	seen      uint64
	heard     int64
	spoke     bool // something came after hello
	pending   int  // messages received and not answered
	quiet     bool // it gets nothing more: the worker drains, or the server stops
	drains    bool // the worker has asked to drain
	echoed    bool // and was told that no assignment follows
	drainTold bool // of a DrainWorkers
	reported  uint64
	cadence   time.Duration // that the worker was told last
}

// Open starts the session of a hello: it takes over from the instance's older session and judges the runs it holds.
// Those that are live are the session's from then on; what the instance held before and does not list is gone. wake is
// called when Take may have something new; it must not block. The caller ends the session with Close. Errors:
// ErrInstanceInUse, ErrReplaced, ErrClosed, and those of the store.
func (d *Dispatcher) Open(ctx context.Context, h Hello, wake func()) (*Session, Welcome, error) {
	t := d.newTurn(h.Held)
	h.Held = nil
	s, err := d.register(ctx, h, wake, t)
	if err != nil {
		return nil, Welcome{}, err
	}
	err = d.store.Update(ctx, t.apply)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		err = s.err
	}
	if err != nil {
		d.end(s, err)
		return nil, Welcome{}, err
	}
	t.settle()
	return s, Welcome{ResumeToken: s.token, Verdicts: t.answer.Verdicts, NextReport: s.nextReport()}, nil
}

// register makes the session the instance's one. A hello that its worker has given up may be read late, after a stall:
// it must not take over from the session that the worker has opened since.
func (d *Dispatcher) register(ctx context.Context, h Hello, wake func(), t *turn) (*Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	if d.closed {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := d.worker(h.Instance, now)
	kind := event.WorkerConnected
	if w.connected || h.ResumeToken != "" {
		kind = event.WorkerResumed
	}
	w.connected = true
	if old := w.session; old != nil {
		if old.token != h.ResumeToken && old.alive(now) {
			return nil, ErrInstanceInUse
		}
		d.end(old, ErrReplaced)
	}
	s := &Session{
		d: d, worker: w, hello: h, token: resumeToken(), wake: wake, done: make(chan struct{}),
		heard: now, drainTold: !w.draining,
	}
	w.info, w.session, w.since, w.heard = h, s, d.wall(), now
	if !wakeUps {
		s.wake = func() {}
	}
	d.note(kind, w, "", "")
	d.sessions[s] = struct{}{}
	d.releaser.joins(h.Build)
	t.session, t.hello, t.complete = s, true, true
	t.renew(now)
	return s, nil
}

func resumeToken() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// alive reports whether the session was heard within two cadences. One that has sent nothing since its hello may have
// missed its welcome, and with it the token that would let it be replaced: it does not count.
func (s *Session) alive(now int64) bool {
	return s.spoke && (s.pending > 0 || now-s.heard < int64(2*s.cadence))
}

// Done is closed when the session has ended; Err then says why.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is why the session ended: ErrReplaced, ErrDelivery, ErrSilent, ErrClosed; nil while it is open.
func (s *Session) Err() error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	return s.err
}

// Close ends the session because its stream is gone: what was not sent is withdrawn, what was not acknowledged has a
// moment left, and what the worker holds lives by its lease.
func (s *Session) Close() {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.d.end(s, ErrClosed)
}

// end ends a session; only the first reason counts.
func (d *Dispatcher) end(s *Session, err error) {
	if s.err != nil {
		return
	}
	s.err = err
	close(s.done)
	now := d.now()
	delete(d.sessions, s)
	d.releaser.leaves(s.hello.Build, now)
	if s.worker.session == s {
		s.worker.session, s.worker.heard = nil, s.heard
		if !errors.Is(err, ErrReplaced) {
			d.note(event.WorkerGone, s.worker, "", "")
		}
	}
	for _, r := range s.outbox {
		d.withdraw(r, now)
	}
	for _, r := range s.unseen {
		if at := now + int64(GoneTimeout); r.live() && !r.accepted && at < r.deadline.at {
			d.deadlines.set(&r.deadline, at)
		}
	}
	for _, r := range s.news {
		r.news = nil
	}
	s.outbox, s.unseen, s.news = nil, nil, nil
	for _, p := range s.pools {
		d.close(p)
	}
	s.worker.all(func(r *run) {
		if r.session == s && r.ended {
			d.free(r)
		}
	})
	for _, z := range s.worker.zombies {
		d.deadlines.set(&z.deadline, now+z.lease)
	}
	d.hurry()
}

// withdraw undelivers a run that was never sent, in the next batch.
func (d *Dispatcher) withdraw(r *run, now int64) {
	if r.live() && !r.sent {
		d.deadlines.set(&r.deadline, now)
		d.hurry()
	}
}

// Quiet gives the session nothing more, because the server is stopping.
func (s *Session) Quiet() {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.hush()
}

func (s *Session) hush() {
	s.quiet = true
	for _, p := range s.pools {
		s.d.line(p)
	}
}

// Demand is how much room a worker has.
type Demand struct {
	Version uint64
	Pools   []Pool // none: no room
}

// Pool is room for runs of some queues.
type Pool struct {
	Queues   []string
	MaxRuns  int    // in flight at once
	MaxBytes uint64 // of payload in flight at once, overshot by at most one job; 0: no bound
}

// setDemand puts a demand in force. Runs in flight are counted in the new pools.
func (s *Session) setDemand(m Demand) error {
	if m.Version <= s.demand {
		return ErrDemandVersion
	}
	s.demand = m.Version
	if !s.sameLayout(m.Pools) {
		s.layOut(m.Pools)
	}
	for i, p := range s.pools {
		p.max, p.maxBytes = m.Pools[i].MaxRuns, m.Pools[i].MaxBytes
		s.d.line(p)
	}
	return nil
}

// sameLayout reports whether pools differ from those in force in their numbers only.
func (s *Session) sameLayout(pools []Pool) bool {
	return slices.EqualFunc(s.pools, pools, func(p *pool, m Pool) bool {
		return slices.EqualFunc(p.seats, m.Queues, func(s *seat, name string) bool { return s.queue.name == name })
	})
}

// layOut makes new pools, without room yet, and counts what is in flight in them.
func (s *Session) layOut(pools []Pool) {
	old := s.pools
	s.pools = make([]*pool, len(pools))
	for i, m := range pools {
		s.pools[i] = s.d.newPool(pool{
			to:     job.Dispatch{Worker: s.hello.Worker, Instance: s.hello.Instance, Build: s.hello.Build},
			worker: s.worker, session: s, index: i,
		}, m.Queues)
	}
	s.worker.all(func(r *run) {
		if r.session == s {
			s.place(r)
		}
	})
	for _, p := range old {
		s.d.close(p)
	}
	if s.hello.Build != "" {
		s.d.releaser.ask()
	}
}

// place counts a run in the pool that serves its queue: the one at the same place as before if it still does, else the
// first. A run of a queue that is no longer asked for is counted nowhere.
func (s *Session) place(r *run) {
	was := -1
	if r.pool != nil {
		was = r.pool.index
		r.pool.give(r)
	}
	i := slices.IndexFunc(s.pools, func(p *pool) bool { return p.serves(r.queue) })
	if was >= 0 && was < len(s.pools) && s.pools[was].serves(r.queue) {
		i = was
	}
	if i >= 0 {
		s.pools[i].take(r)
		s.d.line(s.pools[i])
	}
}

// Assignment hands a run to a worker.
type Assignment struct {
	Number uint64 // of the session's assignments, from 1; 0: unary
	Token  string
	Job    *job.Job
	Pool   int // of the demand
}

// Outgoing is what a session has for its worker.
type Outgoing struct {
	Assignments []Assignment
	News        []Verdict     // new interrupts and stops, which renew nothing
	Demand      uint64        // the version in force: none made under an older one follows
	Drain       *DrainNotice  // nil: nothing new
	Drained     bool          // once: no assignment follows
	Hurry       time.Duration // report after this long, sooner than said before; 0: as said
	LastReport  uint64        // the seq of the last report that was answered, to go with Hurry
	More        bool          // there is more to take
}

// Take returns what is to be sent now: assignments of at most bytesMax on the wire unless a single one has more, which
// are counted as sent, and what else there is to say.
func (s *Session) Take(bytesMax int) Outgoing {
	d := s.d
	d.mu.Lock()
	defer d.mu.Unlock()
	var out Outgoing
	if s.err != nil {
		out.Demand = s.demand
		return out
	}
	now, bytes := d.now(), uint64(0)
	for len(s.outbox) > 0 {
		r := s.outbox[0]
		if r.ended {
			s.outbox[0], s.outbox = nil, s.outbox[1:]
			continue
		}
		if !r.synced {
			break
		}
		if bytes += weight(r.job); bytes > uint64(bytesMax) && len(out.Assignments) > 0 {
			break
		}
		s.outbox[0], s.outbox = nil, s.outbox[1:]
		out.Assignments = append(out.Assignments, s.send(r, now))
	}
	out.News = s.takeNews()
	out.More = len(s.outbox) > 0 && s.outbox[0].synced || len(s.news) > 0
	out.Demand = s.demand
	if len(s.outbox) > 0 {
		out.Demand = s.outbox[0].demand
	}
	s.notices(&out)
	return out
}

// send counts a run as sent.
func (s *Session) send(r *run, now int64) Assignment {
	s.sent++
	r.sent, r.number = true, s.sent
	s.d.deadlines.set(&r.deadline, now+int64(DeliveryTimeout))
	for len(s.unseen) > 0 && (s.unseen[0].accepted || s.unseen[0].ended) {
		s.unseen[0], s.unseen = nil, s.unseen[1:] // named otherwise: a worker that only finishes need not say seen
	}
	s.unseen = append(s.unseen, r)
	a := Assignment{Number: r.number, Token: s.d.tokens.seal(r.ref), Job: r.job}
	if r.pool != nil {
		a.Pool = r.pool.index
	}
	return a
}

// notices adds what is said once.
func (s *Session) notices(out *Outgoing) {
	if !s.drainTold {
		s.drainTold = true
		notice := s.worker.drain
		out.Drain = &notice
	}
	if s.drains && !s.echoed && len(s.outbox) == 0 {
		s.echoed = true
		out.Drained = true
	}
	for _, a := range out.Assignments {
		if a.Job.Run.Lease/3 < s.cadence || s.cadence > Cadence {
			out.LastReport, out.Hurry = s.reported, s.nextReport()
			break
		}
	}
}

// nextReport is when the session's next report is due; the worker will be told.
func (s *Session) nextReport() time.Duration {
	cadence, bound := IdleCadence, time.Duration(1<<62)
	s.worker.all(func(r *run) {
		if r.session == s && r.sent {
			cadence = Cadence
			if r.live() {
				bound = min(bound, r.job.Run.Lease/3)
			}
		}
	})
	if s.hello.MaxSilence > 0 {
		cadence = min(cadence, max(s.hello.MaxSilence, CadenceMin))
	}
	s.cadence = min(cadence, bound)
	return min(jitter(cadence), bound)
}

// jitter spreads what many do at the same pace by ±10 %.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*mathrand.Float64()))
}
