package simtest

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// resync is how long what was missed may stay unnoticed.
const resync = 30 * time.Second

// errand is a world with one worker of the SDK, that keeps its jobs until it is told to end them.
type errand struct {
	t     *testing.T
	w     *world
	l     *link
	began chan string       // the jobs whose handlers begin
	ends  map[string]func() // by job
	stop  func()            // ends the worker
	mu    sync.Mutex
}

func newErrand(t *testing.T, more ...grpc.DialOption) *errand {
	w := newWorld(t, 1)
	return &errand{t: t, w: w, l: w.connect(more...), began: make(chan string, 64), ends: map[string]func(){}, stop: func() {}}
}

// work starts the worker, and returns what ends it.
func (e *errand) work() {
	w := e.l.NewWorker(client.WorkerConfig{ShutdownGrace: -1})
	w.Handle("q", 8, func(ctx context.Context, run *client.Run) error {
		end := make(chan struct{})
		e.mu.Lock()
		e.ends[run.JobID] = sync.OnceFunc(func() { close(end) })
		e.mu.Unlock()
		e.began <- run.JobID
		select {
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	e.stop = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			e.t.Error(err)
		}
	})
	e.t.Cleanup(e.stop)
}

func (e *errand) submit(job client.Job) string {
	e.t.Helper()
	job.Queue = "q"
	answers, err := e.l.Submit(context.Background(), job)
	if err != nil || answers[0].Err != nil {
		e.t.Fatal(err, answers)
	}
	return answers[0].ID
}

func (e *errand) end(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ends[id]()
}

// begins checks that a job begins within the time from now on.
func (e *errand) begins(what string, within time.Duration) (id string) {
	e.t.Helper()
	from := time.Now()
	select {
	case id = <-e.began:
		e.t.Logf("%s: after %v", what, time.Since(from).Round(time.Millisecond))
	case <-time.After(within):
		e.t.Fatalf("%s: nothing begins within %v", what, within)
	}
	return id
}

// rests checks that nothing begins for a while.
func (e *errand) rests(d time.Duration) {
	e.t.Helper()
	select {
	case id := <-e.began:
		e.t.Fatalf("job %s begins", id)
	case <-time.After(d):
	}
}

func (e *errand) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// TestMissedWakeUps: whatever lets a job start is noticed within half a minute. It shows what it says when every wake-up of
// the server is dropped, in a build with the tag mutant_nowake (.ci/missed), and fails there without the sweep.
func TestMissedWakeUps(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]func(*errand){
		"a job comes": func(e *errand) {
			e.work()
			e.rests(time.Minute)
			e.submit(client.Job{})
			e.begins("a job for an idle worker", resync)
		},
		"a worker comes": func(e *errand) {
			e.submit(client.Job{})
			e.work()
			e.begins("a job that waits for a worker", resync)
		},
		"a run ends": func(e *errand) {
			_, err := e.l.Queues().PutLimit(ctx, &stintv1.PutLimitRequest{Name: "gpu", Policy: &stintv1.LimitPolicy{MaxUnits: 1}})
			e.must(err)
			e.work()
			uses := []*stintv1.LimitUse{{Name: "gpu", Units: 1}}
			e.submit(client.Job{Limits: uses})
			first := e.begins("the first", resync)
			e.submit(client.Job{Limits: uses})
			e.rests(time.Minute)
			e.end(first)
			e.begins("the next one of a limit", resync)
			e.submit(client.Job{Limits: uses})
			e.rests(time.Minute)
			_, err = e.l.Queues().PutLimit(ctx, &stintv1.PutLimitRequest{Name: "gpu", Policy: &stintv1.LimitPolicy{MaxUnits: 2}})
			e.must(err)
			e.begins("one more when the limit is raised", resync)
		},
		"a queue is resumed": func(e *errand) {
			e.work()
			e.submit(client.Job{})
			e.begins("the first", resync)
			_, err := e.l.Queues().PauseQueue(ctx, &stintv1.PauseQueueRequest{Name: "q"})
			e.must(err)
			e.submit(client.Job{})
			e.rests(time.Minute)
			_, err = e.l.Queues().ResumeQueue(ctx, &stintv1.ResumeQueueRequest{Name: "q"})
			e.must(err)
			e.begins("a job of a queue that was paused", resync)
		},
		"a time comes": func(e *errand) {
			e.work()
			e.submit(client.Job{RunAt: time.Now().Add(time.Minute)})
			e.rests(59 * time.Second)
			e.begins("a job whose time has come", time.Second+resync)
		},
		"a permit comes": func(e *errand) {
			_, err := e.l.Queues().UpdateQueue(ctx, &stintv1.UpdateQueueRequest{Name: "q", Policy: &stintv1.QueuePolicy{
				Rate: &stintv1.Rate{Permits: 1, Period: durationpb.New(time.Minute), Burst: 1},
			}})
			e.must(err)
			e.submit(client.Job{})
			e.work()
			e.begins("a job that waits for a permit", time.Minute+resync)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newErrand(t)
				test(e)
				e.stop()
			})
		})
	}
}

