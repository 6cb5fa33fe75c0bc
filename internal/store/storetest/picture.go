package storetest

import (
	"maps"
	"slices"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// picture is what a follower knows that listed at some moment and follows the events since.
type picture struct {
	next store.Cursor
	jobs map[job.ID]seen
}

// seen is where a job stands, as far as events say.
type seen struct {
	State job.State
	Runs  uint32
	Run   job.RunState // of the live run
}

func seenOf(j *job.Job) seen {
	s := seen{State: j.State, Runs: j.RunCount}
	if j.Run.State.Live() {
		s.Run = j.Run.State
	}
	return s
}

// join makes a new follower.
func (m *model) join(r *rapid.T) {
	p := &picture{jobs: map[job.ID]seen{}}
	m.view(func(v store.Reader) error {
		_, p.next = v.Position()
		_, err := v.Scan(0, false, 1<<30, func(j *job.Job) bool {
			p.jobs[j.Spec.ID] = seenOf(j)
			return true
		})
		return err
	})
	m.pictures = append(m.pictures, p)
	if len(m.pictures) > 4 {
		m.pictures = slices.Delete(m.pictures, 0, 1)
	}
}

// follow takes the events that are new, in pages, and draws them.
func (p *picture) follow(s store.Store, page int) error {
	for {
		n := 0
		next, err := s.Events(p.next, page, func(at store.Cursor, e *event.Event) bool {
			n++
			p.draw(e)
			return true
		})
		if err != nil {
			return err
		}
		if p.next = next; n < page {
			return nil
		}
	}
}

func (p *picture) draw(e *event.Event) {
	if e.Job == (job.ID{}) {
		return
	}
	if e.Kind == event.JobDeleted {
		delete(p.jobs, e.Job)
		return
	}
	s := p.jobs[e.Job]
	s.State = e.State
	switch e.Kind {
	case event.RunDispatched, event.RunAccepted:
		s.Runs, s.Run = max(s.Runs, e.Run), e.RunState
	case event.RunEnded:
		if e.Run == s.Runs {
			s.Run = job.RunNone
		}
	default:
	}
	p.jobs[e.Job] = s
}

// comparePictures checks that every follower ends with the store's own picture.
func (m *model) comparePictures(r *rapid.T) {
	want := map[job.ID]seen{}
	for j := range maps.Values(m.jobs) {
		want[j.Spec.ID] = seenOf(j)
	}
	for i, p := range m.pictures {
		if err := p.follow(m.Store(), rapid.IntRange(1, 40).Draw(r, "page")); err != nil {
			r.Fatalf("follower %d: %v", i, err)
		}
		if d := cmp.Diff(want, p.jobs); d != "" {
			r.Fatalf("follower %d (-want +got):\n%s", i, d)
		}
	}
}
