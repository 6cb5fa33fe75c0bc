package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func TestInterrupts(t *testing.T) {
	retryBy := &stintv1.Interrupt{Level: retry, Generation: 1, Reason: "make room", Source: stintv1.InterruptSource_INTERRUPT_SOURCE_USER, Requester: "ops", GraceLeft: seconds(7)}
	for name, test := range map[string]struct {
		returns func(ctx context.Context) error
		want    *stintv1.Finish
	}{
		"the context's error is an interruption": {
			func(ctx context.Context) error { return fmt.Errorf("copying: %w", ctx.Err()) },
			&stintv1.Finish{LeaseToken: "t1", Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Reason: "make room"}}},
		},
		"so is its cause": {
			context.Cause,
			&stintv1.Finish{LeaseToken: "t1", Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Reason: "make room"}}},
		},
		"and a call that it ended": {
			func(context.Context) error { return status.Error(codes.Canceled, "context canceled") },
			&stintv1.Finish{LeaseToken: "t1", Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Reason: "make room"}}},
		},
		"another error is a failure": {
			func(context.Context) error { return errors.New("disk full") },
			&stintv1.Finish{LeaseToken: "t1", Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Type: "error", Message: "disk full"}}},
		},
		"nil is a success": {
			func(context.Context) error { return nil },
			&stintv1.Finish{LeaseToken: "t1", Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				w := run(t, c, WorkerConfig{}, 1, func(ctx context.Context, run *Run) error {
					<-ctx.Done()
					want := &InterruptError{Level: retry, Reason: "make room", Source: SourceUser, Requester: "ops", Grace: 7 * time.Second}
					if diff := cmp.Diff(error(want), context.Cause(ctx)); diff != "" {
						t.Errorf("cause (-want +got):\n%s", diff)
					}
					if run.Level() != retry {
						t.Errorf("level = %v", run.Level())
					}
					return test.returns(ctx)
				})
				stream := next(t, s.works)
				welcome(t, stream, 3)
				assign(t, stream, assignment(1))
				verdict := goOn("t1")
				verdict.Interrupt = retryBy
				stream.send(t, &stintv1.WorkResponse{ReportAnswer: &stintv1.ReportAnswer{
					Seq: stream.recv(t).Seq, NextReportIn: seconds(3), Verdicts: []*stintv1.Verdict{verdict},
				}})
				var acks []*stintv1.InterruptAck
				var finishes []*stintv1.Finish
				for len(finishes) == 0 { // the acknowledgement travels with the finish or before it
					m := stream.recv(t)
					acks, finishes = append(acks, m.GetInterruptAcks()...), m.GetFinishes()
				}
				if diff := cmp.Diff([]*stintv1.Finish{test.want}, finishes, protocmp.Transform()); diff != "" {
					t.Errorf("finishes (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]*stintv1.InterruptAck{{LeaseToken: "t1", Generation: 1}}, acks, protocmp.Transform()); diff != "" {
					t.Errorf("acknowledgements (-want +got):\n%s", diff)
				}
				w.kill(t)
			})
		})
	}
}

