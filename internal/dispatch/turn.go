package dispatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Message is what a worker says at once on its stream. Its parts are applied in the order of the fields.
type Message struct {
	Seq      uint64
	First    bool    // it came with hello, and so does not show that the welcome arrived
	Demand   *Demand // nil: as before
	Seen     uint64  // the number of the last assignment received; 0: none
	Acks     []InterruptAck
	Finishes []Finish
	Report   bool     // Held is everything the worker holds
	Held     []string // lease tokens
	Drain    bool     // the worker will go
}

// Finish is a worker's word on how a run ended.
type Finish struct {
	Token   string
	Outcome job.Outcome
	Invalid error // not nil: why the outcome cannot be taken
}

// Answer is what becomes of a message.
type Answer struct {
	Seq        uint64
	Acks       []Ack
	Reported   bool      // it answers a report
	Verdicts   []Verdict // one for each run of the report, in its order
	NextReport time.Duration
	Errors     []PartError
}

// PartError says which part of a message was refused.
type PartError struct {
	Part string
	Err  error // ErrDemandVersion, ErrSeen, store.ErrTooManyQueues
}

// AckStatus says what became of a finish.
type AckStatus uint8

// The statuses.
const (
	AckRecorded AckStatus = iota + 1
	AckDuplicate
	AckConflict
	AckSuperseded
	AckUnknown  // no run has the token, or its job is gone
	AckRejected // the outcome cannot be taken; the run stays live
)

// ackStatuses translates what the job says.
var ackStatuses = [...]AckStatus{
	job.FinishRecorded:   AckRecorded,
	job.FinishDuplicate:  AckDuplicate,
	job.FinishConflict:   AckConflict,
	job.FinishSuperseded: AckSuperseded,
}

// Ack answers a finish.
type Ack struct {
	Token  string
	Status AckStatus
	Err    error     // why it was rejected
	State  job.State // of the job after it; none if unknown or rejected
}

// Action says what to do with a run.
type Action uint8

// The actions.
const (
	Continue Action = iota + 1 // go on; the lease is renewed
	Finished                   // its finish is recorded
	Stop                       // stop the handler and drop its result
)

// StopReason says why a run must stop.
type StopReason uint8

// The reasons.
const (
	StopSuperseded StopReason = iota + 1
	StopLost
	StopAbandoned
	StopWithdrawn
	StopDeleted
	StopUnknown
)

// Verdict says what to do with one run.
type Verdict struct {
	Token     string
	Action    Action
	Reason    StopReason    // of a Stop
	Interrupt job.Interrupt // in force and to be told; of a Continue
	Epoch     uint32        // of the job, and…
	Run       uint32        // …the number of the run; with an interrupt
	GraceLeft time.Duration // of the interrupt
	Lease     time.Duration // renewed in full at receipt; of a Continue
}

// turn is one message, or one unary call, on its way through the store.
type turn struct {
	d        *Dispatcher
	session  *Session // nil: a unary call's
	number   uint64   // of the turn
	hello    bool     // listed comes from a hello
	complete bool     // what is not listed and covered is gone
	covered  uint64   // the last assignment that the worker had seen at receipt

	finishes []Finish
	tokens   []string // of the finishes, then of what is listed
	refs     []ref    // of the same; a zero ref is a token that is none of ours
	accepts  []ref    // runs that were named by seen
	acks     []InterruptAck
	queues   []string // that come into being with a demand

	// What apply finds, anew each time it runs.
	answer Answer
	errors []PartError // from receipt
	gone   []*run      // that the session held and no longer lists
	ghosts []*run      // that hello lists although they have ended
	buried []uint64    // zombies that are gone
}

func (d *Dispatcher) newTurn(listed []string) *turn {
	t := &turn{d: d}
	t.list(listed)
	return t
}

func (t *turn) list(listed []string) {
	t.tokens = append(t.tokens, listed...)
	for _, token := range listed {
		r, ok := t.d.tokens.open(token)
		if !ok {
			r = ref{}
		}
		t.refs = append(t.refs, r)
	}
}

// finish adds finishes; it comes before list.
func (t *turn) finish(finishes []Finish) {
	t.finishes = finishes
	for i := range finishes {
		t.list([]string{finishes[i].Token})
	}
}

func (t *turn) listed() []ref { return t.refs[len(t.finishes):] }

// renew does at receipt what must not wait for the disk: a run that is named is alive.
func (t *turn) renew(now int64) {
	t.d.turns++
	t.number = t.d.turns
	for _, r := range t.listed() {
		if known := t.d.runs[r.fence]; known != nil {
			t.d.renew(known, now)
		}
		t.d.stir(r.fence, now)
	}
}

