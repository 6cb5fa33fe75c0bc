package job

import (
	"fmt"
	"strings"
	"testing"
)

// TestOutcomeAndLevel is the contract's table of what a run's end means under each interrupt, cell by cell: the job's
// next state, the counter that rose, and the run's state.
func TestOutcomeAndLevel(t *testing.T) {
	m := made{t}
	ends := map[string]func(*Job) *Job{
		"lost":          m.lost,
		"hard deadline": func(j *Job) *Job { return must(t)(j.HardDeadline(t0, Policy{}, 0.5)) },
	}
	for name, o := range map[string]Outcome{
		"success": success(), "failure": application(), "failure without class": failure(Failure{}),
		"infrastructure": infrastructure(), "malformed": malformed(), "final": final(Application),
		"final infrastructure": final(Infrastructure), "park": parking(Application),
		"park infrastructure": parking(Infrastructure), "interrupted": stopped(), "released": released(), "not me": notMe(),
	} {
		ends[name] = func(j *Job) *Job { return m.finish(j, o) }
	}
	levels := map[string]func(*Job) *Job{
		"none":   func(j *Job) *Job { return j },
		"RETRY":  func(j *Job) *Job { return m.interrupted(j, LevelRetry) },
		"CANCEL": func(j *Job) *Job { return m.interrupted(m.interrupted(j, LevelRetry), LevelCancel) },
		"TIMEOUT": func(j *Job) *Job {
			return must(t)(m.interrupted(j, LevelRetry).Timeout(t0))
		},
		"TIMEOUT then CANCEL": func(j *Job) *Job { return m.interrupted(must(t)(j.Timeout(t0)), LevelCancel) },
		"Park":                func(j *Job) *Job { return must(t)(j.Park(t0, By{Reason: "look", Requester: "ops"})) },
		"Park and TIMEOUT": func(j *Job) *Job {
			return must(t)(must(t)(j.Park(t0, By{Reason: "look", Requester: "ops"})).Timeout(t0))
		},
		"Park and CANCEL": func(j *Job) *Job {
			return m.interrupted(must(t)(j.Park(t0, By{Reason: "look", Requester: "ops"})), LevelCancel)
		},
		"TIMEOUT and Park": func(j *Job) *Job {
			return must(t)(must(t)(j.Timeout(t0)).Park(t0, By{Reason: "look", Requester: "ops"}))
		},
	}
	for _, c := range []struct{ end, level, want string }{
		{"success", "none", "SUCCEEDED run SUCCEEDED"},
		{"success", "RETRY", "SUCCEEDED run SUCCEEDED"},
		{"success", "CANCEL", "SUCCEEDED run SUCCEEDED"},
		{"success", "TIMEOUT", "SUCCEEDED run SUCCEEDED"},
		{"success", "Park", "SUCCEEDED run SUCCEEDED"},

		{"failure", "none", "BACKOFF attempts 1s run FAILED"},
		{"failure without class", "none", "BACKOFF attempts 1s run FAILED"},
		{"infrastructure", "none", "BACKOFF snoozes 1s run FAILED"},
		{"malformed", "none", "PARKED(MALFORMED) attempts run FAILED"},
		{"final", "none", "FAILED attempts run FAILED"},
		{"final infrastructure", "none", "FAILED snoozes run FAILED"},
		{"park", "none", "PARKED(WORKER) attempts run FAILED"},
		{"park infrastructure", "none", "PARKED(WORKER) snoozes run FAILED"},
		{"interrupted", "none", "SCHEDULED interrupts 10s run INTERRUPTED"},
		{"released", "none", "SCHEDULED snoozes 1s run RELEASED"},
		{"not me", "none", "READY snoozes run RELEASED"},
		{"lost", "none", "BACKOFF crashes 1s run LOST"},

		{"failure", "RETRY", "SCHEDULED interrupts 10s run FAILED"},
		{"infrastructure", "RETRY", "SCHEDULED interrupts 10s run FAILED"},
		{"malformed", "RETRY", "PARKED(MALFORMED) attempts run FAILED"},
		{"final", "RETRY", "FAILED attempts run FAILED"},
		{"park", "RETRY", "PARKED(WORKER) attempts run FAILED"},
		{"interrupted", "RETRY", "SCHEDULED interrupts 10s run INTERRUPTED"},
		{"released", "RETRY", "SCHEDULED snoozes 1s run RELEASED"},
		{"not me", "RETRY", "READY snoozes run RELEASED"},
		{"lost", "RETRY", "SCHEDULED interrupts 10s run LOST"},
		{"hard deadline", "RETRY", "SCHEDULED interrupts 10s run ABANDONED"},

		{"failure", "CANCEL", "CANCELLED run FAILED"},
		{"infrastructure", "CANCEL", "CANCELLED run FAILED"},
		{"malformed", "CANCEL", "CANCELLED run FAILED"},
		{"final", "CANCEL", "CANCELLED run FAILED"},
		{"park", "CANCEL", "CANCELLED run FAILED"},
		{"interrupted", "CANCEL", "CANCELLED run INTERRUPTED"},
		{"released", "CANCEL", "CANCELLED run RELEASED"},
		{"not me", "CANCEL", "CANCELLED run RELEASED"},
		{"lost", "CANCEL", "CANCELLED run LOST"},
		{"hard deadline", "CANCEL", "CANCELLED run ABANDONED"},
		{"failure", "TIMEOUT then CANCEL", "CANCELLED run FAILED"},
		{"lost", "TIMEOUT then CANCEL", "CANCELLED run LOST"},

		{"failure", "TIMEOUT", "BACKOFF attempts 1s run FAILED"},
		{"infrastructure", "TIMEOUT", "BACKOFF attempts 1s run FAILED"},
		{"malformed", "TIMEOUT", "BACKOFF attempts 1s run FAILED"},
		{"final", "TIMEOUT", "FAILED attempts run FAILED"},
		{"park", "TIMEOUT", "PARKED(WORKER) attempts run FAILED"},
		{"interrupted", "TIMEOUT", "BACKOFF attempts 1s run INTERRUPTED"},
		{"released", "TIMEOUT", "BACKOFF attempts 1s run RELEASED"},
		{"not me", "TIMEOUT", "BACKOFF attempts 1s run RELEASED"},
		{"lost", "TIMEOUT", "BACKOFF attempts 1s run LOST"},
		{"hard deadline", "TIMEOUT", "BACKOFF attempts 1s run ABANDONED"},

		{"failure", "Park", "PARKED(OPERATOR) interrupts run FAILED"},
		{"malformed", "Park", "PARKED(OPERATOR) attempts run FAILED"},
		{"final", "Park", "FAILED attempts run FAILED"},
		{"interrupted", "Park", "PARKED(OPERATOR) interrupts run INTERRUPTED"},
		{"not me", "Park", "PARKED(OPERATOR) snoozes run RELEASED"},
		{"lost", "Park", "PARKED(OPERATOR) interrupts run LOST"},
		{"hard deadline", "Park", "PARKED(OPERATOR) interrupts run ABANDONED"},
		{"lost", "Park and TIMEOUT", "PARKED(OPERATOR) attempts run LOST"},
		{"lost", "Park and CANCEL", "CANCELLED run LOST"},
		{"lost", "TIMEOUT and Park", "PARKED(OPERATOR) attempts run LOST"},
		{"final", "TIMEOUT and Park", "FAILED attempts run FAILED"},
	} {
		t.Run(c.level+"/"+c.end, func(t *testing.T) {
			before := levels[c.level](m.running())
			after := ends[c.end](before)
			if got := describe(after); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			checkEnd(t, c.level, c.end, after)
		})
	}
}

