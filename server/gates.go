package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// OpenGate opens a gate. The dispatcher's word is in the batch of the transaction that follows it.
func (s *Server) OpenGate(ctx context.Context, m *stintv1.OpenGateRequest) (*stintv1.OpenGateResponse, error) {
	of, err := gateNameFrom(m)
	if err != nil {
		return nil, err
	}
	answer := &stintv1.OpenGateResponse{}
	err = s.store.View(ctx, func(r store.Reader) error {
		var rate job.Rate
		if of.Limit == "" {
			q := r.Queue(of.Name)
			if q == nil {
				return errQueueNotFound
			}
			rate = q.Policy.Rate
		} else {
			l := r.Limit(of.Limit)
			if l == nil {
				return errLimitNotFound
			}
			rate = l.Policy.RateOf(of.Name)
		}
		answer.Was = wireGate(s.dispatch.Gate(of, rate, 1), r.Now())
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.dispatch.OpenGate(of)
	return answer, s.store.Update(ctx, func(store.Tx) error { return nil })
}

func gateNameFrom(m *stintv1.OpenGateRequest) (store.GateName, error) {
	switch of := m.GetOf().(type) {
	case *stintv1.OpenGateRequest_Queue:
		if m.GetKey() != "" {
			return store.GateName{}, invalid("key", "goes with a limit")
		}
		return store.GateName{Name: of.Queue}, checkQueueName("queue", of.Queue)
	case *stintv1.OpenGateRequest_Limit:
		if err := checkName("limit", "limit", of.Limit); err != nil {
			return store.GateName{}, err
		}
		return store.GateName{Limit: of.Limit, Name: m.GetKey()}, checkText("key", m.GetKey(), limitKeyMax)
	default:
		return store.GateName{}, invalid("of", "a queue or a limit is needed")
	}
}

// wireGate is a gate as of now; absent if nothing is known of it.
func wireGate(g dispatch.GateState, now time.Time) *stintv1.Gate {
	if g.Open() && g.Row == 0 && g.Next == 0 {
		return nil
	}
	m := &stintv1.Gate{
		ThrottledUntil: wireTime(g.ThrottledUntil), ThrottleReason: g.ThrottleReason,
		TripTime: wireTime(g.TripTime), TryTime: wireTime(g.TryTime), Trying: g.Trying, Failures: g.Row, Failure: g.Failure,
	}
	if g.ThrottledBy != (job.ID{}) {
		m.ThrottledBy = g.ThrottledBy.String()
	}
	if g.Next > 0 {
		m.NextPermitTime = wireTime(now.Add(g.Next))
	}
	return m
}

func checkRate(field string, m *stintv1.Rate) error {
	if m == nil {
		return nil
	}
	if m.GetPermits() == 0 {
		return invalid(field+".permits", "must be 1 or more; leave the rate out for any number")
	}
	if err := checkDuration(field+".period", m.GetPeriod(), job.RatePeriodMin, job.RatePeriodMax); err != nil {
		return err
	}
	if r := rateFrom(m); int64(r.Permits) > int64(job.RatePerSecond*r.Period.Seconds()) {
		return invalid(field+".permits", "at most %d in a second", job.RatePerSecond)
	}
	if m.GetBurst() > job.RateBurstMax {
		return invalid(field+".burst", "must be 1 to %d, or 0 for what comes in %s", job.RateBurstMax, job.RateSlack)
	}
	return nil
}

func rateFrom(m *stintv1.Rate) job.Rate {
	if m == nil {
		return job.Rate{}
	}
	r := job.Rate{Permits: m.GetPermits(), Period: time.Second, Burst: m.GetBurst()}
	if m.GetPeriod() != nil {
		r.Period = m.GetPeriod().AsDuration()
	}
	return r
}

func wireRate(r job.Rate) *stintv1.Rate {
	if r.Permits == 0 {
		return nil
	}
	return &stintv1.Rate{Permits: r.Permits, Period: durationpb.New(r.Period), Burst: r.Burst}
}

func checkBreaker(field string, m *stintv1.CircuitBreaker) error {
	if m == nil {
		return nil
	}
	if n := m.GetFailures(); n < 1 || n > job.BreakerFailuresMax {
		return invalid(field+".failures", "must be 1 to %d", job.BreakerFailuresMax)
	}
	return checkDuration(field+".retry_in", m.GetRetryIn(), job.BreakerRetryMin, job.BreakerRetryMax)
}

func breakerFrom(m *stintv1.CircuitBreaker) job.Breaker {
	return job.Breaker{Failures: m.GetFailures(), RetryIn: m.GetRetryIn().AsDuration()}
}

func wireBreaker(b job.Breaker) *stintv1.CircuitBreaker {
	if b.Failures == 0 {
		return nil
	}
	m := &stintv1.CircuitBreaker{Failures: b.Failures}
	if b.RetryIn != 0 {
		m.RetryIn = durationpb.New(b.RetryIn)
	}
	return m
}

func checkThrottled(m *stintv1.Throttled) error {
	if m == nil {
		return nil
	}
	if m.GetLimit() == "" && m.GetKey() != "" {
		return invalid("released.throttled.limit", "a key needs its limit")
	}
	if m.GetLimit() != "" {
		if err := checkName("released.throttled.limit", "limit", m.GetLimit()); err != nil {
			return err
		}
	}
	if err := checkText("released.throttled.key", m.GetKey(), limitKeyMax); err != nil {
		return err
	}
	return checkDuration("released.throttled.cooldown", m.GetCooldown(), 0, job.ThrottleMax)
}

// throttleFrom is what a worker says is overloaded; nil if it does not.
func throttleFrom(m *stintv1.Throttled) *job.Throttle {
	if m == nil {
		return nil
	}
	t := &job.Throttle{Limit: m.GetLimit(), Key: m.GetKey(), Cooldown: job.ThrottleCooldown}
	if m.GetCooldown() != nil {
		t.Cooldown = m.GetCooldown().AsDuration()
	}
	return t
}

func wireThrottle(t *job.Throttle) *stintv1.Throttled {
	if t == nil {
		return nil
	}
	return &stintv1.Throttled{Limit: t.Limit, Key: t.Key, Cooldown: durationpb.New(t.Cooldown)}
}

// gates adds what the gates of the job's queue and keys have against it.
func (x *explainer) gates() {
	name := x.j.Spec.Queue
	x.gate(x.known.Gate, fmt.Sprintf("queue %q", name), "stint queue open "+name)
	for _, k := range x.known.Keys {
		command := fmt.Sprintf("stint limit open %s", k.Use.Limit)
		if k.Use.Key != "" {
			command += " --key " + shellQuote(k.Use.Key)
		}
		before := len(x.blockers)
		x.gate(k.Gate, keyName(k.Use), command)
		for _, b := range x.blockers[before:] {
			b.Limit, b.Key = k.Use.Limit, k.Use.Key
		}
	}
}

func (x *explainer) gate(g dispatch.GateState, name, command string) {
	now := x.r.Now()
	if now.Before(g.ThrottledUntil) {
		b := x.add(stintv1.BlockerKind_BLOCKER_KIND_THROTTLED, command, "%s is overloaded, said the worker of job %s%s; nothing starts before %s",
			name, g.ThrottledBy, because(g.ThrottleReason), clock(g.ThrottledUntil))
		b.Until, b.JobIds = wireTime(g.ThrottledUntil), []string{g.ThrottledBy.String()}
	}
	switch {
	case g.TripTime.IsZero():
	case now.Before(g.TryTime):
		x.add(stintv1.BlockerKind_BLOCKER_KIND_CIRCUIT_BREAKER, command, "%s failed %s in a row%s; one run tries from %s on",
			name, times(g.Failures), because(g.Failure), clock(g.TryTime)).Until = wireTime(g.TryTime)
	case g.Trying:
		x.add(stintv1.BlockerKind_BLOCKER_KIND_CIRCUIT_BREAKER, command, "%s failed %s in a row%s; one run is trying",
			name, times(g.Failures), because(g.Failure))
	}
	if g.Next > 0 {
		next := now.Add(g.Next)
		x.add(stintv1.BlockerKind_BLOCKER_KIND_RATE, command, "%s has no permit left before %s", name, clock(next)).Until = wireTime(next)
	}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

func times(n uint32) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// exposeGates writes how many gates are closed, and how often that came about.
func (s *Server) exposeGates(e *exposition) {
	stats := s.dispatch.Stats()
	e.family("stint_gates_closed", "gauge", "Queues and keys of limits whose jobs do not start: a worker said that they are overloaded, or runs failed in a row.")
	e.sample("stint_gates_closed", float64(stats.ThrottledNow), "cause", "throttled")
	e.sample("stint_gates_closed", float64(stats.TrippedNow), "cause", "circuit_breaker")
	e.family("stint_gate_closings_total", "counter", "Times that a gate was closed, or is kept closed for longer.")
	e.sample("stint_gate_closings_total", float64(stats.Throttled), "cause", "throttled")
	e.sample("stint_gate_closings_total", float64(stats.Tripped), "cause", "circuit_breaker")
}
