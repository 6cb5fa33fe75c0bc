package client

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// chosen is the run of a claim by call.
func chosen(n int) *stintv1.Assignment {
	a := assignment(n)
	a.AssignmentSeq = 0
	return a
}

// gives answers a claim with these runs.
func gives(runs ...*stintv1.Assignment) func(*stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
	return func(req *stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
		answer := &stintv1.ClaimJobsResponse{Assignments: runs}
		for i, id := range req.GetJobIds() {
			r := &stintv1.ClaimResult{JobId: id, State: stintv1.JobState_JOB_STATE_RUNNING}
			if !slices.ContainsFunc(runs, func(a *stintv1.Assignment) bool { return a.GetJobId() == id }) {
				r.Worker = "other"
				r.Error = &stintv1.ItemError{Index: uint32(i), Reason: stintv1.Reason_REASON_RUN_ACTIVE} //nolint:gosec // small
			}
			answer.Results = append(answer.Results, r)
		}
		return answer, nil
	}
}

// claimOnly starts a worker that gets nothing by itself.
func claimOnly(t *testing.T, c *Client, h Handler) *running {
	t.Helper()
	return run(t, c, WorkerConfig{Name: "browser"}, ClaimOnly, h)
}

func TestClaimExecutesChosenJobs(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		end := make(chan struct{})
		w := claimOnly(t, c, func(context.Context, *Run) error { <-end; return nil })
		stream := next(t, s.works)
		if pools := welcome(t, stream, 300).GetDemand().GetPools(); len(pools) != 1 || pools[0].GetMaxRuns() != 0 {
			t.Errorf("a worker that only claims demands %v", pools)
		}
		synctest.Wait()
		s.claim = func(req *stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
			if req.GetInstanceId() != w.InstanceID() || req.GetWorker() != "browser" || req.GetRequestId() == "" || len(req.GetQueues()) != 0 {
				t.Errorf("it claims by %v", req)
			}
			return gives(chosen(1), chosen(2))(req)
		}
		begin := time.Now()
		claimed, err := w.Claim(t.Context(), "job1", "job3", "job2")
		if err != nil || len(claimed) != 3 {
			t.Fatal(claimed, err)
		}
		if claimed[0].Run == nil || claimed[0].Run.JobID != "job1" || claimed[2].Run == nil || claimed[0].Err != nil {
			t.Errorf("claimed %+v", claimed)
		}
		if r := claimed[1]; r.Run != nil || r.Worker != "other" || ReasonOf(r.Err) != stintv1.Reason_REASON_RUN_ACTIVE {
			t.Errorf("the one that is taken: %+v", r)
		}
		req := stream.recv(t)
		if !slices.Equal(sorted(req.GetReport().GetHeld()), []string{"t1", "t2"}) || time.Since(begin) != 15*time.Second {
			t.Fatalf("after %v the worker says %v; want a report of both after half a lease", time.Since(begin), req)
		}
		stream.send(t, &stintv1.WorkResponse{ReportAnswer: &stintv1.ReportAnswer{
			Seq: req.Seq, NextReportIn: seconds(300), Verdicts: []*stintv1.Verdict{goOn("t1"), goOn("t2")},
		}})
		close(end)
		var finished []string
		for len(finished) < 2 {
			for _, f := range stream.recv(t).GetFinishes() {
				finished = append(finished, f.GetLeaseToken())
				stream.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{recorded(f.GetLeaseToken())}})
			}
		}
		<-w.Idle()
		w.kill(t)
	})
}