// Receive takes the worker's next message. done is called when everything it changed is on disk, in the order of the
// messages, on a goroutine of the store: it must not block. Receive blocks while the store is behind. done's error is
// the store's; the session is of no use then.
func (s *Session) Receive(ctx context.Context, m Message, done func(Answer, error)) {
	d := s.d
	t := d.newTurn(nil)
	t.acks = m.Acks
	t.finish(m.Finishes)
	t.list(m.Held)
	d.mu.Lock()
	s.receive(m, t)
	d.mu.Unlock()
	d.store.Post(ctx, t.apply, func(err error) {
		d.mu.Lock()
		s.pending--
		if err == nil {
			t.settle()
		}
		d.mu.Unlock()
		done(t.answer, err)
	})
}

// receive does what happens at receipt. Of a session that was replaced only the finishes count.
func (s *Session) receive(m Message, t *turn) {
	now := s.d.now()
	s.pending++
	t.session, t.answer.Seq = s, m.Seq
	if s.err != nil {
		return
	}
	s.heard, s.worker.heard, s.spoke = now, now, s.spoke || !m.First
	if m.Demand != nil {
		if err := s.setDemand(*m.Demand); err != nil {
			t.errors = append(t.errors, PartError{"demand", err})
		}
		for _, p := range s.pools {
			for _, seat := range p.seats {
				if !slices.Contains(t.queues, seat.queue.name) {
					t.queues = append(t.queues, seat.queue.name)
				}
			}
		}
	}
	if m.Seen > s.sent {
		t.errors = append(t.errors, PartError{"seen", ErrSeen})
	}
	s.see(min(m.Seen, s.sent), t, now)
	t.covered, t.complete, t.answer.Reported = s.seen, m.Report, m.Report
	t.renew(now)
	if m.Drain {
		s.drains = true
		s.hush()
	}
}

// see takes note of which assignments have arrived.
func (s *Session) see(number uint64, t *turn, now int64) {
	s.seen = max(s.seen, number)
	for len(s.unseen) > 0 && s.unseen[0].number <= s.seen {
		r := s.unseen[0]
		s.unseen[0], s.unseen = nil, s.unseen[1:]
		if r.live() && !r.accepted {
			s.d.renew(r, now)
			t.accepts = append(t.accepts, r.ref)
		}
	}
}

// apply is the turn's transaction.
func (t *turn) apply(tx store.Tx) error {
	t.answer.Acks, t.answer.Verdicts, t.gone, t.ghosts = nil, nil, nil, nil
	t.answer.Errors = slices.Clone(t.errors)
	if over := t.sessionOver(); over != nil && t.hello {
		return over
	} else if errors.Is(over, ErrReplaced) {
		t.accepts, t.acks, t.refs, t.complete, t.answer.Reported = nil, nil, t.refs[:len(t.finishes)], false, false
	}
	for _, name := range t.queues {
		if _, err := tx.MakeQueue(name); err != nil {
			t.answer.Errors = append(t.answer.Errors, PartError{"demand", err})
		}
	}
	b, err := openBook(tx, t.refs)
	if err != nil {
		return err
	}
	if err := t.applyAcks(b); err != nil {
		return err
	}
	if err := t.applyFinishes(b); err != nil {
		return err
	}
	if err := t.applyAccepts(b); err != nil {
		return err
	}
	if err := t.judge(b); err != nil {
		return err
	}
	if t.complete {
		if err := t.applyMissing(b); err != nil {
			return err
		}
	}
	t.endZombies(tx)
	return b.close()
}

// sessionOver is why the session of the turn has ended; nil if it has not, and for a unary call.
func (t *turn) sessionOver() error {
	if t.session == nil {
		return nil
	}
	return t.session.Err()
}

func (t *turn) applyFinishes(b *book) error {
	if len(t.finishes) > 0 {
		t.answer.Acks = make([]Ack, len(t.finishes))
	}
	for i, f := range t.finishes {
		ack := Ack{Token: f.Token, Status: AckRejected, Err: f.Invalid}
		if f.Invalid == nil {
			if err := b.finish(t.refs[i], f.Outcome, &ack); err != nil {
				return err
			}
		} else if err := b.accept(t.refs[i]); err != nil {
			return err
		}
		t.answer.Acks[i] = ack
	}
	return nil
}

// finish records an outcome.
func (b *book) finish(r ref, o job.Outcome, ack *Ack) error {
	j := b.job(r)
	if j == nil {
		ack.Status = AckUnknown
		return nil
	}
	if rel := o.Released; rel != nil && rel.Throttle != nil && b.live(r) != nil && !j.Holds(rel.Throttle) {
		ack.Status, ack.Err = AckRejected, ErrNotHeld
		return b.accept(r)
	}
	next, status, err := j.Finish(b.now, r.fence, o, b.policyOf(j), rand.Float64())
	if err != nil {
		return err
	}
	b.put(next)
	ack.Status, ack.State = ackStatuses[status], next.State
	return nil
}

// applyAccepts notes what the worker has named, by seen or in its list.
func (t *turn) applyAccepts(b *book) error {
	if err := b.load(t.accepts); err != nil {
		return err
	}
	for _, r := range t.accepts {
		if err := b.accept(r); err != nil {
			return err
		}
	}
	for _, r := range t.listed() {
		if err := b.accept(r); err != nil {
			return err
		}
	}
	return nil
}

