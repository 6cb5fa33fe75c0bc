package simtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// The followers follow events through everything that happens to the server. In the end each must have had every event that it
// asked for once, in order, and know where each job stands.

// follower is one of them.
type follower struct {
	filter *stintv1.EventFilter
	events []*stintv1.Event
	cancel context.CancelFunc
}

// follow lets one in: of everything, of a queue, of a pattern.
func (s *sim) follow(n int) {
	f := &follower{filter: []*stintv1.EventFilter{nil, {Queue: queues[0]}, {Queue: "sim/*", Kinds: []stintv1.EventKind{
		stintv1.EventKind_EVENT_KIND_JOB_ENDED, stintv1.EventKind_EVENT_KIND_JOB_PARKED,
	}}}[n]}
	s.followers = append(s.followers, f)
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	d := newDice(s.seed, "follower"+f.filter.GetQueue())
	s.following.Go(func() {
		l := s.connect()
		defer l.close()
		_ = l.Watch(ctx, &stintv1.WatchEventsRequest{FromOldest: true, Filter: f.filter}, func(m *stintv1.WatchEventsResponse) error {
			f.events = append(f.events, m.GetEvents()...)
			if d.chance(1) {
				time.Sleep(d.between(0, 30*time.Second)) // it is slow
			}
			return nil
		})
	})
}

// joiner lists at some moment and follows from there on; it knows where each job stands.
type joiner struct {
	states map[string]stintv1.JobState
	cancel context.CancelFunc
}

// join lets one in that lists at some moment.
func (s *sim) join(n int) {
	ctx, cancel := context.WithCancel(context.Background())
	j := &joiner{cancel: cancel}
	s.joiners = append(s.joiners, j)
	d := newDice(s.seed, fmt.Sprint("joiner", n))
	s.following.Go(func() {
		l := s.connect()
		defer l.close()
		s.rest(d, 120)
		asOf := j.list(ctx, l, d)
		_ = l.Watch(ctx, &stintv1.WatchEventsRequest{Cursor: asOf}, func(m *stintv1.WatchEventsResponse) error {
			for _, e := range m.GetEvents() {
				if e.GetJobState() != 0 {
					j.states[e.GetJobId()] = e.GetJobState()
				}
			}
			return nil
		})
	})
}

// list reads all jobs, from the start if it was interrupted, and returns the cursor of the first page.
func (j *joiner) list(ctx context.Context, l *link, d *dice) (asOf string) {
	m := &stintv1.ListJobsRequest{PageSize: uint32(1 + d.n(50))}
	for ctx.Err() == nil {
		if m.PageToken == "" {
			asOf, j.states = "", map[string]stintv1.JobState{}
		}
		call, cancel := soon()
		page, err := l.Jobs().ListJobs(call, m)
		cancel()
		if err != nil {
			m.PageToken = ""
			time.Sleep(time.Second)
			continue
		}
		if asOf == "" {
			asOf = page.GetAsOf()
		}
		for _, job := range page.GetJobs() {
			j.states[job.GetId()] = job.GetState()
		}
		if m.PageToken = page.GetNextPageToken(); m.PageToken == "" {
			return asOf
		}
	}
	return asOf
}

// compareFollowers compares what the followers have had with all events, read at once, and with the jobs.
func (s *sim) compareFollowers(jobs []*stintv1.Job) {
	l := s.connect()
	defer l.close()
	var all []*stintv1.Event
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := l.Watch(ctx, &stintv1.WatchEventsRequest{FromOldest: true}, func(m *stintv1.WatchEventsResponse) error {
		all = append(all, m.GetEvents()...)
		if m.GetLive() {
			return client.ErrStopWatching
		}
		return nil
	}); err != nil {
		s.witness.fault("reading all events failed: %v", err)
	}
	time.Sleep(2 * time.Minute) // by then the slowest has caught up
	for _, f := range s.followers {
		f.cancel()
	}
	for _, j := range s.joiners {
		j.cancel()
	}
	s.following.Wait()
	for n, j := range s.joiners {
		for _, job := range jobs {
			if j.states[job.GetId()] != job.GetState() {
				s.witness.fault("job %s is %s, and joiner %d takes it for %s", job.GetId(), job.GetState(), n, j.states[job.GetId()])
			}
		}
	}
	for n, f := range s.followers {
		want := slices.DeleteFunc(slices.Clone(all), func(e *stintv1.Event) bool { return !f.wants(e) })
		same := func(a, b *stintv1.Event) bool { return a.GetCursor() == b.GetCursor() }
		if got := f.events[:min(len(f.events), len(want))]; !slices.EqualFunc(want, got, same) {
			s.witness.fault("follower %d has had %d events, which are not the %d that there were", n, len(f.events), len(want))
		}
	}
	s.drawn(all, jobs)
}

func (f *follower) wants(e *stintv1.Event) bool {
	queue, prefix := strings.CutSuffix(f.filter.GetQueue(), "*")
	switch {
	case f.filter == nil:
		return true
	case prefix && !strings.HasPrefix(e.GetQueue(), queue), !prefix && e.GetQueue() != queue:
		return false
	default:
		return len(f.filter.GetKinds()) == 0 || slices.Contains(f.filter.GetKinds(), e.GetKind())
	}
}

// drawn holds the picture that the events draw against the jobs.
func (s *sim) drawn(all []*stintv1.Event, jobs []*stintv1.Job) {
	states := map[string]stintv1.JobState{}
	for _, e := range all {
		if e.GetJobState() != 0 {
			states[e.GetJobId()] = e.GetJobState()
		}
	}
	for _, j := range jobs {
		if states[j.GetId()] != j.GetState() {
			s.witness.fault("job %s is %s, and by its events %s", j.GetId(), j.GetState(), states[j.GetId()])
		}
	}
	s.t.Logf("%d events", len(all))
}