// TestClaimOverAReconnect: whenever the runs come, the server hears of them: from the next hello, or from the first report if
// that one was sent before.
func TestClaimOverAReconnect(t *testing.T) {
	for name, early := range map[string]bool{"before hello": true, "between hello and welcome": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				w := claimOnly(t, c, untilCancelled)
				first := next(t, s.works)
				welcome(t, first, 300)
				s.claim = gives(chosen(1))
				take := func() {
					if claimed, err := w.Claim(t.Context(), "job1"); err != nil || claimed[0].Run == nil {
						t.Fatal(claimed, err)
					}
				}
				first.fail(status.Error(codes.Unavailable, "gone"))
				if early {
					synctest.Wait()
					take()
				}
				second := next(t, s.works)
				if early {
					if req := welcome(t, second, 3); !slices.Equal(req.GetHello().GetHeld(), []string{"t1"}) {
						t.Errorf("hello lists %v", req.GetHello().GetHeld())
					}
				} else {
					second.recv(t)
					take()
					second.send(t, &stintv1.WorkResponse{Welcome: &stintv1.Welcome{NextReportIn: seconds(3)}})
				}
				if req := second.recv(t); !slices.Equal(req.GetReport().GetHeld(), []string{"t1"}) {
					t.Errorf("the worker says %v; want a report of the run", req)
				}
				w.kill(t)
			})
		})
	}
}

func TestClaimIsRepeatedUnderTheSameRequest(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := claimOnly(t, c, untilCancelled)
		welcome(t, next(t, s.works), 300)
		var requests []string
		s.claim = func(req *stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
			if requests = append(requests, req.GetRequestId()); len(requests) < 3 {
				return nil, status.Error(codes.Unavailable, "not yet")
			}
			return gives(chosen(1))(req)
		}
		if claimed, err := w.Claim(t.Context(), "job1"); err != nil || claimed[0].Run == nil {
			t.Error(claimed, err)
		}
		if len(slices.Compact(requests)) != 1 {
			t.Errorf("the requests are %v", requests)
		}
		w.kill(t)
	})
}

func TestClaimIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		bounded := c.NewWorker(WorkerConfig{MaxRuns: 3})
		if _, err := bounded.Claim(t.Context(), "job1"); err == nil || errors.Is(err, ErrNotDispatching) {
			t.Errorf("with MaxRuns: %v", err)
		}
		fresh := c.NewWorker(WorkerConfig{})
		if _, err := fresh.Claim(t.Context(), "job1"); !errors.Is(err, ErrNotDispatching) {
			t.Errorf("before Run: %v", err)
		}
		w := claimOnly(t, c, untilCancelled)
		stream := next(t, s.works)
		welcome(t, stream, 300)
		s.claim = func(*stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
			return nil, status.Error(codes.InvalidArgument, "no")
		}
		synctest.Wait()
		if _, err := w.Claim(t.Context(), "job1"); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a refused call: %v", err)
		}
		w.Stop()
		if _, err := w.Claim(t.Context(), "job1"); !errors.Is(err, ErrNotDispatching) {
			t.Errorf("after Stop: %v", err)
		}
		drains(t, stream)
		if err := w.ended(t); err != nil {
			t.Error(err)
		}
	})
}

// TestClaimedRunsThatCannotBeExecuted go back: of a queue that the worker does not handle, and those that come when it is
// stopping; it does not end before that.
func TestClaimedRunsThatCannotBeExecuted(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := claimOnly(t, c, untilCancelled)
		stream := next(t, s.works)
		welcome(t, stream, 300)
		synctest.Wait()
		strange := chosen(1)
		strange.Queue = "strange"
		s.claim = gives(strange)
		if _, err := w.Claim(t.Context(), "job1"); err != nil {
			t.Error(err)
		}
		notMe := func() {
			t.Helper()
			req := stream.recv(t)
			for len(req.Finishes) == 0 {
				req = stream.recv(t)
			}
			if req.Finishes[0].GetReleased().GetNotMe() == nil {
				t.Errorf("got %v; want the run released", req)
			}
			stream.send(t, &stintv1.WorkResponse{Drained: true, FinishAcks: []*stintv1.FinishAck{recorded(req.Finishes[0].LeaseToken)}})
		}
		notMe()
		asked, answer := make(chan struct{}), make(chan struct{})
		s.claim = func(req *stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
			close(asked)
			<-answer
			return gives(chosen(2))(req)
		}
		claiming := make(chan error, 1)
		go func() {
			_, err := w.Claim(t.Context(), "job2")
			claiming <- err
		}()
		<-asked
		w.Stop()
		synctest.Wait()
		if w.Wait(10 * time.Second) {
			t.Error("the worker has stopped while a claim was under way")
		}
		close(answer)
		if err := <-claiming; err != nil {
			t.Error(err)
		}
		notMe()
		if err := w.ended(t); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
