package client

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

type workStream = conversation[stintv1.WorkRequest, stintv1.WorkResponse]

// running is a worker under test.
type running struct {
	*Worker
	stop context.CancelFunc
	done chan error
}

// run starts a worker on the queue "q".
func run(t *testing.T, c *Client, cfg WorkerConfig, concurrency int, h Handler) *running {
	t.Helper()
	w := c.NewWorker(cfg)
	w.Handle("q", concurrency, h)
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Worker: w, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- w.Run(ctx) }()
	return r
}

// ended waits for Run and returns its error.
func (r *running) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		t.Fatal("Run did not return")
		return nil
	}
}

// kill stops a worker in the fastest way; for the end of a test.
func (r *running) kill(t *testing.T) {
	t.Helper()
	r.stop()
	if err := r.client.Close(); err != nil {
		t.Error(err)
	}
	r.client.conn = nil
	_ = r.ended(t) // whatever it is: the connection is gone
}

// welcome answers hello with CONTINUE for every held run.
func welcome(t *testing.T, s *workStream, cadence float64) *stintv1.WorkRequest {
	t.Helper()
	req := s.recv(t)
	if req.Hello == nil {
		t.Fatalf("first message is %v; want hello", req)
	}
	answer := &stintv1.Welcome{ResumeToken: "resume-" + req.Hello.InstanceId, NextReportIn: seconds(cadence)}
	for _, token := range req.Hello.Held {
		answer.Verdicts = append(answer.Verdicts, goOn(token))
	}
	s.send(t, &stintv1.WorkResponse{Welcome: answer})
	return req
}

func goOn(token string) *stintv1.Verdict {
	return &stintv1.Verdict{LeaseToken: token, Action: stintv1.VerdictAction_VERDICT_ACTION_CONTINUE, Lease: seconds(30)}
}

func stopIt(token string, why stintv1.StopReason) *stintv1.Verdict {
	return &stintv1.Verdict{LeaseToken: token, Action: stintv1.VerdictAction_VERDICT_ACTION_STOP, StopReason: why}
}

// assignment is the run with the number n on a stream; its token is "t<n>".
func assignment(n int) *stintv1.Assignment {
	return &stintv1.Assignment{
		AssignmentSeq: uint64(n), LeaseToken: fmt.Sprint("t", n), JobId: fmt.Sprint("job", n), Queue: "q",
		RunNumber: 1, Fence: uint64(100 + n), Lease: seconds(30),
	}
}

// assign hands runs to the worker and waits until it has said that it saw them and has begun what it has room for: a run
// that is interrupted before it begins is not begun.
func assign(t *testing.T, s *workStream, runs ...*stintv1.Assignment) {
	t.Helper()
	s.send(t, &stintv1.WorkResponse{Assignments: runs})
	if req := s.recv(t); req.Seen != runs[len(runs)-1].AssignmentSeq {
		t.Fatalf("after an assignment the worker says %v; want seen", req)
	}
	synctest.Wait()
}

func recorded(token string) *stintv1.FinishAck {
	return &stintv1.FinishAck{
		LeaseToken: token, Status: stintv1.FinishStatus_FINISH_STATUS_RECORDED, JobState: stintv1.JobState_JOB_STATE_SUCCEEDED,
	}
}

func sorted(tokens []string) []string { return slices.Sorted(slices.Values(tokens)) }

// untilCancelled is a handler that does what is asked of it.
func untilCancelled(ctx context.Context, _ *Run) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestHelloAndDemandComeFirst(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{Name: "unit", BuildID: "b1", Labels: map[string]string{"zone": "a"}}, 3, untilCancelled)
		req := next(t, s.works).recv(t)
		want := &stintv1.WorkRequest{
			Seq: 1,
			Hello: &stintv1.Hello{
				Worker: "unit", InstanceId: w.InstanceID(), BuildId: "b1", Labels: map[string]string{"zone": "a"}, Sdk: Version,
			},
			Demand: &stintv1.Demand{Version: 1, Pools: []*stintv1.Pool{{Queues: []string{"q"}, MaxRuns: 3}}},
		}
		if diff := cmp.Diff(want, req, protocmp.Transform(), protocmp.IgnoreFields(&stintv1.Hello{}, "host", "pid")); diff != "" {
			t.Errorf("first message (-want +got):\n%s", diff)
		}
		if other := c.NewWorker(WorkerConfig{}).InstanceID(); other == w.InstanceID() || len(other) != 36 {
			t.Errorf("two workers have the instance ids %q and %q; want two UUIDs", w.InstanceID(), other)
		}
		w.kill(t)
	})
}

