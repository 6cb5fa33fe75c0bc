package job

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestRetryByIsRemembered: the last actions are kept, in their order; the versions before keep theirs.
func TestRetryByIsRemembered(t *testing.T) {
	m := made{t}
	j := m.ready()
	for i := range ActionsMax + 5 {
		before := m.lost(m.run(j))
		before = edited(before, func(j *Job) { j.Counters = Counters{} })
		had := fmt.Sprint(before.Actions)
		j = must(t)(before.RetryBy(at(time.Hour), By{Reason: fmt.Sprint(i), Requester: "ops"}))
		must(t)(before.RetryBy(at(time.Hour), By{Reason: "another", Requester: "ops"}))
		if fmt.Sprint(before.Actions) != had {
			t.Fatalf("version %d lost its actions", before.Version)
		}
	}
	if len(j.Actions) != ActionsMax {
		t.Fatalf("%d actions", len(j.Actions))
	}
	for i, a := range j.Actions {
		if want := (Action{Kind: ActionRetry, Reason: fmt.Sprint(i + 5), Requester: "ops", Time: at(time.Hour)}); a != want {
			t.Errorf("action %d is %v, want %v", i, a, want)
		}
	}
	if _, err := m.ready().RetryBy(t0, By{}); err == nil {
		t.Error("a READY job was retried")
	}
}

// TestActionKinds: what a person asked for is remembered if it changed the job, whatever else asked for it is not.
func TestActionKinds(t *testing.T) {
	m := made{t}
	ask := func(j *Job, l Level, s Source) *Job {
		next, _, err := j.RequestInterrupt(at(time.Hour), InterruptRequest{Level: l, Source: s, Reason: "why", Requester: "ops"})
		return must(t)(next, err)
	}
	for name, c := range map[string]struct {
		after *Job
		want  []ActionKind
	}{
		"interrupt, then cancel": {ask(ask(m.running(), LevelRetry, SourceUser), LevelCancel, SourceUser), []ActionKind{ActionInterruptRetry, ActionInterruptCancel}},
		"interrupt twice":        {ask(ask(m.running(), LevelRetry, SourceUser), LevelRetry, SourceUser), []ActionKind{ActionInterruptRetry}},
		"cancel while it waits":  {ask(m.ready(), LevelCancel, SourceUser), []ActionKind{ActionInterruptCancel}},
		"nothing to interrupt":   {ask(m.ready(), LevelRetry, SourceUser), nil},
		"drain":                  {ask(m.running(), LevelRetry, SourceDrain), nil},
		"timeout":                {must(t)(m.running().Timeout(t0)), nil},
		"park":                   {must(t)(m.ready().Park(t0, By{Reason: "why", Requester: "ops"})), []ActionKind{ActionPark}},
		"park while it runs":     {must(t)(m.running().Park(t0, By{Reason: "why", Requester: "ops"})), []ActionKind{ActionPark}},
	} {
		var got []ActionKind
		for _, a := range c.after.Actions {
			if got = append(got, a.Kind); a.Reason != "why" || a.Requester != "ops" || a.Time.IsZero() {
				t.Errorf("%s: %+v", name, a)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
