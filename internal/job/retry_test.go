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
	endless := RetryPolicy{Curve: Exponential, Initial: math.MaxInt64, Max: math.MaxInt64, Multiplier: 2}
	if got := endless.delay(5, 0.9); got != math.MaxInt64 {
		t.Errorf("an endless delay is %v", got)
	}
	low, high := p.delay(1, 0), p.delay(1, math.Nextafter(1, 0))
	if low != 800*time.Millisecond || high < 1199*time.Millisecond || high > 1200*time.Millisecond {
		t.Errorf("jitter from %v to %v", low, high)
	}
}

// TestDelayCurves is each curve from its first delay to where it stays, for what policies may say and what they may not.
func TestDelayCurves(t *testing.T) {
	s := time.Second
	for _, c := range []struct {
		policy RetryPolicy
		want   [5]time.Duration // of the first, second, third, tenth and last retry
	}{
		{RetryPolicy{Curve: Constant, Initial: 7 * s, Max: s, Multiplier: 3, Increment: s}, [5]time.Duration{7 * s, 7 * s, 7 * s, 7 * s, 7 * s}},
		{RetryPolicy{Curve: Constant, Initial: -1}, [5]time.Duration{}},
		{RetryPolicy{Curve: Linear, Initial: 5 * s, Increment: 2 * s, Max: 20 * s, Multiplier: 3}, [5]time.Duration{5 * s, 7 * s, 9 * s, 20 * s, 20 * s}},
		{RetryPolicy{Curve: Linear, Initial: -1, Increment: 2 * s, Max: time.Hour}, [5]time.Duration{0, 2 * s, 4 * s, 18 * s, time.Hour}},
		{RetryPolicy{Curve: Linear, Initial: 5 * s, Increment: -1, Max: time.Hour}, [5]time.Duration{5 * s, 5 * s, 5 * s, 5 * s, 5 * s}},
		{RetryPolicy{Curve: Linear, Initial: 5 * s, Increment: s, Max: -1}, [5]time.Duration{}},
		{RetryPolicy{Curve: Exponential, Initial: s, Multiplier: 3, Max: time.Minute, Increment: time.Hour}, [5]time.Duration{s, 3 * s, 9 * s, 60 * s, 60 * s}},
		{RetryPolicy{Curve: Exponential, Initial: -1, Multiplier: 3, Max: time.Minute}, [5]time.Duration{}},
		{RetryPolicy{Curve: Exponential, Initial: s, Multiplier: 0.5, Max: time.Minute}, [5]time.Duration{s, s, s, s, s}},
		{RetryPolicy{Curve: Exponential, Initial: s, Multiplier: 2, Max: -1}, [5]time.Duration{}},
	} {
		for i, n := range [5]uint32{1, 2, 3, 10, math.MaxUint32} {
			if got := c.policy.delay(n, 0.5); got != c.want[i] {
				t.Errorf("%+v: retry %d after %v, want %v", c.policy, n, got, c.want[i])
			}
			if got, want := c.policy.delay(n, 0), time.Duration(float64(c.want[i])*0.8); got != want {
				t.Errorf("%+v: retry %d after %v at the earliest, want %v", c.policy, n, got, want)
			}
		}
	}
}