func TestRunFromAssignmentToAcknowledgement(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var events []Event
		w := run(t, c, WorkerConfig{OnEvent: func(e Event) { events = append(events, e) }}, 1, func(_ context.Context, run *Run) error {
			if string(run.Payload) != "in" || run.JobID != "job1" || run.Fence != 101 {
				t.Errorf("run = %+v", run)
			}
			time.Sleep(time.Millisecond)
			run.SetResult([]byte("out"), "text/plain")
			return nil
		})
		stream := next(t, s.works)
		welcome(t, stream, 15)
		a := assignment(1)
		a.Payload = &stintv1.Payload{Content: &stintv1.Payload_Data{Data: []byte("in")}}
		assign(t, stream, a)
		req := stream.recv(t)
		want := []*stintv1.Finish{{LeaseToken: "t1", Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{
			Result: &stintv1.Payload{Content: &stintv1.Payload_Data{Data: []byte("out")}, ContentType: "text/plain"},
		}}}}
		if diff := cmp.Diff(want, req.Finishes, protocmp.Transform()); diff != "" {
			t.Errorf("finishes (-want +got):\n%s", diff)
		}
		stream.quiet(t, time.Second) // a finish is sent once
		if s := w.Stats(); s.Held != 1 || s.Unacknowledged != 1 || !s.IdleSince.IsZero() {
			t.Errorf("before the acknowledgement: %+v", s)
		}
		idle := w.Idle()
		stream.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{recorded("t1")}})
		<-idle
		w.kill(t)
		if s := w.Stats(); s.Held != 0 || s.Recorded != 1 || s.Assigned != 1 || s.IdleSince.IsZero() {
			t.Errorf("after the acknowledgement: %+v", s)
		}
		var kinds []EventKind
		for _, e := range events {
			kinds = append(kinds, e.Kind)
		}
		if diff := cmp.Diff([]EventKind{SessionOpened, RunAssigned, RunStarted, RunFinished, JobConsumed}, kinds[:5]); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if e := events[3]; e.Status != stintv1.FinishStatus_FINISH_STATUS_RECORDED || e.JobState != stintv1.JobState_JOB_STATE_SUCCEEDED {
			t.Errorf("RunFinished = %+v", e)
		}
	})
}