// TestPushedInterrupts: what comes without a report is obeyed at once and renews nothing.
func TestPushedInterrupts(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		causes := make(chan error, 2)
		w := run(t, c, WorkerConfig{}, 2, func(ctx context.Context, _ *Run) error { <-ctx.Done(); causes <- context.Cause(ctx); return ctx.Err() })
		stream := next(t, s.works)
		welcome(t, stream, 15)
		assign(t, stream, assignment(1), assignment(2))
		stream.send(t, &stintv1.WorkResponse{Interrupts: []*stintv1.Verdict{
			{LeaseToken: "t1", Action: stintv1.VerdictAction_VERDICT_ACTION_CONTINUE, Interrupt: &stintv1.Interrupt{Level: 2, Generation: 3}},
			{LeaseToken: "unknown", Action: stintv1.VerdictAction_VERDICT_ACTION_STOP},
		}})
		if got, ok := errors.AsType[*InterruptError](<-causes); !ok || got.Level != 2 {
			t.Errorf("the cause is %v", got)
		}
		var said stintv1.WorkRequest
		for len(said.GetFinishes()) == 0 {
			proto.Merge(&said, stream.recv(t))
		}
		if acks := said.GetInterruptAcks(); len(acks) != 1 || acks[0].GetGeneration() != 3 || said.GetFinishes()[0].GetInterrupted() == nil {
			t.Errorf("said %v", &said)
		}
		stream.send(t, &stintv1.WorkResponse{Interrupts: []*stintv1.Verdict{
			{LeaseToken: "t2", Action: stintv1.VerdictAction_VERDICT_ACTION_STOP, StopReason: stintv1.StopReason_STOP_REASON_ABANDONED},
		}})
		if cause := <-causes; !errors.Is(cause, ErrStopped) {
			t.Errorf("the cause is %v", cause)
		}
		w.kill(t)
	})
}

// TestHooks: those of an abort run after a handler that gave way, those of a clean-up after every one, last registered
// first, and whatever they do the outcome is the handler's.
func TestHooks(t *testing.T) {
	for name, test := range map[string]struct {
		end   func(ctx context.Context) error
		cause bool // the run is interrupted
		want  string
	}{
		"success":                  {func(context.Context) error { return nil }, false, "clean 2, clean 1"},
		"failure":                  {func(context.Context) error { return errors.New("no") }, false, "clean 2, clean 1"},
		"panic":                    {func(context.Context) error { panic("no") }, false, "clean 2, clean 1"},
		"interrupted":              {func(ctx context.Context) error { return ctx.Err() }, true, "abort 2, abort 1, clean 2, clean 1"},
		"failure when interrupted": {func(context.Context) error { return errors.New("no") }, true, "abort 2, abort 1, clean 2, clean 1"},
		"success when interrupted": {func(context.Context) error { return nil }, true, "clean 2, clean 1"},
	} {
		t.Run(name, func(t *testing.T) {
			var called []string
			finishes := map[bool]*stintv1.Finish{}
			for _, hooked := range []bool{false, true} {
				bubble(t, func(t *testing.T, s *scripted, c *Client) {
					begun := make(chan struct{})
					w := run(t, c, WorkerConfig{}, 1, func(ctx context.Context, run *Run) error {
						if hooked {
							for _, n := range []string{"1", "2"} {
								run.OnCleanUp(func(context.Context) error { called = append(called, "clean "+n); panic("hook") })
								run.OnAbort(func(hook context.Context) error {
									called = append(called, "abort "+n)
									if end, ok := hook.Deadline(); hook.Err() != nil || !ok || time.Until(end) > hookTime {
										t.Errorf("the hook's context: %v, ends %v", hook.Err(), end)
									}
									return errors.New("hook")
								})
							}
						}
						if test.cause {
							close(begun)
							<-ctx.Done()
						}
						return test.end(ctx)
					})
					stream := next(t, s.works)
					welcome(t, stream, 15)
					stream.send(t, &stintv1.WorkResponse{Assignments: []*stintv1.Assignment{assignment(1)}})
					if test.cause {
						<-begun
						stream.send(t, &stintv1.WorkResponse{Interrupts: []*stintv1.Verdict{{
							LeaseToken: "t1", Action: stintv1.VerdictAction_VERDICT_ACTION_CONTINUE, Interrupt: &stintv1.Interrupt{Level: 1, Generation: 1},
						}}})
					}
					var said stintv1.WorkRequest
					for len(said.GetFinishes()) == 0 {
						proto.Merge(&said, stream.recv(t))
					}
					if f := said.GetFinishes()[0].GetFailure(); f != nil {
						f.Stack = nil
					}
					finishes[hooked] = said.GetFinishes()[0]
					w.kill(t)
				})
			}
			if got := strings.Join(called, ", "); got != test.want {
				t.Errorf("called %s; want %s", got, test.want)
			}
			if diff := cmp.Diff(finishes[false], finishes[true], protocmp.Transform()); diff != "" {
				t.Errorf("hooks change the outcome (-without +with):\n%s", diff)
			}
		})
	}
}

