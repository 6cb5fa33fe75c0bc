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
	_, shown, err := s.readJob(ctx, id, m.GetView())
	if err != nil {
		return nil, err
	}
	return &stintv1.GetJobResponse{Job: shown}, nil
}

// readJob is a job as it stands, and as it is shown. Errors: errJobNotFound.
func (s *Server) readJob(ctx context.Context, id job.ID, view stintv1.JobView) (j *job.Job, m *stintv1.Job, err error) {
	err = s.store.View(ctx, func(r store.Reader) error {
		found, err := r.Find([]job.ID{id})
		if err != nil {
			return err
		}
		if j = found[0].Job; j == nil {
			return errJobNotFound
		}
		m, err = wireJob(r, j, view)
		return err
	})
	return j, m, err
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
	var counts [job.NumberOfStates]uint64
	err := s.store.View(ctx, func(r store.Reader) error {
		counts = [job.NumberOfStates]uint64{}
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
	return &stintv1.CountJobsResponse{Counts: wireCounts(counts)}, nil
}

// scanCounts looks at the jobs, in steps, so that no look holds the store for long. A job that changes meanwhile is
// counted once, as it was when it was seen.
func (s *Server) scanCounts(ctx context.Context, filter *jobFilter) (*stintv1.CountJobsResponse, error) {
	var counts [job.NumberOfStates]uint64
	next := uint64(1)
	for seen := 0; next != 0 && seen < countBudget; seen += scanBudget {
		from := next
		err := s.store.View(ctx, func(r store.Reader) (err error) {
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
	return &stintv1.CountJobsResponse{Counts: wireCounts(counts), AtLeast: next != 0}, nil
}

// InterruptJobs interrupts each job, in one transaction.
func (s *Server) InterruptJobs(ctx context.Context, m *stintv1.InterruptJobsRequest) (*stintv1.InterruptJobsResponse, error) {
	if err := checkInterruptJobs(m); err != nil {
		return nil, err
	}
	request := job.InterruptRequest{
		Level:     job.Level(m.GetLevel()),
		Source:    job.SourceUser,
		Reason:    m.GetReason(),
		Requester: m.GetRequester(),
	}
	effects := make([]job.InterruptEffect, len(m.GetIds()))
	changed, err := s.changeJobs(ctx, m.GetIds(), func(tx store.Tx, i int, j *job.Job) (next *job.Job, err error) {
		asked := request
		asked.Policy = policyOf(tx, j)
		next, effects[i], err = j.RequestInterrupt(tx.Now(), asked)
		return next, err
	})
	if err != nil {
		return nil, err
	}
	answer := &stintv1.InterruptJobsResponse{Results: make([]*stintv1.InterruptResult, len(changed))}
	for i, c := range changed {
		r := &stintv1.InterruptResult{Id: m.GetIds()[i], State: stintv1.JobState(c.state)}
		if c.job != nil {
			r.Level = stintv1.InterruptLevel(c.job.Interrupt.Level)
		}
		switch {
		case errors.Is(c.err, errJobNotFound) && c.state.Terminal(): // past retention, known to have ended
			r.Error = s.refuseItem(i, errTooLate)
		case c.err != nil:
			r.Error = s.refuseItem(i, c.err)
		default:
			r.Status = stintv1.InterruptStatus(effects[i])
		}
		answer.Results[i] = r
	}
	return answer, nil
}

// RetryJobs makes each job run again, in one transaction.
func (s *Server) RetryJobs(ctx context.Context, m *stintv1.RetryJobsRequest) (*stintv1.RetryJobsResponse, error) {
	if err := checkCount("ids", len(m.GetIds())); err != nil {
		return nil, err
	}
	changed, err := s.changeJobs(ctx, m.GetIds(), func(tx store.Tx, _ int, j *job.Job) (*job.Job, error) {
		return j.Retry(tx.Now())
	})
	if err != nil {
		return nil, err
	}
	return &stintv1.RetryJobsResponse{Results: s.jobResults(m.GetIds(), changed)}, nil
}

// DeleteJobs deletes each job, in one transaction.
func (s *Server) DeleteJobs(ctx context.Context, m *stintv1.DeleteJobsRequest) (*stintv1.DeleteJobsResponse, error) {
	if err := checkCount("ids", len(m.GetIds())); err != nil {
		return nil, err
	}
	changed, err := s.changeJobs(ctx, m.GetIds(), func(_ store.Tx, _ int, j *job.Job) (*job.Job, error) {
		return nil, j.CanDelete()
	})
	if err != nil {
		return nil, err
	}
	return &stintv1.DeleteJobsResponse{Results: s.jobResults(m.GetIds(), changed)}, nil
}

func (s *Server) jobResults(ids []string, changed []changedJob) []*stintv1.JobResult {
	results := make([]*stintv1.JobResult, len(changed))
	for i, c := range changed {
		results[i] = &stintv1.JobResult{Id: ids[i]}
		if c.err != nil {
			results[i].Error = s.refuseItem(i, c.err)
		}
		if c.job != nil {
			results[i].State = stintv1.JobState(c.state)
		}
	}
	return results
}

// changedJob is what became of one job of a request.
type changedJob struct {
	job   *job.Job  // as it is now; nil if it is gone or unknown
	state job.State // also of a job that is known by its state only
	err   error
}

// changeJobs puts what fn makes of each of the jobs, as if they had come one after another. fn gets the item's index
// and the job and returns the next version: the same for no change, nil to delete it. Its errors are the item's.
func (s *Server) changeJobs(ctx context.Context, asked []string,
	fn func(tx store.Tx, i int, j *job.Job) (*job.Job, error),
) ([]changedJob, error) {
	ids, parsed := make([]job.ID, len(asked)), make([]error, len(asked))
	for i, id := range asked {
		ids[i], parsed[i] = parseID("id", id)
	}
	var changed []changedJob
	err := s.store.Update(ctx, func(tx store.Tx) error {
		changed = make([]changedJob, len(ids))
		found, err := tx.Find(ids)
		if err != nil {
			return err
		}
		now := make(map[job.ID]*job.Job, len(ids)) // the versions that earlier items left
		var changes []store.Change
		for i, id := range ids {
			c, j := &changed[i], found[i].Job
			if earlier, repeated := now[id]; repeated {
				j = earlier
			}
			switch {
			case parsed[i] != nil:
				c.err = parsed[i]
			case j == nil:
				c.err, c.state = errJobNotFound, found[i].State
			default:
				next, err := fn(tx, i, j)
				if c.err = err; err != nil {
					next = j
				} else if next != j {
					changes = append(changes, store.Change{Old: j, New: next})
				}
				c.job, now[id] = next, next
			}
			if c.job != nil {
				c.state = c.job.State
			}
		}
		return tx.Put(changes...)
	})
	return changed, err
}