func TestReportsKeepTheCadenceAndListExactlyWhatIsHeld(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		end := make(chan struct{})
		w := run(t, c, WorkerConfig{}, 4, func(ctx context.Context, run *Run) error {
			if run.JobID == "job1" {
				<-end
				return nil
			}
			return untilCancelled(ctx, run)
		})
		stream := next(t, s.works)
		welcome(t, stream, 3)
		start := time.Now()
		assign(t, stream, assignment(1), assignment(2))

		report := func(at time.Duration, held ...string) *stintv1.WorkRequest {
			t.Helper()
			req := stream.recv(t)
			if req.Report == nil {
				t.Fatalf("got %v; want a report", req)
			}
			if got := time.Since(start); got != at {
				t.Errorf("report after %v; want %v", got, at)
			}
			if diff := cmp.Diff(held, sorted(req.Report.Held)); diff != "" {
				t.Errorf("held (-want +got):\n%s", diff)
			}
			return req
		}
		answer := func(req *stintv1.WorkRequest, cadence float64, verdicts ...*stintv1.Verdict) {
			stream.send(t, &stintv1.WorkResponse{ReportAnswer: &stintv1.ReportAnswer{
				Seq: req.Seq, Verdicts: verdicts, NextReportIn: seconds(cadence),
			}})
		}
		answer(report(3*time.Second, "t1", "t2"), 2.5, goOn("t1"), goOn("t2"))
		assign(t, stream, assignment(3))
		req := report(5500*time.Millisecond, "t1", "t2", "t3")
		// A finish that is not acknowledged is listed; its FINISHED ends that, before the acknowledgement does.
		close(end)
		if f := stream.recv(t); len(f.Finishes) != 1 {
			t.Fatalf("got %v; want a finish", f)
		}
		answer(req, 3, goOn("t1"), goOn("t2"), goOn("t3"))
		req = report(8500*time.Millisecond, "t1", "t2", "t3")
		answer(req, 3, &stintv1.Verdict{LeaseToken: "t1", Action: stintv1.VerdictAction_VERDICT_ACTION_FINISHED}, goOn("t2"), goOn("t3"))
		answer(report(11500*time.Millisecond, "t2", "t3"), 3, goOn("t2"), goOn("t3"))
		stream.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{recorded("t1")}})
		synctest.Wait()
		if s := w.Stats(); s.Held != 2 || s.Recorded != 1 {
			t.Errorf("stats = %+v", s)
		}
		w.kill(t)
	})
}

func TestShortLeaseBringsTheReportForward(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, untilCancelled)
		stream := next(t, s.works)
		welcome(t, stream, 15)
		time.Sleep(time.Second)
		a := assignment(1)
		a.Lease = seconds(5)
		start := time.Now()
		assign(t, stream, a)
		if req := stream.recv(t); req.Report == nil || time.Since(start) != 2500*time.Millisecond {
			t.Errorf("after %v the worker says %v; want a report after half a lease", time.Since(start), req)
		}
		w.kill(t)
	})
}

func TestUnansweredReportEndsTheStream(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, untilCancelled)
		first := next(t, s.works)
		welcome(t, first, 3)
		assign(t, first, assignment(1))
		start := time.Now()
		if req := first.recv(t); req.Report == nil {
			t.Fatalf("got %v; want a report", req)
		}
		second := next(t, s.works)
		if took := time.Since(start); took < 9*time.Second || took > 9*time.Second+backoffBase {
			t.Errorf("new stream %v after the last welcome; want two cadences after the report, and at most %v more", took, backoffBase)
		}
		req := welcome(t, second, 3)
		if req.Hello.ResumeToken != "resume-"+w.InstanceID() || req.Hello.InstanceId != w.InstanceID() {
			t.Errorf("hello = %v; want the same instance and the resume token", req.Hello)
		}
		if diff := cmp.Diff([]string{"t1"}, req.Hello.Held); diff != "" {
			t.Errorf("held (-want +got):\n%s", diff)
		}
		if req := second.recv(t); req.Report == nil || !slices.Equal(req.Report.Held, []string{"t1"}) {
			t.Errorf("got %v; want a report of the adopted run", req)
		}
		if s := w.Stats(); s.Adopted != 1 || s.Sessions != 2 {
			t.Errorf("stats = %+v", s)
		}
		w.kill(t)
	})
}

func TestSilentServerAtHello(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, untilCancelled)
		next(t, s.works).recv(t)
		start := time.Now()
		welcome(t, next(t, s.works), 3)
		if took := time.Since(start); took < handshakeTimeout || took > handshakeTimeout+backoffBase {
			t.Errorf("new stream after %v; want %v", took, handshakeTimeout)
		}
		w.kill(t)
	})
}

