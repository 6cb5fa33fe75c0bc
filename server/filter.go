package server

import (
	"slices"
	"strings"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// queuePattern selects queues: one by its name, or all whose names start with a prefix.
type queuePattern struct {
	name   string
	prefix bool
}

// parsePattern reads a checked pattern. Empty and "*" select all queues, "media/*" those under media.
func parsePattern(s string) queuePattern {
	if s == "" {
		return queuePattern{prefix: true}
	}
	name, prefix := strings.CutSuffix(s, "*")
	return queuePattern{name: name, prefix: prefix}
}

func (p queuePattern) matches(queue string) bool {
	if p.prefix {
		return strings.HasPrefix(queue, p.name)
	}
	return queue == p.name
}

// each calls fn for the queues that match, in the order of their names, from the named one on, until it returns false.
func (p queuePattern) each(r store.Reader, from string, fn func(*store.Queue) bool) {
	if !p.prefix {
		if q := r.Queue(p.name); q != nil && p.name >= from {
			fn(q)
		}
		return
	}
	r.Queues(max(from, p.name), func(q *store.Queue) bool { return p.matches(q.Name) && fn(q) })
}

// jobFilter is a JobFilter that was checked.
type jobFilter struct {
	queue        queuePattern
	states       [job.NumberOfStates]bool
	labels       map[string]string
	subject      string
	unique       string
	from, before time.Time // zero: open
}

func filterFrom(m *stintv1.JobFilter) jobFilter {
	f := jobFilter{
		queue:   parsePattern(m.GetQueue()),
		labels:  m.GetLabels(),
		subject: m.GetSubject(),
		unique:  m.GetUniqueKey(),
	}
	for state := range f.states {
		f.states[state] = len(m.GetStates()) == 0
	}
	for _, state := range m.GetStates() {
		f.states[state] = true
	}
	if t := m.GetSubmittedFrom(); t != nil {
		f.from = t.AsTime()
	}
	if t := m.GetSubmittedBefore(); t != nil {
		f.before = t.AsTime()
	}
	return f
}

// byQueue reports whether the filter asks for queues and states only, of which the store keeps counts.
func (f *jobFilter) byQueue() bool {
	return len(f.labels) == 0 && f.subject == "" && f.unique == "" && f.from.IsZero() && f.before.IsZero()
}

// everything reports whether the filter leaves no job out.
func (f *jobFilter) everything() bool {
	return f.byQueue() && f.queue == queuePattern{prefix: true} && !slices.Contains(f.states[:], false)
}

func (f *jobFilter) matches(j *job.Job) bool {
	if !f.states[j.State] || !f.queue.matches(j.Spec.Queue) {
		return false
	}
	if f.subject != "" && j.Spec.Subject != f.subject {
		return false
	}
	if f.unique != "" && (j.Spec.Unique == nil || j.Spec.Unique.Key != f.unique) {
		return false
	}
	for key, value := range f.labels {
		if has, ok := j.Spec.Labels[key]; !ok || has != value {
			return false
		}
	}
	if !f.before.IsZero() && !j.SubmitTime.Before(f.before) {
		return false
	}
	return f.from.IsZero() || !j.SubmitTime.Before(f.from)
}
