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

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// created answers jobs as stored.
func created(jobs []*stintv1.JobSpec) []*stintv1.SubmitResult {
	var results []*stintv1.SubmitResult
	for _, j := range jobs {
		results = append(results, &stintv1.SubmitResult{
			Id: j.Id, Status: stintv1.SubmitStatus_SUBMIT_STATUS_CREATED, State: stintv1.JobState_JOB_STATE_READY,
		})
	}
	return results
}

func TestSubmitSendsTheWholeJob(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var got *stintv1.JobSpec
		s.submitJobs = func(req *stintv1.SubmitJobsRequest) (*stintv1.SubmitJobsResponse, error) {
			got = req.Jobs[0]
			return &stintv1.SubmitJobsResponse{Results: created(req.Jobs)}, nil
		}
		sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
		ctx := trace.ContextWithSpanContext(t.Context(), sc)
		at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
		answers, err := c.Submit(ctx, Job{
			Queue: "q", Payload: []byte("p"), ContentType: "text/plain", Priority: stintv1.Priority_PRIORITY_HIGH, RunAt: at,
			StartBy: at.Add(time.Hour), Lease: time.Minute, Timeout: time.Hour, Retry: &stintv1.RetryPolicy{MaxAttempts: 3},
			Labels: map[string]string{"k": "v"}, Subject: "s", Unique: &stintv1.Unique{Key: "u"},
		})
		if err != nil || answers[0].Err != nil || answers[0].Existing || answers[0].State != stintv1.JobState_JOB_STATE_READY {
			t.Fatalf("Submit: %+v, %v", answers, err)
		}
		if id, err := uuid.Parse(answers[0].ID); err != nil || id.Version() != 7 {
			t.Errorf("id = %q; want a UUIDv7", answers[0].ID)
		}
		want := &stintv1.JobSpec{
			Id: answers[0].ID, Queue: "q",
			Payload:  &stintv1.Payload{Content: &stintv1.Payload_Data{Data: []byte("p")}, ContentType: "text/plain"},
			Priority: stintv1.Priority_PRIORITY_HIGH, Start: &stintv1.JobSpec_RunAt{RunAt: timestamppb.New(at)},
			StartBy: timestamppb.New(at.Add(time.Hour)), Lease: seconds(60), Timeout: seconds(3600), Retry: &stintv1.RetryPolicy{MaxAttempts: 3},
			Labels: map[string]string{"k": "v"}, Subject: "s", Unique: &stintv1.Unique{Key: "u"},
			TraceContext: &stintv1.TraceContext{Traceparent: "00-01000000000000000000000000000000-0200000000000000-01"},
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("spec (-want +got):\n%s", diff)
		}
		if remote := trace.SpanContextFromContext(extract(t.Context(), got.TraceContext)); !remote.IsRemote() || remote.TraceID() != sc.TraceID() {
			t.Errorf("extracted span context = %v", remote)
		}
	})
}

func TestSubmitRepeatsUnderTheSameIDs(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var ids []string
		s.submitJobs = func(req *stintv1.SubmitJobsRequest) (*stintv1.SubmitJobsResponse, error) {
			ids = append(ids, req.Jobs[0].Id)
			if len(ids) < 4 {
				return nil, status.Error(codes.Unavailable, "away")
			}
			results := created(req.Jobs)
			results[0].Status = stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING
			return &stintv1.SubmitJobsResponse{Results: results}, nil
		}
		answers, err := c.Submit(t.Context(), Job{Queue: "q"})
		if err != nil || !answers[0].Existing {
			t.Fatalf("Submit: %+v, %v", answers, err)
		}
		if len(ids) != 4 || len(slices.Compact(ids)) != 1 || ids[0] != answers[0].ID {
			t.Errorf("ids sent: %q; want four times the same", ids)
		}
	})
}