// judge says of each listed run what to do with it. An interrupt is repeated until it is acknowledged, and told to each
// new session.
func (t *turn) judge(b *book) error {
	for i, r := range t.listed() {
		j := b.job(r)
		v := verdict(j, r)
		v.Token = t.tokens[len(t.finishes)+i]
		if v.Interrupt.Level != job.LevelNone {
			if v.Interrupt.AckTime.IsZero() || t.hello {
				v.GraceLeft = max(0, v.Interrupt.GraceTime.Sub(b.now))
				next, err := j.Deliver(b.now, r.fence, v.Interrupt.Generation)
				if err != nil {
					return err
				}
				b.put(next)
			} else {
				v.Interrupt, v.Epoch, v.Run = job.Interrupt{}, 0, 0
			}
		}
		t.answer.Verdicts = append(t.answer.Verdicts, v)
		if t.hello && v.Action == Stop && j != nil {
			t.ghosts = append(t.ghosts, &run{
				ref: r, queue: j.Spec.Queue, size: uint64(j.Spec.PayloadSize), session: t.session,
				applied: true, synced: true, sent: true, accepted: true, ended: true,
			})
		}
	}
	return nil
}

// verdict says what to do with a run.
func verdict(j *job.Job, r ref) Verdict {
	stop := func(why StopReason) Verdict { return Verdict{Action: Stop, Reason: why} }
	switch {
	case r == ref{}:
		return stop(StopUnknown)
	case j == nil:
		return stop(StopDeleted)
	case j.State == job.Running && j.Run.Fence == r.fence:
		v := Verdict{Action: Continue, Lease: j.Run.Lease}
		v.interrupt(j)
		return v
	}
	how := endOf(j, r.fence)
	if finished(how) {
		return Verdict{Action: Finished}
	}
	return stop(stopReason(how))
}

// interrupt adds the job's interrupt, if there is one.
func (v *Verdict) interrupt(j *job.Job) {
	if j.Interrupted().Level != job.LevelNone {
		v.Interrupt, v.Epoch, v.Run = *j.Interrupt, j.Epoch, j.Run.Number
	}
}

// stopReason is why a worker must stop a run that did not end by its word.
func stopReason(how job.RunState) StopReason {
	switch how {
	case job.RunLost:
		return StopLost
	case job.RunAbandoned:
		return StopAbandoned
	case job.RunWithdrawn, job.RunUndelivered:
		return StopWithdrawn
	default:
		return StopSuperseded
	}
}

// applyMissing ends the runs that the session held, knew to have arrived, and no longer lists.
func (t *turn) applyMissing(b *book) error {
	t.findGone()
	refs := make([]ref, 0, len(t.gone))
	for _, r := range t.gone {
		refs = append(refs, r.ref)
	}
	if err := b.load(refs); err != nil {
		return err
	}
	note := "its worker no longer listed it"
	for _, r := range refs {
		if err := b.lose(r, note); err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) findGone() {
	d, s := t.d, t.session
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range t.listed() {
		if known := d.runs[r.fence]; known != nil && known.ref == r {
			known.listed = t.number
		}
	}
	s.worker.all(func(r *run) {
		judged := r.session == s && r.sent && r.number <= t.covered
		if t.hello {
			// Everything else the instance held; what it claimed by calls lives by its lease until a hello lists it.
			judged = r.session != s && (r.session != nil || !r.unary)
		}
		if judged && r.applied && r.listed != t.number {
			t.gone = append(t.gone, r)
		}
	})
}

// settle takes note of what apply found, once it is on disk. The caller holds the mutex.
func (t *turn) settle() {
	d, s := t.d, t.session
	for _, r := range t.gone {
		d.free(r)
	}
	d.bury(t.buried)
	for i, a := range t.answer.Acks {
		if r := d.runs[t.refs[i].fence]; r != nil && r.ended && a.Status != AckRejected {
			d.free(r)
		}
	}
	if s != nil && t.answer.Reported {
		t.answer.NextReport = s.nextReport()
		s.reported = max(s.reported, t.answer.Seq)
	}
	if t.hello {
		t.adopt()
	}
	d.nudge()
}

// adopt makes the runs that hello lists the session's, and counts those that have ended until it no longer lists them.
func (t *turn) adopt() {
	d, s := t.d, t.session
	for i, r := range t.listed() {
		known := d.runs[r.fence]
		if t.answer.Verdicts[i].Action != Continue || known == nil || !known.live() {
			continue
		}
		d.unplace(known)
		known.worker.remove(known)
		s.worker.add(known)
		known.session, known.claim, known.sent, known.number, known.accepted = s, nil, true, 0, true
		s.catchUp(known, t.answer.Verdicts[i].Interrupt.Generation)
	}
	for _, g := range t.ghosts {
		if d.runs[g.fence] == nil {
			d.add(g, s.worker)
		}
		d.answerFor(g.fence)
	}
}
