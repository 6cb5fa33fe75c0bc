package feed

import (
	"slices"
	"strings"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Topic is what followers ask for.
type Topic struct {
	// Queue is a queue's name; with Prefix, how its name begins. Prefix alone is everything.
	Queue  string
	Prefix bool
	// Jobs are ids, one behind the other in ascending order. If there are some, the topic is these jobs, whatever else it says.
	Jobs string
}

// OfJobs is the topic of some jobs.
func OfJobs(ids []job.ID) Topic {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b job.ID) int { return slices.Compare(a[:], b[:]) })
	var b strings.Builder
	for _, id := range slices.Compact(ids) {
		b.Write(id[:])
	}
	return Topic{Jobs: b.String()}
}

func (n Topic) ids() []job.ID {
	ids := make([]job.ID, len(n.Jobs)/len(job.ID{}))
	for i := range ids {
		copy(ids[i][:], n.Jobs[i*len(ids[i]):])
	}
	return ids
}

// topic is the latest events for some followers: from its begin on, without a gap.
type topic struct {
	name      Topic
	ids       map[job.ID]struct{}
	begin     store.Cursor // zero: it does not remember yet
	entries   []*Entry
	followers map[*Follower]struct{}
}

func (t *topic) concerns(e *event.Event) bool {
	switch {
	case t.ids != nil:
		_, ok := t.ids[e.Job]
		return ok
	case t.name.Prefix:
		return strings.HasPrefix(e.Queue, t.name.Queue)
	default:
		return e.Queue == t.name.Queue
	}
}

func (t *topic) add(e *Entry) {
	if len(t.entries) >= topicMax {
		t.drop(topicMax / 2)
	}
	t.entries = append(t.entries, e)
}

// drop forgets the first n events.
func (t *topic) drop(n int) {
	t.begin = t.entries[n-1].Next
	t.entries = append([]*Entry(nil), t.entries[n:]...)
}

// forget forgets the events before a place. Who has had them is not behind by that, also if it has had nothing since.
func (t *topic) forget(floor store.Cursor) {
	n := 0
	for n < len(t.entries) && !floor.Before(t.entries[n].Next) {
		n++
	}
	if n > 0 {
		t.drop(n)
	}
}

// after are the entries behind the cursor.
func (t *topic) after(c store.Cursor) []*Entry {
	i, _ := slices.BinarySearchFunc(t.entries, c, func(e *Entry, c store.Cursor) int {
		if c.Before(e.Next) {
			return 1
		}
		return -1
	})
	return t.entries[i:]
}

func (t *topic) signal() {
	for fo := range t.followers {
		fo.signal()
	}
}

// index finds the topics that an event concerns.
type index struct {
	all      map[Topic]*topic
	byJob    map[job.ID]map[*topic]struct{}
	patterns map[*topic]struct{}
}

func newIndex() index {
	return index{all: map[Topic]*topic{}, byJob: map[job.ID]map[*topic]struct{}{}, patterns: map[*topic]struct{}{}}
}

// topic returns the topic of the name, making one that remembers from the place on if there is none.
func (x *index) topic(name Topic, begin store.Cursor) *topic {
	t := x.all[name]
	if t != nil {
		return t
	}
	t = &topic{name: name, begin: begin, followers: map[*Follower]struct{}{}}
	x.all[name] = t
	switch {
	case name.Jobs != "":
		t.ids = map[job.ID]struct{}{}
		for _, id := range name.ids() {
			t.ids[id] = struct{}{}
			if x.byJob[id] == nil {
				x.byJob[id] = map[*topic]struct{}{}
			}
			x.byJob[id][t] = struct{}{}
		}
	case name.Prefix:
		x.patterns[t] = struct{}{}
	}
	return t
}

// drop forgets a topic that nobody follows.
func (x *index) drop(t *topic) {
	delete(x.all, t.name)
	delete(x.patterns, t)
	for id := range t.ids {
		if delete(x.byJob[id], t); len(x.byJob[id]) == 0 {
			delete(x.byJob, id)
		}
	}
}

func (x *index) each(fn func(*topic)) {
	for _, t := range x.all {
		fn(t)
	}
}

// concerned calls fn for the topics that the event concerns.
func (x *index) concerned(e *event.Event, fn func(*topic)) {
	if e.Queue != "" {
		if t := x.all[Topic{Queue: e.Queue}]; t != nil {
			fn(t)
		}
	}
	if len(x.byJob) > 0 {
		for t := range x.byJob[e.Job] {
			fn(t)
		}
	}
	for t := range x.patterns {
		if strings.HasPrefix(e.Queue, t.name.Queue) {
			fn(t)
		}
	}
}
