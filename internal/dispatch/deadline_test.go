package dispatch

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestDeadlinesModel compares the heap with a plain list of moments: each deadline comes up once, not before its
// moment and never later than the first look after it, however it was moved, and next never sleeps through one.
func TestDeadlinesModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := &deadlinesModel{now: 1}
		r.Repeat(map[string]func(*rapid.T){
			"add":     m.add,
			"move":    m.move,
			"drop":    m.drop,
			"reports": m.reports,
			"pass":    m.pass,
			"":        m.check,
		})
	})
}

type deadlinesModel struct {
	heap deadlines
	now  int64
	all  []*deadline
	at   []int64 // of the deadline at the same place; 0: it has none
}

func (m *deadlinesModel) moment(r *rapid.T) int64 {
	return m.now + rapid.Int64Range(0, 50).Draw(r, "in")
}

func (m *deadlinesModel) add(r *rapid.T) {
	d := &deadline{}
	d.of = d
	m.all, m.at = append(m.all, d), append(m.at, m.moment(r))
	m.heap.set(d, m.at[len(m.at)-1])
}

func (m *deadlinesModel) pick(r *rapid.T) int {
	if len(m.all) == 0 {
		m.add(r)
	}
	return rapid.IntRange(0, len(m.all)-1).Draw(r, "which")
}

func (m *deadlinesModel) move(r *rapid.T) {
	i := m.pick(r)
	m.at[i] = m.moment(r)
	m.heap.set(m.all[i], m.at[i])
}

func (m *deadlinesModel) drop(r *rapid.T) {
	i := m.pick(r)
	m.at[i] = 0
	m.heap.drop(m.all[i])
}

// reports is what many reports do, and many finishes: so many stale entries that they are cleaned up.
func (m *deadlinesModel) reports(r *rapid.T) {
	extra := make([]deadline, rapid.IntRange(1, 2*staleMin).Draw(r, "runs"))
	for i := range extra {
		m.heap.set(&extra[i], m.now+int64(i%90))
	}
	for i, d := range m.all {
		if m.at[i] != 0 {
			m.at[i] += 5
			m.heap.set(d, m.at[i])
		}
	}
	for i := range extra {
		m.heap.drop(&extra[i])
	}
	if live := len(m.all); len(m.heap.entries) > 2*(live+2*staleMin) {
		r.Fatalf("%d entries for %d deadlines", len(m.heap.entries), live)
	}
}

func (m *deadlinesModel) pass(r *rapid.T) {
	m.now += rapid.Int64Range(0, 60).Draw(r, "time")
	var came, want []int
	for d := m.heap.due(m.now); d != nil; d = m.heap.due(m.now) {
		came = append(came, slices.Index(m.all, d.of.(*deadline)))
	}
	for i, at := range m.at {
		if at != 0 && at <= m.now {
			want = append(want, i)
			m.at[i] = 0
		}
	}
	if slices.Sort(came); !slices.Equal(came, want) {
		r.Fatalf("at %d the deadlines %v came, want %v", m.now, came, want)
	}
}

func (m *deadlinesModel) check(r *rapid.T) {
	first := int64(math.MaxInt64)
	for _, at := range m.at {
		if at != 0 {
			first = min(first, at)
		}
	}
	if next, ok := m.heap.next(); first != math.MaxInt64 && (!ok || next > first) {
		r.Fatalf("next look at %d (%t), but a deadline comes at %d", next, ok, first)
	}
}
