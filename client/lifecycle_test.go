package client

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func TestStopReturnsAtOnceAndWaitWaits(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		end := make(chan struct{})
		w := run(t, c, WorkerConfig{ShutdownGrace: time.Hour}, 1, func(context.Context, *Run) error { <-end; return nil })
		stream := next(t, s.works)
		welcome(t, stream, 300)
		a := assignment(1)
		a.Lease = seconds(3600)
		assign(t, stream, a)

		begin := time.Now()
		if w.Wait(0) || !w.Dispatching() {
			t.Error("a worker at work has stopped, or does not dispatch")
		}
		if w.Wait(5*time.Second) || time.Since(begin) != 5*time.Second {
			t.Errorf("Wait(5s) of a worker at work took %v, or says that it has stopped", time.Since(begin))
		}
		begin = time.Now()
		w.Stop()
		if took := time.Since(begin); took != 0 || w.Dispatching() {
			t.Errorf("Stop took %v; dispatching: %v", took, w.Dispatching())
		}
		drains(t, stream)
		if w.Wait(time.Second) {
			t.Error("it has stopped while its handler is at work")
		}
		close(end)
		stream.recv(t)
		waited := make(chan bool)
		go func() { waited <- w.Wait(-1) }()
		synctest.Wait()
		select {
		case <-waited:
			t.Error("it has stopped before its finish was acknowledged")
		default:
		}
		stream.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{recorded("t1")}})
		if !<-waited || !w.Wait(0) || !w.Wait(time.Hour) {
			t.Error("a worker that has stopped is said not to have")
		}
		if err := w.ended(t); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestWaitOfAWorkerThatWasNotStarted(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := c.NewWorker(WorkerConfig{})
		w.Handle("q", 1, untilCancelled)
		if w.Wait(time.Minute) || w.Dispatching() {
			t.Error("a worker that was never started has stopped, or dispatches")
		}
		w.Stop()
		w.Stop()
		if !w.Wait(0) {
			t.Error("a worker that was stopped before it was started has not stopped")
		}
		if err := w.Run(t.Context()); err != nil || len(s.works) != 0 {
			t.Errorf("Run: %v with %d sessions; want nil and none", err, len(s.works))
		}
	})
}

func TestStartingTwiceIsHarmless(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		end := make(chan struct{})
		w := run(t, c, WorkerConfig{ShutdownGrace: time.Second, CancelGrace: time.Second}, 1, func(context.Context, *Run) error {
			<-end
			return nil
		})
		stream := next(t, s.works)
		welcome(t, stream, 300)
		assign(t, stream, assignment(1))

		ctx, cancel := context.WithCancel(t.Context())
		impatient, patient, late := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() { impatient <- w.Run(ctx) }()
		go func() { patient <- w.Run(t.Context()) }()
		synctest.Wait()
		cancel()
		if err := <-impatient; !errors.Is(err, context.Canceled) || !w.Dispatching() {
			t.Errorf("the second Run ends with %v, dispatching %v; want its own context's error, and a worker that goes on", err, w.Dispatching())
		}
		w.Stop()
		go func() { late <- w.Run(t.Context()) }() // it is stopping, and has not ended
		err := w.ended(t)
		if err == nil {
			t.Error("the worker left a handler behind and says nothing")
		}
		for _, other := range []error{<-patient, <-late} {
			if !errors.Is(other, err) {
				t.Errorf("another Run ends with %v; want %v as the first", other, err)
			}
		}
		if len(s.works) != 0 {
			t.Error("a second Run opened a session")
		}
		if err := w.Run(t.Context()); !errors.Is(err, ErrEnded) {
			t.Errorf("Run of a worker that has ended: %v; want ErrEnded", err)
		}
		close(end)
	})
}

func TestMaxRunsEndsTheWorkerByItself(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{MaxRuns: 2}, 1, func(context.Context, *Run) error { time.Sleep(time.Second); return nil })
		stream := next(t, s.works)
		req := welcome(t, stream, 300)
		for n := 1; n <= 2; n++ {
			if got := req.GetDemand().GetPools()[0].GetMaxRuns(); got != 1 {
				t.Fatalf("before run %d of 2 the worker demands %d", n, got)
			}
			stream.send(t, &stintv1.WorkResponse{Assignments: []*stintv1.Assignment{assignment(n)}})
			for req = stream.recv(t); len(req.Finishes) == 0; req = stream.recv(t) {
				if d := req.GetDemand(); d != nil && n == 1 {
					t.Fatalf("the worker changed its demand to %v", d)
				}
			}
			stream.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{recorded(req.Finishes[0].LeaseToken)}, Drained: n == 2})
			req = &stintv1.WorkRequest{Demand: &stintv1.Demand{Pools: []*stintv1.Pool{{MaxRuns: 1}}}}
			if n == 2 && w.Dispatching() {
				t.Error("after its last run the worker dispatches")
			}
		}
		if !w.Wait(time.Minute) {
			t.Fatal("after its last run the worker does not end")
		}
		if err := w.ended(t); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestOneAtATimeAndInParallel: the concurrency of Handle is the mode of the worker.
func TestOneAtATimeAndInParallel(t *testing.T) {
	for name, concurrency := range map[string]int{"one at a time": 1, "in parallel": 4} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				var running, most atomic.Int64
				w := run(t, c, WorkerConfig{}, concurrency, func(context.Context, *Run) error {
					n := running.Add(1)
					defer running.Add(-1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					time.Sleep(time.Second)
					return nil
				})
				stream := next(t, s.works)
				if got := welcome(t, stream, 300).GetDemand().GetPools()[0].GetMaxRuns(); int(got) != concurrency {
					t.Errorf("the worker demands %d runs", got)
				}
				assigned, acked := 0, 0
				for acked < 12 {
					resp := &stintv1.WorkResponse{}
					for assigned < 12 && assigned-acked < concurrency {
						assigned++
						resp.Assignments = append(resp.Assignments, assignment(assigned))
					}
					stream.send(t, resp)
					for again := true; again; {
						req := stream.recv(t)
						again = len(req.Finishes) == 0
						resp := &stintv1.WorkResponse{}
						for _, f := range req.Finishes {
							acked++
							resp.FinishAcks = append(resp.FinishAcks, recorded(f.LeaseToken))
						}
						if !again {
							stream.send(t, resp)
						}
					}
				}
				if got := most.Load(); got != int64(concurrency) {
					t.Errorf("at most %d handlers at once; want %d", got, concurrency)
				}
				w.kill(t)
			})
		})
	}
}
