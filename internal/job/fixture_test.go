package job

import (
	"encoding/json"
	"testing"
	"time"
)

var (
	t0      = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	worker1 = ID{1}
	third   = 3 * time.Second
)

// at is a time after the fixtures' submit.
func at(d time.Duration) time.Time { return t0.Add(d) }

func spec() *Spec {
	return &Spec{
		ID: ID{9}, Queue: "media/resize", Priority: Normal, Payload: []byte("p"), PayloadSize: 1,
		Labels: map[string]string{"a": "b"},
	}
}

// must unwraps what cannot fail in a test.
func must(t testing.TB) func(*Job, error) *Job {
	return func(j *Job, err error) *Job {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
}

// made hands out fixtures; fences rise through a job's life.
type made struct{ testing.TB }

func (m made) ready() *Job { return New(spec(), t0) }

func (m made) dispatch(j *Job) *Job {
	m.Helper()
	return must(m)(j.Dispatch(j.ReadyTime, Dispatch{
		Fence: uint64(100 + j.RunCount), Worker: "w", Instance: worker1, Build: "b1", Lease: DefaultLease,
	}))
}

func (m made) run(j *Job) *Job {
	m.Helper()
	if j.State != Ready {
		j = must(m)(j.Wake(j.DueTime))
	}
	j = m.dispatch(j)
	return must(m)(j.Accept(j.Run.DispatchTime))
}

func (m made) running() *Job { return m.run(m.ready()) }

func (m made) interrupted(j *Job, l Level) *Job {
	m.Helper()
	next, _, err := j.RequestInterrupt(t0, InterruptRequest{Level: l, Source: SourceDrain, Reason: "deploy", Requester: "ops"})
	return must(m)(next, err)
}

func (m made) finish(j *Job, o Outcome) *Job {
	m.Helper()
	next, status, err := j.Finish(t0, j.Run.Fence, o, Policy{}, 0.5)
	if status != FinishRecorded {
		m.Fatalf("finish: %v %v", status, err)
	}
	return next
}

func (m made) lost(j *Job) *Job {
	m.Helper()
	return must(m)(j.Lose(t0, Policy{}, 0.5, "lease lost"))
}

func (m made) crashedOut() *Job {
	m.Helper()
	j := m.ready()
	for range MaxCrashes {
		j = m.lost(m.run(j))
	}
	return j
}

func success() Outcome {
	return Outcome{Success: &Success{Result: &Result{Data: []byte("r"), Size: 1}}}
}
func stopped() Outcome            { return Outcome{Stopped: &Stopped{Reason: "shutdown"}} }
func released() Outcome           { return Outcome{Released: &Released{Reason: "busy"}} }
func notMe() Outcome              { return Outcome{Released: &Released{NotMe: true}} }
func failure(f Failure) Outcome   { return Outcome{Failure: &f} }
func application() Outcome        { return failure(Failure{Class: Application, Message: "no"}) }
func infrastructure() Outcome     { return failure(Failure{Class: Infrastructure}) }
func malformed() Outcome          { return failure(Failure{Class: Malformed}) }
func final(class Class) Outcome   { return failure(Failure{Class: class, Final: true}) }
func parking(class Class) Outcome { return failure(Failure{Class: class, Park: true}) }

// snapshot is everything reachable from j, for finding out whether it was modified.
func snapshot(t interface {
	Helper()
	Fatal(...any)
}, j *Job,
) string {
	t.Helper()
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
