package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The stations of the backlog scenario.
const (
	backlogLow   = 100_000 // the small backlog that the large one is compared with, at most a tenth of that
	backlogDrain = 500_000 // how many jobs are drained with either backlog, at most half of the large one
	backlogLeast = 10_000
	settleTime   = 3 * time.Second // before memory is read, for what is under way in the server to end
)

// Backlog says what many waiting jobs cost.
type Backlog struct {
	// Jobs is the size of the backlog.
	Jobs int `json:"jobs"`
	// LowJobs is the size of the small backlog that the large one is compared with.
	LowJobs int `json:"low_jobs"`
	// LowRSS is the server's VmRSS then, in bytes.
	LowRSS int64 `json:"low_rss_bytes"`
	// RSS is the server's VmRSS with all jobs waiting, in bytes.
	RSS int64 `json:"rss_bytes"`
	// ReadySeconds is the time from the start of a server, after one with the full backlog was killed, until it was
	// ready.
	ReadySeconds float64 `json:"ready_s"`
	// Drained is how many jobs each of the two rates below is made of.
	Drained int `json:"drained"`
	// SmallRate is how many jobs a second the workers finished with at most LowJobs waiting.
	SmallRate float64 `json:"small_drain_jobs_per_s"`
	// Rate is how many they finished with the full backlog waiting.
	Rate float64 `json:"drain_jobs_per_s"`
	// Faults is how many jobs did not go as they must.
	Faults int `json:"errors"`

	first error // the first few faults
}

// backlog measures what many waiting jobs cost. It takes a server of its own.
func backlog(ctx context.Context, t *target, c Config) (*Backlog, error) {
	b := &Backlog{Jobs: c.Backlog, LowJobs: min(backlogLow, c.Backlog/10), Drained: min(backlogDrain, c.Backlog/2)}
	for _, step := range []struct {
		what string
		do   func(context.Context, *target, Config) error
	}{
		{"drain a small backlog again and again", b.drainSmall},
		{"fill, restart and drain a large backlog", b.drainLarge},
	} {
		c.Note(fmt.Sprintf("backlog: %s", step.what))
		if err := step.do(ctx, t, c); err != nil {
			return nil, fmt.Errorf("backlog: %w", err)
		}
	}
	return b, nil
}

// drainSmall fills and drains a small backlog until enough jobs went through. The workers stay connected and ask for
// nothing while it fills. A round is timed between the first and the last acknowledged finish.
func (b *Backlog) drainSmall(ctx context.Context, t *target, c Config) error {
	l := newLoad(ctx, t, batched(c), b.Drained, c)
	defer l.close()
	if err := l.openWorkers(); err != nil {
		return err
	}
	var finished int
	var took time.Duration
	for from := 0; from < b.Drained; from += b.LowJobs {
		to := min(from+b.LowJobs, b.Drained)
		l.want(0)
		l.submit(from, to)
		if err := l.created.wait(l.ctx, to); err != nil {
			return err
		}
		n, wall, err := l.drain(from, to)
		if err != nil {
			return err
		}
		finished += n
		took += wall
	}
	b.SmallRate = float64(finished) / took.Seconds()
	return b.settle(l)
}

// drainLarge fills the large backlog, reads memory on the way, restarts the server, and drains a part.
func (b *Backlog) drainLarge(ctx context.Context, t *target, c Config) error {
	l := newLoad(ctx, t, batched(c), b.Jobs, c)
	defer l.close()
	var err error
	if b.LowRSS, err = l.fill(ctx, 0, b.LowJobs); err != nil {
		return err
	}
	if b.RSS, err = l.fill(ctx, b.LowJobs, b.Jobs); err != nil {
		return err
	}
	l.running.Wait()
	ready, err := t.restart(ctx)
	if err != nil {
		return err
	}
	b.ReadySeconds = ready.Seconds()
	if err := l.openWorkers(); err != nil {
		return err
	}
	n, wall, err := l.drain(0, b.Drained)
	if err != nil {
		return err
	}
	b.Rate = float64(n) / wall.Seconds()
	l.want(0)
	return b.settle(l)
}

// drain lets the workers work until so many jobs are finished; it returns how many were timed and for how long.
func (l *load) drain(from, to int) (int, time.Duration, error) {
	l.want(l.room)
	if err := l.recorded.wait(l.ctx, from+1); err != nil {
		return 0, 0, err
	}
	first, begin := int(l.recorded.n.Load()), time.Now()
	if err := l.recorded.wait(l.ctx, to); err != nil {
		return 0, 0, err
	}
	return int(l.recorded.n.Load()) - first, time.Since(begin), nil
}

// fill submits jobs and returns the server's memory once it has settled.
func (l *load) fill(ctx context.Context, from, to int) (int64, error) {
	l.submit(from, to)
	if err := l.created.wait(l.ctx, to); err != nil {
		return 0, err
	}
	settle := time.NewTimer(settleTime)
	defer settle.Stop()
	select {
	case <-settle.C:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	return residentMemory(l.target.pid())
}

// settle drains the workers and accounts for every job that was to be finished.
func (b *Backlog) settle(l *load) error {
	if err := l.closeWorkers(); err != nil {
		return err
	}
	faults, first := l.audit(len(l.jobs), int(l.recorded.n.Load()))
	b.Faults += faults
	b.first = errors.Join(b.first, first)
	return nil
}
