package dispatch

import (
	"slices"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// concluded follows the end of a run: what its worker says of a key closes its gate, and breakers count.
func (d *Dispatcher) concluded(was, is *job.Job, freed []store.KeyUse) {
	q := d.queues[was.Spec.Queue]
	watched := len(d.gates.all) > 0 || q != nil && q.policy.Breaker.Failures > 0
	for _, u := range freed {
		watched = watched || u.Key.Limit.Policy != nil && u.Key.Limit.Policy.Breaker.Failures > 0
	}
	end := lastRun(is, was.Run.Fence)
	if end == nil || !watched && end.Throttle == nil {
		return
	}
	d.judge(store.GateName{Name: was.Spec.Queue}, breakerOf(q), was, end)
	for _, u := range freed {
		b := job.Breaker{}
		if p := u.Key.Limit.Policy; p != nil {
			b = p.Breaker
		}
		d.judge(gateOf(u.Key), b, was, end)
	}
	if t := end.Throttle; t != nil && !deleted(t, freed) {
		of := store.GateName{Limit: t.Limit, Name: t.Key}
		if t.Limit == "" {
			of.Name = was.Spec.Queue
		}
		d.throttle(of, was, end)
	}
}

// deleted reports whether what is throttled is a key of a limit that was deleted, and so binds nobody.
func deleted(t *job.Throttle, freed []store.KeyUse) bool {
	return slices.ContainsFunc(freed, func(u store.KeyUse) bool { return u.Key.Limit.Name == t.Limit && u.Key.Limit.Policy == nil })
}

func breakerOf(q *queue) job.Breaker {
	if q == nil {
		return job.Breaker{}
	}
	return q.policy.Breaker
}

// lastRun is how the run of the fence ended; nil if the job's history does not say.
func lastRun(j *job.Job, fence uint64) *job.Run {
	if j == nil || len(j.History) == 0 {
		return nil
	}
	if r := &j.History[len(j.History)-1]; r.Fence == fence {
		return r
	}
	return nil
}

// throttle closes a gate for the cooldown, unless it is closed for longer already.
func (d *Dispatcher) throttle(of store.GateName, was *job.Job, end *job.Run) {
	now := d.now()
	until := end.EndTime.Add(end.Throttle.Cooldown)
	if d.gates.all[of] == nil && len(d.gates.all) >= gatesMax {
		d.log.Warn("a gate stays open: there are too many", "limit", of.Limit, "name", of.Name)
		return
	}
	g := d.gate(of, now)
	if !until.After(g.ThrottledUntil) {
		return
	}
	g.ThrottledUntil, g.ThrottleReason, g.ThrottledBy = until, end.Note, was.Spec.ID
	d.stats.Throttled++
	d.write(g)
	d.arm(g, now, d.wall())
}

// judge counts a run's end for a breaker.
func (d *Dispatcher) judge(of store.GateName, b job.Breaker, was *job.Job, end *job.Run) {
	now := d.now()
	g := d.gates.all[of]
	verdict := end.Verdict()
	tried := g != nil && g.probe == was.Run.Fence
	if tried {
		g.probe = 0
	}
	switch {
	case b.Failures == 0:
		if g != nil {
			g.failures = 0
			d.reset(g)
		}
	case verdict == job.VerdictFailure:
		g = d.gate(of, now)
		g.failures++
		if tried || g.TripTime.IsZero() && g.failures >= b.Failures {
			d.trip(g, b, end)
		}
	case g == nil:
	case verdict == job.VerdictSuccess && (g.TripTime.IsZero() || was.Run.DispatchTime.After(g.TripTime)):
		g.failures = 0 // what began before it closed says nothing of what is now
		d.reset(g)
	case tried:
		d.enter(g) // another one may try
	}
}

// trip closes a gate until a run may try.
func (d *Dispatcher) trip(g *gate, b job.Breaker, end *job.Run) {
	if g.TripTime.IsZero() {
		g.TripTime = end.EndTime
		d.stats.Tripped++
	}
	g.TryTime, g.Failures = end.EndTime.Add(b.Pause()), g.failures
	if g.Failure = end.Note; end.Failure != nil {
		g.Failure = end.Failure.Message
	}
	g.Failure = clip(g.Failure)
	d.write(g)
	d.arm(g, d.now(), d.wall())
}

// reset opens a gate that failures kept closed.
func (d *Dispatcher) reset(g *gate) {
	if g.TripTime.IsZero() {
		return
	}
	g.TripTime, g.TryTime, g.Failures, g.Failure, g.probe = time.Time{}, time.Time{}, 0, "", 0
	d.write(g)
	d.enter(g)
}

// clip shortens the text of a failure for those who look at a gate.
func clip(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	cut := 0
	for i := range s { // at a character
		if i > most-len("…") {
			break
		}
		cut = i
	}
	return s[:cut] + "…"
}

// OpenGate opens a gate, fills its bucket and forgets what its breaker has counted, at an operator's word. It is on disk with
// the next transaction.
func (d *Dispatcher) OpenGate(of store.GateName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	g := d.gate(of, now)
	g.failures, g.full, g.filled = 0, now, now
	if !g.Open() {
		g.Gate, g.probe = store.Gate{Of: of}, 0
		d.write(g)
	}
	d.enter(g)
}
