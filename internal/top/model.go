package top

import (
	"cmp"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Model is the picture. The zero value is not ready: see New.
type Model struct {
	began time.Time // When the view began.
	since time.Time // Since when events are counted without a gap.
	skew  skew

	queues  map[string]*queue
	workers map[string]*stintv1.Worker // By instance id.
	gone    map[string]departure       // Workers whose session ended, by instance id.
	limits  map[string]*limit

	total  window
	newest time.Time // The newest event's, by the server's clock.
	listed bool
	live   bool // There were no events behind the last message.
	away   *Away
}

// queue is what is known of a queue.
type queue struct {
	name    string
	listed  *stintv1.Queue // Nil before a list has shown it.
	seen    *window        // Nil while nothing happens.
	failure string         // The last run's that failed.
}

// limit is what is known of a limit.
type limit struct {
	listed *stintv1.Limit
	usage  []*stintv1.KeyUsage
	more   bool // It has more keys than were read.
}

// departure is the end of a worker's session.
type departure struct {
	worker string
	at     time.Time
}

// Away says that the server does not answer.
type Away struct {
	// Since is when that was noticed.
	Since time.Time `json:"since"`
	// Why is what the last call ended with.
	Why string `json:"why"`
}

// New returns a picture of nothing.
func New(now time.Time) *Model {
	return &Model{
		began: now, since: now,
		queues: map[string]*queue{}, workers: map[string]*stintv1.Worker{}, gone: map[string]departure{}, limits: map[string]*limit{},
	}
}

// Lists is what a server lists, whole.
type Lists struct {
	Queues  []*stintv1.Queue
	Workers []*stintv1.Worker
	Limits  []*stintv1.Limit
	// Usage is of some limits.
	Usage []Usage
}

// Usage is which keys of a limit are taken.
type Usage struct {
	Limit string
	Keys  []*stintv1.KeyUsage
	// More says that these are not all.
	More bool
}

// Restart forgets what was counted: events were missed, or none were followed yet.
func (m *Model) Restart(now time.Time) {
	m.since, m.total, m.newest, m.live = now, window{}, time.Time{}, false
	for _, q := range m.queues {
		q.seen, q.failure = nil, ""
	}
}

// List takes over what the server has listed. What it does not show is not there any more.
func (m *Model) List(now time.Time, l *Lists) {
	m.listed, m.away = true, nil
	queues := make(map[string]*queue, len(l.Queues))
	for _, listed := range l.Queues {
		q := m.queues[listed.GetName()]
		if q == nil {
			q = &queue{name: listed.GetName()}
		}
		if q.listed = listed; q.seen != nil && q.seen.idle(m.serverTime(now)) {
			q.seen = nil
		}
		queues[q.name] = q
	}
	m.queues = queues
	clear(m.workers)
	for _, w := range l.Workers {
		m.workers[w.GetInstanceId()] = w
		if w.GetConnected() {
			delete(m.gone, w.GetInstanceId())
		}
	}
	for instance, d := range m.gone {
		if _, known := m.workers[instance]; !known && m.serverTime(now).Sub(d.at) > time.Minute {
			delete(m.gone, instance)
		}
	}
	limits := make(map[string]*limit, len(l.Limits))
	for _, listed := range l.Limits {
		was := cmp.Or(m.limits[listed.GetName()], &limit{})
		limits[listed.GetName()] = &limit{listed: listed, usage: was.usage, more: was.more}
	}
	m.limits = limits
	for _, u := range l.Usage {
		if known := limits[u.Limit]; known != nil {
			known.usage, known.more = u.Keys, u.More
		}
	}
}

// Lose says that the server does not answer, and why.
func (m *Model) Lose(now time.Time, why string) {
	if m.away == nil {
		m.away = &Away{Since: now}
	}
	m.away.Why = why
}

// Watched takes over a message of events. Live says that there were no more behind them.
func (m *Model) Watched(now time.Time, happened []*stintv1.Event, live bool) {
	m.live = live
	for _, e := range happened {
		at := e.GetTime().AsTime()
		m.skew.learn(at, now)
		if at.After(m.newest) {
			m.newest = at
		}
		m.total.add(events, at)
		if k, counted := countedAs(e); counted {
			m.total.add(k, at)
			m.queueOf(e).add(k, at)
			if k == failures {
				m.queueOf(e).failure = cmp.Or(e.GetReason(), runStateName(e.GetRunState()))
			}
		}
		if e.GetKind() == stintv1.EventKind_EVENT_KIND_RUN_ENDED {
			m.total.add(ends, at)
			m.queueOf(e).add(ends, at)
		}
		m.apply(e)
	}
}

// countedAs is what an event counts as, besides the end of a run.
func countedAs(e *stintv1.Event) (kind, bool) {
	switch e.GetKind() {
	case stintv1.EventKind_EVENT_KIND_JOB_SUBMITTED:
		return submits, true
	case stintv1.EventKind_EVENT_KIND_RUN_DISPATCHED:
		return starts, true
	case stintv1.EventKind_EVENT_KIND_JOB_ENDED:
		return finishes, true
	case stintv1.EventKind_EVENT_KIND_RUN_ENDED:
		switch e.GetRunState() {
		case stintv1.RunState_RUN_STATE_FAILED, stintv1.RunState_RUN_STATE_LOST, stintv1.RunState_RUN_STATE_ABANDONED:
			return failures, true
		default:
			return 0, false
		}
	default:
		return 0, false
	}
}

// queueOf is the queue that an event is of. One that no list has shown comes to be.
func (m *Model) queueOf(e *stintv1.Event) *queue {
	q := m.queues[e.GetQueue()]
	if q == nil {
		q = &queue{name: e.GetQueue()}
		m.queues[q.name] = q
	}
	return q
}

func (q *queue) add(k kind, at time.Time) {
	if q.seen == nil {
		q.seen = &window{}
	}
	q.seen.add(k, at)
}

// serverTime is our time as the server's clock shows it, as far as its events tell.
func (m *Model) serverTime(now time.Time) time.Time { return now.Add(m.skew.estimated) }

// countedTo is the server's time up to which all events are counted: now, or behind it when there is more to come than
// arrives. Rates are as of then, so that they are right, if old, on a server that does more than it can tell us.
func (m *Model) countedTo(now time.Time) time.Time {
	at := m.serverTime(now)
	if m.live || m.newest.IsZero() || m.newest.After(at) {
		return at
	}
	return m.newest
}

// Behind is how far the events are behind what happens.
func (m *Model) Behind(now time.Time) time.Duration { return m.serverTime(now).Sub(m.countedTo(now)) }
