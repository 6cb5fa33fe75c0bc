package top

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// inBubble runs a test in virtual time, with a picture that a list has begun.
func inBubble(t *testing.T, l *Lists, do func(m *Model)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		m := New(time.Now())
		m.Restart(time.Now())
		m.List(time.Now(), l)
		do(m)
	})
}

// happens tells the model of an event of now.
func happens(m *Model, e *stintv1.Event) {
	e.Time = timestamppb.Now()
	m.Watched(time.Now(), []*stintv1.Event{e}, true)
}

// take is the picture of now.
func take(m *Model) *Snapshot { return m.Take(time.Now(), "") }

// problems are a picture's, as text.
func problems(s *Snapshot) (all []string) {
	for _, p := range s.Problems {
		all = append(all, fmt.Sprintf("%s %s: %s", p.Rank, p.Name, p.Detail))
	}
	return all
}

func wantProblems(t *testing.T, m *Model, want ...string) {
	t.Helper()
	if got := problems(take(m)); !slices.Equal(got, want) {
		t.Errorf("the problems are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func queueOf(name string, ready uint64, oldest time.Duration) *stintv1.Queue {
	q := &stintv1.Queue{Name: name, Counts: &stintv1.JobCounts{Ready: ready}}
	if ready > 0 {
		q.OldestReadyAge = durationpb.New(oldest)
	}
	return q
}

func workerOf(name string, runs uint32, queues ...string) *stintv1.Worker {
	return &stintv1.Worker{
		InstanceId: name + "-id", Worker: name, Connected: true, Runs: runs, HeardTime: timestamppb.Now(),
		Pools: []*stintv1.Pool{{Queues: queues, MaxRuns: 8}},
	}
}

func TestNobodyServes(t *testing.T) {
	lists := func() *Lists {
		return &Lists{
			Queues: []*stintv1.Queue{
				queueOf("served", 5, 10*time.Second), queueOf("drained", 5, 10*time.Second), queueOf("fresh", 5, time.Second),
				queueOf("empty", 0, 0), queueOf("alone", 1, 6*time.Second),
			},
			Workers: []*stintv1.Worker{workerOf("a", 0, "served"), workerOf("b", 0, "drained")},
		}
	}
	inBubble(t, lists(), func(m *Model) {
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_WORKER_DRAINING, InstanceId: "b-id", Reason: "new kernel"})
		wantProblems(t, m,
			"no worker drained: 5 jobs wait, the oldest for 10s", "no worker alone: 1 job waits, the oldest for 6s", "draining b: finishes 0 runs: new kernel")
		// One that claims by calls has no pool, but runs begin.
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_RUN_DISPATCHED, Queue: "drained"})
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_RUN_DISPATCHED, Queue: "alone"})
		wantProblems(t, m, "draining b: finishes 0 runs: new kernel")
		time.Sleep(20 * time.Second)
		m.List(time.Now(), lists())
		if got := problems(take(m)); len(got) != 1 {
			t.Errorf("after they have stopped to begin the problems are %q", got)
		}
	})
}

