package bench

import (
	"context"
	"fmt"
)

// A scenario measures one run against a target. Faults of jobs are counted in its samples; an error means that the run
// could not be carried to its end.
type scenario struct {
	name string
	jobs int // a run, unless configured
	run  func(ctx context.Context, t *target, c Config, jobs int) ([]sample, error)
}

const unaryCallers = 128

// scenarios are all that run by name, in their order.
func scenarios() []scenario {
	return []scenario{
		{Submit, 500_000, func(ctx context.Context, t *target, c Config, jobs int) ([]sample, error) {
			return submitThenDrain(ctx, t, c, batched(c), jobs, "")
		}},
		{Life, 500_000, func(ctx context.Context, t *target, c Config, jobs int) ([]sample, error) {
			return life(ctx, t, c, batched(c), jobs, "")
		}},
		{Latency, latencyMost, latency},
		{Interrupt, latencyMost, interrupt},
		{Single, 100_000, func(ctx context.Context, t *target, c Config, jobs int) ([]sample, error) {
			phases, err := submitThenDrain(ctx, t, c, oneByOne(c), jobs, "single-")
			if err != nil {
				return phases, err
			}
			whole, err := life(ctx, t, c, oneByOne(c), jobs, "single-")
			return append(phases, whole...), err
		}},
		{Unary, 20_000, unary},
	}
}

// batched is the shape of the scenarios that show what the service can carry.
func batched(c Config) shape {
	return shape{streams: c.Streams, batch: c.Batch, window: 16, workers: c.Workers, room: 500 * c.Workers}
}

// oneByOne is the shape of clients that do not batch.
func oneByOne(c Config) shape {
	return shape{streams: 16, batch: 1, window: 64, workers: c.Workers, room: max(100, c.Workers)}
}

// submitThenDrain measures a submit of all jobs, then work on them.
func submitThenDrain(ctx context.Context, t *target, c Config, s shape, jobs int, prefix string) ([]sample, error) {
	l := newLoad(ctx, t, s, jobs, c)
	defer l.close()
	m := t.meter()
	l.submit(0, jobs)
	if err := l.created.wait(l.ctx, jobs); err != nil {
		return l.failed(prefix+Submit, err)
	}
	submitted, err := m.stop(l.ctx, prefix+Submit, jobs)
	if err != nil {
		return l.failed(prefix+Submit, err)
	}
	if err := l.openWorkers(); err != nil {
		return l.failed(prefix+"drain", err)
	}
	m = t.meter()
	l.want(s.room)
	if err := l.recorded.wait(l.ctx, jobs); err != nil {
		return l.failed(prefix+"drain", err)
	}
	drained, err := m.stop(l.ctx, prefix+"drain", jobs)
	if err != nil {
		return l.failed(prefix+"drain", err)
	}
	return l.settle(submitted, drained)
}

// life measures submit, dispatch and finish of all jobs at once.
func life(ctx context.Context, t *target, c Config, s shape, jobs int, prefix string) ([]sample, error) {
	l := newLoad(ctx, t, s, jobs, c)
	defer l.close()
	if err := l.openWorkers(); err != nil {
		return l.failed(prefix+Life, err)
	}
	l.want(s.room)
	m := t.meter()
	l.submit(0, jobs)
	if err := l.created.wait(l.ctx, jobs); err != nil {
		return l.failed(prefix+Life, err)
	}
	if err := l.recorded.wait(l.ctx, jobs); err != nil {
		return l.failed(prefix+Life, err)
	}
	lived, err := m.stop(l.ctx, prefix+Life, jobs)
	if err != nil {
		return l.failed(prefix+Life, err)
	}
	return l.settle(lived)
}

// unary measures submit and work by unary calls.
func unary(ctx context.Context, t *target, c Config, jobs int) ([]sample, error) {
	l := newLoad(ctx, t, shape{batch: 1}, jobs, c)
	defer l.close()
	m := t.meter()
	l.submitUnary(unaryCallers)
	if err := l.created.wait(l.ctx, jobs); err != nil {
		return l.failed("unary-submit", err)
	}
	submitted, err := m.stop(l.ctx, "unary-submit", jobs)
	if err != nil {
		return l.failed("unary-submit", err)
	}
	m = t.meter()
	l.workUnary(unaryCallers)
	if err := l.recorded.wait(l.ctx, jobs); err != nil {
		return l.failed("unary-drain", err)
	}
	drained, err := m.stop(l.ctx, "unary-drain", jobs)
	if err != nil {
		return l.failed("unary-drain", err)
	}
	return l.settle(submitted, drained)
}

// settle ends a run that came to its end: the workers drain, and every job is accounted for.
func (l *load) settle(samples ...sample) ([]sample, error) {
	if err := l.closeWorkers(); err != nil {
		return l.failed(samples[len(samples)-1].name, err)
	}
	faults, first := l.audit(len(l.jobs), int(l.recorded.n.Load()))
	last := &samples[len(samples)-1]
	last.faults, last.first = faults, first
	return samples, nil
}

// failed reports why a run did not come to its end, with what was found wrong until then.
func (l *load) failed(name string, err error) ([]sample, error) {
	l.close()
	faults, first := l.audit(int(l.created.n.Load()), int(l.started.n.Load()))
	if faults > 0 {
		err = fmt.Errorf("%w; %d faults, the first of them:\n%w", err, faults, first)
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}
