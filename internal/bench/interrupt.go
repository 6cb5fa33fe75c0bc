package bench

import (
	"context"
	"fmt"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// interruptCallers is how many calls of InterruptJobs may be under way: enough that a slow one holds up no other.
const interruptCallers = 64

// interrupt measures, at a fixed rate, the time from when a running job should be interrupted to when its worker is
// told. That is a little more than the server's part of it: the request's way to the server is in it too.
func interrupt(ctx context.Context, t *target, c Config, jobs int) ([]sample, error) {
	jobs = min(jobs, latencyMost)
	l := newLoad(ctx, t, shape{batch: 1, window: latencyMost, workers: c.Workers, room: jobs}, jobs, c)
	defer l.close()
	d := newDelays()
	l.told, l.outcome, l.ends = d.started, interrupted, stintv1.JobState_JOB_STATE_CANCELLED
	if err := l.openWorkers(); err != nil {
		return l.failed(Interrupt, err)
	}
	l.want(l.room)
	specs := l.batchOf(0, jobs)
	l.run(func() error { return l.submitCalls(specs) })
	for _, p := range []*progress{&l.created, &l.started} {
		if err := p.wait(l.ctx, jobs); err != nil {
			return l.failed(Interrupt, err)
		}
	}
	m := t.meter()
	d.begin = time.Now().Add(100 * time.Millisecond)
	l.interruptPaced(specs, d.due)
	if err := l.recorded.wait(l.ctx, jobs); err != nil {
		return l.failed(Interrupt, err)
	}
	s, err := m.stop(l.ctx, Interrupt, jobs)
	if err != nil {
		return l.failed(Interrupt, err)
	}
	q := d.quantiles()
	s.latency = &q
	return l.settle(s)
}

// submitCalls submits jobs by calls of a hundred.
func (l *load) submitCalls(specs []*stintv1.JobSpec) error {
	for len(specs) > 0 {
		n := min(100, len(specs))
		if err := l.submitCall(specs[:n]); err != nil {
			return err
		}
		specs = specs[n:]
	}
	return nil
}

// interruptPaced starts to cancel the jobs one by one, job i when due(i) comes, whatever the answers do.
func (l *load) interruptPaced(specs []*stintv1.JobSpec, due func(job int) time.Time) {
	next := make(chan string)
	l.run(func() error {
		defer close(next)
		for job, spec := range specs {
			pause := time.NewTimer(time.Until(due(job)))
			select {
			case <-pause.C:
			case <-l.ctx.Done():
				pause.Stop()
				return nil
			}
			select {
			case next <- spec.GetId():
			case <-l.ctx.Done():
				return nil
			}
		}
		return nil
	})
	for range interruptCallers {
		l.run(func() error {
			for id := range next {
				if err := l.interruptCall(id); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func (l *load) interruptCall(id string) error {
	ctx, cancel := context.WithTimeout(l.ctx, unaryTimeout)
	defer cancel()
	answer, err := l.target.jobs.InterruptJobs(ctx, &stintv1.InterruptJobsRequest{
		Ids: []string{id}, Level: stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL, Reason: "bench",
	})
	if err != nil {
		return fmt.Errorf("InterruptJobs: %w", err)
	}
	for _, r := range answer.GetResults() {
		if r.GetStatus() != stintv1.InterruptStatus_INTERRUPT_STATUS_REQUESTED {
			l.fault("the interrupt of job %s was answered %s: %s", id, r.GetStatus(), r.GetError().GetMessage())
		}
	}
	return nil
}

var gaveWay = &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Reason: "bench"}}

func interrupted(f *stintv1.Finish) { f.Outcome = gaveWay }

// hold keeps a run until it is interrupted, if the load asks for that; false means that it is to be finished at once.
func (s *session) hold(token string) bool {
	if s.load.told == nil {
		return false
	}
	if s.waiting == nil {
		s.waiting = map[string]struct{}{}
	}
	s.waiting[token] = struct{}{}
	return true
}

// obey gives up the runs that are interrupted.
func (s *session) obey(verdicts []*stintv1.Verdict) {
	for _, v := range verdicts {
		token := v.GetLeaseToken()
		if _, ok := s.waiting[token]; !ok || v.GetInterrupt() == nil {
			continue // told again, or before
		}
		delete(s.waiting, token)
		if job, ok := s.load.mark(s.held[token], jobTold); ok {
			s.load.told(job)
		}
		s.acks = append(s.acks, &stintv1.InterruptAck{LeaseToken: token, Generation: v.GetInterrupt().GetGeneration()})
		s.pending = append(s.pending, token)
	}
}