func TestQueueProblems(t *testing.T) {
	bad := &stintv1.Queue{
		Name: "bad", Counts: &stintv1.JobCounts{Ready: 7, Running: 1, Parked: 1200}, Zombies: 2, OldestReadyAge: durationpb.New(2 * time.Hour),
	}
	inBubble(t, &Lists{Queues: []*stintv1.Queue{bad, queueOf("good", 0, 0)}}, func(m *Model) {
		wantProblems(t, m,
			"zombies bad: 2 runs left behind, maybe still at work", "parked bad: 1,200 jobs for a person to look at", "long wait bad: ready for 2h00m, 7 wait")
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_QUEUE_PAUSED, Queue: "bad", Reason: "disk full", Requester: "ada"})
		for range 3 {
			happens(m, &stintv1.Event{
				Kind: stintv1.EventKind_EVENT_KIND_RUN_ENDED, Queue: "bad", RunState: stintv1.RunState_RUN_STATE_FAILED, Reason: "no such file",
			})
		}
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_RUN_ENDED, Queue: "bad", RunState: stintv1.RunState_RUN_STATE_SUCCEEDED})
		happens(m, &stintv1.Event{
			Kind: stintv1.EventKind_EVENT_KIND_GATE_CLOSED, Queue: "bad", Reason: "429", Until: timestamppb.New(time.Now().Add(30 * time.Second)),
		})
		time.Sleep(10 * time.Second)
		wantProblems(t, m,
			"gate closed bad: for 20s more: 429", "zombies bad: 2 runs left behind, maybe still at work",
			"parked bad: 1,200 jobs for a person to look at", "paused bad: for 10s by ada: disk full; 7 jobs wait",
			"failures bad: 3 runs in the last minute; the last: no such file")
		if row := take(m).Queues[0]; row.Name != "bad" || row.State != "PAUSED" || row.Worst != GateClosed || row.Failures != 3 {
			t.Errorf("the first queue is %+v", row)
		}
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_QUEUE_RESUMED, Queue: "bad"})
		time.Sleep(50 * time.Second)
		wantProblems(t, m,
			"zombies bad: 2 runs left behind, maybe still at work", "parked bad: 1,200 jobs for a person to look at", "long wait bad: ready for 2h00m, 7 wait")
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_QUEUE_DELETED, Queue: "bad"})
		wantProblems(t, m)
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, now := New(time.Now()), time.Now()
		gate := &stintv1.Gate{
			TripTime: timestamppb.New(now), TryTime: timestamppb.New(now.Add(90 * time.Second)), Failures: 5, Failure: "connection refused",
		}
		m.List(now, &Lists{
			Queues: []*stintv1.Queue{{Name: "q", Gate: gate}},
			Limits: []*stintv1.Limit{{Name: "api"}, {Name: "idle", Policy: &stintv1.LimitPolicy{MaxUnits: 4}}},
			Usage: []Usage{{Limit: "api", Keys: []*stintv1.KeyUsage{
				{Key: "acme", MaxUnits: 2, LiveUnits: 1, WaitingJobs: 3, Gate: gate},
				{Key: "full", MaxUnits: 2, LiveUnits: 2, WaitingJobs: 9},
				{Key: "rated", Gate: &stintv1.Gate{NextPermitTime: timestamppb.New(now)}},
			}}},
		})
		wantProblems(t, m,
			"gate closed api=acme: limit, 5 failures in a row, one run may try in 1m30s: connection refused; 3 jobs wait",
			"gate closed q: 5 failures in a row, one run may try in 1m30s: connection refused")
		var got []string
		for _, l := range take(m).Limits {
			got = append(got, fmt.Sprintf("%s=%s %d/%d %d %s", l.Name, l.Key, l.Taken, l.Max, l.Waiting, l.State))
		}
		if want := []string{"api=acme 1/2 3 CLOSED", "api=full 2/2 9 ", "api=rated 0/0 0 RATE", "idle= 0/4 0 "}; !slices.Equal(got, want) {
			t.Errorf("the limits are %q, want %q", got, want)
		}
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_GATE_OPENED, Limit: "api", Key: "acme"})
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_GATE_OPENED, Queue: "q"})
		wantProblems(t, m)
		happens(m, &stintv1.Event{
			Kind: stintv1.EventKind_EVENT_KIND_GATE_CLOSED, Limit: "api", Key: "new", Until: timestamppb.New(time.Now().Add(time.Minute)),
		})
		wantProblems(t, m, "gate closed api=new: limit, for 1m00s more")
	})
}

func TestWorkersThatGo(t *testing.T) {
	inBubble(t, &Lists{Workers: []*stintv1.Worker{workerOf("a", 3, "q"), workerOf("b", 0, "q")}}, func(m *Model) {
		if s := take(m); s.Totals.Runs != 3 || s.Totals.Room != 16 {
			t.Errorf("the totals are %+v", s.Totals)
		}
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_WORKER_GONE, InstanceId: "a-id", Worker: "a"})
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_WORKER_GONE, InstanceId: "b-id", Worker: "b"})
		time.Sleep(7 * time.Second)
		left := workerOf("a", 3, "q")
		left.Connected, left.HeardTime = false, timestamppb.New(time.Now().Add(-7*time.Second))
		m.List(time.Now(), &Lists{Workers: []*stintv1.Worker{left}})
		wantProblems(t, m, "worker away a: 3 runs, silent for 7s", "worker gone b: its session ended 7s ago")
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_WORKER_RESUMED, InstanceId: "a-id", Worker: "a"})
		wantProblems(t, m, "worker gone b: its session ended 7s ago")
		time.Sleep(time.Minute)
		m.List(time.Now(), &Lists{Workers: []*stintv1.Worker{workerOf("a", 3, "q")}})
		wantProblems(t, m)
		if len(m.gone) != 0 {
			t.Errorf("%d workers that are long gone are remembered", len(m.gone))
		}
	})
}