func TestReconnectsWithFullJitter(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, untilCancelled)
		var pauses []time.Duration
		for n := range 60 {
			stream := next(t, s.works)
			stream.recv(t)
			before := time.Now()
			stream.fail(status.Error(codes.Unavailable, "not yet"))
			synctest.Wait()
			again := next(t, s.works)
			pauses = append(pauses, time.Since(before))
			if ceiling := min(backoffMax, backoffBase<<min(2*n, 10)); pauses[n] > ceiling {
				t.Errorf("pause %d is %v; want at most %v", n, pauses[n], ceiling)
			}
			again.fail(status.Error(codes.Unavailable, "not yet"))
		}
		late := pauses[10:]
		if lo, hi := slices.Min(late), slices.Max(late); lo > time.Second || hi < 4*time.Second {
			t.Errorf("late pauses between %v and %v; want them spread from zero to %v", lo, hi, backoffMax)
		}
		w.kill(t)
	})
}

func TestFinishIsSentAgainOnANewStreamUntilAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 2, func(context.Context, *Run) error { time.Sleep(time.Millisecond); return nil })
		first := next(t, s.works)
		welcome(t, first, 3)
		assign(t, first, assignment(1))
		if req := first.recv(t); len(req.Finishes) != 1 {
			t.Fatalf("got %v; want a finish", req)
		}
		first.fail(status.Error(codes.Unavailable, "gone"))
		second := next(t, s.works)
		if req := second.recv(t); !slices.Equal(req.Hello.GetHeld(), []string{"t1"}) {
			t.Fatalf("got %v; want a hello that lists the run", req)
		}
		// FINISHED at welcome: the acknowledgement may have gone down with the old stream, so the finish comes again.
		second.send(t, &stintv1.WorkResponse{Welcome: &stintv1.Welcome{NextReportIn: seconds(3), Verdicts: []*stintv1.Verdict{
			{LeaseToken: "t1", Action: stintv1.VerdictAction_VERDICT_ACTION_FINISHED},
		}}})
		req := second.recv(t)
		if len(req.Finishes) != 1 || req.Finishes[0].GetLeaseToken() != "t1" || req.Finishes[0].GetSuccess() == nil {
			t.Fatalf("got %v; want the finish again", req)
		}
		if req := second.recv(t); req.Report == nil || len(req.Report.Held) != 0 {
			t.Fatalf("got %v; want a report without the finished run", req)
		}
		second.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{
			{LeaseToken: "t1", Status: stintv1.FinishStatus_FINISH_STATUS_DUPLICATE},
		}})
		<-w.Idle()
		second.fail(status.Error(codes.Unavailable, "gone"))
		if req := welcome(t, next(t, s.works), 3); len(req.Hello.Held) != 0 {
			t.Errorf("hello = %v; want nothing held", req.Hello)
		}
		w.kill(t)
	})
}

func TestEveryAcknowledgementEndsTheHold(t *testing.T) {
	for status := stintv1.FinishStatus_FINISH_STATUS_RECORDED; status <= stintv1.FinishStatus_FINISH_STATUS_UNKNOWN; status++ {
		t.Run(status.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				w := run(t, c, WorkerConfig{}, 2, func(context.Context, *Run) error { time.Sleep(time.Millisecond); return nil })
				stream := next(t, s.works)
				welcome(t, stream, 3)
				assign(t, stream, assignment(1))
				stream.recv(t)
				stream.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{{LeaseToken: "t1", Status: status}}})
				<-w.Idle()
				if req := stream.recv(t); req.Report == nil || len(req.Report.Held) != 0 || len(req.Finishes) != 0 {
					t.Errorf("got %v; want an empty report", req)
				}
				if s := w.Stats(); s.Recorded+s.Dropped != 1 {
					t.Errorf("stats = %+v", s)
				}
				w.kill(t)
			})
		})
	}
}

