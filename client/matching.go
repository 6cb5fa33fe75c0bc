package client

import (
	"context"
	"iter"

	"google.golang.org/protobuf/proto"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// InterruptMatching interrupts the jobs that the request's filter selects, page after page, and yields what became of
// each. A filter that admits every job needs All; with DryRun nothing is changed. It ends after the first error, which
// comes without a result: pages before it are done, the one that failed is done whole or not at all. A caller that breaks
// off leaves later pages undone. The request's ContinueToken is not read. With a RequestId, ranging over it once more is a
// repeat: it changes no job a second time, and goes on to those that were left.
func (c *Client) InterruptMatching(ctx context.Context, req *stintv1.InterruptJobsRequest) iter.Seq2[*stintv1.InterruptResult, error] {
	return eachOfPages(func(token string) (*stintv1.InterruptJobsResponse, error) {
		page := proto.CloneOf(req)
		page.ContinueToken = token
		return c.jobs.InterruptJobs(ctx, page)
	})
}

// RetryMatching makes the jobs run again that the request's filter selects; otherwise it is like InterruptMatching.
func (c *Client) RetryMatching(ctx context.Context, req *stintv1.RetryJobsRequest) iter.Seq2[*stintv1.JobResult, error] {
	return eachOfPages(func(token string) (*stintv1.RetryJobsResponse, error) {
		page := proto.CloneOf(req)
		page.ContinueToken = token
		return c.jobs.RetryJobs(ctx, page)
	})
}

// ParkMatching sets the jobs aside that the request's filter selects; otherwise it is like InterruptMatching.
func (c *Client) ParkMatching(ctx context.Context, req *stintv1.ParkJobsRequest) iter.Seq2[*stintv1.JobResult, error] {
	return eachOfPages(func(token string) (*stintv1.ParkJobsResponse, error) {
		page := proto.CloneOf(req)
		page.ContinueToken = token
		return c.jobs.ParkJobs(ctx, page)
	})
}

// DeleteMatching deletes the jobs that the request's filter selects; otherwise it is like InterruptMatching.
func (c *Client) DeleteMatching(ctx context.Context, req *stintv1.DeleteJobsRequest) iter.Seq2[*stintv1.JobResult, error] {
	return eachOfPages(func(token string) (*stintv1.DeleteJobsResponse, error) {
		page := proto.CloneOf(req)
		page.ContinueToken = token
		return c.jobs.DeleteJobs(ctx, page)
	})
}

// resultPage is the answer to a request by filter.
type resultPage[Result any] interface {
	GetResults() []Result
	GetContinueToken() string
}

// eachOfPages yields the results of all pages. ask asks for the page that a token names.
func eachOfPages[Result any, Page resultPage[Result]](ask func(token string) (Page, error)) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		for token := ""; ; {
			page, err := ask(token)
			if err != nil {
				var none Result
				yield(none, err)
				return
			}
			for _, result := range page.GetResults() {
				if !yield(result, nil) {
					return
				}
			}
			if token = page.GetContinueToken(); token == "" {
				return
			}
		}
	}
}
