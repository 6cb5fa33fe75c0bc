package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// The parts of the blocked scenario.
const (
	blockedLimit = "bench/blocked"
	blockedKey   = "full" // of which one unit is there, and taken
	freeKey      = "free"
	blockedLease = 24 * time.Hour
	blockedLeast = 10_000
	blockedDrain = 200_000 // how many jobs are drained alone and behind the blocked ones, at most as many as those
)

// Blocked says what jobs that wait for a full key of a limit cost those of the same queue that come after them.
type Blocked struct {
	// Jobs is how many wait for the full key.
	Jobs int `json:"jobs"`
	// Drained is how many jobs of another key each of the rates is made of.
	Drained int `json:"drained"`
	// Alone is the median of how many of those were finished in a second with nothing before them.
	Alone float64 `json:"alone_jobs_per_s"`
	// Behind is the same behind all that wait.
	Behind float64 `json:"behind_jobs_per_s"`
	// Ratios is Behind / Alone in each pair, Ratio their median.
	Ratios []float64 `json:"ratios"`
	Ratio  float64   `json:"ratio"`
	// AloneRSS and BehindRSS are the medians of the server's VmRSS after either, in bytes.
	AloneRSS  int64 `json:"alone_rss_bytes"`
	BehindRSS int64 `json:"behind_rss_bytes"`
	// Faults is how many jobs did not go as they must.
	Faults int `json:"errors"`

	first error // the first few faults
}

// blocked measures as many pairs as there are runs, each on a server of its own.
func blocked(ctx context.Context, c Config) (*Blocked, error) {
	b := &Blocked{Jobs: c.Blocked, Drained: min(blockedDrain, c.Blocked)}
	var alone, behind, aloneRSS, behindRSS []float64
	for i := range c.Runs {
		c.Note(fmt.Sprintf("blocked: pair %d of %d", i+1, c.Runs))
		p, err := withTarget(ctx, c, func(t *target) (blockedPair, error) { return b.pair(ctx, t, c) })
		if err != nil {
			return nil, fmt.Errorf("blocked: %w", err)
		}
		alone, behind = append(alone, p.alone), append(behind, p.behind)
		aloneRSS, behindRSS = append(aloneRSS, float64(p.aloneRSS)), append(behindRSS, float64(p.behindRSS))
		b.Ratios = append(b.Ratios, p.behind/p.alone)
	}
	b.Alone, b.Behind, b.Ratio = median(alone), median(behind), median(b.Ratios)
	b.AloneRSS, b.BehindRSS = int64(median(aloneRSS)), int64(median(behindRSS))
	return b, nil
}

// blockedPair is what one server was seen to do.
type blockedPair struct {
	alone, behind       float64
	aloneRSS, behindRSS int64
}

// pair measures the same drain before and after the blocked jobs are there.
func (b *Blocked) pair(ctx context.Context, t *target, c Config) (p blockedPair, err error) {
	_, err = stintv1.NewQueueServiceClient(t.conns[0]).PutLimit(ctx, &stintv1.PutLimitRequest{
		Name: blockedLimit, Policy: &stintv1.LimitPolicy{MaxUnitsOf: map[string]uint32{blockedKey: 1}},
	})
	if err != nil {
		return p, fmt.Errorf("make a limit: %w", err)
	}
	waiting := b.load(ctx, t, c, b.Jobs, blockedKey)
	defer waiting.close()
	for range 2 { // the first is for the server to be warm
		if p.alone, p.aloneRSS, err = b.drain(ctx, t, c, waiting.queue); err != nil {
			return p, err
		}
	}
	if err := waiting.hold(); err != nil {
		return p, err
	}
	if _, err := waiting.fill(ctx, 0, b.Jobs); err != nil {
		return p, err
	}
	p.behind, p.behindRSS, err = b.drain(ctx, t, c, waiting.queue)
	return p, err
}

// load is jobs that take a key of the limit.
func (b *Blocked) load(ctx context.Context, t *target, c Config, jobs int, key string) *load {
	l := newLoad(ctx, t, batched(c), jobs, c)
	l.uses = []*stintv1.LimitUse{{Name: blockedLimit, Key: key}}
	return l
}

// drain submits jobs of the free key and then has them done.
func (b *Blocked) drain(ctx context.Context, t *target, c Config, queue string) (rate float64, rss int64, err error) {
	l := b.load(ctx, t, c, b.Drained, freeKey)
	defer l.close()
	l.queue = queue
	if err := l.openWorkers(); err != nil {
		return 0, 0, err
	}
	l.want(0)
	if rss, err = l.fill(ctx, 0, b.Drained); err != nil {
		return 0, 0, err
	}
	n, wall, err := l.drain(0, b.Drained)
	if err != nil {
		return 0, 0, err
	}
	if err := l.closeWorkers(); err != nil {
		return 0, 0, err
	}
	faults, first := l.audit(len(l.jobs), int(l.recorded.n.Load()))
	b.Faults += faults
	b.first = errors.Join(b.first, first)
	return float64(n) / wall.Seconds(), rss, nil
}

// hold takes what the load's jobs wait for, for longer than they are measured.
func (l *load) hold() error {
	ctx, cancel := context.WithTimeout(l.ctx, unaryTimeout)
	defer cancel()
	answer, err := l.target.jobs.SubmitJobs(ctx, &stintv1.SubmitJobsRequest{Jobs: []*stintv1.JobSpec{
		{Queue: l.queue, Limits: l.uses, Lease: durationpb.New(blockedLease)},
	}})
	if err != nil {
		return fmt.Errorf("SubmitJobs: %w", err)
	}
	if refused := answer.GetResults()[0].GetError(); refused != nil {
		return fmt.Errorf("the job that takes the key was refused: %s", refused.GetMessage())
	}
	claimed, err := l.target.workers.ClaimJobs(ctx, &stintv1.ClaimJobsRequest{
		Worker: "bench", Queues: []string{l.queue}, MaxRuns: 1, Wait: durationpb.New(unaryWait),
	})
	if err != nil {
		return fmt.Errorf("ClaimJobs: %w", err)
	}
	if len(claimed.GetAssignments()) != 1 {
		return errors.New("the job that takes the key did not come")
	}
	return nil
}

func (b *Blocked) write(w io.Writer) {
	const mib = 1 << 20
	fmt.Fprintf(w, "\nbehind %d jobs that wait for a full key\n", b.Jobs)
	fmt.Fprintf(w, "  drain          %.0f jobs/s of another key, %.0f alone; median of the ratios %.2f (%d jobs each)\n",
		b.Behind, b.Alone, b.Ratio, b.Drained)
	fmt.Fprintf(w, "  server memory  %.1f MiB, %.1f MiB more than alone\n", float64(b.BehindRSS)/mib, float64(b.BehindRSS-b.AloneRSS)/mib)
	if b.Faults > 0 {
		fmt.Fprintf(w, "  errors         %d\n", b.Faults)
	}
}
