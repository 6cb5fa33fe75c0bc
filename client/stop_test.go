package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// drains reads the message in which the worker says that it wants no more, and echoes it.
func drains(t *testing.T, s *workStream) {
	t.Helper()
	req := s.recv(t)
	if req.Drain == nil || req.Demand == nil || len(req.Demand.Pools) != 0 {
		t.Fatalf("got %v; want a demand without pools and a drain", req)
	}
	s.send(t, &stintv1.WorkResponse{DemandVersion: req.Demand.Version, Drained: true})
}

func TestGracefulStopWaitsForHandlersAndAcknowledgements(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{ShutdownGrace: 20 * time.Second}, 1, func(context.Context, *Run) error {
			time.Sleep(10 * time.Second)
			return nil
		})
		stream := next(t, s.works)
		welcome(t, stream, 15)
		assign(t, stream, assignment(1))
		w.stop()
		drains(t, stream)
		if req := stream.recv(t); len(req.Finishes) != 1 || req.Finishes[0].GetSuccess() == nil {
			t.Fatalf("got %v; want the success of the run under way", req)
		}
		synctest.Wait()
		select {
		case err := <-w.done:
			t.Fatalf("Run returned %v before its finish was acknowledged", err)
		default:
		}
		stream.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{recorded("t1")}})
		if err := w.ended(t); err != nil {
			t.Errorf("Run: %v", err)
		}
		if said := stream.ended(t); len(said) != 0 {
			t.Errorf("at the end the worker said %v", said)
		}
	})
}

func TestStopInterruptsAfterItsGrace(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		causes := make(chan error, 1)
		w := run(t, c, WorkerConfig{ShutdownGrace: 2 * time.Second}, 1, func(ctx context.Context, _ *Run) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return ctx.Err()
		})
		stream := next(t, s.works)
		welcome(t, stream, 15)
		assign(t, stream, assignment(1))
		start := time.Now()
		w.Stop()
		drains(t, stream)
		var e *InterruptError
		if cause := <-causes; !errors.As(cause, &e) || e.Level != retry || e.Source != SourceShutdown {
			t.Errorf("cause = %v; want RETRY by SHUTDOWN", cause)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("interrupted after %v; want the grace", took)
		}
		if req := stream.recv(t); req.GetFinishes()[0].GetInterrupted() == nil {
			t.Errorf("got %v; want interrupted", req)
		}
		stream.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{recorded("t1")}})
		if err := w.ended(t); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestStopGivesUpOnAHandlerThatStays(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		end := make(chan struct{})
		w := run(t, c, WorkerConfig{ShutdownGrace: 2 * time.Second, CancelGrace: 3 * time.Second}, 1, func(context.Context, *Run) error {
			<-end
			return nil
		})
		stream := next(t, s.works)
		welcome(t, stream, 15)
		assign(t, stream, assignment(1))
		start := time.Now()
		w.Stop()
		err := w.ended(t)
		if err == nil || !strings.Contains(err.Error(), "1 handlers still at work") {
			t.Errorf("Run: %v; want that it left a handler behind", err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("gave up after %v; want both graces", took)
		}
		close(end)
	})
}

func TestStopWithoutAServerIsPrompt(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, untilCancelled)
		stream := next(t, s.works)
		stream.recv(t)
		stream.fail(status.Error(codes.Unavailable, "gone"))
		synctest.Wait()
		start := time.Now()
		w.Stop()
		if err := w.ended(t); err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("an idle worker without a session took %v to stop", took)
		}
	})
}

func TestStopWithAMuteServerEnds(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, untilCancelled)
		welcome(t, next(t, s.works), 15)
		synctest.Wait()
		start := time.Now()
		w.Stop()
		if err := w.ended(t); err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(start); took != farewell {
			t.Errorf("took %v; want %v", took, farewell)
		}
	})
}

func TestStopBeforeRun(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := c.NewWorker(WorkerConfig{})
		w.Handle("q", 1, untilCancelled)
		w.Stop()
		if err := w.Run(t.Context()); err != nil || len(s.works) != 0 {
			t.Errorf("Run: %v, %d streams; want nil and none", err, len(s.works))
		}
		if err := w.Run(t.Context()); err == nil {
			t.Error("a second Run succeeds; want an error")
		}
	})
}

