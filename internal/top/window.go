package top

import "time"

// Kind is what is counted.
type kind int

const (
	events kind = iota
	submits
	starts
	ends
	finishes
	failures
	kinds
)

const (
	// windowSeconds is how far back a window reaches: failures are shown for a minute.
	windowSeconds = 60
	// rateSeconds is what a rate is the mean of: long enough to be read, short enough to show that something stopped.
	rateSeconds = 5
	// rateLeast is the shortest time that a rate is taken over; over less, one event would be a thousand a second.
	rateLeast = 500 * time.Millisecond
)

// window counts what happened in each of the last seconds. Its times are the server's.
type window struct {
	newest int64 // The second that the newest slot is for, since 1970.
	slots  [windowSeconds][kinds]uint32
}

// add counts one more at a time. What is older than the window is not counted.
func (w *window) add(k kind, at time.Time) {
	second := at.Unix()
	if second <= w.newest-windowSeconds {
		return
	}
	for ; w.newest < second; w.newest++ {
		if second-w.newest > windowSeconds {
			w.newest = second - windowSeconds // All slots are emptied all the same.
		}
		w.slots[slot(w.newest+1)] = [kinds]uint32{}
	}
	w.slots[slot(second)][k]++
}

func slot(second int64) int64 { return (second%windowSeconds + windowSeconds) % windowSeconds }

// count is how many there were from one second to another, both included.
func (w *window) count(k kind, from, to int64) (n uint64) {
	from, to = max(from, w.newest-windowSeconds+1), min(to, w.newest)
	for second := from; second <= to; second++ {
		n += uint64(w.slots[slot(second)][k])
	}
	return n
}

// rate is how many a second there were lately, when counting began at since.
func (w *window) rate(k kind, now, since time.Time) float64 {
	from := now.Unix() - rateSeconds
	begin := time.Unix(from, 0)
	if since.After(begin) {
		begin = since
	}
	span := max(now.Sub(begin), rateLeast)
	return float64(w.count(k, from, now.Unix()+1)) / span.Seconds() // What is timed ahead of now counts: clocks are estimated.
}

// lastMinute is how many there were in the last minute.
func (w *window) lastMinute(k kind, now time.Time) uint64 {
	return w.count(k, now.Unix()-windowSeconds+1, now.Unix()+1)
}

// idle reports whether nothing is counted any more.
func (w *window) idle(now time.Time) bool { return now.Unix() >= w.newest+windowSeconds }

const skewLasts = 15 * time.Second

// skew estimates how far the server's clock is ahead of ours: an event is told after it happened, so the largest difference
// seen is the closest. Those of more than half a minute ago are forgotten, for clocks are set.
type skew struct {
	at        time.Time // When the newer half began.
	now, was  time.Duration
	has, had  bool
	estimated time.Duration
}

func (s *skew) learn(event, now time.Time) {
	if d := now.Sub(s.at); d >= skewLasts {
		s.was, s.had = s.now, s.has && d < 2*skewLasts
		s.has, s.at = false, now
	}
	if d := event.Sub(now); !s.has || d > s.now {
		s.now, s.has = d, true
	}
	if s.estimated = s.now; s.had {
		s.estimated = max(s.now, s.was)
	}
}
