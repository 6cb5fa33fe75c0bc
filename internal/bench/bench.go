package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrFaults says that jobs did not go as they must: the report's figures cannot be trusted.
var ErrFaults = errors.New("jobs were lost, refused, or finished other than once")

// Run measures what the configuration asks for. An error comes with the results so far.
func Run(ctx context.Context, c Config) (Report, error) {
	var r Report
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return r, err
	}
	var err error
	if r.Environment, err = environmentOf(c); err != nil {
		return r, err
	}
	r.Environment.Payload, r.Environment.Batch = c.Payload, c.Batch
	if c.Limits > 0 {
		r.Environment.Limits, r.Environment.Keys = c.Limits, c.Keys
	}
	r.Environment.Streams, r.Environment.Workers = c.Streams, c.Workers
	for _, s := range scenarios() {
		if !slices.Contains(c.Scenarios, s.name) {
			continue
		}
		results, err := repeat(ctx, c, s)
		r.Results = append(r.Results, results...)
		if err != nil {
			return r, err
		}
	}
	if c.Backlog > 0 {
		if r.Backlog, err = withTarget(ctx, c, func(t *target) (*Backlog, error) { return backlog(ctx, t, c) }); err != nil {
			return r, err
		}
	}
	if c.Blocked > 0 {
		if r.Blocked, err = blocked(ctx, c); err != nil {
			return r, err
		}
	}
	if c.Events > 0 {
		if r.Events, err = events(ctx, c); err != nil {
			return r, err
		}
	}
	return r, r.verdict()
}

// repeat runs a scenario as often as configured against one server and takes the medians.
func repeat(ctx context.Context, c Config, s scenario) ([]Result, error) {
	jobs := s.jobs
	if c.Jobs > 0 {
		jobs = c.Jobs
	}
	samples, err := withTarget(ctx, c, func(t *target) (all []sample, err error) {
		if c.Watchers > 0 {
			if err := t.watch(ctx, c.Watchers, c.WatchEnds); err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, t.watched.close()) }()
		}
		for i := range c.Runs {
			c.Note(fmt.Sprintf("%s: run %d of %d", s.name, i+1, c.Runs))
			one, err := s.run(ctx, t, c, jobs)
			if err != nil {
				return all, err
			}
			all = append(all, one...)
		}
		return all, nil
	})
	return resultsOf(samples), err
}

// withTarget calls f with a server and ends the server afterwards.
func withTarget[T any](ctx context.Context, c Config, f func(*target) (T, error)) (got T, err error) {
	t, err := openTarget(ctx, c)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	return f(t)
}

// resultsOf takes the medians of samples of the same name, in the order in which the names come first.
func resultsOf(samples []sample) []Result {
	var names []string
	groups := map[string][]sample{}
	for _, s := range samples {
		if groups[s.name] == nil {
			names = append(names, s.name)
		}
		groups[s.name] = append(groups[s.name], s)
	}
	var results []Result
	for _, name := range names {
		results = append(results, resultOf(name, groups[name]))
	}
	return results
}

func resultOf(name string, group []sample) Result {
	var rates, walls []float64
	var server, client []*float64
	var latencies []Quantiles
	r := Result{Name: name, Runs: len(group), Jobs: group[0].jobs}
	for _, s := range group {
		rates = append(rates, s.rate())
		walls = append(walls, s.wall.Round(time.Microsecond).Seconds())
		server = append(server, s.perJob(s.server))
		client = append(client, s.perJob(s.client))
		r.Faults += s.faults
		r.first = errors.Join(r.first, s.first)
		if s.latency != nil {
			latencies = append(latencies, *s.latency)
		}
		if s.watched != nil && (r.Watched == nil || s.watched.BehindSeconds > r.Watched.BehindSeconds) {
			r.Watched = s.watched
		}
	}
	r.Rate, r.LeastRate, r.MostRate = median(rates), slices.Min(rates), slices.Max(rates)
	r.WallSeconds = median(walls)
	r.ServerMicros, r.ClientMicros = medianKnown(server), medianKnown(client)
	r.Latency = medianQuantiles(latencies)
	return r
}

// medianQuantiles takes the median of each quantile, and the largest of the maxima.
func medianQuantiles(all []Quantiles) *Quantiles {
	if len(all) == 0 {
		return nil
	}
	of := func(get func(Quantiles) float64) float64 {
		var values []float64
		for _, q := range all {
			values = append(values, get(q))
		}
		return median(values)
	}
	q := Quantiles{
		P50:  of(func(q Quantiles) float64 { return q.P50 }),
		P90:  of(func(q Quantiles) float64 { return q.P90 }),
		P99:  of(func(q Quantiles) float64 { return q.P99 }),
		P999: of(func(q Quantiles) float64 { return q.P999 }),
	}
	for _, one := range all {
		q.Max = max(q.Max, one.Max)
	}
	return &q
}
