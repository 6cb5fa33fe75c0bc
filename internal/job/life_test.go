package job

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// life is one job through random events, with what must stay true of it.
type life struct {
	job      *Job
	now      time.Time
	fence    uint64
	recorded map[uint64]RunState // what workers reported and the job took
	versions []*Job
	prints   []string // of versions, when they were new
}

// TestLife plays random lives. The clock jumps back at times, as wall clocks do.
func TestLife(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := spec()
		s.RunAt = rapid.SampledFrom([]time.Time{{}, at(time.Minute)}).Draw(rt, "run_at")
		s.StartBy = rapid.SampledFrom([]time.Time{{}, at(time.Minute), at(time.Hour)}).Draw(rt, "start_by")
		s.Retry = &RetryPolicy{MaxAttempts: rapid.SampledFrom([]uint32{0, 1, 3}).Draw(rt, "max_attempts")}
		l := &life{job: New(s, t0), now: t0, recorded: map[uint64]RunState{}}
		if rapid.Bool().Draw(rt, "blocked") {
			l.job = edited(l.job, func(j *Job) { j.enter(t0, Blocked) })
		}
		actions := []func(*rapid.T){l.work, l.work, l.work, l.finish, l.pass, l.operate}
		for range rapid.IntRange(20, 200).Draw(rt, "steps") {
			rapid.SampledFrom(actions).Draw(rt, "action")(rt)
			l.check(rt)
		}
		for i, v := range l.versions {
			if snapshot(t, v) != l.prints[i] {
				rt.Fatalf("version %d was modified later", v.Version)
			}
		}
	})
}

func (l *life) pass(t *rapid.T) {
	l.now = l.now.Add(rapid.SampledFrom([]time.Duration{-time.Minute, time.Second, time.Minute, time.Hour}).Draw(t, "step"))
	l.take(t, "wake", func(j *Job) (*Job, error) { return j.Wake(l.now) })
}

func (l *life) work(t *rapid.T) {
	rnd := rapid.Float64Range(0, 0.999).Draw(t, "rnd")
	l.takeOne(t, map[string]func(*Job) (*Job, error){
		"dispatch": func(j *Job) (*Job, error) {
			l.fence++
			return j.Dispatch(l.now, Dispatch{Fence: l.fence, Worker: "w", Instance: worker1, Build: "b1"})
		},
		"accept":        func(j *Job) (*Job, error) { return j.Accept(l.now) },
		"undeliver":     func(j *Job) (*Job, error) { return j.Undeliver(l.now, "gone") },
		"lose":          func(j *Job) (*Job, error) { return j.Lose(l.now, Policy{}, rnd, "silent") },
		"timeout":       func(j *Job) (*Job, error) { return j.Timeout(l.now) },
		"hard deadline": func(j *Job) (*Job, error) { return j.HardDeadline(l.now, Policy{}, rnd) },
		"deliver":       func(j *Job) (*Job, error) { return j.Deliver(l.now, j.Run.Fence, j.Interrupted().Generation) },
		"acknowledge":   func(j *Job) (*Job, error) { return j.Acknowledge(l.now, j.Run.Fence, j.Interrupted().Generation) },
	})
}

func (l *life) operate(t *rapid.T) {
	l.takeOne(t, map[string]func(*Job) (*Job, error){
		"interrupt RETRY":  actInterrupt(LevelRetry),
		"interrupt CANCEL": actInterrupt(LevelCancel),
		"park":             func(j *Job) (*Job, error) { return j.Park(l.now, By{Reason: "look", Requester: "ops"}) },
		"retry":            func(j *Job) (*Job, error) { return j.Retry(l.now) },
		"new build":        func(j *Job) (*Job, error) { return j.ReleaseByBuild(l.now, "b2") },
		"unblock":          func(j *Job) (*Job, error) { return j.Unblock(l.now) },
	})
}

// takeOne chooses among what is legal, for the life to get on; at times among everything.
func (l *life) takeOne(t *rapid.T, choices map[string]func(*Job) (*Job, error)) {
	any := rapid.IntRange(0, 9).Draw(t, "any") == 9
	var names []string
	for e := range numberOfEvents { // in an order that repeats
		if choices[e.String()] != nil && (any || table[l.job.phase()][e] != 0) {
			names = append(names, e.String())
		}
	}
	if len(names) == 0 {
		return
	}
	name := rapid.SampledFrom(names).Draw(t, "event")
	l.take(t, name, choices[name])
}

func (l *life) finish(t *rapid.T) {
	fence := rapid.SampledFrom([]uint64{l.fence, l.fence - min(l.fence, 1), l.fence - min(l.fence, 4), 0}).Draw(t, "fence")
	o := rapid.SampledFrom([]Outcome{
		success(), application(), infrastructure(), malformed(), final(Application), parking(Application), stopped(),
		released(), notMe(),
		{Released: &Released{Delay: &third}},
	}).Draw(t, "outcome")
	e, _ := o.ending()
	l.take(t, "finish", func(j *Job) (*Job, error) {
		next, status, err := j.Finish(l.now, fence, o, Policy{}, 0.5)
		was, known := l.recorded[fence]
		switch {
		case status == FinishRecorded && known:
			t.Fatalf("fence %d recorded twice", fence)
		case status == FinishRecorded:
			l.recorded[fence] = e.state
		case known && (status == FinishDuplicate) != (was == e.state) || known && status == FinishSuperseded:
			t.Fatalf("fence %d: status %d for %d after %d", fence, status, e.state, was)
		case !known && status != FinishSuperseded:
			t.Fatalf("fence %d: status %d, nothing recorded", fence, status)
		}
		return next, err
	})
}