func TestRatesOfEvents(t *testing.T) {
	inBubble(t, &Lists{Queues: []*stintv1.Queue{queueOf("q", 0, 0), queueOf("idle", 0, 0)}}, func(m *Model) {
		for range 40 {
			time.Sleep(50 * time.Millisecond)
			happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_JOB_SUBMITTED, Queue: "q"})
			happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_RUN_DISPATCHED, Queue: "q"})
			happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_RUN_ENDED, Queue: "q", RunState: stintv1.RunState_RUN_STATE_LOST})
			happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_JOB_ENDED, Queue: "q"})
		}
		s := take(m)
		if r := s.Rates; r != (Rates{Events: 80, Submits: 20, Starts: 20, Finishes: 20, Failures: 20, FailuresLastMinute: 40}) {
			t.Errorf("the rates are %+v", r)
		}
		if q := s.Queues[0]; q.Name != "q" || q.Starts != 20 || q.Ends != 20 {
			t.Errorf("the first queue is %+v", q)
		}
		wantProblems(t, m, "failures q: 40 runs in the last minute; the last: LOST")
		m.Restart(time.Now())
		if s := take(m); s.Rates != (Rates{}) || s.Queues[0].Starts != 0 || s.Measured != 0 {
			t.Errorf("after a gap the picture is %+v", s)
		}
	})
}

// TestSkewedServer: ages and rates are by the server's clock, whatever ours shows.
func TestSkewedServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(time.Now())
		m.Restart(time.Now())
		ahead := -5 * time.Hour
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			m.Watched(time.Now(), []*stintv1.Event{{
				Kind: stintv1.EventKind_EVENT_KIND_RUN_DISPATCHED, Queue: "q", Time: timestamppb.New(time.Now().Add(ahead)),
			}}, true)
		}
		m.Watched(time.Now(), []*stintv1.Event{{
			Kind: stintv1.EventKind_EVENT_KIND_QUEUE_PAUSED, Queue: "q", Time: timestamppb.New(time.Now().Add(ahead)),
		}}, true)
		if got := take(m).Rates.Starts; got != 10 {
			t.Errorf("the rate is %.1f, want 10", got)
		}
		time.Sleep(3 * time.Second)
		wantProblems(t, m, "paused q: for 3s")
	})
}

// TestBehind: of a server that does more than it tells, rates are those of what was told, as of then.
func TestBehind(t *testing.T) {
	inBubble(t, &Lists{}, func(m *Model) {
		at := time.Now()
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_JOB_SUBMITTED, Queue: "q"}) // It is live.
		for range 8 {                                                                            // In a second comes what happened in half of one.
			time.Sleep(time.Second)
			var told []*stintv1.Event
			for range 500 {
				at = at.Add(time.Millisecond)
				told = append(told, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_JOB_SUBMITTED, Queue: "q", Time: timestamppb.New(at)})
			}
			m.Watched(time.Now(), told, false)
		}
		s := take(m)
		if s.Rates.Submits < 990 || s.Rates.Submits > 1010 || s.Behind != Span(4*time.Second) {
			t.Errorf("the rate is %.1f, %s behind; want 1,000, 4s", s.Rates.Submits, s.Behind)
		}
		m.Watched(time.Now(), nil, true)
		if s := take(m); s.Behind != 0 || s.Rates.Submits > 300 {
			t.Errorf("after that nothing happened, but the rate is %.1f, %s behind", s.Rates.Submits, s.Behind)
		}
	})
}