func TestLevelRisesAfterTheContextEnded(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		runs := make(chan *Run, 1)
		end := make(chan struct{})
		w := run(t, c, WorkerConfig{}, 1, func(_ context.Context, run *Run) error { runs <- run; <-end; return nil })
		stream := next(t, s.works)
		welcome(t, stream, 3)
		assign(t, stream, assignment(1))
		r := <-runs
		for _, level := range []stintv1.InterruptLevel{1, 2, 1} {
			verdict := goOn("t1")
			verdict.Interrupt = &stintv1.Interrupt{Level: level}
			stream.send(t, &stintv1.WorkResponse{ReportAnswer: &stintv1.ReportAnswer{
				Seq: stream.recv(t).Seq, NextReportIn: seconds(3), Verdicts: []*stintv1.Verdict{verdict},
			}})
			if acks := stream.recv(t).GetInterruptAcks(); len(acks) != 1 || acks[0].GetLeaseToken() != "t1" {
				t.Errorf("acknowledged: %v", acks)
			}
			if level == 2 && r.Level() != 2 {
				t.Errorf("level = %v; want CANCEL", r.Level())
			}
		}
		if r.Level() != 2 {
			t.Errorf("level = %v; want it never to fall", r.Level())
		}
		close(end)
		w.kill(t)
	})
}

// TestEveryGenerationIsHeard: who listens is told again when the grace ends sooner and when the level rises, not when the
// server repeats itself or gives more time.
func TestEveryGenerationIsHeard(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var mu sync.Mutex
		var heard []string
		w := run(t, c, WorkerConfig{OnEvent: func(e Event) {
			if why, ok := errors.AsType[*InterruptError](e.Err); ok && e.Kind == RunInterrupted {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, fmt.Sprint(why.Level.Number(), " ", why.Grace))
			}
		}}, 1, untilCancelledAnd(time.Minute))
		stream := next(t, s.works)
		welcome(t, stream, 15)
		assign(t, stream, assignment(1))
		for _, i := range []*stintv1.Interrupt{
			{Level: 1, Generation: 1, GraceLeft: seconds(30)},
			{Level: 1, Generation: 1, GraceLeft: seconds(29)}, // repeated
			{Level: 1, Generation: 2, GraceLeft: seconds(40)},
			{Level: 1, Generation: 3, GraceLeft: seconds(5)},
			{Level: 2, Generation: 4, GraceLeft: seconds(5)},
			{Level: 2, Generation: 5, GraceLeft: seconds(0)},
		} {
			stream.send(t, &stintv1.WorkResponse{Interrupts: []*stintv1.Verdict{
				{LeaseToken: "t1", Action: stintv1.VerdictAction_VERDICT_ACTION_CONTINUE, Interrupt: i},
			}})
			synctest.Wait()
		}
		w.kill(t)
		time.Sleep(time.Minute) // until the handler is gone
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff([]string{"1 30s", "1 5s", "2 5s", "2 1ns"}, heard); diff != "" {
			t.Errorf("heard (-want +got):\n%s", diff)
		}
	})
}

