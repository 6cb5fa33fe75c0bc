package server

import (
	"context"
	"encoding/binary"
	"errors"
	"math"

	"google.golang.org/protobuf/proto"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

const (
	// scanBudget is how many jobs one look into the store may pass over.
	scanBudget = 10_000
	// countBudget is how many jobs CountJobs passes over before it answers "at least".
	countBudget = 1_000_000
	// pageBytes is how large a page may grow; a single larger job is a page of its own.
	pageBytes = 3 << 20
)

// GetJob reads one job.
func (s *Server) GetJob(ctx context.Context, m *stintv1.GetJobRequest) (*stintv1.GetJobResponse, error) {
	id, err := parseID("id", m.GetId())
	if err != nil {
		return nil, err
	}
	if err := checkView(m.GetView()); err != nil {
		return nil, err
	}
	answer := &stintv1.GetJobResponse{}
	err = s.store.View(ctx, func(r store.Reader) (err error) {
		answer.AsOf = s.asOf(r)
		_, answer.Job, err = lookUp(r, id, m.GetView())
		return err
	})
	return answer, err
}

// readJob is a job as it stands, and as it is shown. Errors: errJobNotFound.
func (s *Server) readJob(ctx context.Context, id job.ID, view stintv1.JobView) (j *job.Job, m *stintv1.Job, err error) {
	err = s.store.View(ctx, func(r store.Reader) (err error) {
		j, m, err = lookUp(r, id, view)
		return err
	})
	return j, m, err
}

func lookUp(r store.Reader, id job.ID, view stintv1.JobView) (*job.Job, *stintv1.Job, error) {
	found, err := r.Find([]job.ID{id})
	if err != nil {
		return nil, nil, err
	}
	j := found[0].Job
	if j == nil {
		return nil, nil, errJobNotFound
	}
	m, err := wireJob(r, j, view)
	return j, m, err
}

// asOf is the cursor behind which events tell of what r may not see.
func (s *Server) asOf(r store.Reader) string {
	_, next := r.Position()
	return s.cursors.write(next)
}

// ListJobs is one look into the store: a page ends when it is full, or when the budget is used up.
func (s *Server) ListJobs(ctx context.Context, m *stintv1.ListJobsRequest) (*stintv1.ListJobsResponse, error) {
	if err := checkListJobs(m); err != nil {
		return nil, err
	}
	query := &stintv1.ListJobsRequest{Filter: m.GetFilter(), NewestFirst: m.GetNewestFirst()}
	position, err := s.tokens.open(query, m.GetPageToken())
	if err != nil {
		return nil, err
	}
	from := uint64(1)
	if len(position) == 8 {
		from = binary.BigEndian.Uint64(position)
	} else if m.GetNewestFirst() {
		from = math.MaxInt64
	}
	page := &stintv1.ListJobsResponse{}
	var next uint64
	err = s.store.View(ctx, func(r store.Reader) error {
		page.AsOf = s.asOf(r)
		filter, size := filterFrom(m.GetFilter()), clampPageSize(m.GetPageSize())
		var jobs []*job.Job
		next, err = r.Scan(from, m.GetNewestFirst(), scanBudget, func(j *job.Job) bool {
			if !filter.matches(j) {
				return true
			}
			if len(jobs) == size {
				return false // the next page starts with it
			}
			jobs = append(jobs, j)
			return true
		})
		if err != nil {
			return err
		}
		var left *job.Job
		if page.Jobs, left, err = wireJobs(r, jobs, m.GetView()); left != nil {
			next = left.Seq
		}
		return err
	})
	if err != nil || next == 0 {
		return page, err
	}
	page.NextPageToken, err = s.tokens.seal(query, binary.BigEndian.AppendUint64(nil, next))
	return page, err
}

// wireJobs shows jobs until they fill a page; left is the first that did not fit.
func wireJobs(r store.Reader, jobs []*job.Job, view stintv1.JobView) (shown []*stintv1.Job, left *job.Job, err error) {
	size := 0
	for _, j := range jobs {
		m, err := wireJob(r, j, view)
		if err != nil {
			return nil, nil, err
		}
		if size += proto.Size(m); size > pageBytes && len(shown) > 0 {
			return shown, j, nil
		}
		shown = append(shown, m)
	}
	return shown, nil, nil
}

// CountJobs takes what the store has counted, where the filter asks for queues and states only; else it scans.
func (s *Server) CountJobs(ctx context.Context, m *stintv1.CountJobsRequest) (*stintv1.CountJobsResponse, error) {
	if err := checkJobFilter(m.GetFilter()); err != nil {
		return nil, err
	}
	filter := filterFrom(m.GetFilter())
	if !filter.byQueue() {
		return s.scanCounts(ctx, &filter)
	}
	answer := &stintv1.CountJobsResponse{}
	var counts [job.NumberOfStates]uint64
	err := s.store.View(ctx, func(r store.Reader) error {
		answer.AsOf, counts = s.asOf(r), [job.NumberOfStates]uint64{}
		filter.queue.each(r, "", func(q *store.Queue) bool {
			for state, n := range q.Counts {
				if filter.states[state] {
					counts[state] += n
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	answer.Counts = wireCounts(counts)
	return answer, nil
}

// scanCounts looks at the jobs, in steps, so that no look holds the store for long. A job that changes meanwhile is
// counted once, as it was when it was seen.
func (s *Server) scanCounts(ctx context.Context, filter *jobFilter) (*stintv1.CountJobsResponse, error) {
	answer := &stintv1.CountJobsResponse{}
	var counts [job.NumberOfStates]uint64
	next := uint64(1)
	for seen := 0; next != 0 && seen < countBudget; seen += scanBudget {
		from := next
		err := s.store.View(ctx, func(r store.Reader) (err error) {
			if answer.AsOf == "" {
				answer.AsOf = s.asOf(r)
			}
			next, err = r.Scan(from, false, scanBudget, func(j *job.Job) bool {
				if filter.matches(j) {
					counts[j.State]++
				}
				return true
			})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	answer.Counts, answer.AtLeast = wireCounts(counts), next != 0
	return answer, nil
}

// InterruptJobs interrupts each job, or the next page of jobs, in one transaction.
func (s *Server) InterruptJobs(ctx context.Context, m *stintv1.InterruptJobsRequest) (*stintv1.InterruptJobsResponse, error) {
	if err := checkInterruptJobs(m); err != nil {
		return nil, err
	}
	request := job.InterruptRequest{
		Level:     job.Level(m.GetLevel()),
		Source:    job.SourceUser,
		Reason:    m.GetReason(),
		Requester: m.GetRequester(),
		Request:   m.GetRequestId(),

		Grace:        delayFrom(m.GetGrace()),
		HardDeadline: delayFrom(m.GetHardDeadline()),
	}
	changed, token, err := s.changeJobs(ctx, m, deed{
		kind: request.Level.Action(), request: request.Request,
		query: &stintv1.InterruptJobsRequest{Filter: m.GetFilter(), Level: m.GetLevel()},
		step: func(r store.Reader, j *job.Job) (*job.Job, job.InterruptEffect, error) {
			asked := request
			asked.Policy = policyOf(r, j)
			return j.RequestInterrupt(r.Now(), asked)
		},
	})
	if err != nil {
		return nil, err
	}
	answer := &stintv1.InterruptJobsResponse{Results: make([]*stintv1.InterruptResult, len(changed)), ContinueToken: token}
	for i, c := range changed {
		r := &stintv1.InterruptResult{Id: c.id, State: stintv1.JobState(c.state)}
		if c.job != nil {
			r.Level = stintv1.InterruptLevel(c.job.Interrupted().Level)
		}
		switch {
		case errors.Is(c.err, errJobNotFound) && c.state.Terminal(): // past retention, known to have ended
			r.Error = s.refuseItem(i, errTooLate)
		case c.err != nil:
			r.Error = s.refuseItem(i, c.err)
		default:
			r.Status = stintv1.InterruptStatus(c.effect)
		}
		answer.Results[i] = r
	}
	return answer, nil
}

// RetryJobs makes each job run again, or each of the next page, in one transaction.
func (s *Server) RetryJobs(ctx context.Context, m *stintv1.RetryJobsRequest) (*stintv1.RetryJobsResponse, error) {
	if err := checkTargets(m); err != nil {
		return nil, err
	}
	if err := checkNamed(m); err != nil {
		return nil, err
	}
	by := job.By{Reason: m.GetReason(), Requester: m.GetRequester(), Request: m.GetRequestId()}
	changed, token, err := s.changeJobs(ctx, m, deed{
		kind: job.ActionRetry, request: by.Request,
		query: &stintv1.RetryJobsRequest{Filter: m.GetFilter()},
		step: func(r store.Reader, j *job.Job) (*job.Job, job.InterruptEffect, error) {
			next, err := j.RetryBy(r.Now(), by)
			if err == nil {
				err = refuseKey(r, j, next)
			}
			return next, 0, err
		},
	})
	if err != nil {
		return nil, err
	}
	return &stintv1.RetryJobsResponse{Results: s.jobResults(changed), ContinueToken: token}, nil
}

// DeleteJobs deletes each job, or each of the next page, in one transaction.
func (s *Server) DeleteJobs(ctx context.Context, m *stintv1.DeleteJobsRequest) (*stintv1.DeleteJobsResponse, error) {
	if err := checkTargets(m); err != nil {
		return nil, err
	}
	changed, token, err := s.changeJobs(ctx, m, deed{
		query: &stintv1.DeleteJobsRequest{Filter: m.GetFilter()},
		step: func(_ store.Reader, j *job.Job) (*job.Job, job.InterruptEffect, error) {
			return nil, 0, j.CanDelete()
		},
	})
	if err != nil {
		return nil, err
	}
	return &stintv1.DeleteJobsResponse{Results: s.jobResults(changed), ContinueToken: token}, nil
}

func (s *Server) jobResults(changed []changedJob) []*stintv1.JobResult {
	results := make([]*stintv1.JobResult, len(changed))
	for i, c := range changed {
		results[i] = &stintv1.JobResult{Id: c.id}
		if c.err != nil {
			results[i].Error = s.refuseItem(i, c.err)
		}
		if c.job != nil {
			results[i].State = stintv1.JobState(c.state)
		}
	}
	return results
}
