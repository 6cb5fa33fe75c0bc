package top

import (
	"cmp"
	"slices"
	"strings"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Snapshot is the picture at a moment, the worst and busiest first.
type Snapshot struct {
	// Time is the server's, as far as its events tell.
	Time time.Time `json:"time"`
	// Up is how long the view has been there.
	Up Span `json:"up"`
	// Measured is for how long events have been followed without a gap; rates mean little before some seconds.
	Measured Span `json:"measured"`
	// Behind is how far the events that rates are made of are behind what happens; a server can do more than it can tell.
	Behind Span `json:"behind"`
	// Listed is whether there is a picture at all yet.
	Listed bool `json:"-"`
	// Away is nil while the server answers; AwayFor is for how long it has not.
	Away    *Away `json:"away,omitempty"`
	AwayFor Span  `json:"awayFor,omitempty"`

	Totals   Totals      `json:"totals"`
	Rates    Rates       `json:"rates"`
	Problems []Problem   `json:"problems"`
	Queues   []QueueRow  `json:"queues"`
	Workers  []WorkerRow `json:"workers"`
	Limits   []LimitRow  `json:"limits"`
}

// Totals are sums over what is listed, whatever the filter.
type Totals struct {
	Ready   uint64 `json:"ready"`
	Running uint64 `json:"running"`
	Delayed uint64 `json:"delayed"`
	Parked  uint64 `json:"parked"`
	Zombies uint64 `json:"zombies"`
	Queues  int    `json:"queues"`
	Workers int    `json:"workers"`
	Limits  int    `json:"limits"`
	// Runs is what the workers have in flight, Room how much that can be.
	Runs uint64 `json:"runs"`
	Room uint64 `json:"room"`
}

// Rates are how many a second, over the whole server, and the failed runs of the last minute.
type Rates struct {
	Events             float64 `json:"events"`
	Submits            float64 `json:"submits"`
	Starts             float64 `json:"starts"`
	Finishes           float64 `json:"finishes"`
	Failures           float64 `json:"failures"`
	FailuresLastMinute uint64  `json:"failuresLastMinute"`
}

// QueueRow is a queue.
type QueueRow struct {
	Name    string `json:"name"`
	Ready   uint64 `json:"ready"`
	Running uint64 `json:"running"`
	// Delayed is SCHEDULED and BACKOFF.
	Delayed uint64 `json:"delayed"`
	Parked  uint64 `json:"parked"`
	// Starts and Ends are of runs, a second.
	Starts      float64 `json:"starts"`
	Ends        float64 `json:"ends"`
	Failures    uint64  `json:"failuresLastMinute"`
	OldestReady Span    `json:"oldestReady"`
	// State says what keeps its jobs from starting: PAUSED, CLOSED (its gate), RATE (no permit is left); empty: nothing.
	State string `json:"state,omitempty"`
	// Worst is the rank of its worst problem; Fine without.
	Worst Rank `json:"-"`
}

// WorkerRow is a worker process.
type WorkerRow struct {
	Instance string `json:"instance"`
	Name     string `json:"name"`
	Host     string `json:"host"`
	Runs     uint32 `json:"runs"`
	Room     uint32 `json:"room"`
	Zombies  uint32 `json:"zombies"`
	// State is CONNECTED, DRAINING, AWAY, or CALLS of one without a session that claims by calls.
	State  string   `json:"state"`
	Queues []string `json:"queues"`
	Heard  Span     `json:"heard"` // How long ago.
}

// LimitRow is a key of a limit, or a limit of which no key is taken or waited for.
type LimitRow struct {
	Name    string `json:"name"`
	Key     string `json:"key"`
	Taken   uint64 `json:"taken"`   // Units, those of zombies too.
	Zombies uint64 `json:"zombies"` // Units.
	Max     uint32 `json:"max"`     // 0: any number.
	Waiting uint64 `json:"waiting"` // Jobs.
	// State is as a queue's; MORE says that the limit has more keys than were read.
	State string `json:"state,omitempty"`
}

// Take takes the picture. Rows hold what the filter is part of the name of; it may be empty.
func (m *Model) Take(now time.Time, filter string) *Snapshot {
	at := m.serverTime(now)
	s := &Snapshot{
		Time: at, Up: Span(now.Sub(m.began)), Measured: Span(now.Sub(m.since)), Behind: Span(m.Behind(now)), Listed: m.listed,
		Rates: m.rates(now), Problems: []Problem{}, Queues: []QueueRow{}, Workers: []WorkerRow{}, Limits: []LimitRow{}, // In JSON not null.
	}
	if m.away != nil {
		away := *m.away
		s.Away, s.AwayFor = &away, Span(now.Sub(away.Since))
	}
	v := viewer{m: m, now: now, at: at, served: m.served(), s: s, wants: func(name string) bool { return strings.Contains(name, filter) }}
	for _, q := range m.queues {
		v.queue(q)
	}
	for _, w := range m.workers {
		v.worker(w)
	}
	for instance, d := range m.gone {
		v.departure(instance, d)
	}
	for name, l := range m.limits {
		v.limit(name, l)
	}
	s.Totals.Queues, s.Totals.Workers, s.Totals.Limits = len(m.queues), len(m.workers), len(m.limits)
	slices.SortFunc(s.Problems, worseProblem)
	slices.SortFunc(s.Queues, busierQueue)
	slices.SortFunc(s.Workers, busierWorker)
	slices.SortFunc(s.Limits, tighterLimit)
	return s
}

func (m *Model) rates(now time.Time) Rates {
	at, since := m.countedTo(now), m.serverTime(m.since)
	rate := func(k kind) float64 { return m.total.rate(k, at, since) }
	return Rates{
		Events: rate(events), Submits: rate(submits), Starts: rate(starts), Finishes: rate(finishes), Failures: rate(failures),
		FailuresLastMinute: m.total.lastMinute(failures, at),
	}
}

// served are the queues that a worker with a session has room for, drained ones aside.
func (m *Model) served() map[string]bool {
	served := map[string]bool{}
	for _, w := range m.workers {
		if !w.GetConnected() || w.GetDraining() {
			continue
		}
		for _, p := range w.GetPools() {
			for _, name := range p.GetQueues() {
				served[name] = true
			}
		}
	}
	return served
}

// viewer makes the rows and problems of one snapshot.
type viewer struct {
	m       *Model
	now, at time.Time
	served  map[string]bool
	wants   func(name string) bool
	s       *Snapshot
}

func (v *viewer) queue(q *queue) {
	c := q.listed.GetCounts()
	row := QueueRow{
		Name: q.name, Ready: c.GetReady(), Running: c.GetRunning(), Delayed: c.GetScheduled() + c.GetBackoff(), Parked: c.GetParked(),
		OldestReady: Span(q.listed.GetOldestReadyAge().AsDuration()), State: gateState(q.listed.GetGate(), v.at), Worst: Fine,
	}
	if q.listed.GetPause() != nil {
		row.State = "PAUSED"
	}
	if q.seen != nil {
		to, since := v.m.countedTo(v.now), v.m.serverTime(v.m.since)
		row.Starts, row.Ends = q.seen.rate(starts, to, since), q.seen.rate(ends, to, since)
		row.Failures = q.seen.lastMinute(failures, to)
	}
	t := &v.s.Totals
	t.Ready, t.Running, t.Delayed, t.Parked = t.Ready+row.Ready, t.Running+row.Running, t.Delayed+row.Delayed, t.Parked+row.Parked
	t.Zombies += q.listed.GetZombies()
	if !v.wants(q.name) {
		return
	}
	v.queueProblems(q, &row)
	v.s.Queues = append(v.s.Queues, row)
}

// workerSilence is how long a worker without a session may be silent before it is taken for away: one that claims by calls
// speaks more often, for its leases.
const workerSilence = 20 * time.Second

func (v *viewer) worker(w *stintv1.Worker) {
	row := WorkerRow{
		Instance: w.GetInstanceId(), Name: w.GetWorker(), Host: w.GetHost(), Runs: w.GetRuns(), Zombies: w.GetZombies(), State: "CONNECTED",
		Queues: []string{}, Heard: Span(max(0, v.at.Sub(w.GetHeardTime().AsTime()))),
	}
	for _, p := range w.GetPools() {
		row.Room += p.GetMaxRuns()
		row.Queues = append(row.Queues, p.GetQueues()...)
	}
	_, left := v.m.gone[row.Instance]
	switch {
	case !w.GetConnected() && (left || time.Duration(row.Heard) > workerSilence):
		row.State = "AWAY"
	case w.GetDraining():
		row.State = "DRAINING"
	case !w.GetConnected():
		row.State = "CALLS"
	}
	v.s.Totals.Runs += uint64(row.Runs)
	room := row.Runs // One that gets no more has room for what it has.
	if row.State == "CONNECTED" {
		room = max(room, row.Room)
	}
	v.s.Totals.Room += uint64(room)
	if !v.wants(row.Name) && !v.wants(row.Host) && !v.wants(row.Instance) {
		return
	}
	v.workerProblems(w, &row)
	v.s.Workers = append(v.s.Workers, row)
}

func (v *viewer) limit(name string, l *limit) {
	if !v.wants(name) {
		return
	}
	state := ""
	if l.more {
		state = "MORE"
	}
	if len(l.usage) == 0 {
		p := l.listed.GetPolicy()
		v.s.Limits = append(v.s.Limits, LimitRow{Name: name, Max: p.GetMaxUnits(), State: state})
		return
	}
	for _, k := range l.usage {
		row := LimitRow{
			Name: name, Key: k.GetKey(), Taken: k.GetLiveUnits() + k.GetZombieUnits(), Zombies: k.GetZombieUnits(), Max: k.GetMaxUnits(),
			Waiting: k.GetWaitingJobs(), State: cmp.Or(gateState(k.GetGate(), v.at), state),
		}
		v.limitProblems(k, &row)
		v.s.Limits = append(v.s.Limits, row)
	}
}

// gateState is what a gate does now.
func gateState(g *stintv1.Gate, now time.Time) string {
	switch {
	case g.GetTripTime() != nil, g.GetThrottledUntil() != nil && g.GetThrottledUntil().AsTime().After(now):
		return "CLOSED"
	case g.GetNextPermitTime() != nil:
		return "RATE"
	default:
		return ""
	}
}

// busierQueue puts queues with problems first, then those in which most happens or waits. What happens is compared by its
// order of magnitude, or rows would change places all the time.
func busierQueue(a, b QueueRow) int {
	return cmp.Or(
		cmp.Compare(a.Worst, b.Worst),
		cmp.Compare(magnitude(b.Starts+b.Ends), magnitude(a.Starts+a.Ends)),
		cmp.Compare(magnitude(float64(b.Running+b.Ready)), magnitude(float64(a.Running+a.Ready))),
		cmp.Compare(a.Name, b.Name),
	)
}

// magnitude is how often a number can be halved.
func magnitude(x float64) (n int) {
	for ; x > 0.05; x /= 2 {
		n++
	}
	return n
}

func busierWorker(a, b WorkerRow) int {
	rank := func(r WorkerRow) Rank {
		switch r.State {
		case "AWAY":
			return WorkerAway
		case "DRAINING":
			return WorkerDraining
		default:
			return Fine
		}
	}
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)), cmp.Compare(magnitude(float64(b.Runs)), magnitude(float64(a.Runs))),
		cmp.Compare(a.Name, b.Name), cmp.Compare(a.Instance, b.Instance),
	)
}

// tighterLimit puts closed gates first, then keys that jobs wait for, then full ones.
func tighterLimit(a, b LimitRow) int {
	closed := func(r LimitRow) int {
		if r.State == "CLOSED" {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(closed(a), closed(b)), cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.share(), a.share()),
		cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key),
	)
}

// share is how much of a key's maximum is taken.
func (r *LimitRow) share() float64 {
	if r.Max == 0 {
		return 0
	}
	return float64(r.Taken) / float64(r.Max)
}
