package job

import (
	"fmt"
	"testing"
	"time"
)

// TestOnFailure crosses what a policy makes of failures with their classes, with what the worker says should follow,
// and with the levels. The worker's word goes first; INFRASTRUCTURE says nothing about the work; under RETRY the policy
// has no say, for the interrupt may be why it failed.
func TestOnFailure(t *testing.T) {
	m := made{t}
	want := func(policy OnFailure, f Failure, level string) string {
		charge := "attempts"
		if f.Class == Infrastructure {
			charge = "snoozes"
		}
		switch {
		case level == "CANCEL":
			return "CANCELLED"
		case f.Class == Malformed:
			return "PARKED(MALFORMED) " + charge
		case f.Park:
			return "PARKED(WORKER) " + charge
		case f.Final:
			return "FAILED " + charge
		case level == "RETRY":
			return "SCHEDULED interrupts 10s"
		case f.Class != Infrastructure && policy == OnFailurePark:
			return "PARKED(POLICY) " + charge
		case f.Class != Infrastructure && policy == OnFailureFail:
			return "FAILED " + charge
		default:
			return "BACKOFF " + charge + " 1s"
		}
	}
	for _, policy := range []OnFailure{OnFailureNone, OnFailureRetry, OnFailurePark, OnFailureFail} {
		p := Policy{Retry: RetryPolicy{OnFailure: policy}}
		for _, f := range failures() {
			for level, under := range levels(t) {
				before := under(m.running())
				after := must(t)(finishWith(failure(f), p)(before))
				expected := f
				if level == "TIMEOUT" {
					expected.Class = TimedOut
				}
				name := fmt.Sprintf("policy %d, class %d, final %t, park %t, %s", policy, f.Class, f.Final, f.Park, level)
				if got, want := describe(after), want(policy, expected, level)+" run FAILED"; got != want {
					t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
				}
				if after.Failure == nil || after.Failure.Class != expected.Class {
					t.Errorf("%s: failure %+v", name, after.Failure)
				}
			}
		}
		for name, end := range map[string]func(*Job) (*Job, error){
			"interrupted":   finishWith(stopped(), p),
			"released":      finishWith(released(), p),
			"lost":          func(j *Job) (*Job, error) { return j.Lose(t0, p, 0.5, "") },
			"hard deadline": func(j *Job) (*Job, error) { return j.HardDeadline(t0, p, 0.5) },
		} {
			after := must(t)(end(levels(t)["TIMEOUT"](m.running())))
			if got, want := after.State.String(), map[OnFailure]string{OnFailurePark: "PARKED", OnFailureFail: "FAILED"}[policy]; got != want &&
				(want != "" || got != "BACKOFF") {
				t.Errorf("policy %d, %s after its timeout: %s", policy, name, got)
			}
		}
	}
}

// failures are all kinds: each class, with each word of the worker on what shall follow.
func failures() (all []Failure) {
	for class := range Malformed + 1 { // 0 is a failure that names none
		for _, final := range []bool{false, true} {
			for _, park := range []bool{false, true} {
				all = append(all, Failure{Class: class, Final: final, Park: park})
			}
		}
	}
	return all
}

// levels put a running job under each.
func levels(t *testing.T) map[string]func(*Job) *Job {
	m := made{t}
	return map[string]func(*Job) *Job{
		"none":    func(j *Job) *Job { return j },
		"RETRY":   func(j *Job) *Job { return m.interrupted(j, LevelRetry) },
		"TIMEOUT": func(j *Job) *Job { return must(t)(j.Timeout(t0)) },
		"CANCEL":  func(j *Job) *Job { return m.interrupted(j, LevelCancel) },
	}
}

// TestOnFailureLate: a late failure of a run that crashed means the same.
func TestOnFailureLate(t *testing.T) {
	for policy, want := range map[OnFailure]string{
		OnFailureRetry: "BACKOFF attempts 1s run FAILED", OnFailurePark: "PARKED(POLICY) attempts run FAILED", OnFailureFail: "FAILED attempts run FAILED",
	} {
		m := made{t}
		j := m.lost(m.running())
		next, _, err := j.Finish(t0, j.History[0].Fence, application(), Policy{Retry: RetryPolicy{OnFailure: policy}}, 0.5)
		if got := describe(must(t)(next, err)); got != want {
			t.Errorf("policy %d: got %s, want %s", policy, got, want)
		}
	}
}