// TestSubmitMeetsAHolder: the answer says whose key it is, and what became of that job.
func TestSubmitMeetsAHolder(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		statuses := []stintv1.SubmitStatus{
			stintv1.SubmitStatus_SUBMIT_STATUS_CREATED, stintv1.SubmitStatus_SUBMIT_STATUS_KEY_HELD, stintv1.SubmitStatus_SUBMIT_STATUS_REPLACED, 0,
		}
		s.submitJobs = func(req *stintv1.SubmitJobsRequest) (*stintv1.SubmitJobsResponse, error) {
			results := created(req.Jobs)
			for i, status := range statuses {
				if results[i].Status = status; i > 0 {
					results[i].HolderId = "h"
				}
			}
			results[3].Error = &stintv1.ItemError{Reason: stintv1.Reason_REASON_UNIQUE_CONFLICT}
			return &stintv1.SubmitJobsResponse{Results: results}, nil
		}
		u := &stintv1.Unique{Key: "u"}
		got, err := c.Submit(t.Context(), Job{ID: "a", Unique: u}, Job{ID: "b", Unique: u}, Job{ID: "c", Unique: u}, Job{ID: "d", Unique: u}, Job{ID: "e", Unique: &stintv1.Unique{Key: "\xff"}})
		if err != nil {
			t.Fatal(err)
		}
		var jobs []string
		for _, s := range got[:4] {
			jobs = append(jobs, fmt.Sprint(s.ID, " ", s.Job(), " ", s.Replaced, " ", ReasonOf(s.Err)))
		}
		want := []string{"a a false REASON_UNSPECIFIED", "b h false REASON_UNSPECIFIED", "c h true REASON_UNSPECIFIED", "d h false REASON_UNIQUE_CONFLICT"}
		if diff := cmp.Diff(want, jobs); diff != "" {
			t.Error(diff)
		}
		if e, ok := errors.AsType[*ItemError](got[4].Err); !ok || e.Field != "unique.key" {
			t.Errorf("a key that is not UTF-8: %v", got[4].Err)
		}
	})
}

func TestSubmitEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		s.submitJobs = func(*stintv1.SubmitJobsRequest) (*stintv1.SubmitJobsResponse, error) {
			return nil, status.Error(codes.Unavailable, "away")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		answers, err := c.Submit(ctx, Job{Queue: "q"})
		if status.Code(err) != codes.Unavailable || answers[0].Err == nil || answers[0].ID == "" {
			t.Errorf("Submit: %+v, %v; want the last error, and the id", answers, err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

func TestSubmitErrorsAreOfTheItem(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var sizes []int
		s.submitJobs = func(req *stintv1.SubmitJobsRequest) (*stintv1.SubmitJobsResponse, error) {
			sizes = append(sizes, len(req.Jobs))
			results := created(req.Jobs)
			for i, j := range req.Jobs {
				if j.Queue == "BAD" {
					results[i] = &stintv1.SubmitResult{Id: j.Id, Error: &stintv1.ItemError{
						Index: uint32(i), Code: int32(codes.InvalidArgument), Reason: stintv1.Reason_REASON_INVALID_FIELD, Field: "queue", Message: "m",
					}}
				}
			}
			return &stintv1.SubmitJobsResponse{Results: results}, nil
		}
		jobs := make([]Job, 2500)
		for i := range jobs {
			jobs[i].Queue = "q"
		}
		jobs[7].Queue = "\xff"
		jobs[8].RunAt, jobs[8].Delay = time.Now(), time.Second
		jobs[9].Payload = make([]byte, maxSend)
		jobs[1100].Queue = "BAD"
		answers, err := c.Submit(t.Context(), jobs...)
		if err != nil {
			t.Fatal(err)
		}
		refused := map[int]string{}
		for i, a := range answers {
			if e, ok := errors.AsType[*ItemError](a.Err); ok {
				refused[e.Index] = e.Field
				if e.Index != i || a.ID == "" {
					t.Errorf("answer %d = %+v", i, a)
				}
			}
		}
		want := map[int]string{7: "queue", 8: "start", 9: "payload.data", 1100: "queue"}
		if diff := cmp.Diff(want, refused); diff != "" {
			t.Errorf("refused (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int{1000, 1000, 497}, sizes); diff != "" {
			t.Errorf("jobs per message (-want +got):\n%s", diff)
		}
	})
}

func TestSubmitSplitsByBytes(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var sizes []int
		s.submitJobs = func(req *stintv1.SubmitJobsRequest) (*stintv1.SubmitJobsResponse, error) {
			sizes = append(sizes, len(req.Jobs))
			return &stintv1.SubmitJobsResponse{Results: created(req.Jobs)}, nil
		}
		var jobs []Job
		for _, n := range []int{700 << 10, 700 << 10, 700 << 10, 3 << 20, 1} {
			jobs = append(jobs, Job{Queue: "q", Payload: make([]byte, n)})
		}
		if _, err := c.Submit(t.Context(), jobs...); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{2, 1, 1, 1}, sizes); diff != "" {
			t.Errorf("jobs per message (-want +got):\n%s", diff)
		}
	})
}

func TestSubmitterBatchesAndKeepsOrder(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var got []string
		sub := c.SubmitStream(t.Context(), SubmitConfig{BatchSize: 10, OnResult: func(r Submitted) { got = append(got, r.ID) }})
		var want []string
		for range 25 {
			id := uuid.NewString()
			want = append(want, id)
			if err := sub.Send(t.Context(), Job{ID: id, Queue: "q"}); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		stream := next(t, s.submits)
		for _, n := range []int{10, 10, 5} {
			req := stream.recv(t)
			if len(req.Jobs) != n {
				t.Errorf("a message of %d jobs; want %d", len(req.Jobs), n)
			}
			stream.send(t, &stintv1.SubmitResponse{Results: created(req.Jobs)})
		}
		if waited := time.Since(start); waited != time.Millisecond {
			t.Errorf("the last batch lingered %v; want 1ms", waited)
		}
		if err := sub.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
		if err := sub.Send(t.Context(), Job{Queue: "q"}); err == nil {
			t.Error("Send after Close succeeds")
		}
	})
}

func TestSubmitterWindowIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		sub := c.SubmitStream(t.Context(), SubmitConfig{BatchSize: 2, Window: 3})
		sent := 0
		full := make(chan struct{})
		go func() {
			defer close(full)
			for range 8 {
				if err := sub.Send(t.Context(), Job{Queue: "q"}); err != nil {
					t.Error(err)
				}
				sent++
			}
		}()
		stream := next(t, s.submits)
		synctest.Wait()
		if sent != 6 {
			t.Errorf("%d jobs taken without an answer; want 3 messages of 2", sent)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sub.Send(ctx, Job{Queue: "q"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send with a full window: %v; want the context's end", err)
		}
		stream.send(t, &stintv1.SubmitResponse{Results: created(stream.recv(t).Jobs)})
		<-full
		for range 3 {
			stream.send(t, &stintv1.SubmitResponse{Results: created(stream.recv(t).Jobs)})
		}
		if err := sub.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestSubmitterResendsWhatWasNotAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var results []Submitted
		sub := c.SubmitStream(t.Context(), SubmitConfig{BatchSize: 1, OnResult: func(r Submitted) { results = append(results, r) }})
		for i := range 3 {
			if err := sub.Send(t.Context(), Job{Queue: "q", Subject: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		first := next(t, s.submits)
		var sent []*stintv1.JobSpec
		for range 3 {
			sent = append(sent, first.recv(t).Jobs...)
		}
		first.send(t, &stintv1.SubmitResponse{Results: created(sent[:1])})
		synctest.Wait()
		first.fail(status.Error(codes.Unavailable, "gone"))
		second := next(t, s.submits)
		for _, want := range sent[1:] {
			req := second.recv(t)
			if diff := cmp.Diff(want, req.Jobs[0], protocmp.Transform()); diff != "" {
				t.Errorf("resent job (-want +got):\n%s", diff)
			}
			second.send(t, &stintv1.SubmitResponse{Results: created(req.Jobs)})
		}
		if err := sub.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if len(results) != 3 || results[0].ID != sent[0].Id || results[2].ID != sent[2].Id {
			t.Errorf("results = %+v", results)
		}
	})
}

func TestSubmitterFailsForGood(t *testing.T) {
	for name, end := range map[string]func(*conversation[stintv1.SubmitRequest, stintv1.SubmitResponse], context.CancelFunc){
		"refused": func(s *conversation[stintv1.SubmitRequest, stintv1.SubmitResponse], _ context.CancelFunc) {
			s.fail(status.Error(codes.PermissionDenied, "no"))
		},
		"context": func(_ *conversation[stintv1.SubmitRequest, stintv1.SubmitResponse], cancel context.CancelFunc) {
			cancel()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var results []Submitted
				sub := c.SubmitStream(ctx, SubmitConfig{BatchSize: 2, OnResult: func(r Submitted) { results = append(results, r) }})
				for range 3 {
					if err := sub.Send(t.Context(), Job{Queue: "q"}); err != nil {
						t.Fatal(err)
					}
				}
				end(next(t, s.submits), cancel)
				err := sub.Close()
				if err == nil {
					t.Fatal("Close returns nil")
				}
				if len(results) != 3 || !errors.Is(results[2].Err, err) || results[2].ID == "" {
					t.Errorf("results = %+v; want every job answered with the error", results)
				}
				if sendErr := sub.Send(t.Context(), Job{Queue: "q"}); !errors.Is(sendErr, err) {
					t.Errorf("Send: %v; want %v", sendErr, err)
				}
			})
		})
	}
}

func TestWaitOutlastsBrokenStreams(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		calls := 0
		s.waitJob = func(req *stintv1.WaitJobRequest, stream grpc.ServerStreamingServer[stintv1.WaitJobResponse]) error {
			calls++
			if req.Until != stintv1.WaitUntil_WAIT_UNTIL_END {
				t.Errorf("until = %v", req.Until)
			}
			if err := stream.Send(&stintv1.WaitJobResponse{Job: &stintv1.Job{Id: req.Id, State: stintv1.JobState_JOB_STATE_READY}}); err != nil {
				return err
			}
			switch calls {
			case 1:
				return status.Error(codes.Unavailable, "gone")
			case 2:
				return nil // an end without `reached`
			case 3:
				<-stream.Context().Done() // mute for ever
				return stream.Context().Err()
			}
			return stream.Send(&stintv1.WaitJobResponse{Reached: true, Job: &stintv1.Job{Id: req.Id, State: stintv1.JobState_JOB_STATE_SUCCEEDED}})
		}
		job, err := c.Wait(t.Context(), "id")
		if err != nil || job.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED || calls != 4 {
			t.Errorf("Wait: %v, %v after %d calls", job, err, calls)
		}
	})
}

