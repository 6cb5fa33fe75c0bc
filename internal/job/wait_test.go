package job

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestStartBy: it counts until the first acceptance, and again never.
func TestStartBy(t *testing.T) {
	m := made{t}
	s := spec()
	s.StartBy = at(time.Minute)
	j := New(s, t0)
	if same := must(t)(j.Wake(at(time.Minute - 1))); same != j {
		t.Errorf("woken before its time: %s", same.State)
	}
	if got := must(t)(j.Wake(at(time.Minute))); got.State != Expired || got.EndTime != at(time.Minute) {
		t.Errorf("%s at %v", got.State, got.EndTime)
	}
	out := m.dispatch(j)
	if got := must(t)(out.Undeliver(at(time.Minute), "gone")); got.State != Expired {
		t.Errorf("undelivered too late: %s", got.State)
	}
	if same := must(t)(out.Wake(at(time.Hour))); same != out {
		t.Errorf("dispatched and past start_by: %s", same.State)
	}
	accepted := m.lost(must(t)(out.Accept(t0)))
	if got := must(t)(accepted.Wake(at(time.Hour))); got.State != Ready {
		t.Errorf("accepted once, then lost: %s", got.State)
	}
	reopened := must(t)(must(t)(j.Wake(at(time.Hour))).Retry(at(time.Hour)))
	if got := must(t)(reopened.Wake(at(2 * time.Hour))); got != reopened || got.State != Ready {
		t.Errorf("reopened: %s", got.State)
	}
}

// TestRunAt: a job waits for its run_at, also after its dependencies.
func TestRunAt(t *testing.T) {
	s := spec()
	s.RunAt = at(time.Minute)
	j := New(s, t0)
	if j.State != Scheduled || j.DueTime != s.RunAt || !j.ReadyTime.IsZero() {
		t.Errorf("%s until %v", j.State, j.DueTime)
	}
	if got := must(t)(j.Wake(s.RunAt)); got.State != Ready || !got.DueTime.IsZero() || got.ReadyTime != s.RunAt {
		t.Errorf("%s until %v", got.State, got.DueTime)
	}
	if got := New(s, s.RunAt); got.State != Ready {
		t.Errorf("run_at now: %s", got.State)
	}
	waiting := edited(j, func(j *Job) { j.enter(t0, Blocked) })
	if got := must(t)(waiting.Unblock(t0)); got.State != Scheduled || got.DueTime != s.RunAt {
		t.Errorf("unblocked early: %s until %v", got.State, got.DueTime)
	}
	if got := must(t)(waiting.Unblock(at(time.Hour))); got.State != Ready {
		t.Errorf("unblocked late: %s", got.State)
	}
}