func TestRejectedFinish(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, func(_ context.Context, run *Run) error {
			time.Sleep(time.Millisecond)
			run.SetResult(make([]byte, 1<<20), "")
			return nil
		})
		stream := next(t, s.works)
		welcome(t, stream, 15)
		assign(t, stream, assignment(1))
		stream.recv(t)
		reject := &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{{
			LeaseToken: "t1", Status: stintv1.FinishStatus_FINISH_STATUS_REJECTED, Error: &stintv1.ItemError{
				Reason: stintv1.Reason_REASON_TOO_LARGE, Field: "success.result", Message: "1048576 bytes",
			},
		}}}
		stream.send(t, reject)
		f := stream.recv(t).GetFinishes()[0].GetFailure()
		if f.GetType() != "result_rejected" || !f.GetFinal() || f.GetMessage() != "the server rejected the result: TOO_LARGE: success.result: 1048576 bytes" {
			t.Errorf("after a rejection the worker finishes with %v", f)
		}
		stream.send(t, reject)
		<-w.Idle() // a second one is given up, not repeated for ever
		w.kill(t)
	})
}

func TestStopDropsTheResult(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		linger := make(chan struct{})
		causes := make(chan error, 1)
		w := run(t, c, WorkerConfig{}, 1, func(ctx context.Context, run *Run) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			<-linger
			run.SetResult([]byte("late"), "")
			return nil
		})
		stream := next(t, s.works)
		welcome(t, stream, 3)
		assign(t, stream, assignment(1))
		for i := range 20 { // listed until the handler is gone, at the server's pace also when its lease would be over
			asked := time.Now()
			req := stream.recv(t)
			if i > 0 && time.Since(asked) != 3*time.Second {
				t.Fatalf("the next report comes after %s; want 3s", time.Since(asked))
			}
			if !slices.Equal(req.GetReport().GetHeld(), []string{"t1"}) {
				t.Fatalf("got %v; want a report of the run", req)
			}
			stream.send(t, &stintv1.WorkResponse{ReportAnswer: &stintv1.ReportAnswer{
				Seq: req.Seq, NextReportIn: seconds(3), Verdicts: []*stintv1.Verdict{stopIt("t1", stintv1.StopReason_STOP_REASON_LOST)},
			}})
		}
		if cause := <-causes; !errors.Is(cause, ErrStopped) {
			t.Errorf("cause = %v; want ErrStopped", cause)
		}
		close(linger)
		<-w.Idle()
		if req := stream.recv(t); req.Report == nil || len(req.Report.Held) != 0 || len(req.Finishes) != 0 {
			t.Errorf("got %v; want an empty report and no finish", req)
		}
		w.kill(t)
	})
}

func TestStopAtWelcomeIsNotReported(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		linger := make(chan struct{})
		w := run(t, c, WorkerConfig{}, 2, func(context.Context, *Run) error { <-linger; return nil })
		first := next(t, s.works)
		welcome(t, first, 3)
		assign(t, first, assignment(1), assignment(2))
		first.fail(status.Error(codes.Unavailable, "gone"))
		second := next(t, s.works)
		if req := second.recv(t); !slices.Equal(sorted(req.GetHello().GetHeld()), []string{"t1", "t2"}) {
			t.Fatalf("got %v; want a hello that lists both", req)
		}
		second.send(t, &stintv1.WorkResponse{Welcome: &stintv1.Welcome{NextReportIn: seconds(3), Verdicts: []*stintv1.Verdict{
			stopIt("t1", stintv1.StopReason_STOP_REASON_LOST), goOn("t2"),
		}}})
		if req := second.recv(t); !slices.Equal(req.GetReport().GetHeld(), []string{"t2"}) {
			t.Errorf("got %v; want a report of the adopted run only", req)
		}
		second.fail(status.Error(codes.Unavailable, "gone"))
		if req := next(t, s.works).recv(t); !slices.Equal(sorted(req.GetHello().GetHeld()), []string{"t1", "t2"}) {
			t.Errorf("got %v; want a hello that still lists the run whose handler is not gone", req)
		}
		close(linger)
		w.kill(t)
	})
}

