package storetest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// move is one event of a job.
type move func(clock, *job.Job) (*job.Job, error)

// clock is what a move needs of a transaction.
type clock interface{ Now() time.Time }

// finishing is the move of a run's end by its worker's word, a late one if the run is over.
func finishing(o job.Outcome) move {
	return func(tx clock, j *job.Job) (*job.Job, error) {
		fence := j.Run.Fence
		if n := len(j.History); j.State != job.Running && n > 0 {
			fence = j.History[n-1].Fence
		}
		next, _, err := j.Finish(tx.Now(), fence, o, job.Policy{}, 0.5)
		return next, err
	}
}

// interrupting is the move of an interrupt; request names it, empty does not.
func interrupting(level job.Level, request string) move {
	return func(tx clock, j *job.Job) (*job.Job, error) {
		next, _, err := j.RequestInterrupt(tx.Now(), job.InterruptRequest{
			Level: level, Source: job.SourceUser, Reason: "why", Requester: "ops", Request: request,
		})
		return next, err
	}
}

// moves are the events by which a job goes on, each in one way at least. Which are legal package job says.
func moves() map[string]move {
	by := job.By{Reason: "look", Requester: "ops"}
	return map[string]move{
		"accept":    func(tx clock, j *job.Job) (*job.Job, error) { return j.Accept(tx.Now()) },
		"undeliver": func(tx clock, j *job.Job) (*job.Job, error) { return j.Undeliver(tx.Now(), "gone") },
		"success":   finishing(job.Outcome{Success: &job.Success{Result: &job.Result{Data: []byte("r"), Size: 1}}}),
		"failure":   finishing(job.Outcome{Failure: &job.Failure{Class: job.Application, Message: "no"}}),
		"give up":   finishing(job.Outcome{Failure: &job.Failure{Class: job.Application, Final: true}}),
		"malformed": finishing(job.Outcome{Failure: &job.Failure{Class: job.Malformed}}),
		"stopped":   finishing(job.Outcome{Stopped: &job.Stopped{Reason: "bye"}}),
		"released":  finishing(job.Outcome{Released: &job.Released{}}),
		"lose":      func(tx clock, j *job.Job) (*job.Job, error) { return j.Lose(tx.Now(), job.Policy{}, 0.5, "silent") },
		"timeout":   func(tx clock, j *job.Job) (*job.Job, error) { return j.Timeout(tx.Now()) },
		"abandon":   func(tx clock, j *job.Job) (*job.Job, error) { return j.HardDeadline(tx.Now(), job.Policy{}, 0.5) },
		"interrupt": interrupting(job.LevelRetry, ""),
		"remember":  interrupting(job.LevelRetry, "r"),
		"cancel":    interrupting(job.LevelCancel, ""),
		"deliver": func(tx clock, j *job.Job) (*job.Job, error) {
			return j.Deliver(tx.Now(), j.Run.Fence, j.Interrupted().Generation)
		},
		"acknowledge": func(tx clock, j *job.Job) (*job.Job, error) {
			return j.Acknowledge(tx.Now(), j.Run.Fence, j.Interrupted().Generation)
		},
		"park":  func(tx clock, j *job.Job) (*job.Job, error) { return j.Park(tx.Now(), by) },
		"retry": func(tx clock, j *job.Job) (*job.Job, error) { return j.RetryBy(tx.Now(), by) },
		"replace": func(tx clock, j *job.Job) (*job.Job, error) {
			spec := *j.Spec
			spec.Payload = make([]byte, 900)
			spec.PayloadSize = len(spec.Payload)
			return j.Replace(tx.Now(), &spec)
		},
		"rename":   updating(job.FieldSubject|job.FieldTimeout, job.Spec{Subject: "s", Timeout: time.Hour}),
		"start":    updating(job.FieldStart, job.Spec{}),
		"postpone": updating(job.FieldStart, job.Spec{RunAt: time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)}),
		"release":  func(tx clock, j *job.Job) (*job.Job, error) { return j.ReleaseByBuild(tx.Now(), "v2") },
	}
}

// events are the moves, and those events that need a transaction or end the job.
func events() map[string]func(store.Tx, *job.Job) (*job.Job, error) {
	all := map[string]func(store.Tx, *job.Job) (*job.Job, error){
		"wake": func(tx store.Tx, j *job.Job) (*job.Job, error) { return j.Wake(tx.Now()) },
		"dispatch": func(tx store.Tx, j *job.Job) (*job.Job, error) {
			return j.Dispatch(tx.Now(), job.Dispatch{Fence: tx.NextFence(), Worker: "w", Instance: job.ID{1}, Build: "v1", Lease: time.Minute})
		},
		"delete": func(_ store.Tx, j *job.Job) (*job.Job, error) { return nil, j.CanDelete() },
	}
	for name, m := range moves() {
		all[name] = func(tx store.Tx, j *job.Job) (*job.Job, error) { return m(tx, j) }
	}
	return all
}

