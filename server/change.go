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

// jobsRequest is a request that acts on jobs, named by ids or selected by a filter.
type jobsRequest interface {
	GetIds() []string
	GetFilter() *stintv1.JobFilter
	GetAll() bool
	GetDryRun() bool
	GetContinueToken() string
	GetPageSize() uint32
}

// step is what a request does to one job: it returns the next version, the same for no change, nil to delete it. An
// error says that the job as it is does not allow it.
type step func(r store.Reader, j *job.Job) (next *job.Job, effect job.InterruptEffect, err error)

// deed is what a request is about to do to each of its jobs.
type deed struct {
	step  step
	query proto.Message // what the request's continue tokens are bound to
	// As what the jobs remember it, and under which name, if it has one: a repeat is known by these.
	kind    job.ActionKind
	request string
}

// selects reports whether j belongs to a request with this filter: it matches, or the same request has acted on it
// before. The repeat of a page answers for the same jobs, whatever has become of them.
func (d *deed) selects(filter *jobFilter, j *job.Job) bool {
	_, did := j.Did(d.kind, d.request)
	return did || filter.matches(j)
}

// changedJob is what became of one job of a request.
type changedJob struct {
	id     string
	job    *job.Job  // as it is now; nil if it is gone or unknown
	state  job.State // also of a job that is known by its state only
	effect job.InterruptEffect
	err    error
}

// changeJobs does it to each of the jobs that m names, or to the next page of those that it selects; token names the page
// after that.
func (s *Server) changeJobs(ctx context.Context, m jobsRequest, d deed) (changed []changedJob, token string, err error) {
	if m.GetFilter() == nil {
		changed, err = s.changeNamed(ctx, m, d.step)
		return changed, "", err
	}
	reach, err := s.openReach(d.query, m.GetContinueToken())
	if err != nil {
		return nil, "", err
	}
	if changed, err = s.changeSelected(ctx, m, &reach, d); err != nil || reach.next == 0 {
		return changed, "", err
	}
	token, err = s.tokens.seal(d.query, reach.position())
	return changed, token, err
}

// changeNamed puts what do makes of each of the jobs, as if they had come one after another.
func (s *Server) changeNamed(ctx context.Context, m jobsRequest, do step) ([]changedJob, error) {
	asked := m.GetIds()
	ids, parsed := make([]job.ID, len(asked)), make([]error, len(asked))
	for i, id := range asked {
		ids[i], parsed[i] = parseID("id", id)
	}
	var changed []changedJob
	err := s.update(ctx, m.GetDryRun(), func(tx store.Tx) error {
		changed = make([]changedJob, len(ids))
		found, err := tx.Find(ids)
		if err != nil {
			return err
		}
		now := make(map[job.ID]*job.Job, len(ids)) // the versions that earlier items left
		for i, id := range ids {
			c, j := &changed[i], found[i].Job
			c.id = asked[i]
			if earlier, repeated := now[id]; repeated {
				j = earlier
			}
			switch {
			case parsed[i] != nil:
				c.err = parsed[i]
			case j == nil:
				c.err, c.state = errJobNotFound, found[i].State
			default:
				if err := c.take(tx, j, do); err != nil {
					return err
				}
				now[id] = c.job
			}
		}
		return nil
	})
	return changed, err
}

// take notes what do makes of j. If that is another version, it is put, so that the steps of other jobs see it. A job that
// goes on after its end needs its queue again, which may have been deleted since.
func (c *changedJob) take(tx store.Tx, j *job.Job, do step) error {
	next, effect, err := do(tx, j)
	if err == nil && next != nil && j.State.Terminal() && !next.State.Terminal() {
		switch _, missing := tx.MakeQueue(j.Spec.Queue); {
		case errors.Is(missing, store.ErrTooManyQueues):
			err = tooManyQueues("")
		case missing != nil:
			return missing
		}
	}
	if c.effect, c.err = effect, err; err != nil {
		next = j
	}
	if c.job = next; next != nil {
		c.state = next.State
	}
	if next == j {
		return nil
	}
	return tx.Put(store.Change{Old: j, New: next})
}