func TestListsAreTheTruth(t *testing.T) {
	inBubble(t, &Lists{
		Queues: []*stintv1.Queue{queueOf("a", 1, 0), queueOf("b", 1, 0)},
		Limits: []*stintv1.Limit{{Name: "l"}}, Usage: []Usage{{Limit: "l", Keys: []*stintv1.KeyUsage{{Key: "k", LiveUnits: 1}}, More: true}},
	}, func(m *Model) {
		happens(m, &stintv1.Event{Kind: stintv1.EventKind_EVENT_KIND_JOB_SUBMITTED, Queue: "new"})
		if s := take(m); s.Totals.Queues != 3 {
			t.Errorf("a queue that events tell of is not there: %+v", s.Queues)
		}
		m.Lose(time.Now(), "connection refused")
		time.Sleep(4 * time.Second)
		m.Lose(time.Now(), "connection reset")
		if s := take(m); s.Away == nil || s.Away.Why != "connection reset" || s.AwayFor != Span(4*time.Second) {
			t.Errorf("while the server is away the picture is %+v", s)
		}
		m.List(time.Now(), &Lists{Queues: []*stintv1.Queue{queueOf("b", 1, 0)}, Limits: []*stintv1.Limit{{Name: "l"}}})
		s := take(m)
		if len(s.Queues) != 1 || s.Queues[0].Name != "b" || s.Away != nil {
			t.Errorf("after the list there are %+v, away %v", s.Queues, s.Away)
		}
		if len(s.Limits) != 1 || s.Limits[0].Taken != 1 || s.Limits[0].State != "MORE" {
			t.Errorf("a limit whose turn it was not is shown as %+v", s.Limits)
		}
	})
}

func TestFilter(t *testing.T) {
	inBubble(t, &Lists{
		Queues:  []*stintv1.Queue{queueOf("media/scale", 1, time.Hour), queueOf("mail", 2, time.Hour)},
		Workers: []*stintv1.Worker{workerOf("media-worker", 1), workerOf("other", 1)},
		Limits:  []*stintv1.Limit{{Name: "media"}, {Name: "db"}},
	}, func(m *Model) {
		s := m.Take(time.Now(), "media")
		if len(s.Queues) != 1 || len(s.Workers) != 1 || len(s.Limits) != 1 || len(s.Problems) != 1 || s.Totals.Ready != 3 || s.Totals.Queues != 2 {
			t.Errorf("the filtered picture is %+v", s)
		}
	})
}

// TestThousandsOfQueues: those with problems are first, then the busiest; a problem that all have does not hide another.
func TestThousandsOfQueues(t *testing.T) {
	l := &Lists{}
	for i := range 5000 {
		q := queueOf(fmt.Sprintf("q%04d", i), 0, 0)
		if i < 3000 {
			q.Counts.Parked = 1
		}
		l.Queues = append(l.Queues, q)
	}
	l.Queues[2000].Counts.Parked = 500
	l.Queues[4000].Pause = &stintv1.QueuePause{PauseTime: timestamppb.Now()}
	l.Queues[4999].Counts.Running = 10
	inBubble(t, l, func(m *Model) {
		s := take(m)
		if s.Queues[0].Name != "q2000" && s.Queues[0].Parked != 1 || s.Queues[3000].Name != "q4000" || s.Queues[3001].Name != "q4999" {
			t.Errorf("the order is %s, … %s, %s", s.Queues[0].Name, s.Queues[3000].Name, s.Queues[3001].Name)
		}
		picked := Pick(s.Problems, 3)
		if len(picked) != 3 || picked[0].Name != "q2000" || picked[1].Rank != JobsParked || picked[2].Rank != QueuePaused {
			t.Errorf("picked %+v", picked)
		}
		if got := Pick(s.Problems, 0); len(got) != 0 {
			t.Errorf("picked %d of none", len(got))
		}
	})
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1500 * time.Millisecond: "1s", 75 * time.Second: "1m15s", 47*time.Hour + 5*time.Minute: "47h05m", 50 * time.Hour: "2d02h",
	} {
		if got := Span(d).String(); got != want {
			t.Errorf("%s is shown as %s, want %s", d, got, want)
		}
	}
	if got, err := Span(1500 * time.Millisecond).MarshalJSON(); string(got) != `"1.500s"` {
		t.Errorf("in JSON it is %s, %v", got, err)
	}
	for n, want := range map[uint64]string{0: "0 jobs", 1: "1 job", 999: "999 jobs", 1000: "1,000 jobs", 1234567: "1,234,567 jobs"} {
		if got := Number(n, "job", "jobs"); got != want {
			t.Errorf("%d is shown as %s, want %s", n, got, want)
		}
	}
}