func TestDrainByAnOperator(t *testing.T) {
	for name, grace := range map[string]time.Duration{"with grace": 40 * time.Second, "without an end": 0} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				w := run(t, c, WorkerConfig{ShutdownGrace: time.Second}, 1, func(ctx context.Context, _ *Run) error {
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(10 * time.Hour):
						return nil
					}
				})
				stream := next(t, s.works)
				welcome(t, stream, 15)
				a := assignment(1)
				a.Lease = seconds(24 * 3600)
				assign(t, stream, a)
				start := time.Now()
				notice := &stintv1.DrainNotice{Reason: "new kernel"}
				if grace > 0 {
					notice.Grace = seconds(grace.Seconds())
				}
				stream.send(t, &stintv1.WorkResponse{Drain: notice})
				drains(t, stream)
				var f *stintv1.Finish
				for f == nil {
					req := stream.recv(t)
					if req.Report != nil {
						stream.send(t, &stintv1.WorkResponse{ReportAnswer: &stintv1.ReportAnswer{
							Seq: req.Seq, NextReportIn: seconds(300), Verdicts: []*stintv1.Verdict{{LeaseToken: "t1", Action: 1}},
						}})
					}
					for _, finish := range req.Finishes {
						f = finish
					}
				}
				if grace > 0 && (time.Since(start) != grace || f.GetInterrupted().GetReason() != "new kernel") {
					t.Errorf("after %v the worker finishes with %v; want an interruption after the operator's grace", time.Since(start), f)
				}
				if grace == 0 && (time.Since(start) < 9*time.Hour || f.GetSuccess() == nil) {
					t.Errorf("after %v the worker finishes with %v; want the handler's own end", time.Since(start), f)
				}
				stream.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{recorded("t1")}})
				if err := w.ended(t); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		})
	}
}

func TestGoingAway(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		end := make(chan struct{})
		w := run(t, c, WorkerConfig{}, 2, func(ctx context.Context, run *Run) error {
			if run.JobID == "job1" {
				<-end
				return nil
			}
			return untilCancelled(ctx, run)
		})
		first := next(t, s.works)
		welcome(t, first, 15)
		assign(t, first, assignment(1), assignment(2))
		start := time.Now()
		first.send(t, &stintv1.WorkResponse{GoingAway: &stintv1.GoingAway{ReconnectIn: seconds(4)}})
		close(end)
		if req := first.recv(t); len(req.Finishes) != 1 {
			t.Errorf("got %v; want finishes to go on", req)
		}
		first.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{recorded("t1")}})
		second := next(t, s.works)
		if took := time.Since(start); took < 4*time.Second || took > 4*time.Second+backoffBase {
			t.Errorf("reconnected after %v; want 4 s", took)
		}
		if req := welcome(t, second, 15); !slices.Equal(req.Hello.Held, []string{"t2"}) {
			t.Errorf("hello = %v; want the run that goes on", req.Hello)
		}
		synctest.Wait()
		if s := w.Stats(); s.Adopted != 1 || s.Held != 1 {
			t.Errorf("stats = %+v", s)
		}
		w.kill(t)
	})
}

func TestErrorsThatEndTheWorker(t *testing.T) {
	for name, test := range map[string]struct {
		before, after error // what the streams end with, before and after the first welcome
		reason        stintv1.Reason
		atLeast       time.Duration
	}{
		"replaced":         {after: refusal(codes.Aborted, "SESSION_REPLACED"), reason: stintv1.Reason_REASON_SESSION_REPLACED},
		"in use":           {before: refusal(codes.AlreadyExists, "INSTANCE_IN_USE"), reason: stintv1.Reason_REASON_INSTANCE_IN_USE, atLeast: 30 * time.Second},
		"in use, later":    {after: refusal(codes.AlreadyExists, "INSTANCE_IN_USE"), reason: stintv1.Reason_REASON_INSTANCE_IN_USE, atLeast: 30 * time.Second},
		"refused at start": {before: refusal(codes.InvalidArgument, "INVALID_FIELD"), reason: stintv1.Reason_REASON_INVALID_FIELD},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				w := run(t, c, WorkerConfig{}, 1, untilCancelled)
				start := time.Now()
				if test.before == nil {
					stream := next(t, s.works)
					welcome(t, stream, 15)
					assign(t, stream, assignment(1))
					stream.fail(test.after)
				}
				for {
					select {
					case stream := <-s.works:
						stream.fail(errors.Join(test.before, test.after).(interface{ Unwrap() []error }).Unwrap()[0])
						continue
					case err := <-w.done:
						if ReasonOf(err) != test.reason {
							t.Errorf("Run: %v; want %v", err, test.reason)
						}
					}
					break
				}
				if took := time.Since(start); took < test.atLeast || took > test.atLeast+2*backoffMax {
					t.Errorf("gave up after %v; want about %v", took, test.atLeast)
				}
				if s := w.Stats(); s.Held != s.Unacknowledged {
					t.Errorf("a handler is left: %+v", s)
				}
			})
		})
	}
}