// take does one thing and compares before and after.
func (l *life) take(t *rapid.T, name string, do func(*Job) (*Job, error)) {
	before := l.job
	next, err := do(before)
	if err != nil || next == before {
		return
	}
	l.versions = append(l.versions, next)
	l.prints = append(l.prints, snapshot(t, next))
	l.job = next
	sameRun := before.State == Running && next.Run.Fence == before.Run.Fence
	switch {
	case next.Version != before.Version+1:
		t.Fatalf("%s: version %d after %d", name, next.Version, before.Version)
	case before.State == Succeeded:
		t.Fatalf("%s leads from a success to %s", name, next.State)
	case next.Epoch != before.Epoch && (name != "retry" && name != "new build" || next.Counters != Counters{}):
		t.Fatalf("%s opens epoch %d with %+v", name, next.Epoch, next.Counters)
	case next.Epoch == before.Epoch && (sameRun || before.Interrupted().Level == LevelCancel) &&
		next.Interrupted().Level < before.Interrupted().Level:
		t.Fatalf("%s lets the level fall", name)
	case next.RunCount != before.RunCount && name != "dispatch":
		t.Fatalf("%s makes a run", name)
	}
}

// check holds for every version.
func (l *life) check(t *rapid.T) {
	j := l.job
	for name, broken := range map[string]bool{
		"live run iff RUNNING":          (j.State == Running) != j.Run.State.Live(),
		"no run unless RUNNING":         j.State != Running && j.Run != (Run{}),
		"due iff SCHEDULED or BACKOFF":  (j.State == Scheduled || j.State == Backoff) == j.DueTime.IsZero(),
		"ready time iff READY, RUNNING": (j.State == Ready || j.State == Running) == j.ReadyTime.IsZero(),
		"end iff terminal":              j.State.Terminal() == j.EndTime.IsZero(),
		"reason iff PARKED":             (j.State == Parked) != (j.ParkReason != ParkNone),
		"result iff SUCCEEDED":          (j.State == Succeeded) != (j.Result != nil),
		"level without a run":           j.State.Waiting() && j.Interrupted().Level != LevelNone,
		"RETRY outlives its run":        j.State.Terminal() && j.Interrupted().Level == LevelRetry,
		"request without a level": j.Interrupted().Level == LevelNone && j.Interrupted() != (Interrupt{}) &&
			j.ParkReason != ParkOperator,
		"level DISPATCHED":        j.phase() == dispatched && j.Interrupted() != (Interrupt{}),
		"an end while it stands":  (j.Interrupted().End != EndNone) != (j.State.Terminal() && j.Interrupted().Level == LevelCancel),
		"acknowledged unsent":     !j.Interrupted().AckTime.IsZero() && j.Interrupted().DeliverTime.IsZero(),
		"wish to park at the end": j.State.Terminal() && j.Interrupted().Park,
		"dispatched before ready": j.State == Running && j.Run.DispatchTime.Before(j.ReadyTime),
		"ended before begun":      j.EndTime.Before(j.SubmitTime) && j.State.Terminal(),
	} {
		if broken {
			t.Fatalf("%s: %s", name, snapshot(t, j))
		}
	}
	l.checkCounters(t)
	l.checkHistory(t)
}

// checkCounters: a budget that is used up has set the job aside.
func (l *life) checkCounters(t *rapid.T) {
	retry := Effective(l.job.Spec, Policy{}).Retry
	for c := CountAttempts; c <= CountDeliveries; c++ {
		n := *l.job.Counters.of(c)
		bound, _ := c.bound(retry)
		if n > bound || n == bound && !l.job.State.Terminal() && l.job.State != Parked {
			t.Fatalf("counter %d is %d of %d in %s", c, n, bound, l.job.State)
		}
	}
}

func (l *life) checkHistory(t *rapid.T) {
	runs := l.job.History
	if l.job.State == Running {
		runs = append(slices.Clip(runs), l.job.Run)
	}
	if n := len(runs); n > 2*HistoryEdge || n != int(l.job.RunCount) || n > 0 && runs[n-1].Number != l.job.RunCount {
		t.Fatalf("%d runs of %d", n, l.job.RunCount)
	}
	for i, run := range runs {
		live := i == len(runs)-1 && l.job.State == Running
		switch {
		case i > 0 && (run.Fence <= runs[i-1].Fence || run.Number <= runs[i-1].Number || run.Epoch < runs[i-1].Epoch):
			t.Fatalf("run %+v after %+v", run, runs[i-1])
		case run.State.Live() != live, run.EndTime.IsZero() != live:
			t.Fatalf("run %+v, live: %v", run, live)
		case run.AcceptTime.IsZero() && run.State != RunDispatched && run.State != RunUndelivered && run.State != RunWithdrawn:
			t.Fatalf("never accepted: %+v", run)
		case !run.AcceptTime.IsZero() && (run.AcceptTime.Before(run.DispatchTime) || !l.job.StartBy.IsZero()):
			t.Fatalf("accepted: %+v, start_by %v", run, l.job.StartBy)
		case !live && (run.EndTime.Before(run.AcceptTime) || run.EndTime.Before(run.DispatchTime)):
			t.Fatalf("ended before its begin: %+v", run)
		case run.Interrupt != nil && (live || run.Interrupt.End != interruptEnds[run.State] || run.Interrupt.Level == LevelNone):
			t.Fatalf("run %+v ended under %+v", run, run.Interrupt)
		case run.State == RunAbandoned && run.Interrupt == nil:
			t.Fatalf("abandoned without an interrupt: %+v", run)
		case run.State.reported() != (l.recorded[run.Fence] == run.State) || run.State.reported() && l.recorded[run.Fence] == 0:
			t.Fatalf("run %+v, recorded %d", run, l.recorded[run.Fence])
		}
	}
}
