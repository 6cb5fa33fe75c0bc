package bench

import (
	"context"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	latencyRate = 200  // jobs/s
	latencyMost = 2000 // jobs a run
)

// Quantiles are latencies in ms.
type Quantiles struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// delays is a histogram of how late jobs started against a fixed schedule. A job's time counts from when it was due to
// be sent, not from when it was: what stalls the sender counts against every job that it holds up.
type delays struct {
	begin time.Time

	mu   sync.Mutex
	hist *hdrhistogram.Histogram // in ns
}

func newDelays() *delays {
	return &delays{hist: hdrhistogram.New(int64(time.Microsecond), int64(time.Hour), 3)}
}

// due is when a job is to be sent.
func (d *delays) due(job int) time.Time {
	return d.begin.Add(time.Duration(job) * (time.Second / latencyRate))
}

// started notes that a worker has a job now.
func (d *delays) started(job int) {
	delay := time.Since(d.due(job))
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.hist.RecordValue(min(int64(delay), d.hist.HighestTrackableValue()))
}

func (d *delays) quantiles() Quantiles {
	d.mu.Lock()
	defer d.mu.Unlock()
	ms := func(ns int64) float64 { return float64(ns) / 1e6 }
	return Quantiles{
		P50: ms(d.hist.ValueAtQuantile(50)), P90: ms(d.hist.ValueAtQuantile(90)), P99: ms(d.hist.ValueAtQuantile(99)),
		P999: ms(d.hist.ValueAtQuantile(99.9)), Max: ms(d.hist.Max()),
	}
}

// latency measures the time from when a job should be sent to when a worker has it, at a fixed rate.
func latency(ctx context.Context, t *target, c Config, jobs int) ([]sample, error) {
	jobs = min(jobs, latencyMost)
	l := newLoad(ctx, t, shape{batch: 1, window: latencyMost, workers: c.Workers, room: 500 * c.Workers}, jobs, c)
	defer l.close()
	if err := l.openWorkers(); err != nil {
		return l.failed(Latency, err)
	}
	l.want(l.room)
	d := newDelays()
	l.began = d.started
	m := t.meter()
	d.begin = time.Now().Add(100 * time.Millisecond)
	l.submitPaced(d.due)
	for _, p := range []*progress{&l.created, &l.recorded} {
		if err := p.wait(l.ctx, jobs); err != nil {
			return l.failed(Latency, err)
		}
	}
	s, err := m.stop(l.ctx, Latency, jobs)
	if err != nil {
		return l.failed(Latency, err)
	}
	q := d.quantiles()
	s.latency = &q
	return l.settle(s)
}