// checkEnd holds for every cell: what the end leaves behind.
func checkEnd(t *testing.T, level, end string, j *Job) {
	t.Helper()
	run := j.History[len(j.History)-1]
	reported := run.State == RunFailed
	timedOut := (level == "TIMEOUT" || level == "TIMEOUT and Park" || level == "Park and TIMEOUT") && end != "success"
	if (j.Failure != nil) != (reported || timedOut) || j.Failure != run.Failure {
		t.Errorf("failure: job %+v, run %+v", j.Failure, run.Failure)
	}
	if timedOut && j.Failure.Class != TimedOut {
		t.Errorf("class is %d, want TIMEOUT", j.Failure.Class)
	}
	if (j.Result != nil) != (end == "success") {
		t.Errorf("result: %+v", j.Result)
	}
	var left Level
	if strings.HasSuffix(level, "CANCEL") {
		left = LevelCancel
	}
	if j.Interrupted().Level != left {
		t.Errorf("interrupt left: %+v", j.Interrupted())
	}
	if j.ParkReason == ParkOperator && (j.Interrupted().Requester != "ops" || j.Interrupted().Reason != "look" || j.ParkBuild != "") {
		t.Errorf("who parked it is lost: %+v, build %q", j.Interrupted(), j.ParkBuild)
	}
	if j.State == Parked && j.ParkReason != ParkOperator && j.ParkBuild != "b1" {
		t.Errorf("parked by build %q", j.ParkBuild)
	}
	if (j.Avoid == worker1) != (end == "not me" && !j.State.Terminal()) {
		t.Errorf("avoids %v until %v", j.Avoid, j.AvoidUntil)
	}
}

// describe is a job after its run's end in one line. It assumes that the counters were zero before.
func describe(j *Job) string {
	s := j.State.String()
	if j.State == Parked {
		s += fmt.Sprintf("(%s)", map[ParkReason]string{
			ParkCrashes: "CRASHES", ParkInterrupts: "INTERRUPTS", ParkSnoozes: "SNOOZES", ParkUndeliverable: "UNDELIVERABLE",
			ParkMalformed: "MALFORMED", ParkWorker: "WORKER", ParkOperator: "OPERATOR",
			ParkPolicy: "POLICY",
		}[j.ParkReason])
	}
	for _, c := range []struct {
		name string
		n    uint32
	}{
		{"attempts", j.Counters.Attempts},
		{"crashes", j.Counters.Crashes},
		{"interrupts", j.Counters.Interrupts},
		{"snoozes", j.Counters.Snoozes},
		{"deliveries", j.Counters.Deliveries},
	} {
		switch {
		case c.n == 1:
			s += " " + c.name
		case c.n > 1:
			s += fmt.Sprintf(" %s=%d", c.name, c.n)
		}
	}
	if !j.DueTime.IsZero() {
		s += " " + j.DueTime.Sub(t0).String()
	}
	if n := len(j.History); n > 0 {
		s += " run " + map[RunState]string{
			RunSucceeded: "SUCCEEDED", RunFailed: "FAILED", RunInterrupted: "INTERRUPTED", RunReleased: "RELEASED",
			RunLost: "LOST", RunAbandoned: "ABANDONED", RunUndelivered: "UNDELIVERED", RunWithdrawn: "WITHDRAWN",
		}[j.History[n-1].State]
	}
	return s
}
