package dispatch

import (
	"slices"

	"github.com/stintrun/stint/internal/event"
)

// What happens to workers happens in memory. It is told with the next batch.

// note has an event of the worker told.
func (d *Dispatcher) note(kind event.Kind, w *worker, reason, who string) {
	if d.closed {
		return
	}
	d.notes = append(d.notes, event.Event{Shape: event.Shape{Kind: kind, Worker: w.info.Worker, Instance: w.instance}, Reason: reason, Who: who})
	d.poke()
}

// writeNotes adds the events to the batch.
func (m *matcher) writeNotes() {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	m.noted, d.notes = d.notes, nil
	for _, e := range m.noted {
		m.tx.Note(e)
	}
}

// unwriteNotes follows writeNotes when its transaction failed.
func (m *matcher) unwriteNotes() {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes = slices.Concat(m.noted, d.notes)
}
