package bench

import (
	"context"
	"slices"
	"time"
)

// meter is a measurement that has begun.
type meter struct {
	target         *target
	begin          time.Time
	server, client time.Duration
	serverKnown    bool
	clientKnown    bool
	events         int64 // that followers have had
}

// meter begins a measurement of the load's target.
func (t *target) meter() meter {
	m := meter{target: t}
	if t.watched != nil {
		m.events = t.watched.total()
	}
	m.server, m.serverKnown = m.serverCPU()
	own, err := ownCPU()
	m.client, m.clientKnown = own, err == nil
	m.begin = time.Now()
	return m
}

func (m meter) serverCPU() (time.Duration, bool) {
	pid := m.target.pid()
	if pid == 0 {
		return 0, false
	}
	cpu, err := processCPU(pid)
	return cpu, err == nil
}

// sample is what one run of a scenario measured.
type sample struct {
	name    string
	jobs    int
	wall    time.Duration
	server  *time.Duration // processor time; nil if it is not known
	client  *time.Duration
	faults  int
	first   error // the first few of them
	latency *Quantiles
	watched *Watched
}

// stop ends the measurement: so many jobs were brought to the end that counts. What followers cost after that is counted too.
func (m meter) stop(ctx context.Context, name string, jobs int) (sample, error) {
	s := sample{name: name, jobs: jobs, wall: time.Since(m.begin)}
	if w := m.target.watched; w != nil {
		behind, err := w.catchUp(ctx)
		if err != nil {
			return s, err
		}
		n := len(w.conns)
		s.watched = &Watched{
			Followers: n, EventsPerJob: float64(w.total()-m.events) / float64(n*jobs), BehindSeconds: behind.Round(time.Millisecond).Seconds(),
		}
	}
	if now, ok := m.serverCPU(); ok && m.serverKnown {
		used := now - m.server
		s.server = &used
	}
	if now, err := ownCPU(); err == nil && m.clientKnown {
		used := now - m.client
		s.client = &used
	}
	return s, nil
}

func (s sample) rate() float64 { return float64(s.jobs) / s.wall.Seconds() }

// perJob is a processor time per job in µs.
func (s sample) perJob(cpu *time.Duration) *float64 {
	if cpu == nil {
		return nil
	}
	us := float64(cpu.Nanoseconds()) / 1e3 / float64(s.jobs)
	return &us
}

// median is the middle of the values, the upper one of two. There must be one.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// medianKnown is the median of those values that are known; nil if none is.
func medianKnown(values []*float64) *float64 {
	var known []float64
	for _, v := range values {
		if v != nil {
			known = append(known, *v)
		}
	}
	if len(known) == 0 {
		return nil
	}
	m := median(known)
	return &m
}
