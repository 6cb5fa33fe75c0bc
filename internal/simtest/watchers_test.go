package simtest

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// The watchers look and interfere. What they are told the witness judges; that the server is away is no fault.

// soon is a context for a call that may find the server away.
func soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 10*time.Second)
}

// rest waits until the next look, at most for so many seconds, minutes in a long script; false: there is none.
func (s *sim) rest(d *dice, most float64) bool {
	s.dark.pass()
	return d.rest(s.over, 0, time.Duration(most*float64(s.minute()/60)))
}

// listAll reads page after page. A walk through all pages has every job that was acknowledged before it began.
func (s *sim) listAll(d *dice) {
	l := s.connect()
	defer l.close()
	for s.rest(d, 2) {
		missing := s.witness.acknowledged()
		m := &stintv1.ListJobsRequest{View: stintv1.JobView_JOB_VIEW_FULL, PageSize: uint32(1 + d.n(200))}
		for whole := false; !whole; {
			ctx, cancel := soon()
			page, err := l.Jobs().ListJobs(ctx, m)
			cancel()
			if err != nil {
				break
			}
			for _, j := range page.GetJobs() {
				delete(missing, j.GetId())
			}
			m.PageToken = page.GetNextPageToken()
			whole = m.PageToken == ""
			if whole && len(missing) > 0 {
				s.witness.fault("%d jobs are missing in the list: %v", len(missing), missing)
			}
		}
	}
}

// getOneByOne reads jobs that were sent.
func (s *sim) getOneByOne(d *dice) {
	l := s.connect()
	defer l.close()
	for s.rest(d, 0.5) {
		ctx, cancel := soon()
		_, _ = l.Jobs().GetJob(ctx, &stintv1.GetJobRequest{Id: s.someID(d), View: stintv1.JobView(d.n(3))})
		cancel()
	}
}

// waitForOne waits for the end of jobs.
func (s *sim) waitForOne(d *dice) {
	l := s.connect()
	defer l.close()
	for s.rest(d, 5) {
		ctx, cancel := context.WithTimeout(context.Background(), d.between(time.Second, time.Minute))
		j, err := l.Wait(ctx, s.someID(d))
		cancel()
		if err == nil && !terminal(j.GetState()) && j.GetState() != stintv1.JobState_JOB_STATE_PARKED {
			s.witness.fault("a wait ended with %v", j)
		}
	}
}

// operate interferes.
func (s *sim) operate(d *dice) {
	l := s.connect()
	defer l.close()
	for s.rest(d, 2) {
		ctx, cancel := soon()
		queue := queues[d.n(len(queues))]
		ids := []string{s.someID(d), s.someID(d)}
		switch n := d.n(100); {
		case n < 30:
			_, _ = l.Interrupt(ctx, stintv1.InterruptLevel_INTERRUPT_LEVEL_RETRY, "again", ids...)
		case n < 40:
			_, _ = l.Interrupt(ctx, stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL, "enough", ids[0])
			_, _ = l.Interrupt(ctx, stintv1.InterruptLevel_INTERRUPT_LEVEL_RETRY, "on second thoughts", ids[0])
		case n < 45:
			_, _ = l.Jobs().InterruptJobs(ctx, s.deadline(d, ids))
		case n < 50:
			_, _ = l.Park(ctx, "look at it first", ids[0])
		case n < 60:
			_, _ = l.Jobs().RetryJobs(ctx, &stintv1.RetryJobsRequest{Ids: ids})
		case n < 70:
			_, _ = l.Queues().PauseQueue(ctx, &stintv1.PauseQueueRequest{Name: queue})
		case n < 80:
			_, _ = l.Jobs().UpdateJob(ctx, s.update(d, ids[0]))
		case n < 95:
			_, _ = l.Queues().ResumeQueue(ctx, &stintv1.ResumeQueueRequest{Name: queue})
		default:
			s.drainOne(ctx, l, d)
		}
		cancel()
	}
}

// update has a job wait in another band, take other limits, or start later.
func (s *sim) update(d *dice, id string) *stintv1.UpdateJobRequest {
	m := &stintv1.UpdateJobRequest{
		Id: id, Reason: "on third thoughts", Update: &stintv1.JobUpdate{Priority: stintv1.Priority(10 * (1 + d.n(5)))},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"priority", "limits"}},
	}
	if d.chance(60) {
		m.Update.Limits = simUses(d)
	}
	if d.chance(20) {
		m.Update.Start = &stintv1.JobUpdate_Delay{Delay: durationpb.New(d.between(0, 20*time.Second))}
		m.UpdateMask.Paths = []string{"delay"}
	}
	return m
}

// deadline is an interrupt of the jobs with a time of its own, for some that all running ones of their queue get.
func (s *sim) deadline(d *dice, ids []string) *stintv1.InterruptJobsRequest {
	grace := d.between(0, 10*time.Second)
	m := &stintv1.InterruptJobsRequest{
		Level: stintv1.InterruptLevel(1 + d.n(2)), Reason: "by then", Requester: "simtest",
		Grace: durationpb.New(grace), HardDeadline: durationpb.New(grace + d.between(0, 20*time.Second)),
	}
	if !d.chance(10) {
		m.Ids = ids
		return m
	}
	m.Level, m.HardDeadline = stintv1.InterruptLevel_INTERRUPT_LEVEL_RETRY, nil
	m.Filter = &stintv1.JobFilter{Queue: queues[d.n(len(queues))], States: []stintv1.JobState{stintv1.JobState_JOB_STATE_RUNNING}}
	return m
}

func (s *sim) drainOne(ctx context.Context, l *link, d *dice) {
	list, err := l.Workers().ListWorkers(ctx, &stintv1.ListWorkersRequest{})
	if err != nil || len(list.GetWorkers()) == 0 {
		return
	}
	m := &stintv1.DrainWorkersRequest{InstanceIds: []string{list.GetWorkers()[d.n(len(list.GetWorkers()))].GetInstanceId()}}
	if d.chance(70) {
		m.Grace = durationpb.New(d.between(0, 20*time.Second))
	}
	s.note("drain %v", m)
	_, _ = l.Workers().DrainWorkers(ctx, m)
}