// changeSelected puts what do makes of the next page of jobs that the filter selects, and moves reach behind them. The
// page is looked for outside the transaction, which holds everybody up; inside, each job is judged again.
func (s *Server) changeSelected(ctx context.Context, m jobsRequest, r *reach, d deed) ([]changedJob, error) {
	filter, size := filterFrom(m.GetFilter()), itemsMax
	if asked := m.GetPageSize(); asked > 0 {
		size = clampPageSize(asked)
	}
	seqs, err := s.selectPage(ctx, r, size, func(r store.Reader, j *job.Job) bool {
		if !d.selects(&filter, j) {
			return false
		}
		_, _, err := d.step(r, j)
		return err == nil
	})
	if err != nil || len(seqs) == 0 {
		return nil, err
	}
	var changed []changedJob
	err = s.update(ctx, m.GetDryRun(), func(tx store.Tx) error {
		changed = nil
		jobs, err := tx.Load(seqs)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if j == nil || !d.selects(&filter, j) {
				continue
			}
			c := changedJob{id: j.Spec.ID.String()}
			if err := c.take(tx, j, d.step); err != nil {
				return err
			}
			if c.err == nil {
				changed = append(changed, c)
			}
		}
		return nil
	})
	return changed, err
}

// errDryRun makes the store drop what a transaction wrote.
var errDryRun = errors.New("dry run")

// update is a transaction of the store; a dry one runs like any other and is dropped at its end.
func (s *Server) update(ctx context.Context, dry bool, fn func(store.Tx) error) error {
	if !dry {
		return s.store.Update(ctx, fn)
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return errDryRun
	})
	if errors.Is(err, errDryRun) {
		return nil
	}
	return err
}

// reach is how far a request by filter has come and how far it goes. It ends with the job that was the newest when it
// began, and only ever goes forward: so it ends, whatever becomes of the jobs that it has met.
type reach struct {
	next uint64 // the sequence to go on from; 0: nothing is left
	last uint64 // the last sequence; 0: not known before the first look into the store
}

func (s *Server) openReach(query proto.Message, token string) (reach, error) {
	position, err := s.tokens.open(query, token)
	switch {
	case errors.Is(err, errPageToken), err == nil && token != "" && len(position) != 16:
		return reach{}, errContinueToken
	case err != nil || token == "":
		return reach{next: 1}, err
	}
	return reach{next: binary.BigEndian.Uint64(position), last: binary.BigEndian.Uint64(position[8:])}, nil
}

func (r *reach) position() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, r.next), r.last)
}

// selectPage returns the sequences of the next jobs that are admitted, and moves reach behind them. It is one look into
// the store: a page ends when it is full, or when the budget is used up.
func (s *Server) selectPage(ctx context.Context, at *reach, size int, admits func(store.Reader, *job.Job) bool) ([]uint64, error) {
	var seqs []uint64
	from, last, next := at.next, at.last, uint64(0)
	err := s.store.View(ctx, func(r store.Reader) (err error) {
		seqs = nil
		if at.last == 0 {
			if last, err = newest(r); err != nil {
				return err
			}
		}
		next, err = r.Scan(from, false, scanBudget, func(j *job.Job) bool {
			switch {
			case j.Seq > last:
				return false
			case !admits(r, j):
				return true
			case len(seqs) == size:
				return false // the next page starts with it
			}
			seqs = append(seqs, j.Seq)
			return true
		})
		return err
	})
	if next > last {
		next = 0
	}
	at.next, at.last = next, last
	return seqs, err
}

// newest is the sequence of the job that was submitted last; 0 if there is none.
func newest(r store.Reader) (seq uint64, err error) {
	_, err = r.Scan(math.MaxInt64, true, scanBudget, func(j *job.Job) bool {
		seq = j.Seq
		return false
	})
	return seq, err
}
