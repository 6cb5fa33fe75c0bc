package client

import (
	"context"
	"slices"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestRequestsAreNamed: what a job remembers has a request_id before it is first sent, the repeats after a lost connection
// have the same, and the next call has another. A caller's own stays, and so does the caller's message.
func TestRequestsAreNamed(t *testing.T) {
	filter := &stintv1.JobFilter{Queue: "q"}
	own := &stintv1.InterruptJobsRequest{Ids: []string{"a"}, RequestId: "mine"}
	unnamed := &stintv1.RetryJobsRequest{Ids: []string{"a"}}
	for name, call := range map[string]func(context.Context, *Client) error{
		"Interrupt": func(ctx context.Context, c *Client) error {
			_, err := c.Interrupt(ctx, stintv1.InterruptLevel_INTERRUPT_LEVEL_RETRY, "why", "a")
			return err
		},
		"Park": func(ctx context.Context, c *Client) error {
			_, err := c.Park(ctx, "why", "a")
			return err
		},
		"RetryJobs": func(ctx context.Context, c *Client) error {
			_, err := c.Jobs().RetryJobs(ctx, unnamed)
			return err
		},
		"UpdateJob": func(ctx context.Context, c *Client) error {
			_, err := c.Jobs().UpdateJob(ctx, &stintv1.UpdateJobRequest{Id: "a"})
			return err
		},
		"own": func(ctx context.Context, c *Client) error {
			_, err := c.Jobs().InterruptJobs(ctx, own)
			return err
		},
		"InterruptMatching": func(ctx context.Context, c *Client) (failed error) {
			for _, err := range c.InterruptMatching(ctx, &stintv1.InterruptJobsRequest{Filter: filter}) {
				failed = err
			}
			return failed
		},
		"RetryMatching": func(ctx context.Context, c *Client) (failed error) {
			for _, err := range c.RetryMatching(ctx, &stintv1.RetryJobsRequest{Filter: filter}) {
				failed = err
			}
			return failed
		},
		"ParkMatching": func(ctx context.Context, c *Client) (failed error) {
			for _, err := range c.ParkMatching(ctx, &stintv1.ParkJobsRequest{Filter: filter}) {
				failed = err
			}
			return failed
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				var ids []string
				lost := func(id string) error { // the answers to the first two of three
					if ids = append(ids, id); len(ids)%3 != 0 {
						return status.Error(codes.Unavailable, "lost")
					}
					return nil
				}
				s.interrupt = func(req *stintv1.InterruptJobsRequest) (*stintv1.InterruptJobsResponse, error) {
					return &stintv1.InterruptJobsResponse{}, lost(req.GetRequestId())
				}
				s.park = func(req *stintv1.ParkJobsRequest) (*stintv1.ParkJobsResponse, error) {
					return &stintv1.ParkJobsResponse{}, lost(req.GetRequestId())
				}
				s.update = func(req *stintv1.UpdateJobRequest) (*stintv1.UpdateJobResponse, error) {
					return &stintv1.UpdateJobResponse{}, lost(req.GetRequestId())
				}
				s.retry = func(req *stintv1.RetryJobsRequest) (*stintv1.RetryJobsResponse, error) {
					return &stintv1.RetryJobsResponse{}, lost(req.GetRequestId())
				}
				for range 2 {
					if err := call(t.Context(), c); err != nil {
						t.Fatal(err)
					}
				}
				if name == "own" {
					if !slices.Equal(ids, slices.Repeat([]string{"mine"}, 6)) {
						t.Errorf("sent as %q", ids)
					}
					return
				}
				if want := slices.Concat(slices.Repeat(ids[:1], 3), slices.Repeat(ids[3:4], 3)); !slices.Equal(ids, want) || ids[0] == ids[3] {
					t.Errorf("sent as %q", ids)
				}
				if id, err := uuid.Parse(ids[0]); err != nil || id.Version() != 7 {
					t.Errorf("named %q", ids[0])
				}
			})
		})
	}
	if unnamed.GetRequestId() != "" {
		t.Errorf("the caller's message became %v", unnamed)
	}
}
