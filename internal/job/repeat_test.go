package job

import (
	"fmt"
	"testing"
	"time"
)

// asking are the requests that a job remembers, made under a name.
func asking(name string) map[string]func(*Job) (*Job, InterruptEffect, error) {
	by := By{Reason: "why", Requester: "ops", Request: name}
	interrupt := func(l Level) func(*Job) (*Job, InterruptEffect, error) {
		return func(j *Job) (*Job, InterruptEffect, error) {
			return request(j, at(time.Hour), InterruptRequest{Level: l, Reason: "why", Requester: "ops", Request: name})
		}
	}
	return map[string]func(*Job) (*Job, InterruptEffect, error){
		"interrupt RETRY":  interrupt(LevelRetry),
		"interrupt CANCEL": interrupt(LevelCancel),
		"park": func(j *Job) (*Job, InterruptEffect, error) {
			next, err := j.Park(at(time.Hour), by)
			return next, 0, err
		},
		"retry": func(j *Job) (*Job, InterruptEffect, error) {
			next, err := j.RetryBy(at(time.Hour), by)
			return next, 0, err
		},
		"update": func(j *Job) (*Job, InterruptEffect, error) {
			next, err := j.Update(at(time.Hour), Update{Fields: FieldSubject, Spec: Spec{Subject: "new"}}, by)
			return next, 0, err
		},
		"update to what it is": func(j *Job) (*Job, InterruptEffect, error) {
			next, err := j.Update(at(time.Hour), Update{Fields: FieldSubject, Spec: *j.Spec}, by)
			return next, 0, err
		},
	}
}

// TestRepeats makes every request of every job it is possible for, and again at once: the repeat changes nothing and is
// answered the same. The job remembers it under its name, one that had nothing to do too, of which nothing else remains.
// What is refused leaves nothing.
func TestRepeats(t *testing.T) {
	kinds := map[string]ActionKind{
		"interrupt RETRY": ActionInterruptRetry, "interrupt CANCEL": ActionInterruptCancel, "park": ActionPark, "retry": ActionRetry,
		"update": ActionUpdate, "update to what it is": ActionUpdate,
	}
	idle := map[string]int{}
	for _, j := range fixtures(t) {
		for name, ask := range asking("r1") {
			where := fmt.Sprintf("%s in %s under %d", name, j.phase(), j.Interrupted().Level)
			plain, plainEffect, plainErr := asking("")[name](j)
			first, effect, err := ask(j)
			if fmt.Sprint(err) != fmt.Sprint(plainErr) || effect != plainEffect {
				t.Errorf("%s with a name: %d, %v; without: %d, %v", where, effect, err, plainEffect, plainErr)
			}
			if err != nil {
				continue
			}
			if got, want := first.Actions[len(first.Actions)-1], (Action{kinds[name], "why", "ops", at(time.Hour), "r1", effect}); got != want {
				t.Errorf("%s is remembered as %+v", where, got)
			}
			if first.Version != j.Version+1 {
				t.Errorf("%s makes version %d of %d", where, first.Version, j.Version)
			}
			if plain == j {
				idle[name]++
				same := edited(first, func(n *Job) { n.Actions, n.Version = j.Actions, j.Version })
				if snapshot(t, same) != snapshot(t, j) {
					t.Errorf("%s had nothing to do and changed more than the actions", where)
				}
			}
			if again, effectAgain, err := ask(first); again != first || effectAgain != effect || err != nil {
				t.Errorf("%s again: changed %t, effect %d after %d, %v", where, again != first, effectAgain, effect, err)
			}
			if other, _, err := asking("r2")[name](first); err == nil && (other == first || len(other.Actions) != len(first.Actions)+1) {
				t.Errorf("%s under another name is taken for a repeat", where)
			}
		}
	}
	if idle["update to what it is"] == 0 || idle["update"] > 0 || idle["interrupt RETRY"] == 0 || idle["interrupt CANCEL"] == 0 || idle["park"] == 0 {
		t.Errorf("requests that had nothing to do: %v", idle)
	}
}

