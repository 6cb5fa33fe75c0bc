package dispatch

import (
	"math"
	"slices"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// gate is what keeps jobs of a queue, or those that take a key of a limit, from starting, besides room: the permits of a
// rate, a worker's word that it is overloaded, and a breaker.
//
// What closes it is kept by the store, in the batch of the run's end that closed it; permits and counts are not. A bucket of
// permits is one number, the time when it will be full again if nobody takes any (the virtual scheduling form of the generic
// cell rate algorithm, ITU-T I.371). A full one need not be remembered: it is what one is taken for that nobody has used since
// the server began, or since its rate was changed, when all are empty.
type gate struct {
	store.Gate
	unwritten bool       // it differs from what the store has
	failures  uint32     // runs that failed, in a row
	probe     uint64     // the fence of the run that tries; 0: none
	full      int64      // when its bucket will be full
	filled    int64      // when an operator filled it; 0: nobody did
	key       *store.Key // that lanes hang on for it; of a key's
	deadline  deadline   // when something of it changes by itself
}

const (
	// gatesMax bounds what is remembered besides what is closed or waited for. Beyond it, buckets and counts begin anew: rates
	// are never exceeded by that, only not reached for a while.
	gatesMax = 100_000
	// gateTick is the shortest time between two looks for permits, unless a bucket would overflow meanwhile.
	gateTick = 2 * time.Millisecond
	// gatesPurged is how many there are at least before those that say nothing are looked for.
	gatesPurged = 1024
	// gatesSweeps is after how many sweeps it is done all the same.
	gatesSweeps = 60
	// gateFilled is for how long it is remembered that an operator has filled a bucket.
	gateFilled = time.Hour
)

// gates are all that say something.
type gates struct {
	all       map[store.GateName]*gate
	unwritten []*gate
	purged    int                      // how many were left by the last purge
	sweeps    int                      // since then
	emptied   map[store.GateName]int64 // when the buckets of a queue, or of a limit (without a key), became empty
	rates     map[store.GateName]rates // of queues and limits that have some, as they were seen last
	floor     int64                    // when all did
	restoring bool                     // what is read is as it was
}

// rates are those of a queue or a limit.
type rates struct {
	all job.Rate
	of  []job.KeyRate
}

// rated notes the rates of a queue or limit. If they have changed, its buckets begin empty.
func (d *Dispatcher) rated(of store.GateName, r rates) {
	was, known := d.gates.rates[of]
	if was.all == r.all && slices.Equal(was.of, r.of) {
		return
	}
	if r.all.Permits == 0 && len(r.of) == 0 {
		delete(d.gates.rates, of)
	} else {
		d.gates.rates[of] = r
	}
	if known || !d.gates.restoring {
		d.empty(of)
	}
}

// gate returns a gate, making it if there is none.
func (d *Dispatcher) gate(of store.GateName, now int64) *gate {
	g := d.gates.all[of]
	if g != nil {
		return g
	}
	if len(d.gates.all) >= max(gatesPurged, 2*d.gates.purged) {
		d.purge(now)
	}
	g = &gate{Gate: store.Gate{Of: of}}
	g.deadline.of = g
	d.gates.all[of] = g
	return g
}

// purge forgets the gates that say nothing, and while there are too many also buckets and counts that nobody waits for.
func (d *Dispatcher) purge(now int64) {
	for of, g := range d.gates.all {
		if g.idle() && g.failures == 0 && g.full <= now && (g.filled == 0 || now-g.filled > int64(gateFilled)) {
			delete(d.gates.all, of)
		}
	}
	if len(d.gates.all) >= gatesMax {
		for of, g := range d.gates.all {
			if g.idle() {
				d.gates.floor = now
				delete(d.gates.all, of)
			}
		}
	}
	d.gates.purged, d.gates.sweeps = len(d.gates.all), 0
	if len(d.gates.emptied) > gatesMax {
		d.gates.floor = now
		clear(d.gates.emptied)
	}
}

// idle reports whether nothing is kept closed by the gate, or waits for it.
func (g *gate) idle() bool { return g.Open() && !g.unwritten && g.probe == 0 && g.deadline.at == 0 }

// sweepGates is purge, seldom if there are many.
func (d *Dispatcher) sweepGates(now int64) {
	if d.gates.sweeps++; len(d.gates.all) <= gatesPurged || d.gates.sweeps >= gatesSweeps {
		d.purge(now)
	}
}

// empty has the buckets of a queue, or of all keys of a limit, begin empty, for its rate may be another one now.
func (d *Dispatcher) empty(of store.GateName) {
	d.gates.emptied[of] = d.now()
	for name, g := range d.gates.all {
		if name == of || of.Limit != "" && name.Limit == of.Limit {
			g.full = 0
		}
	}
}

// fullAt is when the bucket will be full, at that rate.
func (d *Dispatcher) fullAt(of store.GateName, g *gate, r job.Rate, now int64) int64 {
	most := int64(r.Most()) * int64(r.Interval())
	full := int64(0)
	if g != nil {
		full = g.full
	}
	began := d.gates.floor
	if of.Limit == "" {
		began = max(began, d.gates.emptied[of])
	} else {
		began = max(began, d.gates.emptied[store.GateName{Limit: of.Limit}])
	}
	if g == nil || g.filled < began {
		full = max(full, began+most)
	}
	return min(full, now+most)
}

// through is how many units the gate lets through now, and after which time more, if they are less than wanted; 0: not by
// itself.
func (m *matcher) through(of store.GateName, r job.Rate, wanted uint64) (units uint64, after int64) {
	d := m.d
	g := d.gates.all[of]
	if g != nil && !g.Open() {
		switch {
		case m.now.Before(g.ThrottledUntil):
			return 0, int64(g.ThrottledUntil.Sub(m.now))
		case g.TripTime.IsZero():
		case m.now.Before(g.TryTime):
			return 0, int64(g.TryTime.Sub(m.now))
		case g.probe != 0:
			return 0, 0
		}
	}
	if r.Permits == 0 {
		return math.MaxUint64, 0
	}
	interval, most := int64(r.Interval()), int64(r.Most())
	missing := max(0, d.fullAt(of, g, r, m.clock)-m.clock)
	have := most - (missing+interval-1)/interval
	if uint64(have) >= wanted {
		return uint64(have), 0
	}
	if int64(wanted) > most { // its burst was lowered
		return uint64(have), 0
	}
	after = missing - (most-int64(wanted))*interval
	return uint64(have), max(after, min(int64(gateTick), most*interval/2))
}

// pass takes what a run takes of the gate.
func (m *matcher) pass(of store.GateName, r job.Rate, units uint64, fence uint64) {
	d := m.d
	g := d.gates.all[of]
	if g == nil && r.Permits == 0 {
		return
	}
	if g == nil {
		g = d.gate(of, m.clock)
	}
	if !g.TripTime.IsZero() && g.probe == 0 {
		g.probe = fence
	}
	if r.Permits > 0 {
		g.full = max(d.fullAt(of, g, r, m.clock), m.clock) + int64(units)*int64(r.Interval())
	}
}

// await has the gate looked at again after a time; 0: not by itself.
func (m *matcher) await(of store.GateName, after int64, key *store.Key) {
	g := m.d.gate(of, m.clock)
	g.key = key
	if at := m.clock + after; after > 0 && (g.deadline.at == 0 || at < g.deadline.at) {
		m.d.deadlines.set(&g.deadline, at)
		m.d.hurry()
	}
}

// gateOf names the gate of a key.
func gateOf(k *store.Key) store.GateName { return store.GateName{Limit: k.Limit.Name, Name: k.Name} }

// rateOf is the key's rate.
func rateOf(k *store.Key) job.Rate {
	if k.Limit.Policy == nil {
		return job.Rate{}
	}
	return k.Limit.Policy.RateOf(k.Name)
}

// fits reports whether the lane's jobs may take what they take of a key. If its gate is in the way, it is looked at again
// when that changes.
func (m *matcher) fits(l *lane, u store.KeyUse) bool {
	d, units := m.d, uint64(u.Units)
	if units > d.roomFor(l, u.Key) {
		return false
	}
	if !d.gated(u.Key) {
		return true
	}
	kept := d.permitsFrom(l, u.Key)
	of := gateOf(u.Key)
	n, after := m.through(of, rateOf(u.Key), units+kept)
	if n >= units+kept {
		return true
	}
	if n >= units {
		after = int64(sweepEvery) // by then the others may wait for more than permits
	}
	m.await(of, after, u.Key)
	return false
}

// entrance is how many runs the gate of a queue lets through now.
func (m *matcher) entrance(q *queue, p job.Policy) uint64 {
	of := store.GateName{Name: q.name}
	g := m.d.gates.all[of]
	if g != nil && p.Breaker.Failures == 0 {
		m.d.reset(g)
	}
	if g == nil && p.Rate.Permits == 0 {
		return math.MaxUint64
	}
	n, after := m.through(of, p.Rate, 1)
	if n == 0 {
		m.await(of, after, nil)
	} else if g != nil && !g.TripTime.IsZero() {
		n = 1 // it tries
	}
	return n
}

// gated reports whether the key may have a gate that is closed, or takes permits. One of a deleted limit binds nobody.
func (d *Dispatcher) gated(k *store.Key) bool {
	return k.Limit.Policy != nil && (len(d.gates.all) > 0 || (k.Limit.Policy.Rate.Permits > 0 || len(k.Limit.Policy.Rates) > 0))
}

// ajar follows a gate's deadline: something of it has changed by itself.
func (d *Dispatcher) ajar(g *gate, now int64) {
	g.deadline.at = 0
	wall := d.wall()
	if !wall.Before(g.ThrottledUntil) {
		d.unthrottle(g)
	}
	d.arm(g, now, wall)
	d.enter(g)
}

// unthrottle forgets what a worker said.
func (d *Dispatcher) unthrottle(g *gate) {
	if !g.ThrottledUntil.IsZero() {
		g.ThrottledUntil, g.ThrottleReason, g.ThrottledBy = time.Time{}, "", job.ID{}
		d.write(g)
	}
}

// arm sets the deadline of what keeps the gate closed for a time.
func (d *Dispatcher) arm(g *gate, now int64, wall time.Time) {
	at := g.ThrottledUntil
	if !g.TryTime.IsZero() && wall.Before(g.TryTime) && (at.IsZero() || g.TryTime.Before(at)) {
		at = g.TryTime
	}
	if at.IsZero() {
		return
	}
	d.deadlines.set(&g.deadline, now+max(1, int64(at.Sub(wall))))
	d.hurry()
}

// enter has the next match look at what the gate kept.
func (d *Dispatcher) enter(g *gate) {
	if g.Of.Limit == "" {
		if q := d.queues[g.Of.Name]; q != nil {
			d.activate(q)
		}
	} else if g.key != nil {
		d.gaveBack([]store.KeyUse{{Key: g.key}})
	}
	d.nudge()
}

// write has the next match, which is in the batch under construction, give the gate to the store.
func (d *Dispatcher) write(g *gate) {
	if !g.unwritten {
		g.unwritten = true
		d.gates.unwritten = append(d.gates.unwritten, g)
		d.poke()
	}
}

// writeGates gives the store what has changed.
func (m *matcher) writeGates() {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	m.wrote, d.gates.unwritten = d.gates.unwritten, nil
	for _, g := range m.wrote {
		g.unwritten = false
		m.tx.PutGate(g.Gate)
	}
}

// unwriteGates follows writeGates when its transaction failed.
func (m *matcher) unwriteGates() {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	for _, g := range m.wrote {
		m.d.write(g)
	}
}

// unprobe follows runs that were proposed and did not begin.
func (d *Dispatcher) unprobe(fence uint64) {
	for _, g := range d.gates.all {
		if g.probe == fence {
			g.probe = 0
			d.enter(g)
		}
	}
}

// restoreGates reads what keeps gates closed; runs that try are found by restoreProbe.
func (d *Dispatcher) restoreGates(r store.Reader) {
	now, wall := d.now(), d.wall()
	d.gates.floor = now
	d.gates.restoring = true
	r.Limits("", func(l *store.Limit) bool {
		d.rated(store.GateName{Limit: l.Name}, rates{l.Policy.Rate, l.Policy.Rates})
		return true
	})
	r.Queues("", func(q *store.Queue) bool {
		d.rated(store.GateName{Name: q.Name}, rates{all: q.Policy.Rate})
		return true
	})
	d.gates.restoring = false
	r.Gates(func(was store.Gate) {
		g := d.gate(was.Of, now)
		g.Gate, g.failures = was, was.Failures
		d.arm(g, now, wall)
	})
}

// restoreProbe notes that a live run tries, if it began when its gates let one do so.
func (d *Dispatcher) restoreProbe(j *job.Job) {
	if len(d.gates.all) == 0 {
		return
	}
	try := func(of store.GateName) {
		if g := d.gates.all[of]; g != nil && !g.TryTime.IsZero() && !j.Run.DispatchTime.Before(g.TryTime) {
			g.probe = j.Run.Fence
		}
	}
	try(store.GateName{Name: j.Spec.Queue})
	for _, u := range j.Spec.Limits {
		try(store.GateName{Limit: u.Limit, Name: u.Key})
	}
}

// GateState is a gate as it is at a moment.
type GateState struct {
	store.Gate
	Trying bool          // a run tries whether what failed is well again
	Row    uint32        // how many runs failed in a row, as far as a breaker counts them
	Next   time.Duration // after which time the permits asked for are there; 0: they are, or never are
}

// Gate tells how a gate is, whose rate is as given, for a run that takes so many units.
func (d *Dispatcher) Gate(of store.GateName, r job.Rate, units uint32) GateState {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.gates.all[of]
	s := GateState{Gate: store.Gate{Of: of}}
	if g != nil {
		s.Gate, s.Trying, s.Row = g.Gate, g.probe != 0, g.failures
	}
	if r.Permits > 0 && units <= r.Most() {
		now, spare := d.now(), int64(r.Most()-units)*int64(r.Interval())
		s.Next = time.Duration(max(0, d.fullAt(of, g, r, now)-now-spare))
	}
	return s
}
