package job

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestDelayDefaults is the curve as the contract prints it.
func TestDelayDefaults(t *testing.T) {
	p := Effective(spec(), Policy{}).Retry
	for n, want := range map[uint32]time.Duration{
		0: time.Second, 1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 10: 512 * time.Second,
		11: 10 * time.Minute, math.MaxUint32: 10 * time.Minute,
	} {
		if got := p.delay(n, 0.5); got != want {
			t.Errorf("retry %d after %v, want %v", n, got, want)
		}
	}
	endless := RetryPolicy{Initial: math.MaxInt64, Max: math.MaxInt64, Multiplier: 2}
	if got := endless.delay(5, 0.9); got != math.MaxInt64 {
		t.Errorf("an endless delay is %v", got)
	}
	low, high := p.delay(1, 0), p.delay(1, math.Nextafter(1, 0))
	if low != 800*time.Millisecond || high < 1199*time.Millisecond || high > 1200*time.Millisecond {
		t.Errorf("jitter from %v to %v", low, high)
	}
}

// TestDelayProperties: for any policy a delay is never negative, never over the longest plus jitter, and does not
// shrink with n.
func TestDelayProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := RetryPolicy{
			Initial:    time.Duration(rapid.Int64Min(-1).Draw(t, "initial")),
			Max:        time.Duration(rapid.Int64Min(-1).Draw(t, "max")),
			Multiplier: rapid.OneOf(rapid.Float64(), rapid.Just(math.NaN()), rapid.Just(math.Inf(1))).Draw(t, "multiplier"),
		}
		n := rapid.Uint32().Draw(t, "n")
		rnd := rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "rnd")
		d := p.delay(n, rnd)
		if d < 0 || float64(d) > float64(max(p.Max, 0))*(1+Jitter)+1 {
			t.Fatalf("delay %v", d)
		}
		if n < math.MaxUint32 && p.delay(n+1, rnd) < d {
			t.Fatalf("%v, then %v", d, p.delay(n+1, rnd))
		}
	})
}

// TestDelayOfFailures: a failure's own delay wins, an explicit zero is one, and snoozes and crashes have the same curve.
func TestDelayOfFailures(t *testing.T) {
	m := made{t}
	zero := time.Duration(0)
	initial := func(d time.Duration) Policy { return Policy{Retry: RetryPolicy{Initial: d}} }
	for _, c := range []struct {
		name string
		end  func(*Job) (*Job, error)
		want time.Duration
	}{
		{"own", finishWith(failure(Failure{RetryDelay: &third}), Policy{}), third},
		{"own zero", finishWith(failure(Failure{RetryDelay: &zero}), Policy{}), 0},
		{"of a snooze", finishWith(failure(Failure{Class: Infrastructure, RetryDelay: &third}), Policy{}), third},
		{"explicit zero", finishWith(application(), initial(-1)), 0},
		{"of the queue", finishWith(application(), initial(time.Minute)), time.Minute},
		{"snooze of the queue", finishWith(infrastructure(), initial(time.Minute)), time.Minute},
		{"crash of the queue", func(j *Job) (*Job, error) { return j.Lose(t0, initial(time.Minute), 0.5, "") }, time.Minute},
		{"interrupted", finishWith(Outcome{Stopped: &Stopped{Delay: &third}}, Policy{}), third},
		{"released", finishWith(Outcome{Released: &Released{Delay: &third}}, Policy{}), third},
		{"released at once", finishWith(Outcome{Released: &Released{Delay: &zero}}, Policy{}), 0},
	} {
		if got := must(t)(c.end(m.running())); got.DueTime != at(c.want) {
			t.Errorf("%s: after %v, want %v", c.name, got.DueTime.Sub(t0), c.want)
		}
	}
	j := m.lost(m.run(m.lost(m.running())))
	if got := j.DueTime.Sub(t0); got != 2*time.Second {
		t.Errorf("second crash: after %v", got)
	}
}

func finishWith(o Outcome, p Policy) func(*Job) (*Job, error) {
	return func(j *Job) (*Job, error) {
		next, _, err := j.Finish(t0, j.Run.Fence, o, p, 0.5)
		return next, err
	}
}

// TestEffective: the job's own, the queue's, the default, field by field; once more changes nothing.
func TestEffective(t *testing.T) {
	s := &Spec{Lease: time.Hour, Retry: RetryPolicy{Initial: -1, MaxAttempts: 5000}}
	q := Policy{Lease: time.Minute, Retry: RetryPolicy{Initial: time.Minute, Max: time.Hour}}
	want := Policy{
		Lease: time.Hour,
		Retry: RetryPolicy{MaxAttempts: MaxAttempts, Initial: -1, Max: time.Hour, Multiplier: DefaultMultiplier},
	}
	got := Effective(s, q)
	if got != want || Effective(s, got) != got || Effective(&Spec{}, got) != got {
		t.Errorf("%+v", got)
	}
}