func TestErrorsThatEndTheSessionOnly(t *testing.T) {
	for _, reason := range []string{"DELIVERY_TIMEOUT", "SESSION_SILENT", "SERVER_STOPPING", "INTERNAL", "SESSION_ORDER"} {
		t.Run(reason, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				w := run(t, c, WorkerConfig{}, 1, untilCancelled)
				stream := next(t, s.works)
				welcome(t, stream, 15)
				stream.fail(refusal(codes.InvalidArgument, reason))
				welcome(t, next(t, s.works), 15)
				w.kill(t)
			})
		})
	}
}

func TestRefusedDemandEndsTheWorker(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, untilCancelled)
		stream := next(t, s.works)
		welcome(t, stream, 15)
		stream.send(t, &stintv1.WorkResponse{ItemErrors: []*stintv1.WorkItemError{{Seq: 1, Part: "demand", Error: &stintv1.ItemError{
			Reason: stintv1.Reason_REASON_INVALID_FIELD, Field: "pools[0].queues[0]", Message: "bad name",
		}}}})
		if err := w.ended(t); ReasonOf(err) != stintv1.Reason_REASON_INVALID_FIELD {
			t.Errorf("Run: %v; want the refusal", err)
		}
	})
}

func TestMaxRunsIsExact(t *testing.T) {
	for _, test := range []struct{ maxRuns, concurrency, perMessage int }{{1, 1, 1}, {10, 4, 1}, {10, 4, 3}, {3, 8, 8}, {57, 16, 16}} {
		t.Run(fmt.Sprintf("%d of %d", test.maxRuns, test.concurrency), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				w := run(t, c, WorkerConfig{MaxRuns: test.maxRuns}, test.concurrency, func(_ context.Context, run *Run) error {
					time.Sleep(time.Duration(run.Fence%7) * time.Millisecond)
					return nil
				})
				stream := next(t, s.works)
				req := welcome(t, stream, 15)
				limit, inFlight, assigned := 0, 0, 0
				for {
					// The strictest server: what is freed is assigned again before the worker hears of the acknowledgement.
					if req.Demand != nil {
						limit = 0
						for _, p := range req.Demand.Pools {
							limit = int(p.MaxRuns)
						}
					}
					resp := &stintv1.WorkResponse{Drained: req.Drain != nil}
					for _, f := range req.Finishes {
						inFlight--
						resp.FinishAcks = append(resp.FinishAcks, recorded(f.LeaseToken))
					}
					for n := 0; inFlight < limit && n < test.perMessage; n++ {
						inFlight++
						assigned++
						resp.Assignments = append(resp.Assignments, assignment(assigned))
					}
					stream.send(t, resp)
					var ok bool
					if req, ok = <-stream.in; !ok {
						break
					}
				}
				if err := w.ended(t); err != nil {
					t.Errorf("Run: %v", err)
				}
				if s := w.Stats(); assigned != test.maxRuns || s.Recorded != uint64(test.maxRuns) {
					t.Errorf("the server assigned %d; %+v; want %d", assigned, s, test.maxRuns)
				}
			})
		})
	}
}

func TestAssignmentBeyondTheDemandGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, untilCancelled)
		stream := next(t, s.works)
		welcome(t, stream, 15)
		assign(t, stream, assignment(1))
		assign(t, stream, assignment(2)) // waits in the pool's queue
		stream.send(t, &stintv1.WorkResponse{Assignments: []*stintv1.Assignment{assignment(3)}})
		if req := stream.recv(t); len(req.Finishes) != 1 || req.Finishes[0].GetReleased().GetNotMe() == nil {
			t.Errorf("got %v; want the third run released", req)
		}
		w.kill(t)
	})
}

func TestConfigurationIsChecked(t *testing.T) {
	c := New(nil)
	for name, set := range map[string]func(*Worker){
		"no queue":       func(*Worker) {},
		"no handler":     func(w *Worker) { w.Handle("q", 1, nil) },
		"no concurrency": func(w *Worker) { w.Handle("q", 0, untilCancelled) },
		"twice":          func(w *Worker) { w.Handle("q", 1, untilCancelled); w.Handle("q", 1, untilCancelled) },
		"too many runs":  func(w *Worker) { w.Handle("q", maxRuns+1, untilCancelled) },
		"MaxRuns over two pools": func(w *Worker) {
			w.cfg.MaxRuns = 5
			w.Handle("a", 1, untilCancelled)
			w.Handle("b", 1, untilCancelled)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := c.NewWorker(WorkerConfig{})
			set(w)
			if err := w.Run(t.Context()); err == nil {
				t.Error("Run succeeds; want an error")
			}
		})
	}
}