// TestReopen: a new epoch is a job as new, but for its numbers and its history.
func TestReopen(t *testing.T) {
	m := made{t}
	for name, j := range map[string]*Job{
		"failed":    m.finish(m.running(), final(Application)),
		"cancelled": m.finish(m.interrupted(m.running(), LevelCancel), application()),
		"parked":    m.crashedOut(),
		"malformed": m.finish(m.running(), malformed()),
	} {
		got := must(t)(j.Retry(at(time.Hour)))
		want := New(j.Spec, t0)
		want.Version, want.Epoch, want.RunCount, want.History = j.Version+1, 2, j.RunCount, j.History
		want.ReadyTime, want.EpochTime = at(time.Hour), at(time.Hour)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	waiting := m.finish(m.running(), application())
	if got := must(t)(waiting.Retry(t0)); got.State != Ready || got.Epoch != 1 || got.Counters.Attempts != 1 {
		t.Errorf("retry now: %s, epoch %d, %+v", got.State, got.Epoch, got.Counters)
	}
}

// TestReleaseByBuild: only another build releases, and never what an operator parked.
func TestReleaseByBuild(t *testing.T) {
	m := made{t}
	j := m.crashedOut()
	if same := must(t)(j.ReleaseByBuild(t0, "b1")); same != j {
		t.Error("released by the build that parked it")
	}
	if got := must(t)(j.ReleaseByBuild(t0, "b2")); got.State != Ready || got.Epoch != 2 || got.Counters != (Counters{}) {
		t.Errorf("%s in epoch %d", got.State, got.Epoch)
	}
	nobody := edited(j, func(j *Job) { j.ParkBuild = "" })
	if same := must(t)(nobody.ReleaseByBuild(t0, "b2")); same != nobody {
		t.Error("released although no build parked it")
	}
	byHand := must(t)(j.Park(t0, By{Reason: "look", Requester: "ops"}))
	if same := must(t)(byHand.ReleaseByBuild(t0, "b2")); same != byHand || byHand.ParkReason != ParkOperator {
		t.Errorf("parked for %d and released", byHand.ParkReason)
	}
}

// TestReleaseOnce: of the last builds none releases a job twice, whoever parks it and whoever reopens it in between.
func TestReleaseOnce(t *testing.T) {
	m := made{t}
	parkedBy := func(j *Job, build string) *Job {
		return edited(m.finish(m.run(j), malformed()), func(j *Job) { j.ParkBuild = build })
	}
	j := parkedBy(m.ready(), "b0")
	var builds []string
	for i := range ReleasesKept {
		build := fmt.Sprint("new", i)
		before, old := snapshot(t, j), j
		builds = append(builds, build)
		j = must(t)(j.ReleaseByBuild(t0, build))
		if snapshot(t, old) != before || !slices.Equal(j.ReleasedBy, builds) {
			t.Fatalf("released by %v, want %v", j.ReleasedBy, builds)
		}
		j = parkedBy(j, build)
		j = parkedBy(must(t)(j.Retry(t0)), "b0")
		for _, build := range append(builds, "b0") {
			if same := must(t)(j.ReleaseByBuild(t0, build)); same != j {
				t.Fatalf("after %d releases %s releases it again", i+1, build)
			}
		}
	}
	j = parkedBy(must(t)(j.ReleaseByBuild(t0, "newest")), "b0")
	if want := append(slices.Clone(builds[1:]), "newest"); !slices.Equal(j.ReleasedBy, want) {
		t.Errorf("released by %v, want %v", j.ReleasedBy, want)
	}
}

// TestInterruptEffects: what an interrupt does at once, and that a level never falls.
func TestInterruptEffects(t *testing.T) {
	m := made{t}
	underRetry, underCancel := m.interrupted(m.running(), LevelRetry), m.interrupted(m.running(), LevelCancel)
	for _, c := range []struct {
		name  string
		job   *Job
		level Level
		want  InterruptEffect
		after string
	}{
		{"READY", m.ready(), LevelRetry, EffectNoRun, "READY"},
		{"READY", m.ready(), LevelCancel, EffectCancelled, "CANCELLED"},
		{"PARKED", m.crashedOut(), LevelRetry, EffectNoRun, "PARKED(CRASHES) crashes=3 run LOST"},
		{"PARKED", m.crashedOut(), LevelCancel, EffectCancelled, "CANCELLED crashes=3 run LOST"},
		{"DISPATCHED", m.dispatch(m.ready()), LevelRetry, EffectWithdrawn, "SCHEDULED interrupts 10s run WITHDRAWN"},
		{"DISPATCHED", m.dispatch(m.ready()), LevelCancel, EffectWithdrawn, "CANCELLED run WITHDRAWN"},
		{"RUNNING", m.running(), LevelRetry, EffectRequested, "RUNNING"},
		{"RUNNING", m.running(), LevelCancel, EffectRequested, "RUNNING"},
		{"under RETRY", underRetry, LevelRetry, EffectUnchanged, "RUNNING"},
		{"under RETRY", underRetry, LevelCancel, EffectRequested, "RUNNING"},
		{"under CANCEL", underCancel, LevelCancel, EffectUnchanged, "RUNNING"},
	} {
		next, effect, err := c.job.RequestInterrupt(t0, InterruptRequest{Level: c.level, Source: SourceUser, Reason: "why"})
		if err != nil || effect != c.want || describe(next) != c.after {
			t.Errorf("%s × %d: effect %d, %s, %v", c.name, c.level, effect, describe(next), err)
		}
		if unchanged := effect == EffectNoRun || effect == EffectUnchanged; unchanged != (next == c.job) {
			t.Errorf("%s × %d: the same pointer: %v", c.name, c.level, next == c.job)
		}
		if effect == EffectRequested && next.Interrupted().Generation != c.job.Interrupted().Generation+1 {
			t.Errorf("%s × %d: generation %d", c.name, c.level, next.Interrupted().Generation)
		}
		if effect == EffectWithdrawn && next.History[0].Note != "why" {
			t.Errorf("%s × %d: note %q", c.name, c.level, next.History[0].Note)
		}
	}
}

// TestPark: at once where it can be, later where it must, and a timeout stays one.
func TestPark(t *testing.T) {
	m := made{t}
	for name, j := range map[string]*Job{
		"READY": m.ready(), "BACKOFF": m.lost(m.running()), "DISPATCHED": m.dispatch(m.ready()), "PARKED": m.crashedOut(),
	} {
		got := must(t)(j.Park(at(time.Minute), By{Reason: "look", Requester: "ops"}))
		want := Interrupt{Source: SourceUser, Reason: "look", Requester: "ops", RequestTime: at(time.Minute), Park: true}
		if got.State != Parked || got.ParkReason != ParkOperator || got.Interrupted() != want {
			t.Errorf("%s: %s, %+v", name, got.State, got.Interrupted())
		}
		if again := must(t)(got.Park(t0, By{Reason: "twice", Requester: "ops"})); again != got {
			t.Errorf("%s: parked twice", name)
		}
	}
	timedOut := must(t)(m.running().Timeout(at(time.Second)))
	got := must(t)(timedOut.Park(at(time.Minute), By{Reason: "look", Requester: "ops"})).Interrupted()
	want := Interrupt{
		Level: LevelRetry, Generation: 2, Source: SourceTimeout, Reason: "look", Requester: "ops",
		RequestTime: at(time.Second), GraceTime: at(11 * time.Second), HardTime: at(61 * time.Second), Park: true,
	}
	if got != want {
		t.Errorf("%+v", got)
	}
	if same := must(t)(timedOut.Timeout(at(time.Minute))); same != timedOut {
		t.Errorf("timed out twice: %+v", same.Interrupted())
	}
	later := must(t)(must(t)(m.running().Park(t0, By{Reason: "look", Requester: "ops"})).Timeout(at(time.Minute))).Interrupted()
	if later.Source != SourceTimeout || later.RequestTime != at(time.Minute) || later.Requester != "ops" {
		t.Errorf("timeout after park: %+v", later)
	}
	underCancel := m.interrupted(m.running(), LevelCancel)
	if same := must(t)(underCancel.Timeout(t0)); same != underCancel {
		t.Errorf("timeout under CANCEL: %+v", same.Interrupted())
	}
	if same := must(t)(underCancel.Park(t0, By{Reason: "look", Requester: "ops"})); same != underCancel {
		t.Errorf("park under CANCEL: %+v", same.Interrupted())
	}
}
