package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// submit starts to submit the jobs from up to, not including, to over the load's Submit streams. The answers count in
// created.
func (l *load) submit(from, to int) {
	next := new(atomic.Int64)
	next.Store(int64(from))
	for range l.streams {
		l.run(func() error {
			return l.submitStream(func() (int, int, bool) {
				end := int(next.Add(int64(l.batch)))
				return end - l.batch, min(end, to), end-l.batch < to
			})
		})
	}
}

// submitPaced starts to submit all jobs one by one, job i when due(i) comes, whatever the answers do.
func (l *load) submitPaced(due func(job int) time.Time) {
	job := -1
	l.run(func() error {
		return l.submitStream(func() (int, int, bool) {
			job++
			if job == len(l.jobs) {
				return 0, 0, false
			}
			pause := time.NewTimer(time.Until(due(job)))
			defer pause.Stop()
			select {
			case <-pause.C:
			case <-l.ctx.Done():
			}
			return job, job + 1, true
		})
	})
}

// submitStream sends the batches that next names over one stream, with at most a window of them unanswered.
func (l *load) submitStream(next func() (from, to int, ok bool)) error {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	stream, err := l.target.jobs.Submit(ctx)
	if err != nil {
		return fmt.Errorf("open a Submit stream: %w", err)
	}
	sent := make(chan []*stintv1.JobSpec, l.window-1)
	l.run(func() error {
		defer close(sent)
		for {
			from, to, ok := next()
			if !ok {
				return stream.CloseSend()
			}
			jobs := l.batchOf(from, to)
			select {
			case sent <- jobs:
			case <-ctx.Done():
				return nil
			}
			if err := stream.Send(&stintv1.SubmitRequest{Jobs: jobs}); err != nil {
				return nil // the receiver learns why
			}
		}
	})
	for jobs := range sent {
		resp, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("submit: %w", err)
		}
		if err := l.checkSubmit(jobs, resp.GetResults()); err != nil {
			return err
		}
	}
	switch _, err := stream.Recv(); {
	case err == nil:
		return errors.New("submit: an answer came that belongs to no message")
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("submit: %w", err)
	}
	return nil
}
