package server

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// ListQueues lists queues by name; the position of a page is the name it starts with.
func (s *Server) ListQueues(ctx context.Context, m *stintv1.ListQueuesRequest) (*stintv1.ListQueuesResponse, error) {
	if err := checkQueuePattern("queue", m.GetQueue()); err != nil {
		return nil, err
	}
	query := &stintv1.ListQueuesRequest{Queue: m.GetQueue()}
	position, err := s.tokens.open(query, m.GetPageToken())
	if err != nil {
		return nil, err
	}
	page := &stintv1.ListQueuesResponse{}
	next := ""
	err = s.store.View(ctx, func(r store.Reader) error {
		page.AsOf = s.asOf(r)
		size := clampPageSize(m.GetPageSize())
		parsePattern(m.GetQueue()).each(r, string(position), func(q *store.Queue) bool {
			if len(page.Queues) == size {
				next = q.Name
				return false
			}
			page.Queues = append(page.Queues, s.wireQueue(q, r))
			return true
		})
		return nil
	})
	if err != nil || next == "" {
		return page, err
	}
	page.NextPageToken, err = s.tokens.seal(query, []byte(next))
	return page, err
}

// GetQueue reads one queue.
func (s *Server) GetQueue(ctx context.Context, m *stintv1.GetQueueRequest) (*stintv1.GetQueueResponse, error) {
	if err := checkQueueName("name", m.GetName()); err != nil {
		return nil, err
	}
	answer := &stintv1.GetQueueResponse{}
	err := s.store.View(ctx, func(r store.Reader) error {
		q := r.Queue(m.GetName())
		if q == nil {
			return errQueueNotFound
		}
		answer.Queue, answer.AsOf = s.wireQueue(q, r), s.asOf(r)
		return nil
	})
	return answer, err
}

// wireQueue is a queue as it is now.
func (s *Server) wireQueue(q *store.Queue, r store.Reader) *stintv1.Queue {
	m := wireQueue(q, r.Oldest(q.Name), r.Now())
	m.Gate = wireGate(s.dispatch.Gate(store.GateName{Name: q.Name}, q.Policy.Rate, 1), r.Now())
	return m
}

// UpdateQueue sets a queue's policy. Setting what is set already changes nothing, the etag included. There may be room for
// more runs then.
func (s *Server) UpdateQueue(ctx context.Context, m *stintv1.UpdateQueueRequest) (*stintv1.UpdateQueueResponse, error) {
	if err := checkUpdateQueue(m); err != nil {
		return nil, err
	}
	policy := policyFrom(m.GetPolicy())
	answer := &stintv1.UpdateQueueResponse{}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		q := tx.Queue(m.GetName())
		if m.GetEtag() != "" && (q == nil || m.GetEtag() != queueEtag(q)) {
			return errEtag
		}
		q, err := tx.MakeQueue(m.GetName())
		if err != nil {
			return err
		}
		if !q.Policy.Equal(policy) {
			next := *q
			next.Policy = policy
			if q, err = putQueue(tx, &next); err != nil {
				return err
			}
		}
		answer.Queue = s.wireQueue(q, tx)
		return nil
	})
	if errors.Is(err, store.ErrTooManyQueues) {
		return nil, tooManyQueues("name")
	}
	s.dispatch.Wake(m.GetName()) // also if the caller has gone: what was written lasts
	return answer, err
}

// DeleteQueue deletes a queue that has no unfinished jobs, or, by force, none that run.
func (s *Server) DeleteQueue(ctx context.Context, m *stintv1.DeleteQueueRequest) (*stintv1.DeleteQueueResponse, error) {
	if err := checkQueueName("name", m.GetName()); err != nil {
		return nil, err
	}
	answer := &stintv1.DeleteQueueResponse{}
	if m.GetForce() {
		var err error
		if answer.DeletedJobs, err = s.emptyQueue(ctx, m.GetName()); err != nil {
			return nil, err
		}
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		q := tx.Queue(m.GetName())
		if q == nil {
			return errQueueNotFound
		}
		unfinished := uint64(0)
		for state, n := range q.Counts {
			if !job.State(state).Terminal() {
				unfinished += n
			}
		}
		if unfinished > 0 {
			return queueNotEmpty(unfinished)
		}
		return tx.DeleteQueue(q.Name)
	})
	return answer, err
}