// TestDeadline: from the deadline on a failure or crash is the end, with the last failure kept; whatever else sends a
// job back still does.
func TestDeadline(t *testing.T) {
	m := made{t}
	p := Policy{Retry: RetryPolicy{Deadline: time.Minute}}
	finish := func(o Outcome) func(time.Time, *Job) (*Job, error) {
		return func(now time.Time, j *Job) (*Job, error) {
			next, _, err := j.Finish(now, j.Run.Fence, o, p, 0.5)
			return next, err
		}
	}
	under := func(level string, end func(time.Time, *Job) (*Job, error)) func(time.Time, *Job) (*Job, error) {
		return func(now time.Time, j *Job) (*Job, error) { return end(now, levels(t)[level](j)) }
	}
	lose := func(now time.Time, j *Job) (*Job, error) { return j.Lose(now, p, 0.5, "") }
	for _, c := range []struct {
		name          string
		end           func(time.Time, *Job) (*Job, error)
		before, after string
	}{
		{"failure", finish(application()), "BACKOFF", "FAILED"},
		{"infrastructure", finish(infrastructure()), "BACKOFF", "FAILED"},
		{"own delay", finish(failure(Failure{RetryDelay: &third})), "BACKOFF", "FAILED"},
		{"crash", lose, "BACKOFF", "FAILED"},
		{"lost after its timeout", under("TIMEOUT", lose), "BACKOFF", "FAILED"},
		{"released after its timeout", under("TIMEOUT", finish(released())), "BACKOFF", "FAILED"},
		{"malformed", finish(malformed()), "PARKED", "PARKED"},
		{"parking", finish(parking(Application)), "PARKED", "PARKED"},
		{"interrupted", finish(stopped()), "SCHEDULED", "SCHEDULED"},
		{"released", finish(released()), "SCHEDULED", "SCHEDULED"},
		{"not me", finish(notMe()), "READY", "READY"},
		{"failure under RETRY", under("RETRY", finish(application())), "SCHEDULED", "SCHEDULED"},
		{"lost under RETRY", under("RETRY", lose), "SCHEDULED", "SCHEDULED"},
		{"success", finish(success()), "SUCCEEDED", "SUCCEEDED"},
	} {
		j := m.run(m.finish(m.running(), failure(Failure{Message: "the first"})))
		before, after := must(t)(c.end(at(time.Minute-1), j)), must(t)(c.end(at(time.Minute), j))
		if before.State.String() != c.before || after.State.String() != c.after {
			t.Errorf("%s: %s before the deadline, %s at it; want %s and %s", c.name, before.State, after.State, c.before, c.after)
		}
		if after.Counters != before.Counters {
			t.Errorf("%s: counts %+v, before the deadline %+v", c.name, after.Counters, before.Counters)
		}
		if c.name == "crash" && (after.Failure == nil || after.Failure.Message != "the first") {
			t.Errorf("the last failure is %+v", after.Failure)
		}
	}
}

// TestDeadlineOfEpoch: the deadline counts from the reopening, and a job's explicit zero is none.
func TestDeadlineOfEpoch(t *testing.T) {
	m := made{t}
	p := Policy{Retry: RetryPolicy{Deadline: time.Minute}}
	fail := func(now time.Time, j *Job) State {
		next, _, err := j.Finish(now, j.Run.Fence, application(), p, 0.5)
		return must(t)(next, err).State
	}
	for name, reopened := range map[string]*Job{
		"retried":           must(t)(m.finish(m.running(), final(Application)).Retry(at(time.Hour))),
		"released by build": must(t)(m.crashedOut().ReleaseByBuild(at(time.Hour), "b2")),
	} {
		j := m.run(reopened)
		if early, late := fail(at(time.Hour+time.Minute-1), j), fail(at(time.Hour+time.Minute), j); early != Backoff || late != Failed {
			t.Errorf("%s: %s, then %s", name, early, late)
		}
	}
	retried := m.run(must(t)(m.finish(m.running(), application()).Retry(at(59 * time.Second))))
	if got := fail(at(time.Minute), retried); got != Failed {
		t.Errorf("retried at once, in the same epoch: %s", got)
	}
	s := spec()
	s.Retry = &RetryPolicy{Deadline: -1}
	if got := fail(at(time.Hour), m.run(New(s, t0))); got != Backoff {
		t.Errorf("without a deadline: %s", got)
	}
}