// TestLateRepeats: a repeat that comes when the job has gone on leaves it alone, whatever a first request would do to it
// now, and is answered as the first was.
func TestLateRepeats(t *testing.T) {
	m := made{t}
	for name, c := range map[string]struct {
		ask    string
		first  *Job
		goesOn func(*Job) *Job
		effect InterruptEffect
	}{
		"the next run": {
			"interrupt RETRY", m.running(), func(j *Job) *Job { return m.run(m.finish(j, stopped())) }, EffectRequested,
		},
		"a run after there was none": {"interrupt RETRY", m.ready(), m.run, EffectNoRun},
		"the run after one that was interrupted already": {
			"interrupt RETRY", m.interrupted(m.running(), LevelRetry),
			func(j *Job) *Job { return m.run(m.finish(j, stopped())) }, EffectUnchanged,
		},
		"the run after one that was withdrawn": {"interrupt RETRY", m.dispatch(m.ready()), m.run, EffectWithdrawn},
		"the end": {
			"interrupt CANCEL", m.running(), func(j *Job) *Job { return m.finish(j, stopped()) }, EffectRequested,
		},
		"reopened by somebody": {
			"interrupt CANCEL", m.ready(), func(j *Job) *Job { return must(t)(j.Retry(at(time.Hour))) }, EffectCancelled,
		},
		"it failed again": {
			"retry", m.finish(m.running(), final(Application)), func(j *Job) *Job { return m.finish(m.run(j), final(Application)) }, 0,
		},
		"updated and gone on":   {"update", m.ready(), m.run, 0},
		"updated and succeeded": {"update", m.running(), func(j *Job) *Job { return m.finish(j, success()) }, 0},
		"updated by somebody": {"update", m.ready(), func(j *Job) *Job {
			return must(t)(actUpdate(FieldSubject, Spec{Subject: "newer"})(j))
		}, 0},
		"retried and running":   {"retry", m.finish(m.running(), final(Application)), m.run, 0},
		"released from parking": {"park", m.ready(), func(j *Job) *Job { return must(t)(j.Retry(at(time.Hour))) }, 0},
		"released from being parked before": {
			"park", must(t)(m.ready().Park(t0, By{})), func(j *Job) *Job { return must(t)(j.Retry(at(time.Hour))) }, 0,
		},
		"succeeded all the same": {"park", m.running(), func(j *Job) *Job { return m.finish(j, success()) }, 0},
	} {
		next, effect, err := asking("r1")[c.ask](c.first)
		if err != nil || effect != c.effect {
			t.Fatalf("%s: effect %d, %v", name, effect, err)
		}
		next = c.goesOn(next)
		if again, effect, err := asking("r1")[c.ask](next); again != next || effect != c.effect || err != nil {
			t.Errorf("%s: the repeat changed it: %t, effect %d, %v", name, again != next, effect, err)
		}
	}
}

// TestRefusedIsNotRemembered: a refusal did nothing, so its repeat is judged by what the job is then.
func TestRefusedIsNotRemembered(t *testing.T) {
	m := made{t}
	ask := asking("r1")["interrupt RETRY"]
	for name, c := range map[string]struct {
		refused *Job
		then    func(*Job) *Job
	}{
		"too late, then reopened": {
			m.finish(m.running(), final(Application)), func(j *Job) *Job { return m.run(must(t)(j.Retry(t0))) },
		},
		"under CANCEL, then reopened": {m.interrupted(m.running(), LevelCancel), func(j *Job) *Job {
			return m.run(must(t)(m.finish(j, stopped()).Retry(t0)))
		}},
	} {
		if _, _, err := ask(c.refused); err == nil {
			t.Fatalf("%s: it is not refused", name)
		}
		if _, effect, err := ask(c.then(c.refused)); effect != EffectRequested || err != nil {
			t.Errorf("%s: effect %d, %v", name, effect, err)
		}
	}
}

// TestForgottenRequests: a request is known as long as its action is among the last ones, and only with its own kind.
func TestForgottenRequests(t *testing.T) {
	m := made{t}
	j := m.ready()
	for i := range ActionsMax + 1 {
		next, _, err := asking(fmt.Sprint(i))["interrupt RETRY"](j)
		j = must(t)(next, err)
	}
	for request, want := range map[string]bool{"0": false, "1": true, "20": true, "": false} {
		if _, did := j.Did(ActionInterruptRetry, request); did != want {
			t.Errorf("request %q is known: %t", request, did)
		}
	}
	if _, did := j.Did(ActionInterruptCancel, "20"); did {
		t.Error("a RETRY is taken for a CANCEL of the same name")
	}
}