// emptyQueue deletes the unfinished jobs of a queue that do not run, page by page, and tells how many those were.
func (s *Server) emptyQueue(ctx context.Context, name string) (deleted uint64, err error) {
	page := &stintv1.DeleteJobsRequest{Filter: &stintv1.JobFilter{Queue: name, States: []stintv1.JobState{
		stintv1.JobState_JOB_STATE_SCHEDULED, stintv1.JobState_JOB_STATE_READY, stintv1.JobState_JOB_STATE_BACKOFF, stintv1.JobState_JOB_STATE_PARKED,
	}}}
	for {
		done, err := s.DeleteJobs(ctx, page)
		if err != nil {
			return deleted, err
		}
		deleted += uint64(len(done.GetResults()))
		if page.ContinueToken = done.GetContinueToken(); page.ContinueToken == "" {
			return deleted, nil
		}
	}
}

// queueNotEmpty refuses to delete a queue that has so many unfinished jobs.
func queueNotEmpty(jobs uint64) *refusal {
	return &refusal{
		code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_QUEUE_NOT_EMPTY,
		message: fmt.Sprintf("the queue has %s not finished", many(jobs, "job")),
	}
}

// PauseQueue pauses a queue. One that is paused stays as it is: the first pause's words stand.
func (s *Server) PauseQueue(ctx context.Context, m *stintv1.PauseQueueRequest) (*stintv1.PauseQueueResponse, error) {
	if err := checkPauseQueue(m); err != nil {
		return nil, err
	}
	q, err := s.changeQueue(ctx, m.GetName(), func(tx store.Tx, q *store.Queue) bool {
		if q.Pause != nil {
			return false
		}
		q.Pause = &store.Pause{Reason: m.GetReason(), Requester: m.GetRequester(), Time: tx.Now()}
		return true
	})
	return &stintv1.PauseQueueResponse{Queue: q}, err
}

// ResumeQueue ends a queue's pause, if there is one.
func (s *Server) ResumeQueue(ctx context.Context, m *stintv1.ResumeQueueRequest) (*stintv1.ResumeQueueResponse, error) {
	if err := checkQueueName("name", m.GetName()); err != nil {
		return nil, err
	}
	q, err := s.changeQueue(ctx, m.GetName(), func(_ store.Tx, q *store.Queue) bool {
		paused := q.Pause != nil
		q.Pause = nil
		return paused
	})
	s.dispatch.Wake(m.GetName())
	return &stintv1.ResumeQueueResponse{Queue: q}, err
}

// changeQueue puts what fn makes of a copy of the queue, if it returns true.
func (s *Server) changeQueue(ctx context.Context, name string, fn func(store.Tx, *store.Queue) bool) (*stintv1.Queue, error) {
	var m *stintv1.Queue
	err := s.store.Update(ctx, func(tx store.Tx) error {
		q := tx.Queue(name)
		if q == nil {
			return errQueueNotFound
		}
		next := *q
		if fn(tx, &next) {
			var err error
			if q, err = putQueue(tx, &next); err != nil {
				return err
			}
		}
		m = s.wireQueue(q, tx)
		return nil
	})
	return m, err
}

// putQueue writes a queue's next version and returns it as it is then.
func putQueue(tx store.Tx, next *store.Queue) (*store.Queue, error) {
	if err := tx.PutQueue(next); err != nil {
		return nil, err
	}
	return tx.Queue(next.Name), nil
}