// TestLeaseIsLostInTheGrace: a run that is interrupted, and whose lease then runs out, may be somebody else's: who listens
// is told.
func TestLeaseIsLostInTheGrace(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		lost := make(chan time.Time, 1)
		w := run(t, c, WorkerConfig{OnEvent: func(e Event) {
			if why, ok := errors.AsType[*InterruptError](e.Err); ok && why.Source == SourceLostContact {
				lost <- time.Now()
			}
		}}, 1, untilCancelledAnd(time.Minute))
		stream := next(t, s.works)
		welcome(t, stream, 3)
		start := time.Now()
		assign(t, stream, assignment(1))
		stream.send(t, &stintv1.WorkResponse{Interrupts: []*stintv1.Verdict{{
			LeaseToken: "t1", Action: stintv1.VerdictAction_VERDICT_ACTION_CONTINUE,
			Interrupt: &stintv1.Interrupt{Level: 1, Generation: 1, GraceLeft: seconds(600)},
		}}})
		if got := (<-lost).Sub(start); got != 27*time.Second { // a lease of 30 s less a tenth
			t.Errorf("lost after %v", got)
		}
		w.kill(t)
		time.Sleep(time.Minute) // until the handler is gone
	})
}

// TestDrainedWorkerWaitsForTheGrace: handlers that a drain interrupts have the grace that the server gave them.
func TestDrainedWorkerWaitsForTheGrace(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{CancelGrace: 5 * time.Second}, 1, untilCancelledAnd(25*time.Second))
		stream := next(t, s.works)
		welcome(t, stream, 3)
		assign(t, stream, assignment(1))
		start := time.Now()
		stream.send(t, &stintv1.WorkResponse{
			Drain: &stintv1.DrainNotice{Grace: seconds(0)},
			Interrupts: []*stintv1.Verdict{{
				LeaseToken: "t1", Action: stintv1.VerdictAction_VERDICT_ACTION_CONTINUE,
				Interrupt: &stintv1.Interrupt{Level: 1, Generation: 1, GraceLeft: seconds(30)},
			}},
		})
		for {
			req := stream.recv(t)
			if len(req.GetFinishes()) > 0 {
				if got := time.Since(start); got != 25*time.Second || req.GetFinishes()[0].GetInterrupted() == nil {
					t.Errorf("after %v the worker says %v; want that the run was interrupted, after 25s", got, req)
				}
				break
			}
			if req.GetReport() != nil {
				stream.send(t, &stintv1.WorkResponse{ReportAnswer: &stintv1.ReportAnswer{
					Seq: req.Seq, NextReportIn: seconds(3), Verdicts: []*stintv1.Verdict{goOn("t1")},
				}})
			}
		}
		w.kill(t)
	})
}

// TestHookTime: hooks have what is left of the grace, and a second at least.
func TestHookTime(t *testing.T) {
	for _, c := range []struct{ linger, want time.Duration }{{12 * time.Second, 18 * time.Second}, {40 * time.Second, time.Second}} {
		bubble(t, func(t *testing.T, s *scripted, client *Client) {
			left := make(chan time.Duration, 1)
			w := run(t, client, WorkerConfig{}, 1, func(ctx context.Context, run *Run) error {
				run.OnCleanUp(func(ctx context.Context) error {
					end, _ := ctx.Deadline()
					left <- time.Until(end)
					return nil
				})
				return untilCancelledAnd(c.linger)(ctx, run)
			})
			stream := next(t, s.works)
			welcome(t, stream, 600)
			a := assignment(1)
			a.Lease = seconds(600)
			assign(t, stream, a)
			stream.send(t, &stintv1.WorkResponse{Interrupts: []*stintv1.Verdict{{
				LeaseToken: "t1", Action: stintv1.VerdictAction_VERDICT_ACTION_CONTINUE,
				Interrupt: &stintv1.Interrupt{Level: 1, Generation: 1, GraceLeft: seconds(30)},
			}}})
			if got := <-left; got != c.want {
				t.Errorf("after %v the hook has %v; want %v", c.linger, got, c.want)
			}
			w.kill(t)
		})
	}
}

// untilCancelledAnd is a handler that needs a while to give way.
func untilCancelledAnd(linger time.Duration) Handler {
	return func(ctx context.Context, _ *Run) error {
		<-ctx.Done()
		time.Sleep(linger)
		return context.Cause(ctx)
	}
}
