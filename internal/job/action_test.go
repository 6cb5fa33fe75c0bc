package job

import (
	"fmt"
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
		j = must(t)(before.RetryBy(at(time.Hour), fmt.Sprint(i), "ops"))
		must(t)(before.RetryBy(at(time.Hour), "another", "ops"))
		if fmt.Sprint(before.Actions) != had {
			t.Fatalf("version %d lost its actions", before.Version)
		}
	}
	if len(j.Actions) != ActionsMax {
		t.Fatalf("%d actions", len(j.Actions))
	}
	for i, a := range j.Actions {
		if want := (Action{ActionRetry, fmt.Sprint(i + 5), "ops", at(time.Hour)}); a != want {
			t.Errorf("action %d is %v, want %v", i, a, want)
		}
	}
	if _, err := m.ready().RetryBy(t0, "", ""); err == nil {
		t.Error("a READY job was retried")
	}
}
