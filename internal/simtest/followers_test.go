package simtest

import (
	"context"
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
	from   string // the cursor of its beginning
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
	s.following.Wait()
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