// TestDelayProperties: for any policy a delay is never negative, never over the longest plus jitter, and does not
// shrink with n.
func TestDelayProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := RetryPolicy{
			Curve:      rapid.SampledFrom([]Curve{Exponential, Linear, Constant}).Draw(t, "curve"),
			Increment:  time.Duration(rapid.Int64Min(-1).Draw(t, "increment")),
			Initial:    time.Duration(rapid.Int64Min(-1).Draw(t, "initial")),
			Max:        time.Duration(rapid.Int64Min(-1).Draw(t, "max")),
			Multiplier: rapid.OneOf(rapid.Float64(), rapid.Just(math.NaN()), rapid.Just(math.Inf(1))).Draw(t, "multiplier"),
		}
		n := rapid.Uint32().Draw(t, "n")
		rnd := rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "rnd")
		d := p.delay(n, rnd)
		longest := p.Max
		if p.Curve == Constant {
			longest = p.Initial
		}
		if d < 0 || float64(d) > float64(max(longest, 0))*(1+Jitter)+1 {
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
	back := func(d time.Duration) Policy { return Policy{Retry: RetryPolicy{InterruptDelay: d}} }
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
		{"interrupted, by the queue", finishWith(stopped(), back(time.Minute)), time.Minute},
		{"interrupted, own", finishWith(Outcome{Stopped: &Stopped{Delay: &third}}, back(time.Minute)), third},
		{"interrupted, back at once", finishWith(stopped(), back(-1)), 0},
		{"failed under RETRY", func(j *Job) (*Job, error) {
			return finishWith(application(), back(time.Minute))(m.interrupted(j, LevelRetry))
		}, time.Minute},
		{"lost under RETRY", func(j *Job) (*Job, error) {
			return m.interrupted(j, LevelRetry).Lose(t0, back(time.Minute), 0.5, "")
		}, time.Minute},
		{"abandoned", func(j *Job) (*Job, error) {
			return m.interrupted(j, LevelRetry).HardDeadline(t0, back(time.Minute), 0.5)
		}, time.Minute},
		{"released, whatever interrupts do", finishWith(released(), back(time.Minute)), ReleaseDelay},
		{"released", finishWith(Outcome{Released: &Released{Delay: &third}}, Policy{}), third},
		{"released at once", finishWith(Outcome{Released: &Released{Delay: &zero}}, Policy{}), 0},
	} {
		if got := must(t)(c.end(m.running())); got.DueTime != at(c.want) {
			t.Errorf("%s: after %v, want %v", c.name, got.DueTime.Sub(t0), c.want)
		}
	}
	withdraw := InterruptRequest{Level: LevelRetry, Source: SourceUser, Policy: back(time.Minute)}
	withdrawn, _, err := m.dispatch(m.ready()).RequestInterrupt(t0, withdraw)
	if err != nil || withdrawn.DueTime != at(time.Minute) {
		t.Errorf("withdrawn: until %v, %v", withdrawn.DueTime, err)
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
	const s, m, h = time.Second, time.Minute, time.Hour
	defaults := RetryPolicy{
		MaxAttempts: DefaultAttempts, OnFailure: OnFailureRetry, Curve: Exponential, Initial: DefaultInitial, Max: DefaultMax,
		Multiplier: DefaultMultiplier, InterruptDelay: InterruptDelay,
	}
	with := func(change func(*RetryPolicy)) RetryPolicy {
		p := defaults
		change(&p)
		return p
	}
	curve := func(c Curve, initial, max, increment time.Duration, multiplier float64) RetryPolicy {
		return with(func(p *RetryPolicy) {
			p.Curve, p.Initial, p.Max, p.Increment, p.Multiplier = c, initial, max, increment, multiplier
		})
	}
	for _, c := range []struct{ job, queue, want RetryPolicy }{
		{want: defaults},
		{
			RetryPolicy{Initial: -1, MaxAttempts: 5000},
			RetryPolicy{Initial: m, Max: h},
			with(func(p *RetryPolicy) { p.MaxAttempts, p.Initial, p.Max = MaxAttempts, -1, h }),
		},
		{
			RetryPolicy{OnFailure: OnFailurePark, Deadline: -1},
			RetryPolicy{OnFailure: OnFailureFail, Deadline: h, InterruptDelay: m},
			with(func(p *RetryPolicy) { p.OnFailure, p.Deadline, p.InterruptDelay = OnFailurePark, -1, m }),
		},
		{
			RetryPolicy{InterruptDelay: -1},
			RetryPolicy{OnFailure: OnFailureFail, Deadline: h, InterruptDelay: m, MaxAttempts: 2},
			with(func(p *RetryPolicy) {
				p.OnFailure, p.Deadline, p.InterruptDelay, p.MaxAttempts = OnFailureFail, h, -1, 2
			}),
		},
		// Numbers of the same curve are taken one by one.
		{RetryPolicy{Curve: Linear, Initial: s}, RetryPolicy{Curve: Linear, Initial: m, Max: h, Increment: m}, curve(Linear, s, h, m, 0)},
		{RetryPolicy{Curve: Constant}, RetryPolicy{Curve: Constant, Initial: m}, curve(Constant, m, 0, 0, 0)},
		{RetryPolicy{Multiplier: 3}, RetryPolicy{Curve: Exponential, Initial: m}, curve(Exponential, m, DefaultMax, 0, 3)},
		{RetryPolicy{}, RetryPolicy{Curve: Linear, Increment: m}, curve(Linear, DefaultInitial, DefaultMax, m, 0)},
		// The default increment is the first delay.
		{RetryPolicy{Curve: Linear, Initial: m}, RetryPolicy{}, curve(Linear, m, DefaultMax, m, 0)},
		{RetryPolicy{Curve: Linear, Initial: -1}, RetryPolicy{}, curve(Linear, -1, DefaultMax, -1, 0)},
		// Those of another are not.
		{RetryPolicy{Curve: Exponential}, RetryPolicy{Curve: Constant, Initial: m}, defaults},
		{RetryPolicy{Curve: Constant}, RetryPolicy{Initial: m, Max: h}, curve(Constant, DefaultInitial, 0, 0, 0)},
		{RetryPolicy{Max: m}, RetryPolicy{Curve: Linear, Initial: h, Increment: h}, curve(Exponential, DefaultInitial, m, 0, DefaultMultiplier)},
	} {
		spec, queue := &Spec{Lease: time.Hour, Retry: &c.job}, Policy{Lease: time.Minute, Retry: c.queue}
		want := Policy{Lease: time.Hour, Retry: c.want}
		got := Effective(spec, queue)
		if got != want || Effective(spec, got) != got || Effective(&Spec{}, got) != got {
			t.Errorf("%+v over %+v:\ngot  %+v\nwant %+v", c.job, c.queue, got, want)
		}
	}
	if got := Effective(&Spec{}, Policy{Lease: time.Minute}).Lease; got != time.Minute {
		t.Errorf("the queue's lease: %v", got)
	}
}
