package top

import (
	"slices"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// apply changes what a list will show a moment later, so that an operator does not wait for it. Counts of jobs are left to
// the lists: an event does not say where its job stood before.
func (m *Model) apply(e *stintv1.Event) {
	switch e.GetKind() {
	case stintv1.EventKind_EVENT_KIND_QUEUE_PAUSED:
		m.listedQueue(e).Pause = &stintv1.QueuePause{Reason: e.GetReason(), Requester: e.GetRequester(), PauseTime: e.GetTime()}
	case stintv1.EventKind_EVENT_KIND_QUEUE_RESUMED:
		m.listedQueue(e).Pause = nil
	case stintv1.EventKind_EVENT_KIND_QUEUE_DELETED:
		delete(m.queues, e.GetQueue())
	case stintv1.EventKind_EVENT_KIND_LIMIT_DELETED:
		delete(m.limits, e.GetLimit())
	case stintv1.EventKind_EVENT_KIND_GATE_CLOSED:
		m.gate(e, &stintv1.Gate{ThrottledUntil: e.GetUntil(), ThrottleReason: e.GetReason(), ThrottledBy: e.GetJobId()})
	case stintv1.EventKind_EVENT_KIND_GATE_OPENED:
		m.gate(e, nil)
	case stintv1.EventKind_EVENT_KIND_WORKER_CONNECTED, stintv1.EventKind_EVENT_KIND_WORKER_RESUMED:
		delete(m.gone, e.GetInstanceId())
		if w := m.workers[e.GetInstanceId()]; w != nil {
			w.Connected, w.HeardTime = true, e.GetTime()
		}
	case stintv1.EventKind_EVENT_KIND_WORKER_DRAINING:
		if w := m.workers[e.GetInstanceId()]; w != nil {
			w.Draining, w.DrainReason = true, e.GetReason()
		}
	case stintv1.EventKind_EVENT_KIND_WORKER_GONE:
		m.gone[e.GetInstanceId()] = departure{worker: e.GetWorker(), at: e.GetTime().AsTime()}
		if w := m.workers[e.GetInstanceId()]; w != nil {
			w.Connected = false
		}
	default:
	}
}

// listedQueue is the event's queue as lists show it, for a change.
func (m *Model) listedQueue(e *stintv1.Event) *stintv1.Queue {
	q := m.queueOf(e)
	if q.listed == nil {
		q.listed = &stintv1.Queue{Name: q.name}
	}
	return q.listed
}

// gate notes what an event says of the gate of a queue or of a limit's key.
func (m *Model) gate(e *stintv1.Event, is *stintv1.Gate) {
	if e.GetLimit() == "" {
		m.listedQueue(e).Gate = is
		return
	}
	l := m.limits[e.GetLimit()]
	if l == nil {
		return // The list that shows it shows its gates.
	}
	i := slices.IndexFunc(l.usage, func(k *stintv1.KeyUsage) bool { return k.GetKey() == e.GetKey() })
	switch {
	case i >= 0:
		l.usage[i].Gate = is
	case is != nil:
		l.usage = append(l.usage, &stintv1.KeyUsage{Key: e.GetKey(), Gate: is})
	}
}