// lossy loses the first message of a Work stream that is said to be lost, in either direction.
type lossy struct {
	mu   sync.Mutex
	lost int
	out  func(*stintv1.WorkRequest) bool
	in   func(*stintv1.WorkResponse) bool
}

func (l *lossy) intercept(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := streamer(ctx, desc, cc, method, opts...)
	return &lossyStream{stream, l}, err
}

// loses reports whether this one is lost.
func (l *lossy) loses(it bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if it = it && l.lost == 0; it {
		l.lost++
	}
	return it
}

type lossyStream struct {
	grpc.ClientStream
	l *lossy
}

func (s *lossyStream) SendMsg(m any) error {
	if req, ok := m.(*stintv1.WorkRequest); ok && s.l.out != nil && s.l.loses(s.l.out(req)) {
		req.Demand = nil // hello, which it came with, arrives
	}
	return s.ClientStream.SendMsg(m)
}

func (s *lossyStream) RecvMsg(m any) error {
	for {
		if err := s.ClientStream.RecvMsg(m); err != nil {
			return err
		}
		if resp, ok := m.(*stintv1.WorkResponse); !ok || s.l.in == nil || !s.l.loses(s.l.in(resp)) {
			return nil
		}
	}
}

// TestLostMessages: a demand or an assignment that is lost on its way is repaired within half a minute, by the worker's reports
// or by the server, which sees that an assignment was not acknowledged.
func TestLostMessages(t *testing.T) {
	for name, l := range map[string]*lossy{
		"a demand":      {out: func(m *stintv1.WorkRequest) bool { return m.GetDemand() != nil }},
		"an assignment": {in: func(m *stintv1.WorkResponse) bool { return len(m.GetAssignments()) > 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newErrand(t, grpc.WithChainStreamInterceptor(l.intercept))
				id := e.submit(client.Job{})
				e.work()
				if got := e.begins("the job", resync); got != id {
					t.Errorf("job %s begins", got)
				}
				if l.lost != 1 {
					t.Error("nothing was lost")
				}
				e.end(id)
				e.stop()
				if j := e.w.list()[0]; j.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED || j.GetCounters().GetCrashes() != 0 {
					t.Errorf("the job is %v", j)
				}
			})
		})
	}
}

// TestClaimedRunsLive: what a worker of the SDK claims by ids is kept by its reports, over a new stream too, and is interrupted.
func TestClaimedRunsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		w := newWorld(t, 1)
		l := w.connect()
		answers, err := l.Submit(ctx, client.Job{Queue: "q"}, client.Job{Queue: "q"})
		if err != nil {
			t.Fatal(err)
		}
		browser := l.NewWorker(client.WorkerConfig{})
		interrupted := make(chan error, 1)
		browser.Handle("q", client.ClaimOnly, func(ctx context.Context, _ *client.Run) error {
			<-ctx.Done()
			interrupted <- context.Cause(ctx)
			return ctx.Err()
		})
		ended := make(chan error, 1)
		go func() { ended <- browser.Run(ctx) }()
		time.Sleep(time.Minute)
		claimed, err := browser.Claim(ctx, answers[1].ID)
		if err != nil || claimed[0].Run == nil {
			t.Fatal(claimed, err)
		}
		time.Sleep(5 * time.Minute)
		w.cut(false)
		time.Sleep(5 * time.Minute)
		j, err := l.Get(ctx, answers[1].ID)
		if err != nil || j.GetState() != stintv1.JobState_JOB_STATE_RUNNING || j.GetRunCount() != 1 {
			t.Fatalf("after ten minutes the job is %v, %v", j, err)
		}
		if _, err := l.Interrupt(ctx, stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL, "enough", answers[1].ID); err != nil {
			t.Fatal(err)
		}
		<-interrupted
		<-browser.Idle()
		browser.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for i, want := range []stintv1.JobState{stintv1.JobState_JOB_STATE_READY, stintv1.JobState_JOB_STATE_CANCELLED} {
			if j, err := l.Get(ctx, answers[i].ID); err != nil || j.GetState() != want {
				t.Errorf("job %d is %v, %v; want %v", i, j.GetState(), err, want)
			}
		}
	})
}