// path is how a new job comes to a state.
type path struct {
	to    job.State
	moves []string
}

// paths lead to each state, and to those that differ in what may follow.
var paths = map[string]path{
	"scheduled":            {job.Scheduled, nil}, // its start is a minute away
	"scheduled again":      {job.Scheduled, []string{"dispatch", "accept", "stopped"}},
	"ready":                {job.Ready, nil},
	"ready after a run":    {job.Ready, []string{"dispatch", "undeliver"}},
	"dispatched":           {job.Running, []string{"dispatch"}},
	"running":              {job.Running, []string{"dispatch", "accept"}},
	"running under RETRY":  {job.Running, []string{"dispatch", "accept", "interrupt", "acknowledge"}},
	"running under CANCEL": {job.Running, []string{"dispatch", "accept", "cancel"}},
	"running to be parked": {job.Running, []string{"dispatch", "accept", "park"}},
	"running out of time":  {job.Running, []string{"dispatch", "accept", "timeout"}},
	"backoff":              {job.Backoff, []string{"dispatch", "accept", "failure"}},
	"backoff by a loss":    {job.Backoff, []string{"dispatch", "accept", "lose"}},
	"parked":               {job.Parked, []string{"dispatch", "accept", "malformed"}},
	"parked by somebody":   {job.Parked, []string{"park"}},
	"succeeded":            {job.Succeeded, []string{"dispatch", "success"}},
	"failed":               {job.Failed, []string{"dispatch", "give up"}},
	"cancelled":            {job.Cancelled, []string{"cancel"}},
	"expired":              {job.Expired, []string{"wake"}}, // its start_by has passed
}

// testEveryPair crosses the states with the events: what the store shows of a job, its queue's counts and the order of
// its lane, at once and after a restart, are what package job has made. An event that is not legal changes nothing.
func testEveryPair(t *testing.T, b *bench) {
	events := events()
	want, legal := map[uint64]*job.Job{}, 0
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		for _, event := range slices.Sorted(maps.Keys(events)) {
			spec := b.spec("q")
			switch name {
			case "scheduled":
				spec.RunAt = b.clock.Add(time.Minute)
			case "expired":
				spec.StartBy = b.clock
			}
			j := b.submit(spec)[0]
			for _, step := range paths[name].moves {
				j = b.step(j.Seq, events[step])
			}
			if j.State != paths[name].to {
				t.Fatalf("%s: the job is in state %d", name, j.State)
			}
			b.advance(time.Second)
			was := b.get(j.Seq)[0]
			var next *job.Job
			err := b.Store().Update(t.Context(), func(tx store.Tx) (err error) {
				js, err := tx.Load([]uint64{j.Seq})
				if err != nil {
					return err
				}
				if next, err = events[event](tx, js[0]); err != nil || next == js[0] {
					return err
				}
				return tx.Put(store.Change{Old: js[0], New: next})
			})
			switch {
			case err != nil:
				next = was
			case next != was:
				legal++
			}
			want[j.Seq] = next
		}
	}
	if legal < 100 {
		t.Errorf("only %d pairs are legal", legal)
	}
	for range 2 {
		b.holds(want)
		b.Reopen()
	}
}

// holds checks that the store holds these jobs of queue "q", nil for those that were deleted, and no others.
func (b *bench) holds(want map[uint64]*job.Job) {
	b.Helper()
	var counts [job.NumberOfStates]uint64
	var ready []*job.Job
	for _, seq := range slices.Sorted(maps.Keys(want)) {
		got := b.get(seq)[0]
		b.equal(fmt.Sprint("job ", seq), got, want[seq])
		if got == nil {
			continue
		}
		counts[got.State]++
		if got.State == job.Ready {
			ready = append(ready, got)
		}
	}
	b.equal("counts", b.counts("q"), counts)
	slices.SortFunc(ready, func(x, y *job.Job) int { return int(x.ReadySeq) - int(y.ReadySeq) }) //nolint:gosec // small numbers
	heads := b.heads("q", len(ready))
	b.equal("heads", heads, seqs(ready)[:len(heads)])
}
