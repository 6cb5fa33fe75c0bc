package simtest

import "time"

// pauses are the times in which one queue was paused for certain: from the answer to a pause until a resume was asked
// for.
type pauses struct {
	past   [][2]time.Time
	since  time.Time // zero: it is not paused, as far as was heard
	unsure bool      // a resume was not answered, so that it may come later
}

func (w *witness) pausesOf(queue string) *pauses {
	p := w.pauses[queue]
	if p == nil {
		p = &pauses{}
		w.pauses[queue] = p
	}
	return p
}

func (w *witness) paused(queue string) {
	if p := w.pausesOf(queue); p.since.IsZero() && !p.unsure {
		p.since = time.Now()
	}
}

func (w *witness) resumes(queue string) {
	if p := w.pausesOf(queue); !p.since.IsZero() {
		p.past = append(p.past, [2]time.Time{p.since, time.Now()})
		p.since = time.Time{}
	}
}

// hold reports whether the queue was paused at a time.
func (p *pauses) hold(at time.Time) bool {
	for _, past := range p.past {
		if at.After(past[0]) && at.Before(past[1]) {
			return true
		}
	}
	return false
}