// TestLostContactContinue: a run whose queue says so goes on while the server does not answer.
func TestLostContactContinue(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		end := make(chan struct{})
		causes := make(chan error, 2)
		w := run(t, c, WorkerConfig{}, 2, func(ctx context.Context, run *Run) error {
			select {
			case <-ctx.Done():
				causes <- fmt.Errorf("%s: %w", run.JobID, context.Cause(ctx))
			case <-end:
			}
			return nil
		})
		stream := next(t, s.works)
		welcome(t, stream, 3)
		goesOn := assignment(2)
		goesOn.LostContact = stintv1.LostContact_LOST_CONTACT_CONTINUE
		assign(t, stream, assignment(1), goesOn)
		// From here on every stream is mute.
		if cause := <-causes; !strings.HasPrefix(cause.Error(), "job1: ") {
			t.Errorf("interrupted: %v", cause)
		}
		time.Sleep(time.Minute)
		select {
		case cause := <-causes:
			t.Errorf("interrupted: %v", cause)
		default:
		}
		close(end)
		w.kill(t)
	})
}

func TestLocalDeadline(t *testing.T) {
	for name, test := range map[string]struct {
		answers int // of reports, three seconds apart
		want    time.Duration
	}{
		"from receipt":                     {0, 27 * time.Second},
		"from the last answered report on": {4, 12*time.Second + 27*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				causes := make(chan error, 1)
				w := run(t, c, WorkerConfig{}, 1, func(ctx context.Context, _ *Run) error {
					<-ctx.Done()
					causes <- context.Cause(ctx)
					return context.Cause(ctx)
				})
				stream := next(t, s.works)
				welcome(t, stream, 3)
				start := time.Now()
				assign(t, stream, assignment(1))
				for range test.answers {
					req := stream.recv(t)
					stream.send(t, &stintv1.WorkResponse{ReportAnswer: &stintv1.ReportAnswer{
						Seq: req.Seq, NextReportIn: seconds(3), Verdicts: []*stintv1.Verdict{goOn("t1")},
					}})
				}
				// From here on every stream is mute.
				var lost *InterruptError
				if cause := <-causes; !errors.As(cause, &lost) || lost.Source != SourceLostContact {
					t.Errorf("cause = %v; want LOST_CONTACT", cause)
				}
				if got := time.Since(start); got != test.want {
					t.Errorf("interrupted after %v; want %v", got, test.want)
				}
				for {
					stream = next(t, s.works)
					if len(s.works) == 0 {
						break
					}
				}
				welcome(t, stream, 3)
				if got := stream.recv(t).GetFinishes()[0].GetInterrupted().GetReason(); got != "LOST_CONTACT" {
					t.Errorf("reason = %q", got)
				}
				w.kill(t)
			})
		})
	}
}

func TestPanicIsAFailureWithItsStack(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, func(context.Context, *Run) error { panic("boom") })
		stream := next(t, s.works)
		welcome(t, stream, 15)
		stream.send(t, &stintv1.WorkResponse{Assignments: []*stintv1.Assignment{assignment(1)}})
		var f *stintv1.Failure
		for f == nil {
			for _, finish := range stream.recv(t).GetFinishes() {
				f = finish.GetFailure()
			}
		}
		if f.GetType() != "panic" || f.GetMessage() != "boom" {
			t.Errorf("failure = %v", f)
		}
		const want = "github.com/stintrun/stint/client.TestPanicIsAFailureWithItsStack.func1.1"
		if got := f.GetStack()[0].GetFunction(); got != want {
			t.Errorf("innermost frame = %q; want %q", got, want)
		}
		w.kill(t)
	})
}

func TestGoexitIsAFailureAndCostsNoSlot(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 1, func(_ context.Context, run *Run) error {
			time.Sleep(time.Millisecond)
			if run.JobID == "job1" {
				runtime.Goexit()
			}
			return nil
		})
		stream := next(t, s.works)
		welcome(t, stream, 15)
		assign(t, stream, assignment(1))
		if got := stream.recv(t).GetFinishes()[0].GetFailure().GetType(); got != "goexit" {
			t.Errorf("type = %q", got)
		}
		assign(t, stream, assignment(2))
		if stream.recv(t).GetFinishes()[0].GetSuccess() == nil {
			t.Error("the next run did not succeed")
		}
		w.kill(t)
	})
}