func TestWaitReturnsWhatWaitingCannotMend(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		s.waitJob = func(*stintv1.WaitJobRequest, grpc.ServerStreamingServer[stintv1.WaitJobResponse]) error {
			return refusal(codes.NotFound, "JOB_NOT_FOUND")
		}
		if _, err := c.Wait(t.Context(), "id"); ReasonOf(err) != stintv1.Reason_REASON_JOB_NOT_FOUND {
			t.Errorf("Wait: %v; want JOB_NOT_FOUND", err)
		}
	})
}

func TestGetRepeatsByItself(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		calls := 0
		s.getJob = func(req *stintv1.GetJobRequest) (*stintv1.GetJobResponse, error) {
			if calls++; calls < 3 {
				return nil, status.Error(codes.Unavailable, "away")
			}
			if req.View != stintv1.JobView_JOB_VIEW_FULL {
				t.Errorf("view = %v", req.View)
			}
			return &stintv1.GetJobResponse{Job: &stintv1.Job{Id: req.Id}}, nil
		}
		if job, err := c.Get(t.Context(), "id"); err != nil || job.GetId() != "id" || calls != 3 {
			t.Errorf("Get: %v, %v after %d calls", job, err, calls)
		}
	})
}

func TestInterruptSplits(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var sizes []int
		s.interrupt = func(req *stintv1.InterruptJobsRequest) (*stintv1.InterruptJobsResponse, error) {
			sizes = append(sizes, len(req.Ids))
			resp := &stintv1.InterruptJobsResponse{}
			for _, id := range req.Ids {
				resp.Results = append(resp.Results, &stintv1.InterruptResult{Id: id, Level: req.Level})
			}
			return resp, nil
		}
		ids := strings.Split(strings.Repeat("x,", 1500)+"y", ",")
		results, err := c.Interrupt(t.Context(), stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL, "why", ids...)
		if err != nil || len(results) != 1501 || results[1500].Id != "y" || !slices.Equal(sizes, []int{1000, 501}) {
			t.Errorf("Interrupt: %d results in %v, %v", len(results), sizes, err)
		}
	})
}

func TestParkSplits(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var sizes []int
		down := false
		s.park = func(req *stintv1.ParkJobsRequest) (*stintv1.ParkJobsResponse, error) {
			if down && len(sizes) > 0 || req.Reason != "why" {
				return nil, refusal(codes.Internal, "INTERNAL")
			}
			sizes = append(sizes, len(req.Ids))
			resp := &stintv1.ParkJobsResponse{}
			for _, id := range req.Ids {
				resp.Results = append(resp.Results, &stintv1.JobResult{Id: id})
			}
			return resp, nil
		}
		ids := strings.Split(strings.Repeat("x,", 1500)+"y", ",")
		results, err := c.Park(t.Context(), "why", ids...)
		if err != nil || len(results) != 1501 || results[1500].Id != "y" || !slices.Equal(sizes, []int{1000, 501}) {
			t.Errorf("Park: %d results in %v, %v", len(results), sizes, err)
		}
		sizes, down = nil, true
		if results, err := c.Park(t.Context(), "why", ids...); err == nil || len(results) != 1000 {
			t.Errorf("Park, the second half refused: %d results, %v", len(results), err)
		}
	})
}

func TestReasonOf(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want stintv1.Reason
	}{
		"nil":            {nil, stintv1.Reason_REASON_UNSPECIFIED},
		"other":          {errors.New("x"), stintv1.Reason_REASON_UNSPECIFIED},
		"status":         {refusal(codes.NotFound, "JOB_NOT_FOUND"), stintv1.Reason_REASON_JOB_NOT_FOUND},
		"wrapped":        {fmt.Errorf("get: %w", refusal(codes.NotFound, "JOB_NOT_FOUND")), stintv1.Reason_REASON_JOB_NOT_FOUND},
		"item":           {fmt.Errorf("x: %w", &ItemError{Reason: stintv1.Reason_REASON_ID_CONFLICT}), stintv1.Reason_REASON_ID_CONFLICT},
		"a newer server": {refusal(codes.NotFound, "NOT_YET_INVENTED"), stintv1.Reason_REASON_UNSPECIFIED},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ReasonOf(test.err); got != test.want {
				t.Errorf("ReasonOf(%v) = %v; want %v", test.err, got, test.want)
			}
		})
	}
}
